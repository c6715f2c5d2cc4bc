"""Schedules that nothing learns, and how their settings are tuned."""

import dataclasses

import numpy as np

from lopt_tf.autoloss import episodes, schedules
from lopt_tf.autoloss.starts import starts

_RATIOS = (2, 3, 5, 7, 9, 11)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One fixed schedule.

    Attributes:
        label: how it is called in tables, such as "coin 0.52".
        kind: the class in `schedules`.
        setting: its setting for one episode.
    """

    label: str
    kind: type
    setting: object


def published(task):
    """{name: Candidate}: the schedules whose figures are known."""
    first, second = task.actions
    released = {"regression": 0.5, "classification": 0.02}
    weight = released.get(task.name, 1.0)
    penalty = getattr(task, "penalty", 1.0)
    return {
        f"{first} alone": Candidate(
            f"{first} alone", schedules.Constant, (1, 0)
        ),
        f"{second} alone": Candidate(
            f"{second} alone", schedules.Constant, (0, 1)
        ),
        "1:1": Candidate("1:1", schedules.Ratio, (1, 1)),
        "even coin": Candidate("coin 0.5", schedules.Coin, (0.5, 0.5)),
        "published weighted sum": Candidate(
            f"weighted sum {weight:g}",
            schedules.Constant,
            (1, weight / penalty),
        ),
    }


def grids(task, fine=True):
    """{name: list of Candidate} to choose from on validation data.

    Args:
        task: an `AlternatingTask` of two actions that can be combined.
        fine: whether the grids have all of their points, or a third.
    """
    penalty = getattr(task, "penalty", 1.0)
    factors = np.geomspace(0.25, 8.0, 31 if fine else 11)
    chances = np.linspace(0.02, 0.98, 49) if fine else np.arange(1, 20) / 20
    # Negative: the validation loss may well be the lower one.
    gaps = np.concatenate(
        [
            np.linspace(-0.5, 0.5, 21 if fine else 6),
            np.geomspace(0.6, 20, 10 if fine else 5),
        ]
    )
    ratios = [(1, 1)] + [(1, k) for k in _RATIOS] + [(k, 1) for k in _RATIOS]
    return {
        "best ratio": [
            Candidate(f"ratio {a}:{b}", schedules.Ratio, (a, b))
            for a, b in ratios
        ],
        "best weighted sum": [
            Candidate(
                f"weighted sum {penalty * c:.3g}",
                schedules.Constant,
                (1, c),
            )
            for c in factors
        ],
        "best coin": [
            Candidate(f"coin {p:.2f}", schedules.Coin, (1 - p, p))
            for p in chances
        ],
        "best overfitting rule": [
            Candidate(f"gap {g:.3g}", schedules.WatchOverfitting, g)
            for g in gaps
        ],
    }


def run(task, candidates, seeds, split):
    """Results [len(candidates), len(seeds)] of schedules of one kind.

    All candidates and starts run side by side.
    """
    settings = np.repeat([c.setting for c in candidates], len(seeds), axis=0)
    schedule = candidates[0].kind(settings)
    state, _ = episodes.play(
        episodes.Episodes(task, schedule),
        list(seeds) * len(candidates),
    )
    results = task.result(state, split).numpy()
    return results.reshape(len(candidates), len(seeds))


def tune(task, count, fine=True, report=None):
    """Chooses the best setting of each kind on the validation split.

    Args:
        task: an `AlternatingTask`.
        count: starts of each candidate, none of them used in tests.
        fine: see `grids`.
        report: a function of one line of text.

    Returns:
        chosen: {name: Candidate}.
        rows: one dictionary for each candidate; "at_edge" marks a choice at
            the edge of its grid.
    """
    chosen, rows = {}, []
    for name, candidates in grids(task, fine).items():
        results = run(task, candidates, starts("validation", count), "valid")
        means = results.mean(axis=1)
        sign = -1 if task.higher_is_better else 1
        best = int(np.argmin(sign * means))
        chosen[name] = candidates[best]
        # The order of ratios is no grid.
        last = len(candidates) - 1
        edge = name != "best ratio" and best in (0, last)
        for i, candidate in enumerate(candidates):
            rows.append(
                {
                    "baseline": name,
                    "setting": candidate.label,
                    "validation": float(means[i]),
                    "chosen": i == best,
                    "at_edge": bool(edge and i == best),
                }
            )
        if report:
            note = " (at the edge of its grid)" if edge else ""
            report(f"{name}: {candidates[best].label}{note}")
    return chosen, rows
