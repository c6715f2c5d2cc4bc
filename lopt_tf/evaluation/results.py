"""What an experiment hands over, and the files that become of it."""

import dataclasses
import pathlib

import numpy as np

from lopt_tf.evaluation import curves, plots, speedup
from lopt_tf.reporting import report, tables


@dataclasses.dataclass
class Table:
    """Rows for a CSV file and the report.

    Attributes:
        stem: the file's name without ".csv".
        title: its headline in the report.
        rows: list of dictionaries.
        note: a sentence or two about it.
    """

    stem: str
    title: str
    rows: list
    note: str = ""


@dataclasses.dataclass
class Plot:
    """A PNG file.

    Attributes:
        stem: the file's name without ".png".
        title: its headline in the report.
        draw: function of the path that writes it.
        note: a sentence or two about it.
    """

    stem: str
    title: str
    draw: object
    note: str = ""


@dataclasses.dataclass
class Outcome:
    """What came out of an experiment.

    Attributes:
        tables: list of `Table`, the most important one first.
        plots: list of `Plot`.
        curves: list of `Curve`.
        timings: rows about seconds, apart from everything repeatable;
            unless a table "timings" is what the experiment is about.
    """

    tables: list
    plots: list
    curves: list = dataclasses.field(default_factory=list)
    timings: list = dataclasses.field(default_factory=list)


SUMMARY_NOTE = (
    "speedup: steps that Adam at its tuned learning rate needs for the loss "
    "which the optimizer has reached at its last step, over that step; on "
    "running minima of 20-step means. Adam runs four times as long: a loss it "
    "never reaches counts as 4, and never_reached is the share of such runs. "
    "Adam itself gets less than 1 where it has stopped improving before the "
    "last step. "
    "speedup_low and speedup_high: 95 % bootstrap interval over seeds. "
    "diverged: the share of runs that ended above their start or not finite. "
    "at_or_below_adam, at_or_below_rmsprop: the share of problems whose final "
    "loss, mean over seeds, is at most that baseline's; differences below a "
    "millionth of the starting loss count as none, in the columns that end "
    "in _exactly nothing does."
)
_LEVEL = 1e-6


def by_problem(results):
    """One row for each problem and optimizer: losses, speed-up, divergence.

    Args:
        results: list of `Curve`; without Adam's there is no speed-up.
    """
    rows = []
    for (problem, optimizer), members in grouped(results).items():
        first = members[0]
        rows.append(
            {
                "problem": problem,
                "optimizer": optimizer,
                "learning_rate": first.learning_rate,
                "at_edge": first.at_edge,
                "seeds": len(members),
                "final_loss": _mean([c.final_loss for c in members]),
                "reached_loss": _mean(
                    [speedup.reached(c.losses) for c in members]
                ),
                **_against_adam([members], results),
                "diverged": _mean([c.diverged for c in members]),
            }
        )
    return rows


def overall(results):
    """One row for each optimizer, over all problems."""
    by_optimizer = {}
    for (_, optimizer), members in grouped(results).items():
        by_optimizer.setdefault(optimizer, []).append(members)
    return [
        {
            "optimizer": optimizer,
            "problems": len(groups),
            "runs": sum(map(len, groups)),
            **_against_adam(groups, results),
            "diverged": _mean([c.diverged for g in groups for c in g]),
            **_shares(groups, results),
            "rates_at_edge": sum(g[0].at_edge for g in groups),
        }
        for optimizer, groups in by_optimizer.items()
    ]


def grouped(results):
    """{(problem, optimizer): its curves}."""
    groups = {}
    for curve in results:
        key = (curve.problem, curve.optimizer)
        groups.setdefault(key, []).append(curve)
    return groups


def _against_adam(groups, results):
    adam = {
        (c.problem, c.seed): c.all_losses
        for c in results
        if c.optimizer == "adam"
    }
    if any((c.problem, c.seed) not in adam for g in groups for c in g):
        return {}
    return speedup.combined(
        [
            [speedup.speedup(c.losses, adam[c.problem, c.seed]) for c in group]
            for group in groups
        ]
    )


def _shares(groups, results):
    """Shares of problems on which an optimizer is at or below a baseline."""
    found = grouped(results)
    shares = {}
    for baseline in ("adam", "rmsprop"):
        pairs = [
            (group, found[group[0].problem, baseline])
            for group in groups
            if (group[0].problem, baseline) in found
        ]
        if len(pairs) < len(groups):
            continue
        name = f"at_or_below_{baseline}"
        for column, level in ((name, _LEVEL), (f"{name}_exactly", 0.0)):
            shares[column] = _mean([_is_at(*p, level) for p in pairs])
    return shares


def _is_at(group, baseline, level):
    """Whether the mean final loss is at most the baseline's."""
    start = _mean([abs(c.losses[0]) for c in baseline])
    ours, theirs = (
        _mean([c.final_loss for c in curves]) for curves in (group, baseline)
    )
    if not np.isfinite(ours):
        return False
    return ours <= (theirs + level * start if level else theirs)


def _mean(values):
    return sum(map(float, values)) / len(values)


def comparison_outcome(results, tuned, title):
    """The usual tables and plots of a comparison.

    Args:
        results, tuned: what `comparison.compare` returned.
        title: the plots' headline.
    """
    rows = by_problem(results)
    return Outcome(
        tables=[
            Table("overall", "All problems", overall(results), SUMMARY_NOTE),
            Table(
                "summary",
                "Problem by problem",
                rows,
                "Means over seeds. at_edge: the grid had reached its bound.",
            ),
            Table(
                "tuning",
                "Learning rates tried",
                tuned,
                "On other seeds than the comparison; the grid grows until its "
                "best is not at an edge.",
            ),
        ],
        plots=[
            Plot(
                "speedup",
                "Speed-up over tuned Adam",
                lambda path: plots.plot_speedups(path, rows),
                "1 is as fast as Adam; 4 (dashed) and more cannot be told "
                "apart. Bars: 95 % bootstrap intervals over seeds.",
            ),
            *curve_plots(results, title),
        ],
        curves=results,
    )


def curve_plots(results, title, panels=12):
    """Plots of curves, so many problems in each."""
    problems = list(dict.fromkeys(c.problem for c in results))
    plots_ = []
    for first in range(0, len(problems), panels):
        shown = problems[first : first + panels]
        members = [c for c in results if c.problem in shown]
        suffix = f"-{first // panels + 1}" if len(problems) > panels else ""
        plots_.append(
            Plot(
                f"curves{suffix}",
                f"Curves{suffix.replace('-', ' ')}",
                lambda path, members=members: plots.plot_curves(
                    path, members, title
                ),
                "Medians over seeds of 20-step means; shaded: from the least "
                "to the greatest.",
            )
        )
    return plots_


def write(folder, outcome, about):
    """Writes all CSV and PNG files and report.html.

    Args:
        folder: where to.
        outcome: `Outcome`.
        about: `report.About`.
    """
    folder = pathlib.Path(folder)
    if outcome.curves:
        curves.write_curves(folder / "curves.csv", outcome.curves)
        curves.write_runs(folder / "runs.csv", outcome.curves)
    for table in outcome.tables:
        tables.write_csv(folder / f"{table.stem}.csv", table.rows)
    if "timings" not in [table.stem for table in outcome.tables]:
        tables.write_csv(folder / "timings.csv", outcome.timings)
    for plot in outcome.plots:
        plot.draw(folder / f"{plot.stem}.png")
    report.write(folder / "report.html", folder, outcome, about)
