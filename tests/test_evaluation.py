"""The evaluation: fair baselines, honest figures."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from lopt_tf.evaluation import (
    baselines,
    curves,
    digits,
    plots,
    problem_runs,
    tuning,
)
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems.quadratic import Quadratic


@pytest.mark.parametrize(
    "rule, optimizer",
    [
        (baselines.AdamRule(), keras.optimizers.Adam(0.05)),
        (baselines.RMSPropRule(), keras.optimizers.RMSprop(0.05)),
    ],
    ids=["adam", "rmsprop"],
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


def test_summary():
    runs = [
        _curve(np.linspace(100, 1, 100), seed=0, accuracy=0.5),
        _curve(np.linspace(100, 1, 100), seed=1, accuracy=0.7),
        _curve(np.linspace(50, 1, 100), "learned", 0, accuracy=0.9),
        _curve(np.linspace(100, 90, 100), "learned", 1, accuracy=0.9),
    ]
    adam, learned = curves.summary(runs)
    assert adam["accuracy"] == pytest.approx(0.6)
    assert adam["steps_to_adam"] == 100
    assert learned["seeds"] == 2
    assert learned["steps_to_adam"] == np.inf
    table = curves.format_table([adam, learned])
    assert table.splitlines()[0].startswith("problem  optimizer")


def test_best_learning_rate():
    runs = [
        _curve([level] * 30, rate=rate)
        for rate, level in ((0.1, 3.0), (0.01, 2.0), (0.001, 4.0))
    ]
    assert tuning.best_learning_rate(runs) == (0.01, False)
    assert tuning.best_learning_rate(runs[:2]) == (0.01, True)
    spoiled = [*runs, _curve([np.nan] * 30, rate=0.01)]
    assert tuning.best_learning_rate(spoiled) == (0.1, True)


def test_the_grid_is_wide():
    rates = tuning.LEARNING_RATES
    assert len(rates) >= 9 and rates[0] == 1e-5 and rates[-1] == 1.0


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
        "loss": "1.0",
    }
    plots.plot_curves(tmp_path / "curves.png", runs, "title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_problem_comparison():
    rule = HierarchicalRNNRule(level_sizes=(3,))
    results, tuned = problem_runs.compare(
        {"quadratic": Quadratic(4)},
        {"learned": (rule, rule.init_weights(0))},
        seeds=3,
        steps=60,
    )
    assert len(results) == 9
    assert all(len(c.losses) == 60 for c in results)
    by_name = {row["optimizer"]: row for row in curves.summary(results)}
    learned = by_name["learned"]
    for name in ("adam", "rmsprop"):
        assert by_name[name]["final_loss"] < 0.5 * learned["final_loss"]
        assert by_name[name]["learning_rate"] in tuning.LEARNING_RATES
    assert {row["optimizer"] for row in tuned} == {"adam", "rmsprop"}


def test_rows_share_instances_and_noise():
    rule = baselines.AdamRule()
    rates = np.full((2, 1, 1), 0.01, "float32")
    losses = problem_runs.run(
        Quadratic(4, 0.5), rule, {"learning_rate": rates}, 3, 50, seed=1
    )
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-6)
    assert np.any(losses[:, 0, 0] != losses[:, 0, 1])


def test_digits_run():
    data = digits.Digits.load()
    assert len(data.train[0]) % digits.BATCH_SIZE == 0
    assert not set(map(bytes, data.train[0])) & set(map(bytes, data.test[0]))
    run = digits.train(
        "digits_mlp",
        "adam",
        lambda: keras.optimizers.Adam(0.003),
        data,
        seed=0,
        epochs=3,
    )
    assert len(run.losses) == 3 * len(data.train[0]) // digits.BATCH_SIZE
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
