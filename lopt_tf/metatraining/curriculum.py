"""What to train on next: which problem, how long, in which pieces."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Heavy-tailed unroll plans (paper, section 4.4).

    A fresh start on a problem runs for `min_partials` + Exp(`mean_partials`)
    partial unrolls, rounded, each of `min_length` + Exp(`mean_length`) inner
    steps, rounded to whole segments.

    Attributes:
        starts: fresh starts on each problem drawn.
        min_partials: the fewest partial unrolls of a start.
        mean_partials: the mean of the exponential part.
        min_length: the fewest inner steps of a partial unroll.
        mean_length: the mean of the exponential part.
        max_steps: a start's inner steps are cut here; 0 for no limit.
    """

    starts: int = 5
    min_partials: int = 1
    mean_partials: float = 40.0
    min_length: int = 50
    mean_length: float = 200.0
    max_steps: int = 0

    def plan(self, rng, segment_length):
        """The partial unrolls of one start, as a list of segment counts."""
        partials = self.min_partials + rng.exponential(self.mean_partials)
        lengths = self.min_length + rng.exponential(
            self.mean_length, max(1, round(partials))
        )
        segments = np.maximum(1, np.rint(lengths / segment_length)).astype(int)
        if self.max_steps:
            limit = max(1, self.max_steps // segment_length)
            done = np.concatenate([[0], np.cumsum(segments)[:-1]])
            segments = np.minimum(segments, limit - done)
            segments = segments[segments > 0]
        return segments.tolist()


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
