"""Learning-rate grids, and the choice among their results."""

import numpy as np

# Half decades.
LEARNING_RATES = tuple(float(f"{v:.4g}") for v in np.logspace(-5, 0, 11))


def best_learning_rate(curves):
    """The learning rate with the lowest mean final loss over its runs.

    Args:
        curves: runs of one optimizer on one problem.

    Returns:
        (learning rate, whether it is at an edge of the rates tried).
    """
    by_rate = {}
    for curve in curves:
        by_rate.setdefault(curve.learning_rate, []).append(curve.final_loss)
    rates = sorted(by_rate)
    best = min(rates, key=lambda rate: np.mean(by_rate[rate]))
    return best, best in (rates[0], rates[-1])
