"""Speed-up over tuned Adam: one number across problems (as for VeLO).

The steps that Adam with its tuned, constant learning rate needs for the loss
which an optimizer has reached at step T, divided by T. Losses are running
minima of 20-step means, so that a lucky minibatch is no progress.
"""

from typing import NamedTuple

import numpy as np

from lopt_tf.evaluation import bootstrap

WINDOW = 20
# Adam runs so many times as long; a loss it never reaches counts as this.
LIMIT = 4


_COLUMNS = ("speedup", "speedup_low", "speedup_high", "never_reached")


class Speedup(NamedTuple):
    """One run against Adam.

    Attributes:
        value: steps of Adam over steps of the optimizer; NaN if Adam diverged.
        never: whether Adam never reached the loss: `value` is a lower bound.
    """

    value: float
    never: bool


def window_means(losses, window=WINDOW):
    """Means of `window` successive losses; the first is that of step `window`.

    Means of what is not finite are infinite; fewer losses than a window make
    one mean.
    """
    losses = np.asarray(losses, float)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    window = min(window, len(losses))
    return np.lib.stride_tricks.sliding_window_view(losses, window).mean(-1)


def running_minimum(losses, window=WINDOW):
    """The least 20-step mean so far, from step 20 on."""
    return np.minimum.accumulate(window_means(losses, window))


def reached(losses):
    """The loss that a run counts as having reached."""
    return float(running_minimum(losses)[-1])


def steps_to(losses, target, window=WINDOW):
    """The first step at which a run has reached `target`, or None."""
    minima = running_minimum(losses, window)
    hits = np.flatnonzero(minima <= target)
    return int(hits[0]) + min(window, len(losses)) if len(hits) else None


def speedup(losses, adam):
    """How many times faster than Adam a run was, at its last step.

    Args:
        losses: of the optimizer, T of them.
        adam: losses of tuned Adam on the same start and data, `LIMIT` T.
    """
    # Also of a run shorter than a window, like is compared with like.
    window = min(WINDOW, len(losses))
    if not np.isfinite(window_means(adam, window)).any():
        # One that diverges at once tells nothing.
        return Speedup(float("nan"), False)
    steps = steps_to(adam, reached(losses), window)
    if steps is None:
        return Speedup(len(adam) / len(losses), True)
    return Speedup(steps / len(losses), False)


def combined(groups):
    """Columns about the `Speedup`s of each problem's runs."""
    groups = [[s for s in group if np.isfinite(s.value)] for group in groups]
    groups = [group for group in groups if group]
    if not groups:
        return dict.fromkeys(_COLUMNS, float("nan"))
    values = [[s.value for s in group] for group in groups]
    low, high = bootstrap.interval(values)
    never = [s.never for group in groups for s in group]
    return {
        "speedup": bootstrap.geometric_mean(values),
        "speedup_low": low,
        "speedup_high": high,
        "never_reached": float(np.mean(never)),
    }
