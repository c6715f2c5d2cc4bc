"""Learning rates for baselines: a grid that grows until its best is inside.

Rates are half decades between 1e-8 and 1e3, by number: rate n is 10^(n/2).
"""

from typing import NamedTuple

import numpy as np

LOWEST, HIGHEST = -16, 6
# Where a search begins: 1e-4 .. 0.3162.
START = tuple(range(-8, 0))


class Choice(NamedTuple):
    """What a search found.

    Attributes:
        learning_rate: the best one.
        at_edge: whether it is the lowest or highest one tried, which only
            the bounds of the search can bring about.
        scores: {learning rate: mean final loss}, all that were tried.
    """

    learning_rate: float
    at_edge: bool
    scores: dict


# Of learned optimizers: their own learning rates, multiplied by 1.
UNTUNED = Choice(1.0, False, {})


def rate(number):
    """The learning rate of that number."""
    return float(f"{10 ** (number / 2):.4g}")


def facts():
    """{name: value} about the grid, for a report."""
    begin, end = rate(START[0]), rate(START[-1])
    return {
        "learning_rates_first": f"half decades, {begin:g} to {end:g}",
        "learning_rates_at_most": f"{rate(LOWEST):g} to {rate(HIGHEST):g}",
    }


def search(
    run, names, start=START, chunk=4, bounds=(LOWEST, HIGHEST), plan=None
):
    """The best learning rate of each optimizer: {name: Choice}.

    Args:
        run: function of {name: list of learning rates} that returns
            {name: {learning rate: final losses, one for each seed}}.
        names: optimizers to tune side by side.
        start: numbers of the first rates, ascending.
        chunk: at most so many rates of an optimizer in one call of `run`.
        bounds: the lowest and the highest number to try.
        plan: function of the number of rates by which the grid grows.
    """
    scores = {name: {} for name in names}
    wanted = {name: list(start) for name in names}
    while any(wanted.values()):
        now = {n: numbers[:chunk] for n, numbers in wanted.items() if numbers}
        found = run({n: [rate(i) for i in now[n]] for n in now})
        for name, numbers in now.items():
            for i in numbers:
                scores[name][i] = _mean(np.asarray(found[name][rate(i)], float))
        wanted = {n: numbers[chunk:] for n, numbers in wanted.items()}
        if not any(wanted.values()):
            wanted = {n: _beyond(scores[n], chunk, bounds) for n in names}
            if plan:
                plan(sum(map(len, wanted.values())))
    return {name: _choice(scores[name]) for name in names}


def rows(problem, choices):
    """A row for each learning rate that `search` tried on a problem."""
    return [
        {
            "problem": problem,
            "optimizer": name,
            "learning_rate": tried,
            "mean_final_loss": score,
            "chosen": tried == choice.learning_rate,
            "at_edge": tried == choice.learning_rate and choice.at_edge,
        }
        for name, choice in choices.items()
        for tried, score in choice.scores.items()
    ]


def _mean(losses):
    return float(losses.mean()) if np.all(np.isfinite(losses)) else np.inf


def _best(scores):
    """The number with the lowest score; of equals, the one in the middle."""
    numbers = sorted(scores)
    lowest = min(scores.values())
    if np.isinf(lowest):
        # Everything blew up: lower rates are what is left to try.
        return numbers[0]
    equal = [number for number in numbers if scores[number] == lowest]
    return equal[len(equal) // 2]


def _beyond(scores, chunk, bounds):
    """Numbers to try next: beyond the edge where the best is, if it is."""
    first, last, best = min(scores), max(scores), _best(scores)
    if best == first and first > bounds[0]:
        return list(range(max(bounds[0], first - chunk), first))
    if best == last and last < bounds[1]:
        return list(range(last + 1, min(bounds[1], last + chunk) + 1))
    return []


def _choice(scores):
    best = _best(scores)
    tried = {rate(number): scores[number] for number in sorted(scores)}
    return Choice(rate(best), best in (min(scores), max(scores)), tried)
