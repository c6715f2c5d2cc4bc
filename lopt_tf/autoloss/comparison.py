"""A trained controller beside fixed schedules, start by start."""

import typing

import numpy as np
import scipy.stats

from lopt_tf.autoloss import baselines, compiled_episodes, episodes, tasks
from lopt_tf.autoloss.sample_pictures import SamplePicture
from lopt_tf.autoloss.starts import starts
from problems import alternating


class Outcome(typing.NamedTuple):
    """What a schedule has come to on some starts.

    Attributes:
        label: how the schedule is set, such as "coin 0.52".
        results: test results [starts].
        details: {name: array [starts]}, what the task tells besides.
        curves: of each start, see `Episodes.curves`.
    """

    label: str
    results: np.ndarray
    details: dict = {}
    curves: list | None = None


def run_baselines(task, chosen, count, kept=None):
    """Test `Outcome`s {name: Outcome} of {name: Candidate}.

    `kept` is as of `baselines.outcomes`.
    """
    seeds, found = starts("test", count), {}
    for name, each in chosen.items():
        results, details, curves = baselines.outcomes(
            task, [each], seeds, "test", kept=kept
        )
        details = {key: values[0] for key, values in details.items()}
        curves = curves and curves[0]
        found[name] = Outcome(each.label, results[0], details, curves)
    return found


def run_controller(task, controller, count, look=None, kept=None):
    """Outcomes as of `run_baselines`; action shares as of `episodes.play`.

    Args:
        task: of the controller's actions.
        controller: a `ScheduleController`.
        count: of starts.
        look: a `SamplePicture`. Defaults to `None`.
        kept: `KeptOutcomes`, of models. Defaults to `None`.
    """
    controller.check_fits(task)
    if kept is not None and isinstance(task, alternating.ModelTask):
        return _kept_outcome(task, controller, count, kept, look)
    played = compiled_episodes.episodes_of(
        task, controller.schedule(), segment_length(task)
    )
    position, shares = episodes.play(played, starts("test", count), look=look)
    results = [f(position, "test") for f in (played.result, played.details)]
    outcome = Outcome("learned", *results, played.curves(position))
    found = {"controller": outcome}
    return found, shares


def _kept_outcome(task, controller, count, kept, look):
    """As `run_controller`, an episode at a time."""
    played = compiled_episodes.episodes_of(
        task, controller.schedule(), segment_length(task)
    )

    def alone(task, policy, seed, draw):
        position, shares = episodes.play(played, [seed], draw)
        results = played.result(position, "test")[None]
        details = played.details(position, "test").items()
        details = {name: values[None] for name, values in details}
        curves = played.curves(position)
        # Whoever asks: they are kept for who wants a picture.
        images = played.samples(position, SamplePicture.columns)
        return results, details, curves and [curves], shares, images

    policy = baselines.Candidate("learned", None, controller.identity())
    *outcome, shares, images = kept.controller(
        alone, task, policy, starts("test", count)
    )
    if look and images is not None:
        look.draw(task, images)
    return {"controller": Outcome("learned", *outcome)}, shares


def segment_length(task):
    """Steps over which `run_controller` takes shares: 40 in an episode."""
    return max(task.period, task.max_steps // 40)


def summary(task, results):
    """Rows of a table; differences are paired by start.

    Args:
        task: the task of the results.
        results: {schedule: `Outcome`}, or tuples of its first fields, perhaps
            with one called "controller".

    Returns:
        A list of dictionaries. "difference" is controller minus baseline and
        "low" and "high" bound its mean with 95 % certainty (Student's t).
        Details of the task follow, as means over starts where they are known,
        and their differences, where they are known for all starts. "worst
        group" is the lowest mean result of `Task.groups`.
    """
    known, entry = {}, tasks.TASKS.get(task.name)
    # The release ran the task as it is by default.
    if entry and task.get_config() == entry.task().get_config():
        known = entry.reported
    rows = []
    results = {name: Outcome(*each) for name, each in results.items()}
    for name, (label, values, details, _) in results.items():
        row = {
            "schedule": name,
            "setting": label,
            f"test {task.result_name}": float(np.mean(values)),
            "deviation": float(np.std(values, ddof=min(1, len(values) - 1))),
            "starts": len(values),
        }
        if "controller" in results and name != "controller":
            row |= paired(results["controller"].results, values)
        if name in known:
            row["release"] = "{:g} +- {:g}".format(*known[name])
        row |= _of_groups(task, values)
        for detail, found in details.items():
            row |= _of_detail(detail, found, results.get("controller"), name)
        rows.append(row)
    return rows


def _of_groups(task, values):
    """{"worst group": lowest (or highest) mean of the groups' results}."""
    groups = task.groups(starts("test", len(values)))
    if groups is None:
        return {}
    groups = np.asarray(groups)
    means = [values[groups == group].mean() for group in np.unique(groups)]
    worst = min(means) if task.higher_is_better else max(means)
    return {"worst group": float(worst)}


def _of_detail(name, values, controller, schedule):
    """{column: number} of one detail of a schedule; see `summary`."""
    known = values[np.isfinite(values)]
    row = {name: float(known.mean()) if len(known) else None}
    if len(known) < len(values):
        row[f"{name}: starts"] = len(known)
    if controller is None or schedule == "controller":
        return row
    others = controller.details[name]
    if len(known) < len(values) or not np.isfinite(others).all():
        return row
    difference = paired(others, values)
    return row | {f"{name}: {key}": x for key, x in difference.items()}


def paired(first, second):
    """The mean of first - second, with its 95 % interval: NaN for one pair."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    mean = low = high = float(difference.mean())
    if len(difference) < 2:
        low = high = float("nan")
    elif np.ptp(difference):
        test = scipy.stats.ttest_rel(first, second)
        low, high = map(float, test.confidence_interval(0.95))
    return {"difference": mean, "low": low, "high": high}


def transfer(
    tasks,
    controller,
    count,
    tuning,
    report,
    names=None,
    kept=None,
    by=None,
):
    """Rows: a frozen controller beside schedules tuned anew, by task.

    Args:
        tasks: {name: task}.
        controller: a `ScheduleController`.
        count, tuning: starts of a test, and of each candidate.
        report: a function of one line of text.
        names: of the grids that are tuned, and labels of candidates that are
            taken as they are. Defaults to all grids.
        kept: see `baselines.outcomes`.
        by: see `baselines.tune`.
    """
    rows = []
    for number, (name, task) in enumerate(tasks.items()):
        report(f"task {number + 1} of {len(tasks)}: {name}")
        for line in task.remarks():
            report(line)
        chosen, _ = baselines.tune(
            task, tuning, fine=False, names=names, kept=kept, by=by
        )
        learned, _ = run_controller(task, controller, count, None, kept)
        even = baselines.even(task)
        chosen = baselines.by_label(task, names or ()) | chosen
        fixed = run_baselines(task, {even.label: even, **chosen}, count, kept)
        compared = summary(task, learned | fixed)
        rows += [{"task": name, **row} for row in compared]
    return rows
