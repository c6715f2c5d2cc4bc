"""What to train on next: which problem, how long, in which pieces."""

import dataclasses

import numpy as np

from lopt_tf import checks

_BOUNDS = {
    "starts": (1, 10**6),
    "min_partials": (0, 10**6),
    "mean_partials": (0.0, 1e6),
    "min_length": (0, 10**6),
    "mean_length": (0.0, 1e6),
    "max_steps": (0, 10**7),
    "min_steps": (0, 10**7),
}
# The most inner steps that a start may be expected to have.
_MOST_STEPS = 10**7


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Unroll plans: heavy-tailed, or log-uniform between two bounds.

    A fresh start on a problem runs for `min_partials` + Exp(`mean_partials`)
    partial unrolls, rounded, each of `min_length` + Exp(`mean_length`) inner
    steps, rounded to whole segments (paper, section 4.4).

    With `min_steps` it runs for a log-uniform number of inner steps between
    `min_steps` and `max_steps`, rounded to whole segments, in partial unrolls
    of the same lengths; their number follows. Not in the paper.

    Attributes:
        starts: fresh starts on each problem drawn.
        min_partials: the fewest partial unrolls of a start.
        mean_partials: the mean of the exponential part.
        min_length: the fewest inner steps of a partial unroll.
        mean_length: the mean of the exponential part.
        max_steps: a start's inner steps are cut here; 0 for no limit.
        min_steps: the fewest inner steps of a start, where the most are
            `max_steps`. Defaults to `0`: not log-uniform.
    """

    starts: int = 5
    min_partials: int = 1
    mean_partials: float = 40.0
    min_length: int = 50
    mean_length: float = 200.0
    max_steps: int = 0
    min_steps: int = 0

    def __post_init__(self):
        checks.all_in_range(self, _BOUNDS)
        partials = self.min_partials + self.mean_partials
        steps = partials * (self.min_length + self.mean_length)
        if not self.max_steps and steps > _MOST_STEPS:
            raise ValueError(
                f"A start would have {steps:,.0f} inner steps on average; "
                f"{_MOST_STEPS:,} are the most. Choose fewer or shorter "
                "partial unrolls, or set `max_steps`."
            )
        if self.min_steps and not 0 < self.min_steps <= self.max_steps:
            raise ValueError(
                "`min_steps` must lie between 1 and `max_steps`, the bounds "
                "of a start's inner steps. Received: "
                f"min_steps={self.min_steps}, max_steps={self.max_steps}"
            )

    def plan(self, rng, segment_length):
        """The partial unrolls of one start, as a list of segment counts."""
        if self.min_steps:
            steps = np.exp(
                rng.uniform(np.log(self.min_steps), np.log(self.max_steps))
            )
            limit = max(1, round(steps / segment_length))
            # Each partial unroll has at least one segment.
            segments = self._segments(rng, limit, segment_length)
            return _bounded(segments, limit).tolist()
        partials = self.min_partials + rng.exponential(self.mean_partials)
        segments = self._segments(rng, max(1, round(partials)), segment_length)
        if self.max_steps:
            limit = max(1, self.max_steps // segment_length)
            segments = _bounded(segments, limit)
        return segments.tolist()

    def _segments(self, rng, partials, segment_length):
        """Segment counts of so many partial unrolls, at least 1 each."""
        lengths = self.min_length + rng.exponential(self.mean_length, partials)
        return np.maximum(1, np.rint(lengths / segment_length)).astype(int)


def _bounded(segments, limit):
    """Segment counts, cut where their sum reaches a limit."""
    done = np.concatenate([[0], np.cumsum(segments)[:-1]])
    segments = np.minimum(segments, limit - done)
    return segments[segments > 0]


def cut(plan, truncation_segments):
    """Cuts partial unrolls into pieces of at most so many segments."""
    return [
        min(truncation_segments, segments - first)
        for segments in plan
        for first in range(0, segments, truncation_segments)
    ]


def draw_problem(names, seed, number):
    """The `number`-th problem drawn: every cycle visits each name once."""
    cycle, place = divmod(number, len(names))
    order = np.random.default_rng([seed, 1, cycle]).permutation(len(names))
    return names[order[place]]
