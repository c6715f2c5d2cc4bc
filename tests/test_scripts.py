"""Every program, end to end on tiny settings, and its answers to mistakes."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from csv_rows import read_rows

import lopt_tf
from lopt_tf.evaluation import tuning
from lopt_tf.evaluation.experiments import digits
from train_scripts import (
    autoloss,
    benchmark,
    evaluate,
    imagenet,
    metatrain,
    quickstart,
)
from train_scripts.suites import images, networks, scaling, update

pytestmark = pytest.mark.usefixtures("own_signals")

ROOT = pathlib.Path(__file__).parent.parent


PROGRAMS = {
    "autoloss": autoloss,
    "benchmark": benchmark,
    "evaluate": evaluate,
    "imagenet": imagenet,
    "metatrain": metatrain,
    "quickstart": quickstart,
}


@pytest.fixture
def small_digits(monkeypatch):
    """Few learning rates and one network: the digits in seconds."""
    search = tuning.search
    monkeypatch.setattr(
        tuning,
        "search",
        lambda run, names, **kwargs: search(
            run, names, (-5, -4), bounds=(-5, -4), **kwargs
        ),
    )
    networks = {"digits_mlp": digits.mlp}
    monkeypatch.setattr(digits, "NETWORKS", networks)


def test_programs_answer_help_without_tensorflow():
    code = """
import importlib, sys
for name in sys.argv[1:]:
    module = importlib.import_module(f"train_scripts.{name}")
    assert module.main([name, "--help"]) == 0
    assert module.main([name, "--no_such_flag=1"]) == 2
assert not {"tensorflow", "keras", "numpy"} & set(sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *PROGRAMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for flag in ("--preset", "--experiment", "--output_dir", "--suite"):
        assert flag in result.stdout
    assert "Unknown command line flag 'no_such_flag'" in result.stderr


def test_home_is_where_the_shell_says(tmp_path, monkeypatch, capsys):
    """After --flag= it leaves a ~ alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    runs = ["evaluate", "--experiment=imagenet", "--output_dir=~/out"]
    assert evaluate.main([*runs, "--runs=~/a,~/b"]) == 2
    assert f"{tmp_path}/a is not the folder" in capsys.readouterr().err
    arguments = ["autoloss", "--mode=baseline", "--output_dir=~/out"]
    task = ["--task=gan", "--dataset=~/no.npz", "--set=classifier_path=~/x.h5"]
    assert autoloss.main([*arguments, *task]) == 2
    assert f"{tmp_path}/no.npz" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_evaluate_digits(tmp_path, trained, small_digits, capsys):
    arguments = [
        "evaluate",
        "--experiment=digits",
        f"--optimizer={trained}",
        f"--output_dir={tmp_path / 'out'}",
        "--seeds=2",
        "--epochs=1",
        "--tuning_seeds=1",
    ]
    assert evaluate.main(arguments) == 0
    rows = read_rows(tmp_path / "out" / "summary.csv")
    assert [row["optimizer"] for row in rows] == [
        "learned",
        "untrained",
        "adam",
        "rmsprop",
    ]
    for row in rows:
        assert row["seeds"] == "2"
        assert 0 <= float(row["accuracy_1"]) <= 1
    assert float(rows[2]["steps_to_adam"]) > 0
    printed = capsys.readouterr().out
    assert "steps_to_adam" in printed and "rmsprop" in printed
    assert "at the edge of the grid" in printed
    steps = 42 * 2 * 4
    assert len(read_rows(tmp_path / "out" / "curves.csv")) == steps
    assert len(read_rows(tmp_path / "out" / "tuning.csv")) == 4
    runs = read_rows(tmp_path / "out" / "runs.csv")
    assert len(runs) == 8
    mean = np.mean([float(run["accuracy_1"]) for run in runs[:2]])
    assert mean == pytest.approx(float(rows[0]["accuracy_1"]))
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_quickstart(tmp_path, small_digits):
    arguments = [
        "quickstart",
        f"--output_dir={tmp_path}",
        "--meta_updates=1",
        "--seeds=1",
        "--epochs=1",
    ]
    # The quick preset's problems and sizes, for one update.
    assert quickstart.main(arguments) == 0
    assert (tmp_path / "metatraining" / "optimizer.npz").exists()
    rows = read_rows(tmp_path / "digits" / "summary.csv")
    assert {row["optimizer"] for row in rows} == {
        "learned",
        "untrained",
        "adam",
        "rmsprop",
    }


def test_benchmark_metatraining(tmp_path):
    path = tmp_path / "rows.json"
    arguments = [
        "benchmark",
        "--suite=metatraining",
        "--problems=quadratic_20",
        "--instances=1",
        "--repetitions=1",
        f"--output={path}",
    ]
    assert benchmark.main(arguments) == 0
    rows = json.loads(path.read_text())
    assert [row["name"] for row in rows] == [
        "metatraining/bptt/quadratic_20/instances=1",
        "metatraining/pes/quadratic_20/instances=1",
        "metatraining/es/quadratic_20/instances=1",
        "metatraining/pes_per_cpu_second/quadratic_20/instances=8",
    ]
    for row in rows:
        assert row["value"] > 0 and row["higher_is_better"]
        assert row["unit"].startswith("inner steps/") and row["settings"]


def test_benchmark_update(tmp_path, monkeypatch):
    few = {"mlp_235146/batch=8": networks.NETWORKS["mlp_235146/batch=8"]}
    monkeypatch.setattr(networks, "NETWORKS", few)
    monkeypatch.setattr(update, "LARGE", ())
    path = tmp_path / "rows.json"
    arguments = ["benchmark", "--suite=update", "--repetitions=1"]
    assert benchmark.main([*arguments, f"--output={path}"]) == 0
    (row,) = json.loads(path.read_text())
    assert row["name"] == "update/mlp_235146/batch=8/hierarchical_rnn_over_adam"
    assert row["unit"] == "ratio" and row["value"] > 0


@pytest.mark.slow
def test_benchmark_images(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "IMAGE_NETWORKS", {})
    few = {"photographs": ("resnet20_v2", 8, 4, 2)}
    monkeypatch.setattr(images, "PIPELINES", few)
    path = tmp_path / "rows.json"
    arguments = ["benchmark", "--suite=images", "--repetitions=1"]
    assert benchmark.main([*arguments, f"--output={path}"]) == 0
    speed, waiting = json.loads(path.read_text())
    assert speed["name"] == "images/pipeline/photographs"
    assert speed["unit"] == "images/s" and speed["value"] > 0
    assert waiting["name"] == "images/waiting/photographs/resnet20_v2"
    assert waiting["value"] < 1


@pytest.mark.slow
def test_benchmark_scaling(tmp_path, monkeypatch):
    for name, few in (
        ("PARAMETERS", (10, 100)),
        ("TENSORS", (1, 10)),
        ("INSTANCES", (1, 2)),
        ("LARGEST", 100),
    ):
        monkeypatch.setattr(scaling, name, few)
    path = tmp_path / "rows.json"
    arguments = ["benchmark", "--suite=scaling", "--repetitions=1"]
    assert benchmark.main([*arguments, f"--output={path}"]) == 0
    rows = json.loads(path.read_text())
    assert [row["name"] for row in rows] == [
        "scaling/parameters=10/tensors=1/instances=1",
        "scaling/parameters=10/tensors=1/instances=2",
        "scaling/parameters=100/tensors=1/instances=1",
        "scaling/parameters=10/tensors=10/instances=1",
        "scaling/parameters=100/tensors=10/instances=1",
    ]
    assert path.with_suffix(".png").stat().st_size > 1000


def test_benchmark_corpus(tmp_path):
    path = tmp_path / "rows.json"
    arguments = [
        "benchmark",
        "--suite=corpus",
        "--problems=bowl_problems",
        "--instances=2",
        "--estimator=pes",
    ]
    assert benchmark.main([*arguments, f"--output={path}"]) == 0
    total, compilation = json.loads(path.read_text())
    assert total["settings"]["problems"] == 4
    assert total["settings"]["meta_updates"] == 8
    assert total["value"] > 0 and 0 < compilation["value"] < 1


def test_benchmark_mistakes(capsys):
    assert benchmark.main(["benchmark", "--output=x", "--problems=cubic"]) == 2
    assert "Known: quadratic_20" in capsys.readouterr().err
    assert benchmark.main(["benchmark", "--suite=guess"]) == 2
    assert "metatraining|update|scaling|corpus" in capsys.readouterr().err


def test_model_file_loads_in_another_process(tmp_path):
    """After `import lopt_tf` alone, which brings neither TFDS nor TFP."""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    optimizer = lopt_tf.HierarchicalRNN(level_sizes=(3, 4), seed=2)
    model.compile(optimizer=optimizer, loss="mse")
    data = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.keras")
    code = """
import sys
import lopt_tf
heavy = {"tensorflow_datasets", "tensorflow_probability"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import keras
import numpy as np
model = keras.models.load_model(sys.argv[1])
assert type(model.optimizer) is lopt_tf.HierarchicalRNN
assert int(model.optimizer.iterations) == 1
model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
np.savez(sys.argv[2], *model.get_weights())
"""
    paths = [str(tmp_path / "model.keras"), str(tmp_path / "weights.npz")]
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    model.fit(*data, verbose=0)
    with np.load(paths[1]) as file:
        for name, array in zip(file.files, model.get_weights()):
            np.testing.assert_allclose(file[name], array, rtol=1e-5, atol=1e-7)
