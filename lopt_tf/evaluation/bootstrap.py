"""Means of ratios, and how sure of them a few seeds make us."""

import numpy as np


def geometric_mean(groups):
    """The geometric mean over groups of the geometric means within them.

    Args:
        groups: list of sequences of positive numbers.
    """
    logs = [np.mean(np.log(np.asarray(group, float))) for group in groups]
    return float(np.exp(np.mean(logs)))


def interval(groups, statistic=geometric_mean, level=0.95, draws=1000, seed=0):
    """A percentile bootstrap interval of a statistic.

    Each draw takes as many members of every group as it has, with
    replacement: the groups (problems) are given, their members (seeds) are
    samples.

    Args:
        groups: list of sequences of numbers.
        statistic: function of such a list.
        level: the share of draws within the interval.
        draws: how many draws.
        seed: of the draws.

    Returns:
        (lower end, upper end).
    """
    rng = np.random.default_rng(seed)
    groups = [np.asarray(group, float) for group in groups]
    values = [
        statistic([rng.choice(group, len(group)) for group in groups])
        for _ in range(draws)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
