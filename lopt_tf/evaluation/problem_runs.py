"""Optimizers on corpus problems: curves of many seeds and rates at once."""

import numpy as np
import tensorflow as tf

from lopt_tf.evaluation import baselines, curves, tuning
from lopt_tf.metatraining import unroll

BASELINES = {"adam": baselines.AdamRule, "rmsprop": baselines.RMSPropRule}
# Tuning must not see the runs of the comparison.
_TUNING_SEED, _COMPARISON_SEED = 1, 2


def run(problem, rule, weights, seeds, steps, seed):
    """Objectives of `seeds` runs for each row of weights, [steps, rows, K].

    Args:
        problem: a `Problem`.
        rule: an `UpdateRule`.
        weights: {name: array [rows, out, in]}: what to compare, on the same
            instances with the same noise.
        seeds: K, instances with a start of their own.
        steps: number of inner steps, rounded up to whole segments of 50.
        seed: integer; draws the instances.
    """
    rows = next(iter(weights.values())).shape[0]
    unroller = unroll.Unroller(problem, rule, seeds, 50, copies=rows)
    weights = {
        name: tf.constant(np.repeat(array, seeds, axis=0))
        for name, array in weights.items()
    }
    constants = unroller.constants((seed, 1))
    seed = (seed, 2)
    carry = unroller.begin(weights, constants, unroller.draw_start(seed))
    segments = [
        unroller.segment_inputs(seed, first)
        for first in range(0, steps, unroller.segment_length)
    ]
    _, objectives, _ = unroller.run(weights, constants, carry, segments)
    objectives = np.concatenate(objectives)[:steps]
    return objectives.reshape(steps, rows, seeds)


def compare(problems, learned, seeds, steps, report=None):
    """Runs learned optimizers and tuned baselines on problems.

    Args:
        problems: {name: Problem}.
        learned: {label: (rule, weights)}.
        seeds: instances of each problem.
        steps: inner steps.
        report: a function of one line of text.

    Returns:
        (curves of the comparison, rows about the tuning).
    """
    results, tuned = [], []
    for number, (name, problem) in enumerate(problems.items()):
        if report:
            report(f"problem {number + 1}/{len(problems)}: {name}")
        for label, (rule, weights) in learned.items():
            rows = {n: np.asarray(w)[None] for n, w in weights.items()}
            losses = run(problem, rule, rows, seeds, steps, _COMPARISON_SEED)
            results += _curves(name, label, [1.0], losses)
        for label, rule_class in BASELINES.items():
            rule = rule_class()
            rates = tuning.LEARNING_RATES
            losses = run(
                problem, rule, _rates(rates), seeds, steps, _TUNING_SEED
            )
            rate, at_edge = tuning.best_learning_rate(
                _curves(name, label, rates, losses)
            )
            tuned.append(
                {
                    "problem": name,
                    "optimizer": label,
                    "learning_rate": rate,
                    "at_edge": at_edge,
                }
            )
            losses = run(
                problem, rule, _rates([rate]), seeds, steps, _COMPARISON_SEED
            )
            results += _curves(name, label, [rate], losses)
    return results, tuned


def _rates(rates):
    return {"learning_rate": np.array(rates, "float32").reshape(-1, 1, 1)}


def _curves(problem, optimizer, rates, losses):
    return [
        curves.Curve(problem, optimizer, rate, seed, losses[:, row, seed])
        for row, rate in enumerate(rates)
        for seed in range(losses.shape[2])
    ]
