"""Schedules that nothing learns, and how their settings are tuned."""

import functools
import itertools
import typing
from collections.abc import Callable

import numpy as np

from lopt_tf.autoloss import (
    compiled_episodes,
    contract,
    episodes,
    kept_outcomes,
    metadata,
    tasks,
)
from lopt_tf.autoloss.schedules import (
    Coin,
    Constant,
    Curriculum,
    Feedback,
    Ratio,
    WatchOverfitting,
)
from lopt_tf.autoloss.starts import VALIDATION_DRAW, starts
from problems import alternating

_RATIOS = (2, 3, 5, 7, 9, 11)


class Candidate(typing.NamedTuple):
    """One fixed schedule.

    Attributes:
        label: how it is called in tables, such as "coin 0.52".
        kind: the class in `schedules`, or what makes one of settings.
        setting: its setting for one episode.
        at_edge: whether it is at the edge of its grid. Defaults to False.
        changes: settings of a `ModelTask` that it takes in place of the task's
            own, as sorted pairs. Defaults to none.
    """

    label: str
    kind: Callable
    setting: object
    at_edge: bool = False
    changes: tuple = ()

    def task(self, task):
        """The task with its changes: another one, if there are any."""
        if not self.changes:
            return task
        return type(task)(**task.get_config() | dict(self.changes))


def published(task):
    """{name: Candidate}: the schedules whose figures are known.

    Each action alone, all by turns ("1:1"), drawn evenly, and (where actions
    can be combined) a weighted sum.
    """
    count = len(task.actions)
    alone = [
        Candidate(f"{name} alone", Constant, tuple(row))
        for name, row in zip(task.actions, np.eye(count))
    ]
    found = {each.label: each for each in [*alone, even(task)]}
    chance = 1 / count
    label = f"coin {chance:.3g}"
    found["even coin"] = Candidate(label, Coin, (chance,) * count)
    if task.combines_actions:
        entry = tasks.TASKS.get(task.name)
        weight = entry.reported_sum if entry else 1.0
        first, *others = task.loss_weights
        setting = (1, *(weight * first / other for other in others))
        label = f"weighted sum {weight:g}"
        found["published weighted sum"] = Candidate(label, Constant, setting)
    return found


def even(task):
    """The candidate that takes all actions by turns: "1:1", "1:1:1", ..."""
    ones = (1,) * len(task.actions)
    return Candidate(":".join(map(str, ones)), Ratio, ones)


def grids(task, fine=True):
    """{name: list of Candidate} to choose from on validation data.

    Ratios of each pair of actions (or those that the task suggests), coins
    over the simplex, weighted sums where actions can be combined, curricula
    that the task suggests, the first action alone with other settings of the
    task that it suggests, and for two actions the rule that watches
    overfitting, where the task tells both losses, and the feedback that the
    task suggests.

    Without `fine`, coins, sums and gaps have a third of their points. Ratios
    and feedback stay whole, or half for models, which take long; what else the
    task suggests stays whole.
    """
    few = not fine and isinstance(task, alternating.ModelTask)
    found = {"best ratio": _ratios(task, _RATIOS[:3] if few else _RATIOS)}
    if task.combines_actions:
        found["best weighted sum"] = _weighted_sums(task, fine)
    parts = task.coin_parts
    if few and parts:
        parts = max(parts // 2, 2)
    found["best coin"] = _coins(len(task.actions), fine, parts)
    if task.curricula:
        found["best curriculum"] = _curricula(task.curricula)
    if task.alone_settings and isinstance(task, alternating.ModelTask):
        found[f"best {task.actions[0]} alone"] = _alone(task)
    supplied = compiled_episodes.kind_of(task).supplied(task)
    if len(task.actions) == 2 and supplied.issuperset(metadata.GAP_NEEDS):
        found["best overfitting rule"] = _gaps(fine)
    if task.feedback and len(task.actions) == 2:
        found["best feedback rule"] = _feedbacks(*task.feedback, few)
    return found


def by_label(task, labels):
    """{label: Candidate}: candidates of fine grids that need no tuning."""
    return {
        each.label: each
        for grid in grids(task).values()
        for each in grid
        if each.label in labels
    }


def _ratios(task, numbers):
    pairs = [(1, 1)] + [(1, k) for k in numbers] + [(k, 1) for k in numbers]
    settings = [even(task).setting]
    if task.ratios:
        settings, pairs = [*settings, *task.ratios], []
    for places in itertools.combinations(range(len(task.actions)), 2):
        for pair in pairs:
            setting = np.zeros(len(task.actions), int)
            setting[list(places)] = pair
            settings.append(tuple(setting.tolist()))
    # Ratios of the same actions are ordered by the share of the first of them.
    ends = {}
    for setting in settings:
        actions, share = _first_share(setting)
        ends[actions] = ends.get(actions, ()) + (share,)
    found = []
    for setting in dict.fromkeys(settings):
        actions, share = _first_share(setting)
        edge = share in (min(ends[actions]), max(ends[actions]))
        label = f"ratio {':'.join(map(str, setting))}"
        found.append(Candidate(label, Ratio, setting, edge))
    return found


def _first_share(ratio):
    """(The actions that a ratio has, the share of the first of them)."""
    actions = tuple(place for place, count in enumerate(ratio) if count)
    return actions, ratio[actions[0]] / sum(ratio)


def _weighted_sums(task, fine):
    others = len(task.actions) - 1
    # Two actions have a line to search, more have a space.
    points = (31 if fine else 11) if others == 1 else (7 if fine else 4)
    factors = np.geomspace(0.25, 8.0, points)
    found = []
    for chosen in itertools.product(factors, repeat=others):
        weights = np.multiply(task.loss_weights[1:], chosen)
        weights = weights / task.loss_weights[0]
        label = "weighted sum " + ":".join(f"{x:.3g}" for x in weights)
        edge = bool(min(chosen) <= factors[0] or max(chosen) >= factors[-1])
        found.append(Candidate(label, Constant, (1, *chosen), edge))
    return found


def _coins(actions, fine, parts=None):
    """Coins whose chances are positive multiples of 1 / parts."""
    if parts is None:
        parts = (50 if fine else 20) if actions == 2 else (10 if fine else 5)
    parts = max(parts, actions)
    found = []
    for ends in itertools.combinations(range(1, parts), actions - 1):
        shares = np.diff([0, *ends, parts])
        told = shares[1:] if actions == 2 else shares
        label = "coin " + ":".join(f"{share / parts:.2f}" for share in told)
        edge = bool(min(shares) == 1 and parts > actions)
        found.append(Candidate(label, Coin, tuple(shares / parts), edge))
    return found if actions > 2 else found[::-1]


def _curricula(settings):
    """Candidates of a task's curricula."""
    found = []
    for shares in settings:
        label = "curriculum " + ":".join(f"{share:g}" for share in shares)
        first = [each[0] for each in settings]
        edge = shares[0] in (min(first), max(first))
        found.append(Candidate(label, Curriculum, shares, edge))
    return found


def _alone(task):
    """Candidates of the first action alone, by settings of the task."""
    as_it_is = published(task)[f"{task.actions[0]} alone"]
    own, last = task.get_config().items(), len(task.alone_settings) - 1
    found = []
    for place, changes in enumerate(task.alone_settings):
        each = as_it_is._replace(at_edge=place in (0, last))
        if not own >= {*changes}:
            told = ", ".join(f"{name} {value:.3g}" for name, value in changes)
            label = f"{each.label}, {told}"
            each = each._replace(label=label, changes=changes)
        found.append(each)
    return found


def _gaps(fine):
    # Negative: the validation loss may well be the lower one.
    small = np.linspace(-0.5, 0.5, 21 if fine else 7)
    gaps = [*small, *np.geomspace(0.6, 20, 10 if fine else 5)]
    edges = gaps[0], gaps[-1]
    return [
        Candidate(f"gap {gap:.3g}", WatchOverfitting, gap, bool(gap in edges))
        for gap in gaps
    ]


def _feedbacks(value, slopes, levels, few):
    if few:
        slopes, levels = slopes[::2], levels[::2]
    kind = functools.partial(Feedback, value=value)
    return [
        Candidate(
            f"{value}: slope {slope:g}, level {level:g}",
            *(kind, (slope, level)),
            level in (min(levels), max(levels)) or slope == max(slopes),
        )
        for slope in slopes
        for level in levels
    ]


def outcomes(task, candidates, seeds, split, draw=0, kept=None):
    """Results of schedules of one kind [candidates, starts], details, curves.

    Details are such arrays by name; curves are lists [candidates][starts], or
    None: `Episodes.curves`.

    Args:
        task: a `problems.alternating.Task`. All candidates and starts run side
            by side; those of models one after the other.
        candidates: a list of `Candidate` of one kind.
        seeds, draw: as for `Episodes.begin`.
        split: "valid" or "test".
        kept: `KeptOutcomes`, of models. Defaults to `None`.
    """
    if isinstance(task, alternating.ModelTask):
        kept = kept or kept_outcomes.KeptOutcomes()
        return kept.outcomes(
            lambda task, candidate, seed, draw: _together(
                task, [candidate], [seed], split, draw
            ),
            *(task, candidates, seeds, split, draw),
        )
    return _together(task, candidates, seeds, split, draw)


def _together(task, candidates, seeds, split, draw):
    settings = np.repeat([c.setting for c in candidates], len(seeds), axis=0)
    played = compiled_episodes.episodes_of(task, candidates[0].kind(settings))
    position, _ = episodes.play(played, list(seeds) * len(candidates), draw)
    shape = len(candidates), len(seeds)
    details = {
        name: value.reshape(shape)
        for name, value in played.details(position, split).items()
    }
    curves = played.curves(position)
    if curves is not None:
        count = len(seeds)
        curves = [
            curves[place : place + count]
            for place in range(0, len(curves), count)
        ]
    return played.result(position, split).reshape(shape), details, curves


def _best(task, candidates, means):
    """The candidate of the best mean; None if all diverged."""
    scores = -means if task.higher_is_better else means
    scores = np.where(np.isfinite(scores), scores, np.inf)
    place = int(np.argmin(scores))
    return candidates[place] if np.isfinite(scores[place]) else None


def _judged_by(task, results, details, by):
    """What candidates are judged by, an array [candidates, starts]."""
    if by is None:
        return results
    known = [name for name in contract.OF_RESULTS if name in details]
    if by not in known:
        raise ValueError(
            f"The task {task.name!r} cannot be tuned by {by!r}. Known: "
            f"{', '.join(known) or 'nothing but the result'}."
        )
    return details[by]


def _told(best):
    if best is None:
        return "left out, no candidate has a finite result"
    edge = " (at the edge of its grid)" if best.at_edge else ""
    return best.label + edge


def tune(task, count, fine=True, report=None, names=None, kept=None, by=None):
    """Chooses the best setting of each kind on the validation split.

    Args:
        task: a `problems.alternating.Task`.
        count: starts of each candidate, none of them used in tests.
        fine: see `grids`.
        report: a function of one line of text.
        names: of the grids to choose from. Defaults to all.
        kept: see `outcomes`.
        by: one of `contract.OF_RESULTS`, such as "mean score", to choose by
            that in place of the result. Defaults to `None`.

    Returns:
        {name: Candidate}, without kinds whose candidates have all diverged; and
        one dictionary for each candidate.
    """
    chosen, rows = {}, []
    seeds = starts("validation", count)
    for name, candidates in grids(task, fine).items():
        if names is not None and name not in names:
            continue
        results, details, _ = outcomes(
            task, candidates, seeds, "valid", VALIDATION_DRAW, kept
        )
        means = _judged_by(task, results, details, by).mean(axis=1)
        best = _best(task, candidates, means)
        if best is not None:
            chosen[name] = best
        rows += [
            {
                "baseline": name,
                "setting": candidate.label,
                "validation": float(mean),
                "chosen": candidate is best,
                "at_edge": candidate is best and candidate.at_edge,
            }
            for candidate, mean in zip(candidates, means)
        ]
        if report:
            report(f"{name}: {_told(best)}")
    return chosen, rows
