"""Flips single bits in every kind of file: none may be believed.

python tests/flip_bits.py [FLIPS]

For each kind of file (weights, checkpoint, controller, evaluation part, tuning
file, image backup) FLIPS files, 3000 if not given, have one bit flipped each.
It prints how many of them were refused by one clear error, how many loaded what
was written (in places of a file that say nothing), and fails if any loaded
something else or raised anything else. `test_operators.py` does a few of each.
"""

import collections
import json
import pathlib
import sys
import tempfile

import numpy as np

import lopt_tf
from lopt_tf import checkpointing, long_run
from lopt_tf.autoloss import ScheduleController, bench
from lopt_tf.evaluation import folder as folder_lib
from lopt_tf.evaluation import image_backups
from lopt_tf.optimizers import pretrained
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

SETTINGS = {"task": "toy", "tuning_starts": 2, "dimensions": 16}
TUNED = {
    "best ratio": {
        "candidates": ["1:1", "1:2", "1:3"],
        "chosen": "1:2",
        "rows": [{"setting": "1:2", "validation": 0.25}],
    },
    "best coin": {"candidates": ["0.1"], "chosen": None, "rows": []},
}


class _Numbers(long_run.Trainer):
    """Saves weights and counters as a meta-training does."""

    step_number, num_steps = 3, 3

    def snapshot(self):
        arrays = {"weights": np.arange(1500, dtype="float32")}
        return arrays, {"update": 3, "skipped": {"a": 1}, "best": None}

    def settings(self):
        return {"options": {"size": 1.5, "names": ["x", "y"]}}


def files(root):
    """{kind: (file, function that loads it into something comparable)}."""
    weights = root / "optimizer.npz"
    rule = HierarchicalRNNRule(level_sizes=(3, 4))
    pretrained.save(weights, rule, rule.init_weights(0))
    long_run.LongRun(_Numbers(), "test", root / "run").run()
    checkpoints = checkpointing.Checkpoints(
        root / "run" / "checkpoints", "test"
    )
    (checkpoint,) = checkpoints.paths()
    controller = root / "controller.npz"
    config = {"num_actions": 2, "hidden": 4, "seed": 1}
    ScheduleController("toy", ("a", "b"), ("progress",), config).save(
        controller, training={"task": {"name": "toy"}}
    )
    kept = folder_lib.ExperimentFolder(root / "results", {"seeds": 3})
    kept.keep("a/b", {"losses": np.arange(300, dtype="float32")})
    tuning = root / "tuning.json"
    bench.keep_choices(tuning, SETTINGS, TUNED)
    backup = root / "backups" / "step-000000002"
    backup.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (backup / "latest.weights.h5").write_bytes(rng.bytes(2000))
    (backup / "training_metadata.json").write_text('{"epoch": 1}')
    image_backups.seal(backup)

    def load_backup():
        try:
            found = image_backups.newest(backup.parent, print)
        except ValueError as error:
            raise checkpointing.CheckpointError(str(error)) from error
        return (found / "latest.weights.h5").read_bytes()

    def load_weights():
        found = pretrained.load_rule(weights)
        return found.rule.get_config(), found.weights

    def load_controller():
        found = ScheduleController.load(controller)
        about = found.task, found.actions, found.features, found.facts
        return about, found.policy.get_config(), found.weights()

    return {
        "weights": (weights, load_weights),
        "checkpoint": (checkpoint, checkpoints.load_latest),
        "controller": (controller, load_controller),
        "evaluation part": (
            kept.part("a/b.npz"),
            lambda: kept.load("a/b"),
        ),
        "tuning file": (
            tuning,
            # Nothing: its settings are others, so that it is not used at all.
            lambda: bench.known_choices(tuning, SETTINGS) or TUNED,
        ),
        "image backup": (backup / "latest.weights.h5", load_backup),
    }


def comparable(found):
    """A text that is equal for equal numbers, names, shapes and types."""

    def listed(value):
        if isinstance(value, np.ndarray):
            return [value.dtype.str, list(value.shape), value.tobytes().hex()]
        return repr(value)

    return json.dumps(found, default=listed, sort_keys=True)


def flip(path, load, places):
    """{outcome: count} of flips of bits at places; raises for a wrong one.

    Args:
        path: the file, which is left as it was.
        load: see `files`.
        places: numbers of bits.
    """
    content = path.read_bytes()
    written, outcomes = comparable(load()), collections.Counter()
    for place in places:
        spoiled = bytearray(content)
        spoiled[place // 8] ^= 1 << place % 8
        path.write_bytes(spoiled)
        try:
            found = load()
        except checkpointing.CheckpointError as error:
            assert path.name in str(error) or str(path.parent) in str(error)
            assert len(str(error).splitlines()) == 1, error
            assert "pickle" not in str(error), error
            outcomes["refused"] += 1
            continue
        finally:
            path.write_bytes(content)
        assert comparable(found) == written, f"bit {place} of {path} loaded"
        outcomes["as written"] += 1
    return dict(outcomes)


def random_places(path, count, seed=0):
    """Bits of a file: half anywhere, half in its first and last bytes."""
    rng = np.random.default_rng(seed)
    size = path.stat().st_size
    ends = np.concatenate([np.arange(min(200, size)), np.arange(size)[-2000:]])
    places = [rng.integers(0, 8 * size, count - count // 2)]
    places.append(
        8 * rng.choice(ends, count // 2) + rng.integers(0, 8, count // 2)
    )
    return np.concatenate(places).tolist()


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as root:
        for kind, (path, load) in files(pathlib.Path(root)).items():
            print(
                kind, flip(path, load, random_places(path, count)), flush=True
            )


if __name__ == "__main__":
    assert lopt_tf.list_pretrained()
    main()
