"""What an experiment hands over, and the rows of a comparison."""

import dataclasses
import functools

import numpy as np

from lopt_tf.evaluation import curves, plots, speedup
from lopt_tf.reporting import report, tables


@dataclasses.dataclass
class Outcome:
    """What came out of an experiment.

    Attributes:
        tables: list of `report.Table`, the most important one first.
        plots: list of `report.Plot`.
        curves: list of `Curve`.
        timings: rows about seconds, apart from everything repeatable;
            unless a table "timings" is what the experiment is about.
    """

    tables: list
    plots: list
    curves: list = dataclasses.field(default_factory=list)
    timings: list = dataclasses.field(default_factory=list)


SUMMARY_COLUMNS = {
    "speedup": "The steps that Adam at its tuned, constant learning rate needs "
    "for the loss which the optimizer has reached at its last step, over that "
    "step. Losses are running minima of 20-step means. Adam runs four times as "
    "long: a loss that it never reaches counts as 4. Adam itself gets less "
    "than 1 where it has stopped improving before the last step.",
    "speedup_low": "The lower end of the 95 % bootstrap interval over seeds; "
    "nan for one seed.",
    "speedup_high": "The upper end of that interval.",
    "never_reached": "The share of runs whose loss Adam never reached.",
    "diverged": "The share of runs that ended not finite, or more than a tenth "
    "above their start.",
    "at_or_below_adam": "The share of problems whose final loss, mean over "
    "seeds, is at most Adam's. Differences below a millionth of the starting "
    "loss count as none.",
    "at_or_below_adam_exactly": "As at_or_below_adam, but every difference "
    "counts.",
    "at_or_below_adam_cosine": "As at_or_below_adam, but of Adam whose tuned "
    "learning rate falls to 0 by half a cosine over the run.",
    "at_or_below_adam_cosine_exactly": "As at_or_below_adam_exactly, but of "
    "that Adam.",
    "at_or_below_rmsprop": "As at_or_below_adam, but of RMSProp.",
    "at_or_below_rmsprop_exactly": "As at_or_below_adam_exactly, but of "
    "RMSProp.",
    "rates_at_edge": "Problems on which the grid of learning rates had reached "
    "its bound.",
}
_LEVEL = 1e-6


def by_problem(results, measures=None):
    """One row for each problem and optimizer: losses, speed-up, divergence.

    Without Adam's curves there is no speed-up.

    Args:
        results: list of `Curve`.
        measures: {column: function of a `Curve`}, whose means are further
            columns. Defaults to `None`: none.
    """
    return curves.summary(
        results,
        lambda members: {
            **curves.means(
                members,
                "final_loss",
                reached_loss=lambda c: speedup.reached(c.losses),
            ),
            **_against_adam([members], results),
            **curves.means(members, "diverged"),
            **curves.means(members, **(measures or {})),
        },
    )


def overall(results, measures=None):
    """One row for each optimizer, over all problems; see `by_problem`."""
    by_optimizer = curves.grouped(
        curves.grouped(results).values(), lambda members: members[0].optimizer
    )
    return [
        {
            "optimizer": optimizer,
            "problems": len(groups),
            "runs": sum(map(len, groups)),
            **_against_adam(groups, results),
            **curves.means(sum(groups, []), "diverged"),
            **_shares(groups, results),
            "rates_at_edge": sum(g[0].at_edge for g in groups),
            **curves.means(sum(groups, []), **(measures or {})),
        }
        for optimizer, groups in by_optimizer.items()
    ]


def _against_adam(groups, results):
    adam = curves.of_adam(results)
    if any((c.problem, c.seed) not in adam for g in groups for c in g):
        return {}

    def against(curve):
        rival = adam[curve.problem, curve.seed].all_losses
        return speedup.speedup(curve.losses, rival)

    return speedup.combined([list(map(against, group)) for group in groups])


def _shares(groups, results):
    """Shares of problems on which an optimizer is at or below a baseline."""
    found = curves.grouped(results)
    shares = {}
    for baseline in ("adam", "adam_cosine", "rmsprop"):
        rivals = [found.get((group[0].problem, baseline)) for group in groups]
        if None in rivals:
            continue
        name = f"at_or_below_{baseline}"
        for column, level in ((name, _LEVEL), (f"{name}_exactly", 0.0)):
            met = [_is_at_or_below(*p, level) for p in zip(groups, rivals)]
            shares[column] = float(np.mean(met))
    return shares


def _is_at_or_below(group, baseline, level):
    """Whether the mean final loss is at most the baseline's."""
    start = np.mean([abs(c.losses[0]) for c in baseline], dtype=float)
    ours, theirs = (
        np.mean([c.final_loss for c in members])
        for members in (group, baseline)
    )
    if not np.isfinite(ours):
        return False
    return bool(ours <= (theirs + level * start if level else theirs))


def tuning_table(tuned):
    """The table of all learning rates tried."""
    return report.Table(
        "tuning",
        "Learning rates tried",
        tuned,
        "On other seeds than the comparison; the grid grows until its best "
        "is not at an edge.",
    )


def comparison_outcome(results, tuned, title, measures=None, first=None):
    """The usual tables and plots of what `comparison.compare` returned.

    Args:
        results, tuned: what it returned.
        title: of the plots of curves.
        measures: as for `by_problem`. Defaults to `None`.
        first: the `report.Table` to begin with. Defaults to `None`: that of
            `overall`.
    """
    rows = by_problem(results, measures)
    return Outcome(
        tables=[
            first
            or report.Table(
                "overall",
                "All problems",
                overall(results, measures),
                columns=SUMMARY_COLUMNS,
            ),
            report.Table(
                "summary",
                "Problem by problem",
                rows,
                "Means over seeds. at_edge: the grid had reached its bound.",
            ),
            tuning_table(tuned),
        ],
        plots=[
            report.Plot(
                "speedup",
                "Speed-up over tuned Adam",
                functools.partial(plots.plot_speedups, rows=rows),
                "1 is as fast as Adam; 4 (dashed) and more cannot be told "
                "apart. Bars: 95 % bootstrap intervals over seeds.",
            ),
            *curve_plots(results, title),
        ],
        curves=results,
    )


def curve_plots(results, title):
    """Plots of curves, up to 12 problems in each."""
    problems = list(dict.fromkeys(c.problem for c in results))
    drawn = []
    for first in range(0, len(problems), 12):
        shown = problems[first : first + 12]
        number = f"{first // 12 + 1}" if len(problems) > 12 else ""
        drawn.append(
            report.Plot(
                f"curves-{number}".rstrip("-"),
                f"Curves {number}".rstrip(),
                functools.partial(
                    plots.plot_curves,
                    results=[c for c in results if c.problem in shown],
                    title=title,
                ),
                "Medians over seeds of 20-step means; shaded: from the least "
                "to the greatest.",
            )
        )
    return drawn


def key_figures(rows):
    """{name: text} of the learned optimizer's results over all problems.

    Empty where it has several rows, such as one for each length of run.
    """
    found = [r for r in rows if r.get("optimizer") == "learned"]
    if len(found) != 1 or "never_reached" not in found[0]:
        return {}
    (row,) = found
    low, high = row["speedup_low"], row["speedup_high"]
    known = np.isfinite([low, high]).all()
    return {
        "learned: speed-up over tuned Adam": f"{row['speedup']:.2f}",
        "95 % interval": f"{low:.2f} – {high:.2f}" if known else "one seed",
        "Adam never got there": f"{row['never_reached']:.0%}",
        "diverged": f"{row['diverged']:.0%}",
        "runs": f"{row['runs']}",
    }


def write(folder, outcome, about):
    """Writes all CSV and PNG files and report.html."""
    if outcome.curves:
        curves.write_curves(folder / "curves.csv", outcome.curves)
        curves.write_runs(folder / "runs.csv", outcome.curves)
    if "timings" not in [table.stem for table in outcome.tables]:
        tables.write_csv(folder / "timings.csv", outcome.timings)
    report.write(folder, outcome.tables, outcome.plots, about)
