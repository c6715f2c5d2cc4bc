"""The program `metatrain`, end to end on tiny settings; its presets."""

import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import slow_cases
import trainings

import lopt_tf
from lopt_tf import checkpointing, compilation, distribution, metatraining
from lopt_tf.metatraining import (
    Curriculum,
    TrainingOptions,
    estimators,
    meta_optimizers,
    presets,
    problem_runs,
    replicas,
)
from lopt_tf.optimizers import hierarchical_rnn, pretrained, registry
from problems import corpus
from problems.everyday_networks import (
    PlainNet,
    PooledConvNet,
    RecurrentNet,
    ResidualMLP,
)
from train_scripts import metatrain

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("own_signals")

TINY = [
    "--problems=bowl_problems.0,quadratic_problems.0",
    "--instances=2",
    "--segment_length=5",
    "--meta_updates=4",
    "--level_sizes=3,4,5",
]


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


@pytest.mark.slow
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


def test_room_is_for_first_steps(monkeypatch):
    """Runs are drawn, and read from a checkpoint, before anything compiles."""
    monkeypatch.setattr(compilation, "maps_left", lambda: 10)
    problems = corpus.select(trainings.NAMES)
    runs = problem_runs.ProblemRuns(
        problems, trainings.rule(), trainings.options(), replicas.Replicas()
    )
    drawn = runs.draw(0)
    again = runs.load(*runs.save(drawn))
    assert (again.name, again.plan) == (drawn.name, drawn.plan)
    with pytest.raises(compilation.NoRoomError):
        with runs.about_to_step(drawn.name):
            raise AssertionError("There is no room.")


def test_a_process_without_room_for_one_step_is_the_last(
    tmp_path, monkeypatch, capsys
):
    """The next one would have none either, and so on for ever."""
    begun = []
    monkeypatch.setattr(os, "execv", lambda *command: begun.append(command))
    step = iter("123")

    def train(*_, output_dir, **__):
        folder = pathlib.Path(output_dir) / "checkpoints"
        folder.mkdir(exist_ok=True)
        (folder / f"checkpoint-{next(step, 3)}.npz").touch()
        raise compilation.NoRoomError("There is no room.")

    monkeypatch.setattr(metatraining, "train", train)
    arguments = ["metatrain", *TINY, f"--output_dir={tmp_path}"]
    for restarts in (1, 2, 3, 3):
        status = metatrain.main(arguments)
        assert len(begun) == restarts
    assert status == 2
    assert "Here not one step has room" in capsys.readouterr().err


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


# The first case is `test_metatrain`'s.
@pytest.mark.parametrize(
    "optimizer, estimator",
    slow_cases.marked(
        [(o, e) for e in ("bptt", "pes") for o in registry.OPTIMIZERS],
        ("hierarchical_rnn", "bptt"),
    ),
)
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


def test_a_part_of_weights_that_nobody_draws_needs_no_start(tmp_path):
    arguments = [
        *("metatrain", "--optimizer=learned_adam", "--meta_updates=1"),
        *("--trained_weights=log_learning_rate", "--problems=bowl_problems.0"),
        *("--instances=2", "--segment_length=5", "--estimator=pes"),
        *("--mean_partials=1", "--min_length=5", "--mean_length=5"),
        "--compile_cache=",
    ]
    folder = f"--output_dir={tmp_path / 'run'}"
    assert metatrain.main([*arguments, folder]) == 0


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


@pytest.mark.parametrize("estimator", slow_cases.marked(["full", "es"], "full"))
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


@pytest.mark.slow
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
        (["--estimator=full", "--staggered_starts"], "there is one"),
        (["--preset=rates"], "--start_from must name trained ones"),
        (["--trained_weights=update"], "Only update would be trained"),
        (["--preset=guess"], "quick|recommended|paper"),
        (["--level_sizes=3,x"], "--level_sizes takes integers"),
        (["--level_sizes=1,2,3,4"], "must hold 1, 2 or 3"),
        (["--instances=0"], "at least 1"),
        (["--min_steps=50"], "min_steps=50, max_steps=0"),
        (["--min_steps=50", "--max_steps=40"], "between 1 and `max_steps`"),
        (["--min_steps=4", "--max_steps=40"], "at least one segment"),
        (
            "--estimator=es --min_steps=5 --max_steps=9 --min_length=9".split(),
            "has no effect beside --min_steps with --estimator=es",
        ),
        (["--min_parameter_scale=2"], "at most `max_parameter_scale`"),
        (["--max_parameter_scale=0.5"], "at most `max_parameter_scale`"),
        (["--meta_weight_decay=0.1"], "meta_optimizer='adam'"),
        (["--meta_optimizer=adamw"], "meta_weight_decay=0.0"),
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "preset",
    slow_cases.marked(
        # The weights of `rates` bring settings of their own.
        [name for name in presets.PRESETS if name != "rates"],
        *("paper", "scale", "recommended"),
    ),
)
def test_presets_settings_of_the_rule(preset, tmp_path):
    folder = tmp_path / preset
    arguments = [*TINY, f"--preset={preset}", "--meta_updates=1"]
    arguments += [f"--output_dir={folder}", "--norest_without_gradient"]
    assert metatrain.main(["metatrain", *arguments]) == 0
    rule = lopt_tf.HierarchicalRNN.from_pretrained(folder).rule
    robust = preset != "paper"
    assert rule.use_lr_shortcut == robust
    assert rule.max_log_lr == (-2.3 if robust else 33.0)
    assert not rule.rest_without_gradient
    preset_ = presets.PRESETS[preset]
    assert preset_.rule_settings == (hierarchical_rnn.ROBUST if robust else {})
    epsilon = preset_.options.objective_epsilon
    converges = preset in ("recommended", "scale")
    assert epsilon == (1e-12 if converges else 1e-6)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_train_on_no_held_out_problem(name):
    names, options, *_ = presets.PRESETS[name]
    chosen = {problem.partition(".")[0] for problem in corpus.select(names)}
    held_out = {"wide_classifier_validation_problems", *corpus.test_sets()}
    held_out |= {*corpus.network_sets()}
    assert chosen and not chosen & held_out
    plan = options.plan(np.random.default_rng(0))
    assert plan and min(plan) > 0


def test_rates_are_of_small_problems():
    names, options, *_ = presets.PRESETS["rates"]
    sizes = {
        name: sum(math.prod(shape) for shape in problem.shapes)
        for name, problem in corpus.select(names).items()
    }
    assert max(sizes.values()) < 20_000
    kinds = {type(problem) for problem in corpus.select(names).values()}
    assert {PlainNet, PooledConvNet, ResidualMLP, RecurrentNet} <= kinds
    rng = np.random.default_rng(0)
    steps = [50 * sum(options.plan(rng)) for _ in range(500)]
    assert min(steps) == 100 and 4500 < max(steps) <= 5000
    assert {n for _ in range(9) for n in options.plan(rng)} == {1}
    validations = presets.PRESETS["rates"].validations
    assert validations.every and not {*validations.problems} & {*names}
    assert corpus.select(validations.problems)


def test_rates_that_end_before_a_validation_are_refused(tmp_path, capsys):
    arguments = [
        "--preset=rates",
        "--meta_updates=300",
        "--start_from=hierarchical_rnn_scaled",
        f"--output_dir={tmp_path / 'run'}",
    ]
    assert metatrain.main(["metatrain", *arguments]) == 2
    assert "nothing would be validated" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npz"))


def test_metatrain_goes_on_with_rates_alone(tmp_path, capsys):
    """The preset on problems with and without minibatches, resumed."""
    start = tmp_path / "start.npz"
    made = lopt_tf.HierarchicalRNN(
        level_sizes=(3,), step_unit="start", min_log_lr=-5.5, seed=1
    )
    made.save_pretrained(start)
    arguments = [
        "metatrain",
        "--preset=rates",
        f"--start_from={start}",
        f"--output_dir={tmp_path / 'run'}",
        "--problems=bowl_problems.0,everyday_network_problems.9",
        "--eval_every=4",
        "--eval_problems=bowl_problems.1",
        "--eval_steps=5",
        "--instances=2",
        "--segment_length=5",
        "--truncation=5",
        "--min_steps=5",
        "--max_steps=20",
    ]
    assert metatrain.main([*arguments, "--meta_updates=6"]) == 0
    told = capsys.readouterr().out
    resumed = [*arguments, "--meta_updates=8", "--resume"]
    more = "--problems=bowl_problems.0,everyday_network_problems.9,sum_problems"
    assert metatrain.main([*resumed, more]) == 2
    fewer = "alone: bowl_problems.0,everyday_network_problems.9"
    assert fewer in capsys.readouterr().err
    assert metatrain.main(resumed) == 0
    assert "skipped" not in capsys.readouterr().out
    before, after = (
        checkpointing.load(path, "lopt_tf.optimizer")[0]
        for path in (start, tmp_path / "run" / "optimizer.npz")
    )
    changed = {n for n in before if np.any(before[n] != after[n])}
    assert changed == {*presets.PRESETS["rates"].options.trained_weights}
    trained = pretrained.load_rule(tmp_path / "run" / "optimizer.npz").rule
    assert trained.min_log_lr == -8.5
    assert "min_log_lr=-8.5 in place of -5.5" in told


@pytest.mark.slow
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
