"""Learning curves of image classifiers: the paper's Figure 5.

The runs are folders of `python -m train_scripts.imagenet`.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np

from lopt_tf import checkpointing
from lopt_tf.evaluation import image_callbacks, plots, results
from lopt_tf.evaluation.curves import grouped
from lopt_tf.reporting import report

TITLE = "Image classifiers: loss and accuracy"
QUESTION = (
    "The paper's Figure 5: learning curves of large image classifiers under "
    "the learned optimizer and under usual ones, against steps and against "
    "the time of training."
)
LEARNED = "never"
# What runs of one panel share.
_SHARED = ("model", "dataset", "batch_size", "image_size", "steps")
# What else must be known of a training.
_NEEDED = ("optimizer", "seed", "learning_rate")
# What tells trainings apart that are no seeds of one another: where it differs
# between any of a panel, and between those of one optimizer.
_OF_TASK = (
    *("augmentation", "label_smoothing", "dtype_policy", "start_from"),
    "data",
)
_DIFFERING = (
    *("weights", "learning_rate", "decay_share"),
    # Medians over seeds are of the same steps.
    *("log_every", "test_every"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which runs.

    Attributes:
        runs: folders of trainings.
    """

    runs: tuple = ()


PRESETS = {"quick": Settings(), "full": Settings()}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        path: the folder.
        problem: the network, the data and the size of batches.
        optimizer: what it is called.
        settings: the content of settings.json.
        facts: the content of facts.json.
        rows: {split: rows of metrics.csv}.
    """

    path: pathlib.Path
    problem: str
    optimizer: str
    settings: dict
    facts: dict
    rows: dict

    @property
    def seed(self):
        """Of the training."""
        return self.settings["seed"]

    def column(self, split, name):
        """A column of metrics.csv, floats [rows]."""
        return np.array([row[name] for row in self.rows[split]], float)


def run(folder, settings):
    """Reads the runs; returns an `Outcome`."""
    if not settings.runs:
        raise ValueError(
            "Name the folders of trainings: --runs=DIR,DIR,... "
            "(python -m train_scripts.imagenet makes them)."
        )
    found = _told_apart([read(path) for path in settings.runs])
    panels = (
        ("loss-steps", "Training loss over steps", "train", "loss", "step"),
        ("loss-seconds", "Training loss over time", "train", "loss", "seconds"),
        ("test-steps", "Test accuracy over steps", "test", "top1", "step"),
        ("test-seconds", "Test accuracy over time", "test", "top1", "seconds"),
    )
    rows = summary(found)
    return results.Outcome(
        tables=[
            report.Table(
                "summary",
                "What they ended with",
                rows,
                "Means over seeds.",
                {
                    "train_loss": "Cross-entropy of the last tenth of the "
                    "training's steps, on augmented images.",
                    "best_top1": "The highest test accuracy on the way.",
                    "last_step": "The last one of metrics.csv, of a training "
                    "that was stopped too; the least over seeds.",
                    "steps_to_adam": "The first step up to which the mean "
                    "training loss, over a tenth of Adam's steps, is at most "
                    "Adam's last one (the best Adam's, if there are several) "
                    "on the same seed; the median over seeds, infinite if "
                    "never reached.",
                    "diverged": "Of the seeds; their training loss counts as "
                    "infinite, and they have no last test.",
                },
            ),
            report.Table(
                "timings",
                "Time and memory",
                timings(found),
                "Seconds of training, without tests and backups. A step's "
                "time is the median over the rows of metrics.csv.",
            ),
        ],
        plots=[
            report.Plot(
                stem,
                title,
                functools.partial(
                    plots.plot_trainings,
                    runs=found,
                    title=title,
                    split=split,
                    y=y,
                    x=x,
                ),
                "Medians over seeds; shaded: from the least to the greatest.",
            )
            for stem, title, split, y, x in panels
        ],
    )


def read(path):
    """The `Run` of a folder.

    Raises:
        ValueError: if there is none.
    """
    path = pathlib.Path(path)
    try:
        settings, facts = (
            json.loads((path / f"{name}.json").read_text())
            for name in ("settings", "facts")
        )
        if not isinstance(facts, dict):
            raise TypeError("facts.json holds no facts")
        shared = [settings[name] for name in _SHARED]
        optimizer, *_ = (settings[name] for name in _NEEDED)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not the folder of a training of `python -m "
            f"train_scripts.imagenet` ({error})."
        ) from error
    rows = grouped(
        image_callbacks.read_metrics(path / "metrics.csv"),
        lambda row: row["split"],
    )
    if facts.get("diverged"):
        # Perhaps before its first test.
        rows.setdefault("test", [])
    if set(rows) != {"train", "test"}:
        raise ValueError(f"The training in {path} was not tested yet.")
    model, dataset, batch, size, steps = shared
    problem = f"{model}, {dataset}, {size} px, batch {batch}, {steps} steps"
    return Run(path, problem, optimizer, settings, facts, rows)


def _told_apart(runs):
    """The runs, called so that those of one name differ in the seed alone.

    Raises:
        ValueError: if a training is there twice.
    """
    weights = [run.settings.get("weights") for run in runs]
    if len({*weights} - {None}) == 1:
        runs = [
            dataclasses.replace(run, optimizer="learned") if own else run
            for run, own in zip(runs, weights)
        ]
    panels = grouped(runs, lambda run: run.problem)
    named = [
        dataclasses.replace(
            run, optimizer=_label(run, members, panels[run.problem])
        )
        for members in grouped(runs).values()
        for run in members
    ]
    for (problem, optimizer), members in grouped(named).items():
        first = {}
        for run in members:
            twin = first.setdefault(run.seed, run)
            if twin is not run:
                raise ValueError(
                    f"{twin.path} and {run.path} hold the same training: "
                    f"{problem}, {optimizer}, seed {run.seed}. Name one."
                )
    return named


def _label(run, others, panel):
    """The optimizer's name, and what differs from others'.

    Args:
        run: the training.
        others: all of its optimizer.
        panel: all of its problem.
    """
    differing = [
        f"{name}={_setting(run, name)}"
        for names, runs in ((_DIFFERING, others), (_OF_TASK, panel))
        for name in names
        if len({_setting(other, name) for other in runs}) > 1
    ]
    return ", ".join([run.optimizer, *differing])


def _setting(run, name):
    """A setting as a text; of data, their digest's beginning."""
    value = run.settings.get(name)
    if name == "data":
        return checkpointing.digest(value)[:8]
    return str(value)


def summary(runs):
    """One row for each problem and optimizer: losses and accuracies."""
    adams = [run for run in runs if run.settings["optimizer"] == "adam"]
    adams = grouped(adams, _task)

    def steps_to_adam(run):
        rivals = [x for x in adams.get(_task(run), ()) if not _diverged(x)]
        if not rivals:
            return np.nan
        span = min(_last_step(rival) for rival in rivals) / 10
        # Single minibatches fall below a mean long before means do.
        reached = np.nanmin([_trailing_means(x, span)[-1] for x in rivals])
        means = _trailing_means(run, span)
        steps = run.column("train", "step")
        return steps[means <= reached * (1 + 1e-9)].min(initial=np.inf)

    rows = []
    for (problem, optimizer), members in grouped(runs).items():
        row = {
            "problem": problem,
            "optimizer": optimizer,
            "learning_rate": members[0].settings["learning_rate"],
            "seeds": len(members),
            "last_step": int(min(r.rows["train"][-1]["step"] for r in members)),
            "diverged": sum(map(_diverged, members)),
            "train_loss": _mean(_last_loss(run) for run in members),
        }
        for name in image_callbacks.METRICS:
            row[f"test_{name}"] = _mean(
                np.nan if _diverged(run) else run.column("test", name)[-1]
                for run in members
            )
        accuracies = [
            run.column("test", "top1").max(initial=-np.inf) for run in members
        ]
        accuracies = np.where(np.isneginf(accuracies), np.nan, accuracies)
        row["best_top1"] = _mean(accuracies)
        steps = [steps_to_adam(run) for run in members]
        if not np.any(np.isnan(steps)):
            row["steps_to_adam"] = float(np.median(steps))
        rows.append(row)
    return rows


def _task(run):
    """What trainings share whose losses are compared."""
    return (run.problem, run.seed, *(_setting(run, n) for n in _OF_TASK))


def _mean(values):
    return float(np.mean(list(values)))


def _last_step(run):
    return run.column("train", "step")[-1]


def _trailing_means(run, span):
    """Means of the training losses over so many steps up to each row.

    NaN where there are not so many.
    """
    steps, losses = (run.column("train", x) for x in ("step", "loss"))
    sizes = np.diff(steps, prepend=0)
    finite = np.isfinite(losses)
    first = np.searchsorted(steps, steps - span, side="right")
    last = np.arange(1, len(steps) + 1)

    def within(values):
        sums = np.concatenate([[0.0], np.cumsum(values)])
        return sums[last] - sums[first]

    means = within(np.where(finite, losses, 0.0) * sizes) / within(sizes)
    return np.where((steps >= span) & (within(~finite) == 0), means, np.nan)


def _diverged(run):
    """Whether a training ended because it was not finite any more."""
    finite = np.isfinite(run.column("train", "loss")[-1])
    return bool(run.facts.get("diverged")) or not finite


def _last_loss(run):
    if _diverged(run):
        return np.inf
    losses = run.column("train", "loss")
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def timings(runs):
    """One row for each run: seconds, speed and bytes."""
    rows = []
    for run in runs:
        steps, seconds = (
            np.diff(run.column("train", name), prepend=0)
            for name in ("step", "seconds")
        )
        rows.append(
            {
                "problem": run.problem,
                "optimizer": run.optimizer,
                "seed": run.seed,
                "seconds": float(np.sum(seconds)),
                "step_ms": float(1e3 * np.median(seconds / steps)),
                **{
                    name: run.facts.get(name)
                    for name in ("parameters", "optimizer_bytes", "replicas")
                },
                "devices": run.facts.get("devices"),
            }
        )
    return rows
