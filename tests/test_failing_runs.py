"""Trainings that fail or cannot resume: their checkpoints stay good."""

import numpy as np
import pytest

from lopt_tf import checkpointing, checks, compilation, metatraining
from lopt_tf.autoloss import options as autoloss_options
from lopt_tf.autoloss import tasks
from lopt_tf.autoloss import trainer as autoloss_trainer
from lopt_tf.metatraining import trainer as trainer_lib
from lopt_tf.optimizers import registry
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus
from problems.quadratic import Quadratic

NAMES = ["bowl_problems.0"]


def _train(folder, rule=None, **kwargs):
    chosen = {"meta_updates": 3, "instances": 1, "segment_length": 5}
    chosen |= {"curriculum": metatraining.Curriculum(max_steps=10)}
    given = kwargs.pop("options", {})
    return metatraining.train(
        corpus.select(NAMES),
        rule or registry.rule("global_learning_rate"),
        metatraining.TrainingOptions(**{**chosen, **given}),
        output_dir=folder,
        **kwargs,
    )


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.npz")}


def test_another_kind_of_rule_cannot_resume(tmp_path):
    _train(tmp_path, options={"meta_updates": 1})
    before = _contents(tmp_path)
    for name in ("learned_adam", "learning_rate_schedule"):
        rule = registry.rule(name)
        with pytest.raises(checkpointing.CheckpointError, match="kind: saved"):
            _train(tmp_path, rule, resume=True)
        assert _contents(tmp_path) == before
    # Checkpoints of older versions do not say of what kind they are.
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    del metadata["settings"]["rule"]["kind"]
    store.save(1, arrays, metadata)
    before = _contents(tmp_path)
    for name in ("learned_adam", "learning_rate_schedule"):
        with pytest.raises(checkpointing.CheckpointError, match="cannot be us"):
            _train(tmp_path, registry.rule(name), resume=True)
        assert _contents(tmp_path) == before
    # Whole files that hold something else, or nothing of a run.
    for spoil in (
        lambda a, m: ({**a, "weights": a["weights"][:0]}, m),
        lambda a, m: ({**a, "weights": np.float32([np.nan])}, m),
        lambda a, m: ({n: x for n, x in a.items() if n != "slots/first"}, m),
        lambda a, m: (a, {n: x for n, x in m.items() if n != "tasks"}),
        lambda a, m: (a, {**m, "tasks": [{"name": "of_tomorrow"}]}),
        lambda a, m: (a, {**m, "best": None}),
        lambda a, m: (a, {"settings": 3}),
        lambda a, m: (a, {}),
    ):
        store.save(1, *spoil(arrays, metadata))
        before = _contents(tmp_path)
        with pytest.raises(checkpointing.CheckpointError):
            _train(tmp_path, resume=True)
        assert _contents(tmp_path) == before
    store.save(1, arrays, metadata)
    _train(tmp_path, resume=True)
    assert store.load_latest()[1]["update"] == 3


def test_weights_that_become_infinite_end_a_meta_training(
    tmp_path, monkeypatch
):
    move = trainer_lib.Trainer._move

    def spoiled(self, gradient):
        move(self, gradient)
        if self.update == 2:
            self.weights = self.weights * np.float32(np.inf)

    monkeypatch.setattr(trainer_lib.Trainer, "_move", spoiled)
    with pytest.raises(FloatingPointError, match="those before it are kept"):
        _train(tmp_path)
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    assert metadata["update"] == 2 and np.all(np.isfinite(arrays["weights"]))
    assert (tmp_path / "optimizer.npz").exists()


def test_weights_that_become_infinite_end_a_controllers_training(
    tmp_path, monkeypatch
):
    play = autoloss_trainer.Trainer._play_round

    def spoiled(self):
        row = play(self)
        if self.round == 2:
            variable = self.controller.policy.variables[0]
            variable.assign(variable * np.nan)
        return row

    monkeypatch.setattr(autoloss_trainer.Trainer, "_play_round", spoiled)
    entry = tasks.entry("regression")
    task = entry.task(max_steps=40, dimensions=3)
    chosen = {"episodes": 6, "parallel": 2, "features": ("progress",)}
    with pytest.raises(FloatingPointError, match="not finite after round 2"):
        autoloss_trainer.train(
            task,
            autoloss_options.ControllerOptions(**chosen),
            output_dir=tmp_path,
        )
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.autoloss"
    )
    arrays, metadata = store.load_latest()
    assert metadata["round"] == 1
    assert checks.all_finite(arrays[n] for n in arrays if "policy" in n)


def test_a_start_without_room_does_not_replace_a_checkpoint(
    tmp_path, monkeypatch
):
    _train(tmp_path, options={"meta_updates": 1})
    before = _contents(tmp_path)
    monkeypatch.setattr(compilation, "maps_left", lambda: 10)
    with pytest.raises(compilation.NoRoomError):
        _train(tmp_path, resume=True)
    assert _contents(tmp_path) == before


def test_what_fits_into_no_memory_is_refused():
    with pytest.raises(ValueError, match="level_sizes"):
        HierarchicalRNNRule(level_sizes=(10**5, 10**5))
    with pytest.raises(ValueError, match="this machine has"):
        checks.fits_memory("Ten thousand models", 10**15)
    with pytest.raises(ValueError, match="65,536 instances of large take"):
        metatraining.train(
            {"large": Quadratic(10**7)},
            registry.rule("global_learning_rate"),
            metatraining.TrainingOptions(instances=65_536),
        )
