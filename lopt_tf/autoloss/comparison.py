"""A trained controller beside fixed schedules, start by start."""

import numpy as np
import scipy.stats

from lopt_tf.autoloss import baselines, episodes
from lopt_tf.autoloss.starts import starts

# Measured by running the release: (mean, standard deviation) on test data.
RELEASE = {
    "regression": {
        "1:1": (4.281, 0.034),
        "mse alone": (11.98, 0.87),
        "published weighted sum": (3.916, 0.007),
        "even coin": (4.115, 0.027),
    },
    "classification": {
        "1:1": (0.9152, 0.0019),
        "cross_entropy alone": (0.844, 0.006),
        "published weighted sum": (0.919, 0.006),
    },
}


def run_baselines(task, chosen, count):
    """Test results {name: (label, array [count])} of fixed schedules.

    Args:
        task: an `AlternatingTask`.
        chosen: {name: Candidate}.
        count: test starts.
    """
    seeds = starts("test", count)
    return {
        name: (
            candidate.label,
            baselines.run(task, [candidate], seeds, "test")[0],
        )
        for name, candidate in chosen.items()
    }


def run_controller(task, controller, count):
    """(test results [count], action shares [segments, actions])."""
    controller.check_fits(task)
    state, shares = episodes.play(
        episodes.Episodes(task, controller.schedule(), segment_length(task)),
        starts("test", count),
    )
    # Some episode is alive in every segment that was run.
    return task.result(state, "test").numpy(), np.nanmean(shares, axis=1)


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
    known = _release_figures(task)
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


def _release_figures(task):
    """What the release reached, if this is the task that it ran."""
    if task.name not in RELEASE:
        return {}
    same = task.get_config() == type(task)().get_config()
    return RELEASE[task.name] if same else {}


def _row(task, name, label, values):
    return {
        "schedule": name,
        "setting": label,
        f"test {task.result_name}": float(np.mean(values)),
        "deviation": float(np.std(values, ddof=min(1, len(values) - 1))),
        "starts": len(values),
    }


def paired(first, second):
    """The mean of first - second, with an interval of 95 %."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    mean = float(difference.mean())
    if len(difference) < 2:
        return {"difference": mean, "low": float("nan"), "high": float("nan")}
    error = float(scipy.stats.sem(difference))
    half = error * float(scipy.stats.t.ppf(0.975, len(difference) - 1))
    return {"difference": mean, "low": mean - half, "high": mean + half}


# What a frozen controller meets that it was not trained on.
TRANSFER = {
    "regression": (
        {"data_seed": 2},
        {"data_seed": 3},
        {"dimensions": 8},
        {"dimensions": 32},
        {"noise": 1.0},
        {"noise": 4.0},
    ),
    "classification": (
        {"data_seed": 2},
        {"data_seed": 3},
        {"features": 16},
        {"hidden": [64]},
        {"hidden": [32, 32]},
        {"activation": "tanh"},
        {"label_noise": 0.1},
    ),
}


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
        controller_results, _ = run_controller(task, controller, count)
        chosen, _ = baselines.tune(task, tuning, fine=False)
        chosen = {"1:1": baselines.published(task)["1:1"], **chosen}
        results = run_baselines(task, chosen, count)
        for row in summary(task, results, controller_results):
            rows.append({"task": name, **row})
    return rows
