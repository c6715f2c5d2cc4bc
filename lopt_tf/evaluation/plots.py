"""PNG plots of what experiments found, each written to a `path`."""

import functools
import itertools
import operator

import numpy as np

from lopt_tf.evaluation import baselines, speedup
from lopt_tf.evaluation.curves import grouped
from lopt_tf.reporting import figures

_COLORS = {
    "learned": "#c0392b",
    "hierarchical_rnn": "#641e16",
    "complete": "#c0392b",
    "adam": "#2471a3",
    "adam_cosine": "#5dade2",
    "rmsprop": "#229954",
    "momentum": "#d68910",
    "untrained": "#95a5a6",
    "coordinatewise_rnn": "#7d3c98",
}
# For whatever else there is, apart from the colours above.
_OTHERS = (
    "#17becf #e377c2 #8c564b #1b2631 #bcbd22 #9b59b6 #7fb3d5 #52be80 #f5b041"
).split()


def _colors(names):
    """{name: colour}, of these names and more."""
    others = dict.fromkeys(name for name in names if name not in _COLORS)
    return _COLORS | dict(zip(others, itertools.cycle(_OTHERS)))


def _columns(rows, *names):
    return [np.array([row[name] for row in rows]) for name in names]


def _draw_panels(path, title, groups, draw):
    """Draws a panel for each group, with a legend: `draw(axes, group)`."""
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    size = (max(6, 5.2 * columns), 3.8 * rows)
    figure, axes = figures.new(size, rows, columns, squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    for axis, (name, group) in zip(axes.flat, groups.items()):
        draw(axis, group)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False)
    figure.suptitle(title)
    figures.save(figure, path)


def _draw_range(axis, x, lines, color, label, **style):
    """Draws a line within its range; returns the line, NaN for infinite.

    The `lines` are the line itself, its lower and its upper bound, [n] each.
    """
    middle, low, high = (
        np.where(np.isfinite(line), line, np.nan) for line in lines
    )
    axis.plot(x, middle, color=color, label=label, lw=1.4, **style)
    axis.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
    return middle


def plot_curves(path, results, title, log_steps=False, window=speedup.WINDOW):
    """Draws a panel for each problem: smoothed median loss and its range.

    Args:
        results: list of `Curve`.
        title: the headline.
        log_steps: whether steps are on a logarithmic axis.
        window: steps of a mean. Defaults to 20.

    Raises:
        ImportError: without matplotlib; the message says how to install it.
    """

    problems = grouped(results, operator.attrgetter("problem"))
    draw = functools.partial(_curve_panel, log_steps=log_steps, window=window)
    _draw_panels(path, title, problems, draw)


def _curve_panel(axis, curves, log_steps, window):
    shown = []
    colors = _colors(c.optimizer for c in curves)
    by_optimizer = grouped(curves, operator.attrgetter("optimizer"))
    for optimizer, members in by_optimizer.items():
        losses = np.stack([_smooth(c.losses, window) for c in members])
        label = optimizer
        if optimizer in baselines.BASELINES:
            label = f"{optimizer}, rate {members[0].learning_rate:g}"
        # The median of infinite and finite runs: one run of many that
        # diverges does not take the line with it.
        lines = [f(losses, 0) for f in (np.median, np.min, np.max)]
        steps = np.arange(1, losses.shape[1] + 1)
        shown.append(_draw_range(axis, steps, lines, colors[optimizer], label))
    start = np.nanmedian([c.losses[0] for c in curves])
    _limit_losses(axis, np.concatenate(shown), start)
    axis.set(xlabel="step", ylabel=f"loss ({window}-step mean)")
    if log_steps:
        axis.set_xscale("log")


def _limit_losses(axis, losses, start):
    """Makes the loss axis logarithmic if it can be, and cuts it to 8 decades.

    It ends at 10 times the start, so that diverged runs do not hide the
    others.
    """
    losses = losses[np.isfinite(losses)]
    if not len(losses) or not np.isfinite(start):
        return
    if losses.min() <= 0 or start <= 0:
        axis.set_yscale("symlog", linthresh=1e-8)
        top = max(10 * abs(start), np.quantile(losses, 0.5))
        axis.set_ylim(top=min(top, losses.max() + 0.1 * abs(losses.max())))
        return
    axis.set_yscale("log")
    ceiling = min(losses.max(), 10 * start)
    floor = max(losses.min(), ceiling * 1e-8)
    margin = (ceiling / floor) ** 0.05
    if margin > 1:
        axis.set_ylim(floor / margin, ceiling * margin)


def _smooth(losses, window):
    """Means over the last `window` steps (fewer at the beginning)."""
    ends = range(1, min(window, len(losses)))
    first = [speedup.window_means(losses[:end], end)[0] for end in ends]
    return np.concatenate([first, speedup.window_means(losses, window)])


def plot_trainings(path, runs, title, split, x, y):
    """Draws a column of metrics.csv, a panel for each problem.

    Args:
        runs: with problem, optimizer, facts, rows and `column(split, name)`.
        title: the headline.
        split: "train" or "test".
        x, y: the columns; "loss" is on a logarithmic axis.
    """

    def draw(axis, own):
        by_optimizer = grouped(own, operator.attrgetter("optimizer"))
        colors = _colors(by_optimizer)
        for optimizer, members in by_optimizer.items():
            # Those that diverged may have none, and none to the end.
            longest = max(len(run.rows[split]) for run in members)
            members = [
                run
                for run in members
                if not run.facts.get("diverged")
                or len(run.rows[split]) == longest > 0
            ]
            if not members:
                continue
            across, up = (
                _aligned([run.column(split, name) for run in members])
                for name in (x, y)
            )
            lines = [f(up, 0) for f in (np.median, np.min, np.max)]
            across = np.median(across, 0)
            _draw_range(axis, across, lines, colors[optimizer], optimizer)
        axis.set(xlabel=x, ylabel=y)
        if y == "loss":
            axis.set_yscale("log")

    problems = grouped(runs, operator.attrgetter("problem"))
    _draw_panels(path, title, problems, draw)


def _aligned(columns):
    """Columns as [runs, rows], as long as the shortest of them."""
    length = min(map(len, columns))
    return np.stack([column[:length] for column in columns])


def plot_speedups(path, rows):
    """Draws speed-ups with their intervals, a line for each problem.

    Args:
        rows: dictionaries with "problem", "optimizer", "speedup",
            "speedup_low" and "speedup_high".
    """
    rows = [row for row in rows if row["optimizer"] != "adam"]
    problems = list(dict.fromkeys(row["problem"] for row in rows))[::-1]
    by_optimizer = grouped(rows, operator.itemgetter("optimizer"))
    colors, count = _colors(by_optimizer), len(by_optimizer)
    height = 1.4 + len(problems) * max(0.3, 0.16 * count)
    figure, axis = figures.new((9, height))
    for number, (optimizer, own) in enumerate(by_optimizer.items()):
        shift = ((count - 1) / 2 - number) * 0.7 / count
        x, low, high = _columns(own, "speedup", "speedup_low", "speedup_high")
        axis.errorbar(
            x,
            [problems.index(row["problem"]) + shift for row in own],
            xerr=[np.maximum(x - low, 0), np.maximum(high - x, 0)],
            fmt="o",
            markersize=5,
            capsize=2,
            label=optimizer,
            color=colors[optimizer],
        )
    axis.axvline(1, color="#2471a3", lw=1)
    axis.axvline(4, color="#616e7c", lw=1, ls="--")
    axis.set_xscale("log")
    # An end that one seed does not tell is NaN.
    least = np.nanmin([1.0, *(row["speedup_low"] for row in rows)])
    halves = [n for n in range(8, 0, -1) if 2.0**-n >= min(least / 2, 0.5)]
    axis.set_xticks(
        [*(2.0**-n for n in halves), 1, 2, 4],
        [*(f"1/{2**n}" for n in halves), "1", "2", "4"],
    )
    axis.minorticks_off()
    axis.set_yticks(range(len(problems)), problems, fontsize=8)
    axis.set_ylim(-0.7, len(problems) - 0.3)
    axis.set_xlabel("steps of tuned Adam over steps of the optimizer")
    axis.grid(alpha=0.25, axis="x")
    axis.legend(
        fontsize=8,
        frameon=False,
        ncols=min(3, count),
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )
    figure.suptitle("Speed-up over tuned Adam")
    figures.save(figure, path)


def plot_rates(path, rows):
    """Draws final losses over learning rates, a panel for each problem.

    Args:
        rows: dictionaries with "problem", "optimizer", "learning_rate",
            "first_loss", "final_loss", "least" and "greatest" (over seeds).
    """
    title = "Final loss over initial learning rate"
    problems = grouped(rows, operator.itemgetter("problem"))
    _draw_panels(path, title, problems, _rates_panel)


def _rates_panel(axis, rows):
    shown = []
    by_optimizer = grouped(rows, operator.itemgetter("optimizer"))
    for optimizer, own in by_optimizer.items():
        names = ("learning_rate", "final_loss", "least", "greatest")
        rates, *lines = _columns(own, *names)
        color = _COLORS.get(optimizer)
        style = {"marker": "o", "ms": 3.5}
        shown.append(_draw_range(axis, rates, lines, color, optimizer, **style))
    axis.set_xscale("log")
    start = np.mean([row["first_loss"] for row in rows])
    _limit_losses(axis, np.concatenate(shown), start)
    axis.set(xlabel="initial learning rate", ylabel="final loss")


def plot_log_log(path, lines, x_label, y_label, dashed=None, ticks=None):
    """Draws lines on two logarithmic axes.

    Args:
        lines: {label: list of (x, y)}.
        x_label, y_label: the axes' names.
        dashed: lines to draw dashed and grey.
        ticks: where the axes have their ticks, (on x, on y).
    """
    figure, axis = figures.new((8, 5))
    for label, points in lines.items():
        axis.loglog(*zip(*points), marker="o", markersize=4, label=label)
    for label, points in (dashed or {}).items():
        axis.loglog(*zip(*points), ls="--", lw=1.2, color="0.4", label=label)
    for own, chosen in zip((axis.xaxis, axis.yaxis), ticks or ()):
        least, greatest = own.get_view_interval()
        shown = [tick for tick in chosen if least <= tick <= greatest]
        own.set_ticks(shown, [f"{tick:g}" for tick in shown])
        own.set_minor_formatter(lambda *_: "")
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    figures.save(figure, path)
