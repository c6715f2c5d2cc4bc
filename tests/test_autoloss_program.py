"""The program `autoloss` and its benchmark, end to end on tiny settings."""

import json

import numpy as np
import pytest
from csv_rows import read_rows

from lopt_tf.autoloss import (
    ScheduleController,
    baselines,
    comparison,
    recipe,
    schedules,
    tasks,
)
from train_scripts import autoloss, benchmark
from train_scripts.suites import autoloss as autoloss_suite
from train_scripts.suites import gan as gan_suite

pytestmark = pytest.mark.usefixtures("own_signals")

AUTOLOSS = [
    "--task=regression",
    "--set=dimensions=3",
    "--set=max_steps=40",
    "--compile_cache=",
]


def _autoloss(mode, folder, *more):
    arguments = [*AUTOLOSS, f"--mode={mode}", f"--output_dir={folder}", *more]
    return autoloss.main(["autoloss", *arguments])


def test_autoloss_trains_and_compares(tmp_path, capsys):
    of_transfer = ("--starts=3", "--tuning_starts=2")
    few = (*of_transfer, "--nofine", "--baselines=1:1,best ratio")
    budget = ("--episodes=4", "--parallel=2")
    assert _autoloss("train", tmp_path, *budget) == 0
    assert len(read_rows(tmp_path / "rounds.csv")) == 2
    assert (tmp_path / "training.png").stat().st_size > 1000
    assert _autoloss("train", tmp_path, *budget) == 2
    assert "already holds" in capsys.readouterr().err
    assert _autoloss("train", tmp_path, *budget, "--resume") == 0
    assert _autoloss("baseline", tmp_path, *few) == 0
    tuned = (tmp_path / "tuning.json").read_text()
    assert _autoloss("test", tmp_path, *few) == 0
    # What was tuned is not tuned again.
    assert (tmp_path / "tuning.json").read_text() == tuned
    assert capsys.readouterr().out.count("Tuning fixed") == 1
    single = read_rows(tmp_path / "test.csv")
    rows = {r["schedule"]: r for r in read_rows(tmp_path / "test_summary.csv")}
    values = {
        name: [float(r["test"]) for r in single if r["schedule"] == name]
        for name in ("controller", "1:1")
    }
    difference = np.subtract(values["controller"], values["1:1"]).mean()
    np.testing.assert_allclose(
        float(rows["1:1"]["difference"]), difference, rtol=1e-6
    )
    # Nor is it forgotten if a test does without it.
    assert _autoloss("test", tmp_path, *few[:-1], "--baselines=1:1") == 0
    assert (tmp_path / "tuning.json").read_text() == tuned
    assert "Tuning fixed" not in capsys.readouterr().out
    # The same schedules gave the same results without the controller.
    before = read_rows(tmp_path / "baselines.csv")
    assert [r for r in single if r["schedule"] != "controller"] == before
    assert (tmp_path / "schedule.png").stat().st_size > 1000
    assert _autoloss("transfer", tmp_path, *of_transfer) == 0
    assert len(read_rows(tmp_path / "transfer.csv")) == 6
    capsys.readouterr()
    assert _autoloss("transfer", tmp_path, *of_transfer, "--set=size=3") == 2
    assert "Unknown: size" in capsys.readouterr().err
    # Another task than that of the training is tuned anew, and said.
    other = ("--set=noise=1.0", *few)
    assert _autoloss("test", tmp_path, *other) == 0
    output = capsys.readouterr().out
    assert "trained with noise 2.0 instead of 1.0" in output
    assert "Tuning fixed" in output


def test_a_named_setting_is_run_without_tuning(tmp_path):
    more = ("--starts=3", "--baselines=ratio 1:5,1:1")
    assert _autoloss("baseline", tmp_path, *more) == 0
    assert not (tmp_path / "tuning.json").exists()
    single = read_rows(tmp_path / "baselines.csv")
    task = tasks.entry("regression").task(dimensions=3, max_steps=40)
    every_sixth = baselines.Candidate("", schedules.Ratio, (1, 5))
    (expected,) = comparison.run_baselines(task, {"": every_sixth}, 3).values()
    found = [float(r["test"]) for r in single if r["setting"] == "ratio 1:5"]
    np.testing.assert_allclose(found, expected.results, rtol=1e-5)
    assert len(single) == 6


def test_autoloss_answers_mistakes(tmp_path, capsys):
    (tmp_path / "tuning.json").write_text("{")
    task = tasks.entry("regression").task()
    options = recipe("regression", "reinforce")
    controller = ScheduleController.untrained(
        "regression", task.actions, options
    )
    controller.save(tmp_path / "own.npz")
    own = f"--controller={tmp_path}/own.npz"
    mistakes = {
        ("test", "--controller=/nonexistent.npz"): "no file",
        ("train", "--set=size=3"): "Unknown: size",
        ("train", "--set=dimensions"): "name=value",
        ("train", "--set=role=task"): "--mode decides",
        ("train", "--set=dimensions=0"): "`dimensions` must be a positive",
        ("train", "--episodes=0"): "`episodes` must be at least 1",
        ("train", "--task=juggling"): "regression",
        ("train", "--algorithm=evolution", "--step_scale=1"): "no effect",
        ("baseline", "--baselines=best ratoi"): "Unknown fixed schedule",
        ("test", own, "--baselines=best ratoi"): "Unknown fixed schedule",
        ("transfer", own, "--baselines=even coin"): "Unknown fixed schedule",
        ("transfer", own, "--data_dir=x"): "Unknown: data_dir",
        ("transfer", own, "--nofine"): "--fine has no effect",
        ("baseline",): "Delete it to tune anew",
    }
    for (mode, *more), answer in mistakes.items():
        assert _autoloss(mode, tmp_path, *more) == 2
        assert answer in capsys.readouterr().err


@pytest.mark.slow
def test_benchmark_of_autoloss(tmp_path, monkeypatch):
    monkeypatch.setattr(autoloss_suite, "_STEPS", 20)
    monkeypatch.setattr(gan_suite, "_UPDATES", 20)
    path = tmp_path / "speed.json"
    arguments = ["--suite=autoloss", "--instances=1,2", "--repetitions=1"]
    assert benchmark.main(["b", *arguments, f"--output={path}"]) == 0
    names = [row["name"] for row in json.loads(path.read_text())]
    assert names[:2] == [
        "autoloss/regression/episodes=1",
        "autoloss/regression/episodes=2",
    ]
    assert [name for name in names if "gan" in name] == [
        *("autoloss/gan/keras", "autoloss/gan/episodes=1"),
        "autoloss/gan/episodes=2",
    ]
    assert len(names) == 5 + 3
