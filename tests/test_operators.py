"""Mistakes on command lines, lost starts and bad numbers: nothing is lost."""

import importlib
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from lopt_tf import checkpointing, checks, long_run, metatraining
from lopt_tf.autoloss import options as autoloss_options
from lopt_tf.autoloss import tasks
from lopt_tf.autoloss import trainer as autoloss_trainer
from lopt_tf.evaluation import experiments
from lopt_tf.metatraining import curriculum, options
from lopt_tf.metatraining import trainer as trainer_lib
from lopt_tf.optimizers import registry
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus
from problems.quadratic import Quadratic
from train_scripts import autoloss, benchmark, evaluate, metatrain, quickstart

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ["bowl_problems.0", "quadratic_problems.0"]
# What each program is given besides a mistake.
PROGRAMS = {
    "metatrain": (metatrain, [f"--problems={NAMES[0]}", "--instances=1"]),
    "autoloss": (autoloss, ["--set=max_steps=40"]),
    "evaluate": (evaluate, ["--experiment=problems"]),
    "quickstart": (quickstart, []),
    "benchmark": (benchmark, ["--suite=update"]),
}
NUMBERS = ("nan", "inf", "-inf", "-1", "1e999", str(10**30), "", "x")
# What is no mistake: (flag, value).
MEANINGFUL = {("min_log_lr", "-1"), ("max_log_lr", "-1")}
TRAINING = ["--problems=bowl_problems.0", "--instances=1", "--meta_updates=2"]


@pytest.fixture
def nothing_starts(monkeypatch):
    """Programs end before the work would begin: with an AssertionError."""

    def start(*args, **kwargs):
        raise AssertionError("The work began.")

    monkeypatch.setattr(long_run.LongRun, "_run", start)
    for name in experiments.NAMES:
        monkeypatch.setattr(experiments.find(name), "run", start)
    for name in ("autoloss", "corpus", "metatraining", "scaling", "update"):
        suite = importlib.import_module(f"train_scripts.suites.{name}")
        monkeypatch.setattr(suite, "measure", start)
    return start


def _refused(name, arguments, folder, capsys):
    """Runs a program that must answer in one line, and write nothing."""
    module, given = PROGRAMS[name]
    output = "output" if name == "benchmark" else "output_dir"
    target = f"--{output}={folder / 'new' / 'x'}"
    arguments = [name, target, *given, *arguments]
    try:
        assert module.main(arguments) == 2, arguments
    except AssertionError as error:
        raise AssertionError(f"{arguments} began.") from error
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1, error
    assert not any(folder.iterdir()), arguments
    return error


# Flags


@pytest.mark.parametrize("name", PROGRAMS)
def test_numbers_that_cannot_be(name, nothing_starts, tmp_path, capsys):
    """NaN, infinite, negative, huge and empty ones, in every flag."""
    module, _ = PROGRAMS[name]
    tried = 0
    for flag in module.FLAGS:
        kind = type(module.FLAGS[flag].parser).__name__
        if kind not in ("IntegerParser", "FloatParser"):
            continue
        for value in NUMBERS:
            if (flag, value) not in MEANINGFUL:
                _refused(name, [f"--{flag}={value}"], tmp_path, capsys)
                tried += 1
    assert tried >= 8


@pytest.mark.parametrize("name", PROGRAMS)
def test_empty_texts(name, nothing_starts, tmp_path, capsys):
    module, _ = PROGRAMS[name]
    for flag in module.FLAGS:
        kind = type(module.FLAGS[flag].parser).__name__
        is_text = kind in ("ArgumentParser", "ListParser", "EnumParser")
        if is_text and flag not in ("compile_cache", "step_unit"):
            _refused(name, [f"--{flag}="], tmp_path, capsys)


CONTRADICTIONS = {
    "metatrain": [
        "--optimizer=global_learning_rate --use_attention",
        "--optimizer=learned_adam --level_sizes=3",
        "--optimizer=learned_adam --max_log_lr=-4",
        "--tpu=x",
        "--eval_problems=bowl_problems.1",
        "--eval_steps=5",
        "--estimator=bptt --perturbation=0.1",
        "--estimator=full --perturbation=0.1",
        "--estimator=pes --nouse_second_derivatives",
        "--preset=scale --min_partials=3",
        "--nouse_log_objective --objective_epsilon=1e-3",
        "--min_steps=30 --max_steps=20",
        "--max_parameter_scale=0.5",
        "--level_sizes=100000,100000",
        "--level_sizes=",
        "--mean_length=1e6 --mean_partials=1e6",
        "--meta_learning_rate_decay=-5",
        "--starts=0",
        "--obj_train_max_multiplier=0.5",
        "--start_from=/nonexistent.npz",
        "stray",
    ],
    "autoloss": [
        "--mode=train --controller=x.npz",
        "--mode=train --starts=3",
        "--mode=test --episodes=3",
        "--mode=baseline --resume",
        "--mode=transfer --checkpoint_every_s=3",
        "--mode=test --algorithm=ppo",
        "--set==3",
        "--set=penalty=NaN",
        "--set=noise=NaN",
        "--set=noise=Infinity",
        "--set=learning_rate=NaN",
        "--set=dimensions=1000000",
        "--set=max_steps=1e400",
        "--set=data_seed=1000000000000",
        f"--set=hidden={'[' * 10_000}",
        "--task=classification --set=hidden=[1000000]",
        "--task=classification --set=features=100000000",
        "--task=classification --set=label_noise=NaN",
        "--task=juggling",
    ],
    "evaluate": [
        "--experiment=digits --problems=bowl_problems",
        "--experiment=problems --variants=x",
        "--experiment=problems --epochs=3",
        "--experiment=ablation --optimizer=hierarchical_rnn_lasting",
        "--steps=10000000 --seeds=10000",
        "--optimizer=/nonexistent.npz",
        "--optimizer=of_tomorrow",
    ],
    "quickstart": ["--epochs=0", "--seeds=1000000", "stray"],
    "benchmark": [
        "--problems=quadratic_20",
        "--instances=3",
        "--estimator=pes",
        "--suite=corpus --repetitions=3",
        "--suite=autoloss --instances=0",
        "--suite=metatraining --instances=-3,x",
        "--suite=metatraining --instances=1000000000000",
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_contradictions(name, nothing_starts, tmp_path, capsys):
    for line in CONTRADICTIONS[name]:
        _refused(name, line.split(), tmp_path, capsys)


def test_outputs_that_cannot_be_written(nothing_starts, tmp_path, capsys):
    """They are refused before the work, not after it."""
    (tmp_path / "file").write_text("mine")
    for name in PROGRAMS:
        module, given = PROGRAMS[name]
        output = "output" if name == "benchmark" else "output_dir"
        for place in ("/dev/null/x", "/proc/x/y", tmp_path / "file" / "x"):
            assert module.main([name, f"--{output}={place}", *given]) == 2
            error = capsys.readouterr().err
            assert "written" in error and len(error.splitlines()) == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    assert benchmark.main(["b", "--suite=update", f"--output={folder}"]) == 2
    assert "is a folder" in capsys.readouterr().err
    (folder / "optimizer.npz").mkdir()
    arguments = [f"--output_dir={folder}", *PROGRAMS["metatrain"][1]]
    assert metatrain.main(["metatrain", *arguments]) == 2
    assert "in the way" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["optimizer.npz"]


def test_every_number_has_bounds():
    """The flags say literally what the options declare."""
    for settings, bounds, tables in (
        (options.TrainingOptions, options._BOUNDS, [metatrain._OPTIONS]),
        (curriculum.Curriculum, curriculum._BOUNDS, [metatrain._CURRICULUM]),
        (
            autoloss_options.ControllerOptions,
            autoloss_options._BOUNDS,
            [autoloss._OPTIONS],
        ),
    ):
        defaults = settings()
        for table in tables:
            for name, (kind, _) in table.items():
                assert kind is type(getattr(defaults, name))
                assert kind not in (int, float) or name in bounds
        for name, (low, high) in bounds.items():
            assert type(low) is type(high) is type(getattr(defaults, name))
            checks.in_range(name, getattr(defaults, name), low, high)
            changes = {name: float("nan")}
            with pytest.raises(ValueError, match=f"`{name}`"):
                settings(**changes)
    assert {*evaluate._NUMBERS} == {*experiments.BOUNDS}
    # The others are checked where they are used.
    run = long_run.LongRun
    for wrong in (float("nan"), -1.0, float("inf")):
        with pytest.raises(ValueError, match="checkpoint_every_s"):
            run(long_run.Trainer(), "kind", every_s=wrong)


def test_known_failures_of_tensorflow_are_one_line(
    tmp_path, monkeypatch, capsys
):
    module, given = PROGRAMS["metatrain"]
    for error in (
        tf.errors.ResourceExhaustedError(None, None, "OOM\nwith\nmore"),
        MemoryError("Unable to allocate 14 TiB"),
        OverflowError("cannot convert"),
    ):

        def fail(*args, raised=error, **kwargs):
            raise raised

        monkeypatch.setattr(metatraining, "train", fail)
        arguments = [f"--output_dir={tmp_path / 'x'}", *given]
        assert module.main(["metatrain", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and len(error.splitlines()) == 1


# Runs


def _train(folder, rule=None, **kwargs):
    chosen = {"meta_updates": 3, "instances": 1, "segment_length": 5}
    chosen |= {"curriculum": metatraining.Curriculum(max_steps=10)}
    given = kwargs.pop("options", {})
    return metatraining.train(
        corpus.select(NAMES[:1]),
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
    from lopt_tf import compilation

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_are_clean_from_the_start(number, tmp_path):
    """While TensorFlow is imported, too."""
    command = [sys.executable, "-m", "train_scripts.metatrain"]
    command += [*TRAINING, f"--output_dir={tmp_path / 'run'}"]
    for delay in (0.3, 1.5):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 130
        assert error.endswith("Stopped.\n") and "Traceback" not in error
        assert not (tmp_path / "run").exists()
