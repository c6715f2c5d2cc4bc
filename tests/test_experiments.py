"""Every experiment, end to end on tiny settings; stops, mistakes, reports."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from csv_rows import read_rows

import lopt_tf
from lopt_tf import compilation, metatraining
from lopt_tf.evaluation import (
    baselines,
    curves,
    experiment,
    experiments,
    plots,
    results,
    runs,
    training,
)
from lopt_tf.evaluation.experiments import (
    ablation,
    failures,
    learning_rates,
    long_runs,
    peers,
    wall_clock,
)
from lopt_tf.evaluation.folder import ExperimentFolder
from lopt_tf.metatraining import trainer
from lopt_tf.optimizers import pretrained
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from lopt_tf.optimizers.pretrained import TrainedRule
from lopt_tf.reporting import figures, report
from problems import corpus, text
from problems.quadratic import Quadratic
from train_scripts import command_line, evaluate

pytestmark = pytest.mark.usefixtures("own_signals")
TINY = ["--steps=40", "--seeds=2", "--tuning_seeds=1"]


def _losses(folder, optimizer, seed="0"):
    """The losses of a run, of an experiment on one problem."""
    return np.array(
        [
            float(row["loss"])
            for row in read_rows(folder / "curves.csv")
            if (row["optimizer"], row["seed"]) == (optimizer, seed)
        ]
    )


def _evaluate(experiment, folder, trained, *more):
    arguments = [f"--experiment={experiment}", f"--output_dir={folder}"]
    if trained:
        arguments.append(f"--optimizer={trained}")
    return evaluate.main(["evaluate", *arguments, *more])


class _Images(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.sources, self.links = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.sources.append(attributes["src"])
        if tag in ("link", "script", "a"):
            self.links.append(tag)


def _check_report(folder, plots):
    page = (folder / "report.html").read_text()
    images = _Images(page)
    # Self-contained: nothing is fetched from anywhere.
    assert not images.links and "http" not in re.sub('base64,[^"]*', "", page)
    assert len(images.sources) == plots
    for source in images.sources:
        assert source.startswith("data:image/png;base64,iVBOR")
    for word in ("tensorflow 2", "python 3", "evaluate --experiment"):
        assert word in page
    return page


@pytest.mark.slow
def test_training_set_twice(tmp_path, trained, capsys):
    """Tables, files and report; and the same command gives the same CSV."""
    problems = "--problems=bowl_problems.1,softmax_2_class_problems.0"
    for name in ("one", "two"):
        arguments = (*TINY, problems)
        folder = tmp_path / name
        assert _evaluate("training_set", folder, trained, *arguments) == 0
    printed = capsys.readouterr().out
    assert "runs done" in printed and "steps/s" in printed
    assert "min left" in printed
    one, two = tmp_path / "one", tmp_path / "two"
    files = sorted(file.name for file in one.glob("*.csv"))
    assert files == [
        "curves.csv",
        "overall.csv",
        "runs.csv",
        "summary.csv",
        "timings.csv",
        "tuning.csv",
    ]
    for name in files:
        if name != "timings.csv":
            assert (one / name).read_bytes() == (two / name).read_bytes()
    overall = read_rows(one / "overall.csv")
    assert [row["optimizer"] for row in overall] == [
        "learned",
        "adam",
        "adam_cosine",
        "rmsprop",
        "momentum",
    ]
    for row in overall:
        assert row["problems"] == "2" and row["runs"] == "4"
        assert 0 < float(row["speedup_low"]) <= float(row["speedup"]) <= 4
        assert 0 <= float(row["diverged"]) <= 1
    assert len(read_rows(one / "summary.csv")) == 10
    # Adam runs four times as long.
    assert len(read_rows(one / "curves.csv")) == 2 * 2 * 40 * (
        1 + 4 + 1 + 1 + 1
    )
    tuning = read_rows(one / "tuning.csv")
    chosen = [row for row in tuning if row["chosen"] == "True"]
    assert len(chosen) == 8
    for row in chosen:
        rates = [
            float(r["learning_rate"])
            for r in tuning
            if (r["problem"], r["optimizer"])
            == (row["problem"], row["optimizer"])
        ]
        inside = min(rates) < float(row["learning_rate"]) < max(rates)
        assert inside == (row["at_edge"] == "False")
    page = _check_report(one, plots=2)
    assert "--experiment=training_set" in page
    settings = {
        "problems": "bowl_problems.1, softmax_2_class_problems.0",
        "seed numbers of tuning": "(1, 0)",
        "seed numbers of comparison": "(2, 0), (2, 1)",
        "learning rates first": "half decades, 0.0001 to 0.3162",
        "learning rates at most": "1e-08 to 1000",
        "optimizer from": str(trained),
    }
    for name, value in settings.items():
        assert f'<th>{name}</th><td class="text">{value}</td>' in page


@pytest.mark.parametrize(
    "experiment, arguments",
    [
        (
            "training_set",
            [*TINY, "--problems=bowl_problems.1,quadratic_problems.0"],
        ),
        (
            "learning_rates",
            ["--steps=10", "--seeds=2", "--problems=bowl_problems.1"],
        ),
    ],
)
def test_stopped_anywhere_and_started_again(
    experiment, arguments, tmp_path, trained, monkeypatch
):
    """Interrupts before random runs: the same CSV, and nothing twice."""
    whole = tmp_path / "whole"
    calls = []
    run = runs.ParallelRuns.run

    def counted(self, *args, **kwargs):
        calls.append(None)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(runs.ParallelRuns, "run", counted)
    assert _evaluate(experiment, whole, trained, *arguments) == 0
    needed = len(calls)
    calls.clear()
    rng = np.random.default_rng()
    stops = sorted({int(n) for n in rng.integers(1, needed, 3)})

    def interrupted(self, *args, **kwargs):
        if stops and len(calls) == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return counted(self, *args, **kwargs)

    monkeypatch.setattr(runs.ParallelRuns, "run", interrupted)
    folder = tmp_path / "stopped"
    while stops:
        assert _evaluate(experiment, folder, trained, *arguments) == 130
        assert not (folder / "report.html").exists()
    assert _evaluate(experiment, folder, trained, *arguments) == 0
    assert len(calls) == needed
    for file in whole.glob("*.csv"):
        if file.name != "timings.csv":
            assert file.read_bytes() == (folder / file.name).read_bytes()
    # What is done is done.
    assert _evaluate(experiment, folder, trained, *arguments) == 0
    assert len(calls) == needed


def test_generalization(tmp_path, trained):
    problems = "--problems=batch_norm.0,wider.0"
    assert _evaluate("generalization", tmp_path, trained, *TINY, problems) == 0
    summary = read_rows(tmp_path / "summary.csv")
    assert {row["problem"] for row in summary} == {"batch_norm.0", "wider.0"}
    by_optimizer = {
        row["optimizer"]: row
        for row in summary
        if row["problem"] == "batch_norm.0"
    }
    # 40 steps at a tuned rate are enough to learn something.
    assert float(by_optimizer["adam"]["final_loss"]) < np.log(10)
    page = _check_report(tmp_path, plots=2)
    assert '<td class="text">batch_norm.0, wider.0</td>' in page


def test_learning_rates(tmp_path, trained):
    arguments = ("--steps=40", "--seeds=2", "--problems=bowl_problems.1")
    assert _evaluate("learning_rates", tmp_path, trained, *arguments) == 0
    rows = read_rows(tmp_path / "summary.csv")
    for optimizer in ("learned", "adam", "adam_cosine", "rmsprop"):
        own = [row for row in rows if row["optimizer"] == optimizer]
        rates = [float(row["learning_rate"]) for row in own]
        assert rates[0] == 1e-6 and rates[-1] == 1.0 and len(rates) == 13
        # The rate makes a difference, also where the learned one begins.
        assert len({row["final_loss"] for row in own}) > 6
    table = read_rows(tmp_path / "robustness.csv")
    assert len(table) == 4
    assert all(0 <= float(row["good_decades"]) <= 6.5 for row in table)
    _check_report(tmp_path, plots=1)


def test_ranges_of_good_rates():
    """From 10 to 1 at best: what ends at 1.9 or less is good."""
    finals = {
        "all": [1.0, 1.5, 1.75, 1.0, 1.0, 1.0, 1.0],
        "holes": [1.0, 3.0, 1.5, 1.8, 2.0, 1.0, np.inf],
        "none": [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, np.inf],
    }
    found = [
        curves.Curve(
            "p",
            name,
            10.0 ** (number / 2 - 6),
            seed,
            np.array([10.0] + [final] * 40),
        )
        for name, losses in finals.items()
        for number, final in enumerate(losses)
        for seed in range(2)
    ]
    rows = learning_rates._rows(found)
    assert len(rows) == 3 * 7 and rows[0]["first_loss"] == 10
    assert rows[13]["diverged"] == 1 and rows[12]["diverged"] == 0
    everything, holes, none = learning_rates._robustness(rows)
    assert everything["good_decades"] == pytest.approx(3.5)
    assert everything["diverged"] == 0 and everything["worst_loss"] == 1.75
    assert holes["good_rates"] == "4 of 7"
    assert holes["good_decades"] == pytest.approx(1)
    assert holes["diverged"] == pytest.approx(1 / 7)
    assert holes["best_rate"] == 1e-6 and holes["worst_loss"] == np.inf
    assert none["good_rates"] == "0 of 7" and none["good_decades"] == 0


@pytest.mark.slow
def test_ablation(tmp_path, monkeypatch):
    """All variants; stopped in the middle of a meta-training."""
    preset = experiments.settings("ablation", "quick")
    fields = {"train_problems": ("bowl_problems.0",), "tuning_seeds": 1}
    fields["variants"] = (*list(ablation.VARIANTS)[:4], "short_unrolls")
    presets = {"quick": type(preset)(**{**vars(preset), **fields})}
    monkeypatch.setattr(ablation, "PRESETS", presets)
    arguments = (
        "--meta_updates=3",
        "--steps=20",
        "--seeds=1",
        "--problems=bowl_problems.1",
    )
    assert _evaluate("ablation", tmp_path / "whole", None, *arguments) == 0
    step, calls = trainer.Trainer.step, []

    def interrupted(self):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(trainer.Trainer, "step", interrupted)
    folder = tmp_path / "stopped"
    assert _evaluate("ablation", folder, None, *arguments) == 130
    assert _evaluate("ablation", folder, None, *arguments) == 0
    made = [3, 3, 3, 3, 15]
    assert len(calls) == sum(made) + 1
    rows = read_rows(folder / "meta_training.csv")
    assert [int(row["meta_updates"]) for row in rows] == made
    for name in ("overall.csv", "curves.csv", "meta_training.csv"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert whole == (folder / name).read_bytes()
    rows = read_rows(folder / "overall.csv")
    assert [row["optimizer"] for row in rows] == [*fields["variants"], "adam"]
    page = _check_report(folder, plots=2)
    # Of both tables with intervals and the plot.
    assert page.count("Each variant was meta-trained once") == 3


def test_training_that_blows_up(tmp_path, monkeypatch):
    """It is given up, once, and tested with the weights it had."""
    calls = []

    def step(self):
        calls.append(None)
        raise FloatingPointError("not finite at all")

    monkeypatch.setattr(trainer.Trainer, "step", step)
    rule = HierarchicalRNNRule(level_sizes=(3,))
    said = []
    for _ in range(2):
        work = ExperimentFolder(tmp_path, {}, report=said.append)
        contender = training.train(
            work, "mine", rule, training.options(5), ["bowl_problems.0"]
        )
        work.close()
    assert len(calls) == 1
    work = ExperimentFolder(tmp_path, {}, report=said.append)
    row = training.progress_made(work, "mine", rule, training.options(5))
    work.close()
    assert row["meta_updates"] == 0
    assert any("given up (not finite at all)" in line for line in said)
    for name, array in rule.init_weights(0).items():
        np.testing.assert_array_equal(contender.weights[name], array)


def test_the_best_weights_are_taken(tmp_path):
    """Not the last ones; and the row tells what became of them."""
    rule = HierarchicalRNNRule(level_sizes=(3,))
    seen = []

    class Validation(metatraining.Validation):
        def __call__(self, rule, weights):
            seen.append(weights)
            # Earlier is better.
            return {"any": float(len(seen))}

    validate = Validation(corpus.select(["bowl_problems.0"]))
    settings, work = training.options(4), ExperimentFolder(tmp_path, {})
    contender = training.train(
        work, "mine", rule, settings, ["bowl_problems.0"], validate
    )
    assert len(seen) == 4
    for name, array in seen[0].items():
        np.testing.assert_array_equal(contender.weights[name], array)
    assert any(np.any(seen[0][name] != seen[-1][name]) for name in seen[0])
    row = training.progress_made(work, "mine", rule, settings, validate)
    work.close()
    assert row == {
        "optimizer": "mine",
        "meta_updates": 4,
        "meta_loss_before": 5,
        "meta_loss_best": 6,
        "meta_loss_after": 7,
    }
    drawn = rule.init_weights(settings.seed)
    for weights, wanted in zip(seen[4:], (drawn, seen[0], seen[3])):
        for name, array in wanted.items():
            np.testing.assert_array_equal(weights[name], array)


def test_ablated_variants_differ():
    """Each variant leaves out what its name says, and only that."""
    complete = ablation.VARIANTS["complete"][0]().get_config()
    differences = {
        name: {
            key
            for key, value in make().get_config().items()
            if value != complete[key]
        }
        | set(changes)
        for name, (make, changes) in ablation.VARIANTS.items()
    }
    assert differences == {
        "complete": set(),
        "no_attention": {"use_attention"},
        "one_time_scale": {"num_gradient_scales"},
        "no_input_scaling": set(),
        "no_relative_rate": {"use_relative_lr"},
        "no_log_objective": {"use_log_objective"},
        "short_unrolls": {"curriculum"},
        "two_levels": {"level_sizes"},
        "one_level": {"level_sizes"},
        "no_bound": {"max_log_lr"},
        "no_step_unit": {"step_unit"},
        "no_rest": {"rest_without_gradient"},
        "lower_bound": {"min_log_lr"},
    }
    # Without input scaling, gradients a thousand times as large matter.
    params, grads = [np.zeros((3,), "float32")], [np.ones((3,), "float32")]
    for name, expected in (("no_attention", True), ("no_input_scaling", False)):
        rule = ablation.VARIANTS[name][0]()
        weights = rule.init_weights(0)
        moved = [
            rule.step(
                weights,
                rule.init_state(weights, params, params),
                params,
                [scale * g for g in grads],
            )[1]["parameter_hidden"]
            for scale in (1.0, 1000.0)
        ]
        assert np.allclose(*moved, rtol=1e-4) == expected


def test_wall_clock(tmp_path, trained, monkeypatch):
    presets = {"quick": wall_clock.Settings(((2,),), (2, 4), 1)}
    monkeypatch.setattr(wall_clock, "PRESETS", presets)
    assert _evaluate("wall_clock", tmp_path, None) == 0
    rows = read_rows(tmp_path / "timings.csv")
    assert [row["batch"] for row in rows] == ["2", "4"]
    for row in rows:
        assert float(row["ratio"]) > 0
        # H0 = 10; the upper levels add little.
        formula = float(row["formula"])
        assert formula == pytest.approx(1 + 100 / int(row["batch"]), rel=0.1)
    memory = read_rows(tmp_path / "memory.csv")
    learned, adam = memory[:2]
    assert float(adam["bytes_per_parameter"]) == 8
    held = float(learned["bytes_per_parameter"])
    assert held == pytest.approx(float(learned["formula"]), rel=1e-6)
    assert 84 < held < 85
    _check_report(tmp_path, plots=1)


def test_long_runs(tmp_path, trained):
    arguments = ("--steps=1100", "--seeds=1", "--problems=bowl_problems.1")
    assert _evaluate("long_runs", tmp_path, trained, *arguments) == 0
    rows = read_rows(tmp_path / "summary.csv")
    adam = rows[1]
    assert adam["optimizer"] == "adam" and float(adam["ever_diverged"]) == 0
    # It learns, and has got there long before the end.
    first, last = _losses(tmp_path, "adam")[[0, -1]]
    assert last < 0.1 * first
    assert float(adam["loss_at_1100"]) < 0.1 * first
    assert [row["optimizer"] for row in rows[1:3]] == ["adam", "adam_cosine"]
    assert len(read_rows(tmp_path / "curves.csv")) == 5 * 1100
    _check_report(tmp_path, plots=1)


@pytest.mark.slow
def test_peers(tmp_path, trained):
    problems = "--problems=fully_connected.0"
    assert _evaluate("peers", tmp_path, trained, *TINY, problems) == 0
    rows = read_rows(tmp_path / "overall.csv")
    learned = ["learned", *pretrained.names("hierarchical_rnn")]
    assert [row["optimizer"] for row in rows] == [*learned, *peers.BASELINES]
    assert {row["steps"] for row in rows} == {"40"}
    for row in rows:
        assert float(row["spikes"]) >= 0
        # Each has learned something, but for the one without training.
        assert float(row["decades"]) > 0 or row["optimizer"] == "learned"
    (summary, *_) = read_rows(tmp_path / "summary.csv")
    assert summary["problem"] == "fully_connected.0, 40 steps"
    _check_report(tmp_path, plots=2)


def test_lengths_of_peers():
    full = experiments.settings("peers", "full")
    lengths = full.lengths()
    assert [steps for steps, _ in lengths] == [600, 2000, 10_000]
    for _, names in lengths:
        assert len(corpus.select(names)) == len(names)
    # Equal lengths are one.
    (first, _), *others = dataclasses.replace(full, steps=2000).lengths()
    assert first == 2000 and [steps for steps, _ in others] == [10_000]
    chosen = dataclasses.replace(full, problems=("wide.0",), steps=7)
    assert chosen.lengths() == [(7, ("wide.0",))]


def test_area_and_spikes():
    def curve(losses):
        return curves.Curve("p", "o", 1.0, 0, np.asarray(losses, float))

    assert peers.decades(curve([1.0] * 100)) == pytest.approx(0)
    assert peers.decades(curve([1.0] + [0.01] * 199)) > 1.9
    # Not finite, or zero: bad, or good, but a number.
    assert peers.decades(curve([1.0] * 20 + [np.nan] * 400)) < -5
    assert 10 < peers.decades(curve([1.0] + [0.0] * 9999)) < 12
    assert peers.spikes(curve(np.linspace(2, 1, 100))) == 0
    steady, spike = [1.0] * 20, [30.0] * 20
    assert peers.spikes(curve(steady + spike + steady + spike)) == 2
    assert peers.spikes(curve(steady + [9.0] * 20 + steady)) == 0


def test_rows_of_long_runs():
    """Improves, stalls, or blows up in the last half: told apart."""
    falls = np.linspace(200.0, 1, 200)
    stalls = np.concatenate([falls[:80], np.full(120, 121.0)])
    blows_up = np.concatenate([falls[:180], np.full(20, np.inf)])
    found = [
        curves.Curve("p", name, 1.0, seed, losses)
        for name, *own in (("good", falls, falls), ("bad", stalls, blows_up))
        for seed, losses in enumerate(own)
    ]
    good, bad = long_runs._rows(found, 200)
    # The last 20 of steps 81 .. 100 and 181 .. 200.
    assert good["loss_at_100"] == pytest.approx(110.5)
    assert good["loss_at_200"] == good["final_loss"] == pytest.approx(10.5)
    assert good["improves_in_last_half"] == 1 and good["ever_diverged"] == 0
    assert bad["loss_at_200"] == pytest.approx((121 + 30.5) / 2)
    assert bad["final_loss"] == np.inf and bad["ever_diverged"] == 0.5
    assert bad["improves_in_last_half"] == 0.5


def test_ever_diverged():
    falling = np.linspace(2, 1, 100)
    assert not long_runs._ever_diverged(falling)
    assert not long_runs._ever_diverged(-falling[::-1])
    blown_up = falling.copy()
    blown_up[3:] = np.inf
    assert long_runs._ever_diverged(blown_up)
    # It came back; one value does not count, many do.
    assert not long_runs._ever_diverged([2.0] * 50 + [5.0] + [2.0] * 50)
    assert long_runs._ever_diverged([2.0] + [5.0] * 30 + [1.0] * 70)
    assert long_runs._ever_diverged([2.0] * 50 + [np.nan] + [2.0] * 50)
    huge = np.full(100, 3e38, "float32")
    assert not long_runs._ever_diverged(huge)


def test_progress_beyond_the_horizon():
    falls = np.linspace(100.0, 1, 100)
    stays = np.concatenate([falls[:50], np.full(50, 60.0)])
    blows_up = np.concatenate([falls[:80], np.full(20, 1e3)])
    dips = np.concatenate([falls[:80], np.full(20, 95.0)])
    found = [
        curves.Curve("p", name, 1.0, seed, losses)
        for name, *runs in (
            ("both", falls, falls),
            ("half", falls, blows_up),
            ("neither", dips, stays),
        )
        for seed, losses in enumerate(runs)
    ]
    both, half, neither = failures._beyond(found, 50)
    # The last means are those of steps 31 .. 50 and 81 .. 100.
    assert both["loss_at_horizon"] == pytest.approx(60.5)
    assert both["loss_at_end"] == pytest.approx(10.5)
    assert both["still_improves"] == 1 and both["diverged"] == 0
    assert half["loss_at_end"] == pytest.approx((10.5 + 1000) / 2)
    assert half["still_improves"] == 0.5 and half["diverged"] == 0.5
    assert neither["still_improves"] == 0 and neither["diverged"] == 0


def test_failures_show_a_problem_of_the_meta_training():
    quick = experiments.settings("failures", "quick")
    assert set(quick.problems) & set(quick.train_problems)


def test_failures_need_steps_beyond_the_horizon(tmp_path, capsys):
    assert _evaluate("failures", tmp_path, None, "--steps=500") == 2
    assert "follows step 500" in capsys.readouterr().err


@pytest.mark.slow
def test_failures(tmp_path, trained, monkeypatch):
    preset = experiments.settings("failures", "quick")
    short = dataclasses.replace(preset, horizon=30)
    monkeypatch.setattr(failures, "PRESETS", {"quick": short})
    arguments = ("--meta_updates=2", *TINY, "--problems=bowl_problems.3")
    assert _evaluate("failures", tmp_path, trained, *arguments) == 0
    names = [row["optimizer"] for row in read_rows(tmp_path / "overall.csv")]
    assert names[:4] == [*failures._RULES, "learned"]
    rows = read_rows(tmp_path / "beyond_horizon.csv")
    assert len(rows) == 8
    rows = read_rows(tmp_path / "meta_training.csv")
    assert [row["optimizer"] for row in rows] == names[:3]
    for row in rows:
        assert row["meta_updates"] == "2"
        assert row["meta_loss_before"] != row["meta_loss_after"]
    _check_report(tmp_path, plots=2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--experiment=guess"], "training_set|generalization"),
        (["--experiment="], "should be one of"),
        (["--preset=guess"], "quick|full"),
        (["--optimizer=nowhere.npz"], "no file nowhere.npz"),
        (["--optimizer=nothing"], "no pretrained weights"),
        (["--output_dir="], "--output_dir must be given"),
        (["--problems=widr"], "Did you mean 'wider'"),
        (["--problems=nothing"], "Known sets: default"),
        (["--problems=wider.7"], "wider.0 to wider.1"),
        (["--epochs=3"], "has no setting 'epochs'"),
        (["--steps=0"], "--steps"),
        (["--experiment=ablation"], "takes no --optimizer"),
        (
            ["--experiment=ablation", "--optimizer=", "--variants=guess"],
            "--optimizer is empty",
        ),
        (["--problems=mnist_convnet", "--data_dir=no"], "tfds build mnist"),
        (["--problems=wider", "--data_dir=no"], "`data_dir` has no effect"),
        (["--problems=widr", "--data_dir=no"], "Did you mean 'wider'"),
        (["--data_dir=no"], "tfds build mnist"),
    ],
)
def test_mistakes(arguments, message, tmp_path, trained, capsys):
    out = tmp_path / "out"
    status = _evaluate("generalization", out, trained, *arguments)
    assert status == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_unknown_variants(tmp_path, capsys):
    out = tmp_path / "out"
    assert _evaluate("ablation", out, None, "--variants=guess") == 2
    assert "Known: complete" in capsys.readouterr().err


def test_without_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lopt_tf.optimizers.pretrained.names", lambda *_: [])
    assert _evaluate("training_set", tmp_path / "out", None) == 2
    assert "train_scripts.metatrain" in capsys.readouterr().err


def test_every_set_can_be_evaluated(tmp_path, trained):
    """The sets that the release does not have, too."""
    few = ("--steps=20", "--seeds=1", "--tuning_seeds=1")
    chosen = "--problems=wide_classifier_problems.0"
    assert _evaluate("problems", tmp_path, trained, *few, chosen) == 0
    rows = read_rows(tmp_path / "summary.csv")
    assert {row["problem"] for row in rows} == {"wide_classifier_problems.0"}


def test_learning_rates_need_learning_rates(tmp_path, capsys):
    path = tmp_path / "adam.npz"
    lopt_tf.LearnedAdam(seed=1).save_pretrained(path)
    assert _evaluate("learning_rates", tmp_path / "out", path) == 2
    assert "nothing to vary" in capsys.readouterr().err


def test_folder_of_other_settings(tmp_path, trained, capsys):
    arguments = (*TINY, "--problems=bowl_problems.1")
    assert _evaluate("training_set", tmp_path, trained, *arguments) == 0
    for more in ("--seeds=3", "--problems=bowl_problems.2", "--steps=41"):
        assert (
            _evaluate("training_set", tmp_path, trained, *arguments, more) == 2
        )
        assert "results of other settings" in capsys.readouterr().err
    other = tmp_path / "other.npz"
    lopt_tf.HierarchicalRNN(level_sizes=(3,), seed=2).save_pretrained(other)
    assert _evaluate("training_set", tmp_path, other, *arguments) == 2
    assert "optimizer: saved" in capsys.readouterr().err
    # Written when there were other baselines, or none in the settings.
    path = tmp_path / "settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("baselines") == list(baselines.USUAL)
    path.write_text(json.dumps(settings))
    assert _evaluate("training_set", tmp_path, trained, *arguments) == 2
    error = capsys.readouterr().err
    assert "baselines: saved None" in error and "Name another" in error


@pytest.mark.parametrize(
    "experiment, wrong, right",
    [
        ("training_set", "bowl_problem.1", "bowl_problems.1"),
        ("learning_rates", "fully_conected.0", "bowl_problems.1"),
    ],
)
def test_a_mistake_can_be_corrected(
    experiment, wrong, right, tmp_path, trained, capsys
):
    arguments = ["--steps=3", "--seeds=1"]
    for problems, status in ((wrong, 2), (right, 0)):
        more = (*arguments, f"--problems={problems}")
        assert _evaluate(experiment, tmp_path, trained, *more) == status
        assert (tmp_path / "settings.json").exists() == (status == 0)
    assert _evaluate(experiment, tmp_path, trained, *more, "--steps=4") == 2
    assert "results of other settings" in capsys.readouterr().err


def test_a_refused_folder_is_free_again(tmp_path):
    kept = ExperimentFolder(tmp_path, {"a": 1})
    kept.keep("x", {})
    kept.close()
    with pytest.raises(ValueError, match="other settings") as refused:
        ExperimentFolder(tmp_path, {"a": 2})
    # Its frame is still there, as where a caller looks at the error.
    assert refused.value.__traceback__
    ExperimentFolder(tmp_path, {"a": 1}).close()


def test_damaged_results(tmp_path, trained, capsys):
    arguments = (*TINY, "--problems=bowl_problems.1")
    assert _evaluate("training_set", tmp_path, trained, *arguments) == 0
    before = (tmp_path / "curves.csv").read_bytes()
    part = tmp_path / "parts" / "bowl_problems.1" / "learned.npz"
    part.write_bytes(part.read_bytes()[:-30])
    assert _evaluate("training_set", tmp_path, trained, *arguments) == 2
    error = capsys.readouterr().err
    assert "is damaged" in error and "Delete it" in error
    part.unlink()
    assert _evaluate("training_set", tmp_path, trained, *arguments) == 0
    assert (tmp_path / "curves.csv").read_bytes() == before
    (tmp_path / "settings.json").write_text("{")
    assert _evaluate("training_set", tmp_path, trained, *arguments) == 2
    assert "settings.json is damaged" in capsys.readouterr().err


def test_one_process_at_a_time(tmp_path):
    first = ExperimentFolder(tmp_path, {"a": 1})
    with pytest.raises(ValueError, match="Another process"):
        ExperimentFolder(tmp_path, {"a": 1})
    first.close()
    ExperimentFolder(tmp_path, {"a": 1}).close()


def test_store_knows_its_settings(tmp_path):
    kept = ExperimentFolder(tmp_path, {"a": 1})
    assert not kept.has("x/y")
    kept.keep("x/y", {"n": np.arange(3)})
    assert kept.has("x/y")
    assert kept.load("x/y")["n"].tolist() == [0, 1, 2]
    kept.close()
    (tmp_path / "settings.json").unlink()
    other = ExperimentFolder(tmp_path, {"a": 2})
    with pytest.raises(ValueError, match="made with other settings"):
        other.load("x/y")
    other.close()


def test_no_room_for_programs(tmp_path, trained, monkeypatch):
    """The command goes on in a new process, with the same arguments."""
    monkeypatch.setattr(compilation, "maps_left", lambda: 100)
    started = []
    monkeypatch.setattr("os.execv", lambda *args: started.append(args))
    arguments = ["--experiment=training_set", f"--output_dir={tmp_path}"]
    arguments.append(f"--optimizer={trained}")
    evaluate.main(["evaluate", *arguments])
    ((_, command),) = started
    assert command[3:] == arguments
    assert command_line.Restart("why").arguments == ("--resume",)


def test_every_experiment_is_known():
    assert evaluate.EXPERIMENTS == experiments.NAMES
    for name in experiments.NAMES:
        module = experiments.find(name)
        assert set(module.PRESETS) == {"quick", "full"}
        assert module.TITLE and module.QUESTION and module.run
        assert module.LEARNED in ("required", "optional", "never")
        assert name in evaluate.__doc__
    with pytest.raises(ValueError, match="Known: training_set"):
        experiments.find("guess")
    with pytest.raises(ValueError, match="Known: quick, full"):
        experiments.settings("digits", "guess")


def test_quick_presets_take_one_problem_of_each_set():
    names = experiments.settings("training_set", "quick").problems
    sets = [name.partition(".")[0] for name in names]
    assert len(sets) == len(set(sets)) == 18
    assert experiments.settings("generalization", "quick").one_of_each


# Networks.


@pytest.mark.parametrize(
    "name",
    [
        "residual.0",
        "recurrent.0",
        "transformer.0",
        "wide.0",
        "regression_stored_smaller.1",
    ],
)
def test_networks_learn(name):
    """Together and alone, runs are the same; and they learn."""
    ((_, problem),) = corpus.select([name]).items()
    rule = baselines.AdamRule()
    parallel = runs.ParallelRuns(problem, rule, 2)
    weights = runs.repeated({"learning_rate": [[0.003]]}, 2)
    losses = parallel.run(weights, [0, 1], (5,), 50)
    assert losses.shape == (50, 2)
    assert np.all(losses[-10:].mean(0) < losses[:5].mean(0))
    assert losses[0, 0] != losses[0, 1]
    same = parallel.run(weights, [1, 1], (5,), 50)
    np.testing.assert_allclose(same[:, 0], losses[:, 1], rtol=1e-3)


def test_text():
    inputs, following = text.windows(8)
    assert inputs.shape == following.shape
    np.testing.assert_array_equal(inputs[:, 1:], following[:, :-1])
    assert following.max() < len(text.VOCABULARY)
    first = "".join(text.VOCABULARY[i] for i in text.standard_library()[:200])
    assert "Command-line parsing library" in first


def test_no_text(monkeypatch, tmp_path):
    text.standard_library.cache_clear()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="Leave the text problems out"):
        text.windows(8)


# Runs side by side.


def test_losses_of_attending_rules_are_those_of_true_parameters():
    """The first loss is the start's; the attended point's would not be."""
    problem = Quadratic(5)
    rule = HierarchicalRNNRule(level_sizes=(3,), use_attention=True)
    weights = rule.init_weights(0)
    plain = HierarchicalRNNRule(level_sizes=(3,))
    ours = runs.ParallelRuns(problem, rule, 2).run(
        runs.repeated(weights, 2), [0, 1], (1,), 30
    )
    start = runs.ParallelRuns(problem, plain, 2).run(
        runs.repeated(plain.init_weights(0), 2), [0, 1], (1,), 1
    )
    np.testing.assert_allclose(ours[0], start[0], rtol=1e-5)
    assert np.all(np.isfinite(ours))


# The report.


def test_report_escapes_and_marks(tmp_path):
    rows = [
        {
            "problem": "<script>",
            "optimizer": "learned",
            "loss": float("inf"),
            "at_edge": True,
        },
        {"problem": "p", "optimizer": "adam", "loss": 1.0, "at_edge": False},
    ]
    columns = {"loss": "of <b>", "absent": "not shown"}
    table = report.Table("t", "T & T", rows, columns=columns)
    about = report.About("title", "why?", {"seed": 3, "list": [1, (2, 3)]})
    report.write(tmp_path, [table], [], about)
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "∞" in page and "T &amp; T" in page
    assert page.count('class="marked"') == 1
    assert page.count('<tr class="learned">') == 1
    assert "1, 2, 3" in page
    assert "<h3>Columns</h3>" in page and "not shown" not in page
    assert "<dt>loss</dt><dd>of &lt;b&gt;</dd>" in page
    assert (tmp_path / "t.csv").read_text().startswith("problem,optimizer,")


def test_blown_up_runs_are_counted_and_drawn(tmp_path):
    good = np.linspace(2, 1, 160)
    bad = np.where(np.arange(40) < 30, good[:40], np.inf)
    found = [
        curves.Curve("p", "adam", 0.1, 0, good[:40], extension=good[40:]),
        curves.Curve("p", "learned", 1.0, 0, bad),
    ]
    outcome = results.comparison_outcome(found, [], "title")
    adam, learned = outcome.tables[0].rows
    assert adam["speedup"] == 1 and adam["diverged"] == 0
    assert learned["diverged"] == 1
    # It had reached the mean of steps 11 .. 30 before.
    assert learned["speedup"] == pytest.approx(30 / 40)
    about = report.About("t", "q", {})
    results.write(tmp_path, outcome, about)
    assert read_rows(tmp_path / "curves.csv")[-1]["loss"] == "inf"
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_shares_of_problems_at_or_below_a_baseline():
    # Final losses of two seeds, all from a start of 10: on the first problem
    # better in the mean only, on the second worse by a rounding error, on the
    # third by more, on the last blown up.
    finals = {
        "p1": {"learned": (1.0, 2.0), "adam": (1.9, 1.9), "rmsprop": (1, 1)},
        "p2": {"learned": (5e-6, 0), "adam": (0, 0), "rmsprop": (1, 1)},
        "p3": {"learned": (5e-5, 0), "adam": (0, 0), "rmsprop": (0, 0)},
        "p4": {"learned": (np.inf, 0), "adam": (9, 9), "rmsprop": (9, 9)},
    }
    found = [
        curves.Curve(problem, name, 1.0, seed, np.array([10.0, *[final] * 20]))
        for problem, optimizers in finals.items()
        for name, pair in optimizers.items()
        for seed, final in enumerate(pair)
    ]
    learned, adam, _ = results.overall(found)
    assert learned["at_or_below_adam"] == 2 / 4
    assert learned["at_or_below_adam_exactly"] == 1 / 4
    assert learned["at_or_below_rmsprop"] == 1 / 4
    assert adam["at_or_below_adam"] == adam["at_or_below_adam_exactly"] == 1
    # Nobody is at or below anybody by having blown up, too.
    diverged = [
        curves.Curve("p", name, 1.0, 0, np.full(30, np.inf))
        for name in ("learned", "adam")
    ]
    assert results.overall(diverged)[0]["at_or_below_adam"] == 0
    alone = [c for c in found if c.optimizer != "rmsprop"]
    assert "at_or_below_rmsprop" not in results.overall(alone)[0]
    for curve in found:
        if curve.optimizer == "rmsprop":
            curve.optimizer = "adam_cosine"
    cosine = results.overall(found)[0]
    assert cosine["at_or_below_adam_cosine"] == 1 / 4
    assert cosine["at_or_below_adam_cosine_exactly"] == 1 / 4
    assert cosine["at_or_below_adam"] == 2 / 4
    # Each column of a share is explained.
    shares = {name for name in cosine if name.startswith("at_or_below")}
    assert len(shares) == 4 and shares <= set(results.SUMMARY_COLUMNS)


def test_one_run_that_blows_up_leaves_the_median(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, _: drawn.append(figure))
    rows = [np.full(60, level) for level in (1.0, 2.0, 3.0)]
    rows[2][30:] = np.inf
    found = [
        curves.Curve("p", "learned", 1.0, seed, losses)
        for seed, losses in enumerate(rows)
    ]
    plots.plot_curves(tmp_path / "curves.png", found, "title")
    (figure,) = drawn
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), 2)


def test_fingerprints():
    rule = HierarchicalRNNRule(level_sizes=(3,))
    one, two = (
        experiment.fingerprint(TrainedRule(rule, rule.init_weights(seed)))
        for seed in (0, 1)
    )
    assert one.startswith("hierarchical_rnn ") and one != two


def test_settings_are_readable(tmp_path, trained):
    arguments = (*TINY, "--problems=bowl_problems.1")
    assert _evaluate("problems", tmp_path, trained, *arguments) == 0
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["experiment"] == "problems" and settings["seeds"] == 2
    assert settings["versions"]["lopt_tf"] == lopt_tf.__version__
    rows = read_rows(tmp_path / "overall.csv")
    assert [row["optimizer"] for row in rows[:2]] == ["learned", "untrained"]
