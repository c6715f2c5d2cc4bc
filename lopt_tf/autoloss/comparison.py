"""A trained controller beside fixed schedules, start by start."""

import numpy as np
import scipy.stats

from lopt_tf.autoloss import baselines, compiled_episodes, episodes, tasks
from lopt_tf.autoloss.starts import starts


def run_baselines(task, chosen, count):
    """Test results {name: (label, array [count])} of {name: Candidate}."""
    seeds = starts("test", count)
    return {
        name: (each.label, baselines.run(task, [each], seeds, "test")[0])
        for name, each in chosen.items()
    }


def run_controller(task, controller, count):
    """(test results [count], action shares [segments, actions])."""
    controller.check_fits(task)
    played = compiled_episodes.episodes_of(
        task, controller.schedule(), segment_length(task)
    )
    position, shares = episodes.play(played, starts("test", count))
    # Some episode is alive in every segment that was run.
    return played.result(position, "test"), np.nanmean(shares, axis=1)


def segment_length(task):
    """Steps over which `run_controller` takes shares: 40 in an episode."""
    return max(task.period, task.max_steps // 40)


def summary(task, results, controller=None):
    """Rows of a table; differences are paired by start.

    Args:
        task: the task of the results.
        results: {name: (label, results [starts])}.
        controller: results of the controller [starts], or None.

    Returns:
        A list of dictionaries. "difference" is controller minus baseline and
        "low" and "high" bound its mean with 95 % certainty (Student's t).
    """
    known, entry = {}, tasks.TASKS.get(task.name)
    # The release ran the task as it is by default.
    if entry and task.get_config() == entry.task().get_config():
        known = entry.reported
    rows = []
    if controller is not None:
        rows.append(_row(task, "controller", "learned", controller))
    for name, (label, values) in results.items():
        row = _row(task, name, label, values)
        if controller is not None:
            row |= paired(controller, values)
        if name in known:
            row["release"] = "{:g} +- {:g}".format(*known[name])
        rows.append(row)
    return rows


def _row(task, name, label, values):
    return {
        "schedule": name,
        "setting": label,
        f"test {task.result_name}": float(np.mean(values)),
        "deviation": float(np.std(values, ddof=min(1, len(values) - 1))),
        "starts": len(values),
    }


def paired(first, second):
    """The mean of first - second, with an interval of 95 %.

    The interval is NaN for one pair, and the mean alone where all pairs differ
    equally.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    mean = low = high = float(difference.mean())
    if len(difference) < 2:
        low = high = float("nan")
    elif np.ptp(difference):
        test = scipy.stats.ttest_rel(first, second)
        low, high = map(float, test.confidence_interval(0.95))
    return {"difference": mean, "low": low, "high": high}


def transfer(tasks, controller, count, tuning, report):
    """Rows: a frozen controller beside schedules tuned anew, by task.

    Args:
        tasks: {name: task}.
        controller: a `ScheduleController`.
        count: test starts.
        tuning: starts for each candidate of the baselines' grids.
        report: a function of one line of text.
    """
    rows = []
    for number, (name, task) in enumerate(tasks.items()):
        report(f"task {number + 1} of {len(tasks)}: {name}")
        learned, _ = run_controller(task, controller, count)
        chosen, _ = baselines.tune(task, tuning, fine=False)
        even = baselines.even(task)
        results = run_baselines(task, {even.label: even, **chosen}, count)
        compared = summary(task, results, learned)
        rows += [{"task": name, **row} for row in compared]
    return rows
