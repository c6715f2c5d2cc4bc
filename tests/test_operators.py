"""Mistakes on command lines, lost starts and bad numbers: nothing is lost."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from lopt_tf import checks, long_run, metatraining
from lopt_tf.autoloss import options as autoloss_options
from lopt_tf.evaluation import experiments, image_training
from lopt_tf.metatraining import curriculum, options
from train_scripts import (
    autoloss,
    benchmark,
    command_line,
    evaluate,
    imagenet,
    metatrain,
    quickstart,
)

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ["bowl_problems.0", "quadratic_problems.0"]
# What each program is given besides a mistake.
PROGRAMS = {
    "metatrain": (metatrain, [f"--problems={NAMES[0]}", "--instances=1"]),
    "autoloss": (autoloss, ["--set=max_steps=40"]),
    "evaluate": (evaluate, ["--experiment=problems"]),
    "quickstart": (quickstart, []),
    "benchmark": (benchmark, ["--suite=update"]),
    "imagenet": (imagenet, []),
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
    monkeypatch.setattr(image_training._Run, "_describe", start)
    for name in experiments.NAMES:
        monkeypatch.setattr(experiments.find(name), "run", start)
    for name in benchmark.SUITES:
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
        "--preset=recommended --use_parameter_scale",
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
        "--data_dir=somewhere",
        "--bound_reference=least",
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
        "--data_dir=somewhere",
        "--experiment=digits --data_dir=somewhere",
        "--experiment=wall_clock --data_dir=somewhere",
        "--experiment=generalization --data_dir=/nonexistent",
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
    "imagenet": [
        "--tpu=x",
        "--strategy=parameter_server",
        "--strategy=tpu --tpu=nowhere",
        "--steps=10 --log_every=3",
        "--test_every=50 --log_every=20",
        "--checkpoint_every=50 --log_every=20",
        "--steps_per_execution=7",
        "--label_smoothing=1.5",
        "--optimizer=of_tomorrow",
        "--optimizer=/nonexistent.npz",
        "--start_from=/nonexistent.keras",
        "--batch_size=1000000",
        "--data_dir=somewhere",
        "--manual_dir=somewhere",
        "--dataset=cifar10 --manual_dir=somewhere",
        "--dataset=of_tomorrow",
        "--dataset=/nonexistent.npz",
        "--dataset=./nowhere",
        "--model=inception_v3 --image_size=8",
        "--image_size=3",
        "--resume",
        "stray",
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
                declared = type(getattr(defaults, name))
                assert kind is {tuple: list}.get(declared, declared)
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


def _wait_for_handlers(pid):
    """Until Python has begun with our program, which catches SIGTERM, too."""
    status = pathlib.Path(f"/proc/{pid}/status")
    for _ in range(2000):
        caught = int(status.read_text().split("SigCgt:")[1].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} catches no signal")


def test_an_interrupt_that_python_drops_comes_again(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    come = []

    class Collected:
        def __del__(self):
            come.append(1)
            os.kill(os.getpid(), signal.SIGINT)
            # Here it is raised, and dropped.
            for _ in range(1000):
                time.sleep(0.001)

    before = signal.getsignal(signal.SIGINT)
    command_line._take_interrupts({signal.SIGINT: before})
    try:
        with pytest.raises(KeyboardInterrupt):
            Collected()
            time.sleep(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert come == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_are_clean_from_the_start(number, tmp_path):
    """While TensorFlow is imported, too."""
    program = ["-m", "train_scripts.metatrain", *TRAINING]
    program += [f"--output_dir={tmp_path / 'run'}"]
    for delay, how in ((0.1, ["-u"]), (1.5, [])):
        command = [sys.executable, *how, *program]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _wait_for_handlers(process.pid)
        time.sleep(delay)
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 130
        assert error.endswith("Stopped.\n") and "Traceback" not in error
        assert not (tmp_path / "run").exists()
