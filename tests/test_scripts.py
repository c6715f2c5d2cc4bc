"""Every program, end to end on tiny settings, and its answers to mistakes."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import lopt_tf
from lopt_tf import checkpointing, compilation, distribution
from lopt_tf.evaluation import tuning
from lopt_tf.evaluation.experiments import digits
from lopt_tf.metatraining import (
    Curriculum,
    TrainingOptions,
    estimators,
    meta_optimizers,
    presets,
)
from lopt_tf.optimizers import hierarchical_rnn, registry
from problems import corpus
from train_scripts import (
    autoloss,
    benchmark,
    evaluate,
    imagenet,
    metatrain,
    quickstart,
)
from train_scripts.suites import autoloss as autoloss_suite
from train_scripts.suites import gan as gan_suite
from train_scripts.suites import networks, scaling, update

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = {
    "autoloss": autoloss,
    "benchmark": benchmark,
    "evaluate": evaluate,
    "imagenet": imagenet,
    "metatrain": metatrain,
    "quickstart": quickstart,
}
TINY = [
    "--problems=bowl_problems.0,quadratic_problems.0",
    "--instances=2",
    "--segment_length=5",
    "--meta_updates=4",
    "--level_sizes=3,4,5",
]


@pytest.fixture(autouse=True)
def own_signals():
    """A program's handler of SIGTERM must not outlive its test."""
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


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


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "optimizer.npz"
    lopt_tf.HierarchicalRNN(level_sizes=(3,), seed=1).save_pretrained(path)
    return path


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


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


def test_metatrain(tmp_path, capsys):
    arguments = ["metatrain", *TINY, f"--output_dir={tmp_path / 'run'}"]
    assert metatrain.main(arguments) == 0
    assert "meta-update 4/4" in capsys.readouterr().out
    optimizer = lopt_tf.HierarchicalRNN.from_pretrained(tmp_path / "run")
    assert optimizer.rule.level_sizes == (3, 4, 5)
    assert metatrain.main([*arguments, "--resume", "--meta_updates=6"]) == 0
    assert "meta-update 6/6" in capsys.readouterr().out


@pytest.mark.slow
def test_compile_cache(tmp_path):
    """A second process need not compile; what is damaged is made again."""
    cache = tmp_path / "cache"

    def run(number):
        command = [sys.executable, "-m", "train_scripts.metatrain", *TINY]
        command += [f"--output_dir={tmp_path / str(number)}", "--threads=1"]
        # Names in later programs depend on what was saved before them.
        command += ["--checkpoint_every_s=3600"]
        return subprocess.run(
            [*command, f"--compile_cache={cache}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    first = run(1)
    assert first.returncode == 0, first.stderr
    (folder,) = cache.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(files) >= 10
    assert run(2).returncode == 0
    now = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert now == files
    weights = [
        checkpointing.load(
            tmp_path / number / "optimizer.npz", "lopt_tf.optimizer"
        )[0]
        for number in "12"
    ]
    for name, array in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], array)
    entries = [path for path in files if path.suffix != ".sha256"]
    for path in entries[:2]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    damaged = run(3)
    assert damaged.returncode == 0, damaged.stderr
    assert "2 compiled programs" in damaged.stdout
    assert {path for path in folder.iterdir()} == set(files)


def test_metatrain_goes_on_in_a_new_process(tmp_path, capsys, monkeypatch):
    """Where the compiled programs leave no room for another problem."""
    arguments = [*TINY, f"--output_dir={tmp_path / 'run'}"]
    left = iter([10**6, 10])
    started = []
    with monkeypatch.context() as patch:
        patch.setattr(compilation, "maps_left", lambda: next(left))
        patch.setattr(os, "execv", lambda *args: started.append(args))
        metatrain.main(["metatrain", *arguments])
    ((program, command),) = started
    assert program == sys.executable and command[0] == program
    assert command[1:3] == ["-m", "train_scripts.metatrain"]
    assert command[3:] == [*arguments, "--resume"]
    assert "Going on in a new process" in capsys.readouterr().out
    assert metatrain.main(command[2:]) == 0
    other = f"--output_dir={tmp_path / 'undisturbed'}"
    assert metatrain.main(["metatrain", *TINY, other]) == 0
    ours, expected = (
        checkpointing.load(
            tmp_path / name / "optimizer.npz", "lopt_tf.optimizer"
        )[0]
        for name in ("run", "undisturbed")
    )
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array)


def test_room_for_compiled_programs(monkeypatch):
    assert 1000 < compilation.maps_left() < 10**9
    monkeypatch.setattr(compilation, "maps_left", lambda: 100)
    with pytest.raises(RuntimeError, match="vm.max_map_count=262144"):
        compilation.check_room()
    monkeypatch.setattr(compilation, "maps_left", lambda: None)
    compilation.check_room()


def test_metatrain_knows_every_choice():
    def choices(flag):
        return metatrain.FLAGS[flag].parser.enum_values

    assert choices("preset") == list(presets.PRESETS)
    assert choices("optimizer") == list(registry.OPTIMIZERS)
    assert choices("estimator") == list(estimators.ESTIMATORS)
    assert choices("strategy") == list(distribution.STRATEGIES)
    assert choices("meta_optimizer") == sorted(meta_optimizers.OPTIMIZERS)


def test_metatrain_has_a_flag_for_every_option():
    """The script must not import the options before it parses flags."""

    def fields(options):
        return {f.name: f.type for f in dataclasses.fields(options)}

    def flagged(table):
        return {name: type_ for name, (type_, _) in table.items()}

    choices = {"estimator": str, "meta_optimizer": str}
    nested = {"curriculum": Curriculum}
    options = {**flagged(metatrain._OPTIONS), **choices, **nested}
    options["trained_weights"] = tuple
    assert options == fields(TrainingOptions)
    assert flagged(metatrain._CURRICULUM) == fields(Curriculum)
    known = hierarchical_rnn.HierarchicalRNNRule.default_config()
    assert set(metatrain._RULE_SETTINGS) <= set(known)
    adjustable = hierarchical_rnn.HierarchicalRNNRule.adjustable
    assert set(adjustable) <= set(metatrain._RULE_SETTINGS)


@pytest.mark.parametrize("optimizer", registry.OPTIMIZERS)
@pytest.mark.parametrize("estimator", ["bptt", "pes"])
def test_metatrain_every_optimizer(optimizer, estimator, tmp_path, capsys):
    arguments = [
        *(TINY if optimizer == "hierarchical_rnn" else TINY[:-1]),
        f"--optimizer={optimizer}",
        f"--estimator={estimator}",
        f"--output_dir={tmp_path}",
        "--mean_length=1",
        "--min_length=5",
    ]
    assert metatrain.main(["metatrain", *arguments]) == 0
    optimizer_class = registry.optimizer_class(optimizer)
    loaded = lopt_tf.LearnedOptimizer.from_pretrained(tmp_path)
    assert type(loaded) is optimizer_class
    start = loaded.rule.init_weights(0)
    now = loaded.rule_weights()
    assert any(np.any(now[name] != start[name]) for name in start)


def test_metatrain_starts_from_trained_weights(tmp_path, trained):
    arguments = [
        *TINY[:-1],
        f"--output_dir={tmp_path / 'run'}",
        f"--start_from={trained}",
        "--meta_learning_rate=0",
    ]
    assert metatrain.main(["metatrain", *arguments]) == 0
    expected, ours = (
        checkpointing.load(path, "lopt_tf.optimizer")
        for path in (trained, tmp_path / "run" / "optimizer.npz")
    )
    assert ours[1] == expected[1]
    for name, array in expected[0].items():
        np.testing.assert_array_equal(ours[0][name], array)


@pytest.mark.parametrize("estimator", ["full", "es"])
def test_metatrain_mirrored_with_validation(estimator, tmp_path, capsys):
    arguments = [
        *TINY,
        f"--output_dir={tmp_path}",
        "--strategy=mirrored",
        f"--estimator={estimator}",
        "--max_steps=10",
        "--eval_every=2",
        "--eval_problems=bowl_problems.1",
        "--eval_steps=20",
    ]
    assert metatrain.main(["metatrain", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "2 replicas in use on 1 workers" in printed
    assert "validation after meta-update 4" in printed
    assert (tmp_path / "best.npz").exists()


def test_metatrain_validates_on_networks(tmp_path, capsys):
    arguments = [
        *TINY,
        f"--output_dir={tmp_path}",
        "--problems=bowl_problems.0",
        "--estimator=es",
        "--max_steps=10",
        "--eval_every=2",
        "--eval_problems=recurrent",
        "--eval_steps=5",
    ]
    assert metatrain.main(["metatrain", *arguments]) == 0
    assert "validation after meta-update 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--problems=bowls"], "Known sets"),
        (["--estimator=guess"], "bptt|full|es|pes"),
        (["--optimizer=guess"], "hierarchical_rnn|coordinatewise_rnn"),
        (["--strategy=guess"], "default|mirrored|multi_worker|tpu|parameter"),
        (["--strategy=multi_worker"], "TF_CONFIG must describe the cluster"),
        (["--strategy=parameter_server"], "TF_CONFIG must describe"),
        (["--strategy=tpu", "--tpu=nowhere"], "no TPU nowhere that can be"),
        (["--eval_every=1", "--eval_problems=guess"], "Test sets: "),
        (["--problems=sum_of_quadratics_problems.1"], "use_log_objective"),
        (["--problems=mnist_convnet"], "tfds build mnist"),
        (["--estimator=full", "--truncation=5"], "cuts nothing"),
        (["--preset=guess"], "quick|recommended|paper"),
        (["--level_sizes=3,x"], "--level_sizes takes integers"),
        (["--level_sizes=1,2,3,4"], "must hold 1, 2 or 3"),
        (["--instances=0"], "at least 1"),
        (["--min_steps=50"], "min_steps=50, max_steps=0"),
        (["--min_steps=50", "--max_steps=40"], "between 1 and `max_steps`"),
        (["--min_steps=4", "--max_steps=40"], "at least one segment"),
        (["--min_parameter_scale=2"], "at most `max_parameter_scale`"),
        (["--max_parameter_scale=0.5"], "at most `max_parameter_scale`"),
        (["--weight_average_decay=1"], "below 1"),
        (["--resume"], "no checkpoint"),
        (["--output_dir="], "--output_dir must be given"),
        (["stray"], "Unexpected argument 'stray'"),
    ],
)
def test_metatrain_mistakes(arguments, message, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [f"--output_dir={folder}", *TINY, *arguments]
    assert metatrain.main(["metatrain", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.rglob("*.npz"))


def test_metatrain_sees_scale(tmp_path, capsys):
    """All that the preset and its flags have, stopped and resumed."""
    chosen = [f"everyday_network_problems.{i}" for i in (9, 13)]
    arguments = [
        "metatrain",
        *TINY,
        "--preset=scale",
        f"--problems={','.join(chosen)}",
        f"--output_dir={tmp_path}",
        "--min_parameter_scale=1e-3",
        "--max_parameter_scale=1e3",
        "--min_steps=5",
        "--max_steps=20",
        "--min_length=5",
        "--mean_length=5",
        "--eval_every=4",
        "--eval_problems=bowl_problems.1",
        "--eval_steps=5",
    ]
    assert metatrain.main(arguments) == 0
    assert metatrain.main([*arguments, "--resume", "--meta_updates=8"]) == 0
    printed = capsys.readouterr().out
    assert "meta-update 8/8" in printed and "skipped" not in printed
    assert "validation after meta-update 8" in printed
    others = ["--resume", "--max_parameter_scale=10"]
    assert metatrain.main([*arguments, *others]) == 2
    assert "max_parameter_scale: saved 1000" in capsys.readouterr().err
    arrays, _ = checkpointing.load(
        sorted((tmp_path / "checkpoints").glob("*.npz"))[-1],
        "lopt_tf.metatraining",
    )
    assert np.any(arrays["average"] != arrays["weights"])
    shipped, _ = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    flat = np.concatenate([shipped[name].ravel() for name in sorted(shipped)])
    np.testing.assert_array_equal(flat, arrays["average"])


def test_metatrain_with_other_settings(tmp_path, capsys):
    arguments = ["metatrain", *TINY, f"--output_dir={tmp_path}"]
    assert metatrain.main(arguments) == 0
    assert metatrain.main([*arguments, "--resume", "--instances=3"]) == 2
    assert "instances: saved 2, given 3" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_training_resumes_exactly(tmp_path):
    """SIGKILL three times, then SIGTERM, at random moments."""
    settings = [*TINY[:-2], "--meta_updates=1500", "--level_sizes=3,4,5"]
    flags = [
        *settings,
        f"--output_dir={tmp_path / 'killed'}",
        "--checkpoint_every_s=0.2",
    ]
    command = [sys.executable, "-m", "train_scripts.metatrain", *flags]
    # Here the tests' settings have chosen one thread already.
    command.append("--threads=1")
    folder = tmp_path / "killed" / "checkpoints"
    rng = np.random.default_rng()
    resume = []
    for number in (*[signal.SIGKILL] * 3, signal.SIGTERM):
        process = subprocess.Popen(
            [*command, *resume],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        known = set(folder.glob("*.npz")) if folder.exists() else set()
        while not set(folder.glob("*.npz")) - known:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        process.send_signal(number)
        status = process.wait()
        assert status == (130 if number == signal.SIGTERM else -number)
        resume = ["--resume"]
    last = int(sorted(folder.glob("*.npz"))[-1].stem.split("-")[1])
    assert 0 < last < 1500
    assert metatrain.main(["metatrain", *flags, "--resume"]) == 0
    other = f"--output_dir={tmp_path / 'undisturbed'}"
    assert metatrain.main(["metatrain", *settings, other]) == 0
    killed, undisturbed = (
        checkpointing.load(
            tmp_path / name / "optimizer.npz", "lopt_tf.optimizer"
        )[0]
        for name in ("killed", "undisturbed")
    )
    for name, array in undisturbed.items():
        np.testing.assert_array_equal(killed[name], array)


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
    rows = _rows(tmp_path / "out" / "summary.csv")
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
    assert len(_rows(tmp_path / "out" / "curves.csv")) == steps
    assert len(_rows(tmp_path / "out" / "tuning.csv")) == 4
    runs = _rows(tmp_path / "out" / "runs.csv")
    assert len(runs) == 8
    mean = np.mean([float(run["accuracy_1"]) for run in runs[:2]])
    assert mean == pytest.approx(float(rows[0]["accuracy_1"]))
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_presets_settings_of_the_rule(preset, tmp_path):
    folder = tmp_path / preset
    arguments = [*TINY, f"--preset={preset}", "--meta_updates=1"]
    arguments += [f"--output_dir={folder}", "--nouse_parameter_scale"]
    assert metatrain.main(["metatrain", *arguments]) == 0
    rule = lopt_tf.HierarchicalRNN.from_pretrained(folder).rule
    robust = preset != "paper"
    assert rule.use_lr_shortcut == robust
    assert rule.max_log_lr == (-2.3 if robust else 33.0)
    assert not rule.use_parameter_scale
    preset_ = presets.PRESETS[preset]
    assert preset_.rule_settings == (hierarchical_rnn.ROBUST if robust else {})
    epsilon = preset_.options.objective_epsilon
    converges = preset in ("recommended", "scale")
    assert epsilon == (1e-12 if converges else 1e-6)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_train_on_no_held_out_problem(name):
    names, options, _ = presets.PRESETS[name]
    chosen = {problem.partition(".")[0] for problem in corpus.select(names)}
    held_out = {"wide_classifier_validation_problems", *corpus.test_sets()}
    held_out |= {*corpus.network_sets()}
    assert chosen and not chosen & held_out
    plan = options.plan(np.random.default_rng(0))
    assert plan and min(plan) > 0


def test_quickstart(tmp_path, small_digits):
    arguments = [
        "quickstart",
        f"--output_dir={tmp_path}",
        "--meta_updates=2",
        "--seeds=1",
        "--epochs=1",
    ]
    # The quick preset's problems and sizes, for two updates.
    assert quickstart.main(arguments) == 0
    assert (tmp_path / "metatraining" / "optimizer.npz").exists()
    rows = _rows(tmp_path / "digits" / "summary.csv")
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
    few = ("--starts=3", "--tuning_starts=2", "--nofine")
    budget = ("--episodes=4", "--parallel=2")
    assert _autoloss("train", tmp_path, *budget) == 0
    assert len(_rows(tmp_path / "rounds.csv")) == 2
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
    single = _rows(tmp_path / "test.csv")
    rows = {r["schedule"]: r for r in _rows(tmp_path / "test_summary.csv")}
    values = {
        name: [float(r["test"]) for r in single if r["schedule"] == name]
        for name in ("controller", "1:1")
    }
    difference = np.subtract(values["controller"], values["1:1"]).mean()
    np.testing.assert_allclose(
        float(rows["1:1"]["difference"]), difference, rtol=1e-6
    )
    # The same schedules gave the same results without the controller.
    before = _rows(tmp_path / "baselines.csv")
    assert [r for r in single if r["schedule"] != "controller"] == before
    assert (tmp_path / "schedule.png").stat().st_size > 1000
    assert _autoloss("transfer", tmp_path, *few) == 0
    assert len(_rows(tmp_path / "transfer.csv")) == 6
    capsys.readouterr()
    assert _autoloss("transfer", tmp_path, *few, "--set=size=3") == 2
    assert "Unknown: size" in capsys.readouterr().err
    # Another task than that of the training is tuned anew, and said.
    other = ("--set=noise=1.0", *few)
    assert _autoloss("test", tmp_path, *other) == 0
    output = capsys.readouterr().out
    assert "trained with noise 2.0 instead of 1.0" in output
    assert "Tuning fixed" in output


def test_autoloss_answers_mistakes(tmp_path, capsys):
    (tmp_path / "tuning.json").write_text("{")
    mistakes = {
        ("test", "--controller=/nonexistent.npz"): "no file",
        ("train", "--set=size=3"): "Unknown: size",
        ("train", "--set=dimensions"): "name=value",
        ("train", "--set=role=task"): "--mode decides",
        ("train", "--set=dimensions=0"): "`dimensions` must be a positive",
        ("train", "--episodes=0"): "`episodes` must be at least 1",
        ("train", "--task=juggling"): "regression",
        ("baseline",): "Delete it to tune anew",
    }
    for (mode, *more), answer in mistakes.items():
        assert _autoloss(mode, tmp_path, *more) == 2
        assert answer in capsys.readouterr().err


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


def test_metatrain_goes_on_from_weights_with_a_bound(tmp_path, trained, capsys):
    arguments = [*TINY[:-1], "--compile_cache=", f"--start_from={trained}"]
    arguments += ["--min_log_lr=-7", "--max_log_lr=-4", "--use_parameter_scale"]
    arguments += [f"--output_dir={tmp_path / 'run'}"]
    assert metatrain.main(["metatrain", *arguments]) == 0
    load = lopt_tf.HierarchicalRNN.from_pretrained
    before, after = load(trained).rule, load(tmp_path / "run").rule
    assert (before.max_log_lr, after.max_log_lr) == (33.0, -4.0)
    assert (before.min_log_lr, after.min_log_lr) == (-33.0, -7.0)
    assert not before.use_parameter_scale and after.use_parameter_scale
    assert after.level_sizes == before.level_sizes
    adam = tmp_path / "adam.npz"
    lopt_tf.LearnedAdam(seed=0).save_pretrained(adam)
    capsys.readouterr()
    arguments = [f"--start_from={adam}", f"--output_dir={tmp_path / 'other'}"]
    for wrong in ("--max_log_lr=-4", "--use_lr_shortcut", "--level_sizes=3"):
        assert metatrain.main(["metatrain", *arguments, wrong]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and wrong.split("=")[0] in error
