"""The evaluation: fair baselines, honest figures."""

import csv
import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import lopt_tf
from lopt_tf.evaluation import (
    baselines,
    bootstrap,
    comparison,
    curves,
    keras_training,
    plots,
    results,
    runs,
    speedup,
    tuning,
)
from lopt_tf.evaluation.experiments import digits, failures, learning_rates
from lopt_tf.evaluation.folder import ExperimentFolder
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from lopt_tf.optimizers.pretrained import TrainedRule
from lopt_tf.reporting import tables
from problems.quadratic import Quadratic
from problems.wrappers import Reparameterized


@pytest.mark.parametrize(
    "rule, optimizer",
    [
        (baselines.AdamRule(), keras.optimizers.Adam(0.05)),
        (
            baselines.AdamCosineRule(20),
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(0.05, decay_steps=20)
            ),
        ),
        (
            baselines.AdamCosineRule(12),
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(0.05, decay_steps=12)
            ),
        ),
        (baselines.RMSPropRule(), keras.optimizers.RMSprop(0.05)),
        (baselines.MomentumRule(), keras.optimizers.SGD(0.05, momentum=0.9)),
        (baselines.AdamWRule(), keras.optimizers.AdamW(0.05)),
        (baselines.LionRule(), keras.optimizers.Lion(0.05)),
        (baselines.MuonRule(), keras.optimizers.Muon(0.05)),
    ],
    ids=[
        "adam",
        "adam_cosine",
        "adam_cosine_ended",
        "rmsprop",
        "momentum",
        "adamw",
        "lion",
        "muon",
    ],
)
def test_baselines_are_keras_optimizers(rule, optimizer):
    rng = np.random.default_rng(0)
    shapes = [(3, 2), (4,)]
    params = [rng.normal(size=s).astype("float32") for s in shapes]
    variables = [keras.Variable(p) for p in params]
    weights = {"learning_rate": np.full((1, 1), 0.05, "float32")}
    state = rule.init_state(weights, params, None)
    for step in range(20):
        grads = [
            (rng.normal(size=s) * 10.0 ** (step % 5 - 3)).astype("float32")
            for s in shapes
        ]
        params, state = rule.step(weights, state, params, grads)
        optimizer.apply([tf.constant(g) for g in grads], variables)
    for ours, variable in zip(params, variables):
        np.testing.assert_allclose(ours, variable, rtol=1e-4, atol=1e-6)


def _curve(losses, optimizer="adam", seed=0, rate=0.1, **metrics):
    return curves.Curve("p", optimizer, rate, seed, np.array(losses), metrics)


def test_what_curves_boil_down_to():
    falling = _curve(np.linspace(100, 1, 100))
    assert falling.final_loss == pytest.approx(np.mean(np.arange(1, 21)))
    assert not falling.diverged
    # The mean of steps 31 .. 50 is 60.5.
    assert falling.steps_to(60.5) == 50
    assert falling.steps_to(0.5) is None
    assert _curve([1.0] * 30 + [np.nan]).final_loss == np.inf
    assert _curve([1.0] * 30 + [np.nan]).diverged
    assert _curve(np.linspace(1, 5, 100)).diverged


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 2 + [np.inf] * 98,
        [np.nan] * 100,
        # Within the steps that it would be measured by.
        [2.45] + [5.49] * 99,
        # Sums of which are more than float32 holds.
        np.array([1.0] + [3e38] * 99, "float32"),
        [-2.0] + [-1.0] * 99,
    ],
)
def test_early_divergence(losses):
    assert _curve(losses).diverged


def test_what_is_no_divergence():
    assert not _curve([2.3, 100.0] + [2.4] * 98).diverged
    assert not _curve([-2.0] + [-2.1] * 99).diverged
    assert not _curve(np.full(100, 3e38, "float32")).diverged


def test_summary():
    runs = [
        _curve(np.linspace(100, 1, 100), seed=0, accuracy=0.5),
        _curve(np.linspace(100, 1, 100), seed=1, accuracy=0.7),
        _curve(np.linspace(50, 1, 100), "learned", 0, accuracy=0.9),
        _curve(np.linspace(100, 90, 100), "learned", 1, accuracy=0.9),
    ]
    adam, learned = digits.summary(runs)
    assert adam["accuracy"] == pytest.approx(0.6)
    assert adam["steps_to_adam"] == 100
    assert learned["seeds"] == 2
    assert learned["steps_to_adam"] == np.inf
    table = tables.format_table([adam, learned])
    assert table.splitlines()[0].startswith("problem  optimizer")


def test_diverged_is_a_share_in_all_tables():
    runs = [
        _curve([1.0] + [9.0] * 30, optimizer, seed)
        for optimizer in ("adam", "learned")
        for seed in range(4)
    ]
    runs[0].losses[:] = 0.5
    for rows in (
        digits.summary(runs),
        results.by_problem(runs),
        results.overall(runs),
        learning_rates._rows(runs),
        failures._beyond(runs, 10),
    ):
        assert [row["diverged"] for row in rows] == [0.75, 1.0]


def test_baselines_side_by_side_are_the_same():
    # Two steps fewer than are taken.
    names = ("adam", "adam_cosine", "rmsprop", "momentum", "adamw", "muon")
    together = baselines.SideBySide(6, names)
    shape = (7, 3, 5)
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=shape).astype("float32") for _ in range(8)]
    # A run that blows up leaves the others alone.
    is_last = np.arange(7)[:, None, None] == 6
    grads = [np.where(is_last, np.inf, g) for g in grads]
    choices = [("momentum", 0.1), ("adam", 0.2), ("rmsprop", 0.3)]
    choices += [("adam_cosine", 0.4), ("adamw", 0.5), ("muon", 0.6)]
    weights = together.weights([*choices, ("adam", 0.1)])
    params = [np.ones(shape, "float32")]
    state = together.init_state(weights, params, None)
    for gradient in grads:
        params, state = together.step(weights, state, params, [gradient])
    for row, (name, rate) in enumerate(choices):
        rule = baselines.BASELINES[name].for_run(6)
        own = {"learning_rate": np.full((1, 1), rate, "float32")}
        alone = [np.ones(shape[1:], "float32")]
        state = rule.init_state(own, alone, None)
        for gradient in grads:
            alone, state = rule.step(own, state, alone, [gradient[row]])
        np.testing.assert_allclose(
            params[0][row], alone[0], rtol=1e-5, atol=2e-6
        )


# Speed-up.


def test_speedup_by_hand():
    """Adam falls by 1 a step from 400, the other by 2 a step."""
    adam = np.arange(400.0, 0, -1)
    fast = np.arange(400.0, 200, -2)
    # At step 100 its last 20 losses are 240 .. 202, their mean is 221: the
    # mean of Adam's losses of steps 170.5 .. 189.5; reached at step 190.
    assert speedup.reached(fast) == 221
    assert speedup.speedup(fast, adam) == speedup.Speedup(1.9, False)
    assert speedup.speedup(adam[:100], adam).value == 1
    # Slower: after 100 steps where Adam is after 60 (mean of 360 .. 341).
    slow = np.full(100, 350.5)
    assert speedup.speedup(slow, adam) == speedup.Speedup(0.6, False)
    # Never reached.
    best = np.full(100, 0.1)
    assert speedup.speedup(best, adam) == speedup.Speedup(4, True)
    # Nothing reached at all.
    lost = np.full(100, np.nan)
    assert speedup.speedup(lost, adam) == speedup.Speedup(0.2, False)
    # Runs shorter than the 20 steps of a mean.
    assert speedup.speedup(adam[:8], adam[:32]) == speedup.Speedup(1, False)
    assert speedup.speedup(fast[:8], adam[:32]).value == pytest.approx(12 / 8)


def test_running_minimum():
    losses = np.array([3.0] * 20 + [1.0] * 20 + [9.0] * 20)
    minimum = speedup.running_minimum(losses)
    assert len(minimum) == 41
    assert minimum[0] == 3 and minimum[20] == 1 and minimum[-1] == 1
    assert minimum[10] == pytest.approx(2)
    # One that is not finite spoils the means it is in, no others.
    losses[25] = np.nan
    assert speedup.running_minimum(losses)[5] == pytest.approx(2.5)
    assert speedup.running_minimum(losses)[-1] == pytest.approx(2.5)
    assert speedup.reached([4.0, 2.0]) == 3
    # Exact also after huge losses.
    assert speedup.reached([1e30] * 20 + [1.0] * 20) == 1


def test_bootstrap():
    assert bootstrap.geometric_mean([[1, 4], [8]]) == pytest.approx(4)
    rng = np.random.default_rng(0)
    groups = [np.exp(rng.normal(0.5, 0.3, 30)) for _ in range(4)]
    low, high = bootstrap.interval(groups)
    mean = bootstrap.geometric_mean(groups)
    assert low < mean < high
    # The mean of 120 logarithms has standard deviation 0.3 / sqrt(120).
    expected = 2 * 1.96 * 0.3 / np.sqrt(120)
    assert np.log(high / low) == pytest.approx(expected, rel=0.2)
    assert bootstrap.interval(groups) == (low, high)
    assert bootstrap.interval([[2.0], [8.0]]) == pytest.approx(
        (np.nan, np.nan), nan_ok=True
    )
    low, high = bootstrap.interval([[2.0], [8.0, 9.0]])
    assert 4 - 1e-9 < low < high < np.sqrt(18) + 1e-9
    columns = speedup.combined(
        [[speedup.Speedup(4, True), speedup.Speedup(1, False)]]
    )
    assert columns["speedup"] == 2 and columns["never_reached"] == 0.5


def test_noise_has_the_problems_own_unit():
    """Descent in another unit, with the step that belongs to it."""
    problem = Quadratic(4, noise_stdev=1.0)
    alpha = 0.01
    ends = []
    for each, unit in (
        (problem, 1.0),
        (Reparameterized(problem, (alpha, alpha)), alpha),
    ):
        rate = np.full((4, 1, 1), 1e-3 / unit**2, "float32")
        made = runs.ParallelRuns(each, baselines.MomentumRule(), 4)
        losses = made.run({"learning_rate": rate}, list(range(4)), (1,), 200)
        ends.append(losses[-50:].mean())
    assert ends[1] < 20 * ends[0]


def test_nothing_reaches_an_adam_that_diverged():
    found = [
        _curve([1.0] * 30 + [np.nan]),
        _curve([1.0] * 31, optimizer="learned"),
    ]
    found = [dataclasses.replace(c, metrics={"x": 1.0}) for c in found]
    for row in digits.summary(found):
        assert row["steps_to_adam"] == np.inf


# Tuning.


def _search(scores, **kwargs):
    """Searches where rate 10^(n/2) of an optimizer scores scores[name](n)."""
    asked = {name: [] for name in scores}

    def run(rates):
        for name, chosen in rates.items():
            asked[name] += chosen
        return {
            name: {r: [scores[name](2 * np.log10(r))] * 2 for r in chosen}
            for name, chosen in rates.items()
        }

    choices = tuning.search(run, list(scores), **kwargs)
    for name, choice in choices.items():
        # Nothing is tried twice, everything tried is reported.
        assert sorted(asked[name]) == list(choice.scores)
    return choices


def test_grid_grows_until_the_best_is_inside():
    choices = _search(
        {
            "inside": lambda n: abs(n + 4),
            "below": lambda n: abs(n + 13),
            "above": lambda n: abs(n - 3),
        }
    )
    assert choices["inside"].learning_rate == 0.01
    assert list(choices["inside"].scores)[0] == 1e-4
    assert len(choices["inside"].scores) == 8
    assert choices["below"].learning_rate == tuning.rate(-13) == 3.162e-7
    assert choices["above"].learning_rate == tuning.rate(3) == 31.62
    assert not any(choice.at_edge for choice in choices.values())


def test_grid_ends_at_its_bounds():
    choices = _search({"low": lambda n: n, "high": lambda n: -n}, chunk=3)
    assert choices["low"].learning_rate == 1e-8
    assert choices["high"].learning_rate == 1e3
    assert choices["low"].at_edge and choices["high"].at_edge


def test_grid_where_runs_blow_up():
    choices = _search(
        {
            "above": lambda n: np.nan if n > -5 else -n,
            "all": lambda n: np.inf,
            "equal": lambda n: 1.0,
        }
    )
    assert choices["above"].learning_rate == tuning.rate(-5)
    assert not choices["above"].at_edge
    assert choices["all"].learning_rate == 1e-8 and choices["all"].at_edge
    assert not choices["equal"].at_edge


def test_files(tmp_path):
    runs = [
        _curve([3.0, 2.0, 1.0]),
        _curve([3.0, np.nan, 2.0], "learned"),
    ]
    curves.write_curves(tmp_path / "curves.csv", runs)
    with open(tmp_path / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[2] == {
        "problem": "p",
        "optimizer": "adam",
        "learning_rate": "0.1",
        "seed": "0",
        "step": "3",
        "loss": "1",
    }
    plots.plot_curves(tmp_path / "curves.png", runs, "title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_comparison(tmp_path):
    rule = HierarchicalRNNRule(level_sizes=(3,))
    learned = TrainedRule(rule, rule.init_weights(0))
    said = []
    work = ExperimentFolder(tmp_path, {}, report=said.append)
    found, tuned = comparison.compare(
        work,
        {"quadratic": Quadratic(4)},
        {"learned": learned},
        comparison.Settings(None, steps=60, seeds=3, tuning_seeds=2),
    )
    work.close()
    assert len(found) == 15
    assert all(len(c.losses) == 60 for c in found)
    assert {len(c.all_losses) for c in found if c.optimizer == "adam"} == {240}
    finals = {
        name: np.mean([c.final_loss for c in found if c.optimizer == name])
        for name in ("learned", *baselines.USUAL)
    }
    assert list(finals)[1:] == ["adam", "adam_cosine", "rmsprop", "momentum"]
    for name in baselines.USUAL:
        assert finals[name] < 0.5 * finals["learned"]
    # All begin at the same points, which differ from seed to seed.
    firsts = {c.seed: set() for c in found}
    for curve in found:
        firsts[curve.seed].add(round(float(curve.losses[0]), 3))
    assert [len(values) for values in firsts.values()] == [1, 1, 1]
    assert len(set.union(*firsts.values())) == 3
    # The best of what was tried, and not at an edge.
    for name in baselines.USUAL:
        own = [row for row in tuned if row["optimizer"] == name]
        best = min(own, key=lambda row: row["mean_final_loss"])
        assert best["chosen"] and sum(row["chosen"] for row in own) == 1
        assert best not in (own[0], own[-1]) and not best["at_edge"]
    assert re.match(r".*: \d+/\d+ runs done, .* steps/s, .* min left", said[0])
    done, planned = re.search(r"(\d+)/(\d+) runs", said[-1]).groups()
    assert done == planned


def test_cosine_falls_over_the_steps_of_every_run(tmp_path):
    """In tuning and comparison, also where Adam runs for longer."""
    problem, steps = Quadratic(4), 60
    work = ExperimentFolder(tmp_path, {})
    found, tuned = comparison.compare(
        work,
        {"quadratic": problem},
        {},
        comparison.Settings(
            None, steps, seeds=2, tuning_seeds=2, baselines=("adam_cosine",)
        ),
    )
    work.close()
    rule = baselines.AdamCosineRule(steps)
    alone = runs.ParallelRuns(problem, rule, 2)

    def losses(rate, seed):
        weights = runs.repeated({"learning_rate": [[rate]]}, 2)
        return alone.run(weights, [0, 1], (seed,), steps)

    expected = losses(found[0].learning_rate, comparison._COMPARISON_SEED)
    for curve, column in zip(found, expected.T):
        np.testing.assert_allclose(curve.all_losses, column, rtol=1e-4)
    (chosen,) = [row for row in tuned if row["chosen"]]
    expected = losses(chosen["learning_rate"], comparison._TUNING_SEED)
    mean = np.mean(expected[-20:])
    assert chosen["mean_final_loss"] == pytest.approx(mean, rel=1e-4)


def test_tuning_sees_other_runs_than_the_comparison(tmp_path, monkeypatch):
    seeds = {}
    run = runs.ParallelRuns.run

    def watched(self, weights, sources, seed, steps, start_rule=None):
        losses = run(self, weights, sources, seed, steps, start_rule)
        seeds.setdefault(seed, set()).update(losses[0].tolist())
        return losses

    monkeypatch.setattr(runs.ParallelRuns, "run", watched)
    work = ExperimentFolder(tmp_path, {})
    plan = comparison.Settings(None, steps=20, seeds=2, tuning_seeds=1)
    comparison.compare(work, {"quadratic": Quadratic(4)}, {}, plan)
    work.close()
    tuning_starts, comparison_starts = seeds.values()
    assert not tuning_starts & comparison_starts


def test_parallel_runs_share_starts():
    rule = baselines.AdamRule()
    parallel = runs.ParallelRuns(Quadratic(4), rule, 4)
    weights = runs.repeated(rule.init_weights(0), 4)
    losses = parallel.run(weights, [0, 1, 0, 1], (1,), 60)
    assert losses.shape == (60, 4)
    np.testing.assert_allclose(losses[:, 0], losses[:, 2], rtol=1e-6)
    assert losses[0, 0] != losses[0, 1]
    # The same whatever runs beside.
    again = parallel.run(weights, [1, 1, 1, 0], (1,), 60)
    np.testing.assert_array_equal(again[:, 3], losses[:, 0])
    assert np.any(parallel.run(weights, [0, 1, 0, 1], (2,), 60) != losses)


def test_digits_run():
    train, test = digits.load_digits()
    assert len(train[0]) % digits.BATCH_SIZE == 0
    assert not set(map(bytes, train[0])) & set(map(bytes, test[0]))
    keras.utils.set_random_seed(0)
    run = keras_training.train(
        digits.mlp(),
        keras_training.optimizer_by_name("adam", 0.003),
        train,
        test,
        names=("digits_mlp", "adam"),
        seed=0,
        epochs=3,
    )
    assert len(run.losses) == 3 * len(train[0]) // digits.BATCH_SIZE
    assert run.learning_rate == pytest.approx(0.003)
    assert set(run.metrics) == {
        "test_loss_1",
        "accuracy_1",
        "test_loss_3",
        "accuracy_3",
    }
    assert run.metrics["accuracy_3"] > 0.8
    # Keras reports running means; the curve holds each minibatch's own loss.
    assert run.losses[0] == pytest.approx(np.log(10), abs=0.7)
    assert np.all(run.losses > 0)


def test_optimizers_by_name(tmp_path):
    """Keras' own, shipped weights, a file and a meta-training's folder."""
    by_name = keras_training.optimizer_by_name
    assert isinstance(by_name("rmsprop", 0.1), keras.optimizers.RMSprop)
    momentum = by_name("momentum")
    assert isinstance(momentum, keras.optimizers.SGD)
    assert momentum.momentum == 0.9 and float(momentum.learning_rate) < 0.1
    shipped = by_name("hierarchical_rnn_lasting", 0.5)
    assert shipped.pretrained_name == "hierarchical_rnn_lasting"
    assert float(shipped.learning_rate) == 0.5
    lopt_tf.LearnedAdam(seed=1).save_pretrained(tmp_path / "optimizer.npz")
    for place in (tmp_path, tmp_path / "optimizer.npz"):
        assert isinstance(by_name(place), lopt_tf.LearnedAdam)
    with pytest.raises(ValueError, match="no pretrained weights named 'adm'"):
        by_name("adm")
