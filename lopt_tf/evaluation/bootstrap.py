"""Means of ratios, and how sure of them a few seeds make us."""

import numpy as np
import scipy.stats


def geometric_mean(groups, axis=-1):
    """The geometric mean over groups of the geometric means within them.

    Groups are arrays of positive numbers, along `axis`.
    """
    logs = [np.log(np.asarray(group, float)).mean(axis) for group in groups]
    return np.exp(np.mean(logs, axis=0))


def interval(groups):
    """A 95 % percentile bootstrap interval of the geometric mean: its ends.

    Each of 1000 draws takes as many members of every group as it has, with
    replacement: the groups (problems) are given, their members (seeds) are
    samples. Where no group has two, nothing is known: NaN.
    """
    if all(len(group) == 1 for group in groups):
        return float("nan"), float("nan")
    # scipy refuses a group of one; two equal members draw the same.
    groups = [np.repeat(g, 2) if len(g) == 1 else np.array(g) for g in groups]
    low, high = scipy.stats.bootstrap(
        groups,
        lambda *drawn, axis: geometric_mean(drawn, axis),
        n_resamples=1000,
        confidence_level=0.95,
        method="percentile",
        vectorized=True,
        rng=0,
    ).confidence_interval
    return float(low), float(high)
