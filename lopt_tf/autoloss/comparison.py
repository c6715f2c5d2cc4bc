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
    """Results as `run_baselines` returns; action shares [segments, actions]."""
    controller.check_fits(task)
    played = compiled_episodes.episodes_of(
        task, controller.schedule(), segment_length(task)
    )
    position, shares = episodes.play(played, starts("test", count))
    results = {"controller": ("learned", played.result(position, "test"))}
    # Some episode is alive in every segment that was run.
    return results, np.nanmean(shares, axis=1)


def segment_length(task):
    """Steps over which `run_controller` takes shares: 40 in an episode."""
    return max(task.period, task.max_steps // 40)


def summary(task, results):
    """Rows of a table; differences are paired by start.

    Args:
        task: the task of the results.
        results: {schedule: (label, results [starts])}, perhaps with one called
            "controller".

    Returns:
        A list of dictionaries. "difference" is controller minus baseline and
        "low" and "high" bound its mean with 95 % certainty (Student's t).
    """
    known, entry = {}, tasks.TASKS.get(task.name)
    # The release ran the task as it is by default.
    if entry and task.get_config() == entry.task().get_config():
        known = entry.reported
    rows = []
    for name, (label, values) in results.items():
        row = {
            "schedule": name,
            "setting": label,
            f"test {task.result_name}": float(np.mean(values)),
            "deviation": float(np.std(values, ddof=min(1, len(values) - 1))),
            "starts": len(values),
        }
        if "controller" in results and name != "controller":
            row |= paired(results["controller"][1], values)
        if name in known:
            row["release"] = "{:g} +- {:g}".format(*known[name])
        rows.append(row)
    return rows


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


def transfer(tasks, controller, count, tuning, report):
    """Rows: a frozen controller beside schedules tuned anew, by task.

    Args:
        tasks: {name: task}.
        controller: a `ScheduleController`.
        count, tuning: starts of a test, and of each candidate.
        report: a function of one line of text.
    """
    rows = []
    for number, (name, task) in enumerate(tasks.items()):
        report(f"task {number + 1} of {len(tasks)}: {name}")
        learned, _ = run_controller(task, controller, count)
        chosen, _ = baselines.tune(task, tuning, fine=False)
        even = baselines.even(task)
        fixed = run_baselines(task, {even.label: even, **chosen}, count)
        compared = summary(task, learned | fixed)
        rows += [{"task": name, **row} for row in compared]
    return rows
