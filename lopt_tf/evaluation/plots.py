"""PNG plots of what experiments found."""

import numpy as np

from lopt_tf.reporting import figures

_COLORS = {
    "learned": "#c0392b",
    "hierarchical_rnn": "#641e16",
    "complete": "#c0392b",
    "adam": "#2471a3",
    "rmsprop": "#229954",
    "momentum": "#d68910",
    "untrained": "#95a5a6",
    "coordinatewise_rnn": "#7d3c98",
}
# For whatever else there is, apart from the colours above.
_OTHERS = (
    "#17becf",
    "#e377c2",
    "#8c564b",
    "#1b2631",
    "#bcbd22",
    "#9b59b6",
    "#7fb3d5",
    "#52be80",
    "#f5b041",
)
_TUNED = ("adam", "rmsprop", "momentum")
_WINDOW = 20


def _colors(names):
    """{name: colour}."""
    names = list(dict.fromkeys(names))
    others = [name for name in names if name not in _COLORS]
    free = {n: _OTHERS[i % len(_OTHERS)] for i, n in enumerate(others)}
    return {name: _COLORS.get(name) or free[name] for name in names}


def _panels(count, width=5.2, height=3.8, columns=3):
    """(figure, axes) with that many panels."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = figures.pyplot().subplots(
        rows,
        columns,
        figsize=(max(6, width * columns), height * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def plot_curves(path, results, title, log_steps=False, window=_WINDOW):
    """Draws a panel for each problem: smoothed median loss and its range.

    Args:
        path: the PNG file to write.
        results: list of `Curve`.
        title: the headline.
        log_steps: whether steps are on a logarithmic axis.
        window: steps of a mean.

    Raises:
        ImportError: without matplotlib; the message says how to install it.
    """
    problems = list(dict.fromkeys(c.problem for c in results))
    figure, axes = _panels(len(problems))
    for axis, problem in zip(axes, problems):
        members = [c for c in results if c.problem == problem]
        _curve_panel(axis, members, window)
        axis.set_title(problem, fontsize=10)
        if log_steps:
            axis.set_xscale("log")
        axis.legend(fontsize=7.5, frameon=False)
    figure.suptitle(title)
    figures.save(figure, path)


def _curve_panel(axis, curves, window):
    shown = []
    colors = _colors(c.optimizer for c in curves)
    for optimizer, color in colors.items():
        members = [c for c in curves if c.optimizer == optimizer]
        losses = np.stack([_smooth(c.losses, window) for c in members])
        steps = np.arange(1, losses.shape[1] + 1)
        label = optimizer
        if optimizer in _TUNED:
            label = f"{optimizer}, rate {members[0].learning_rate:g}"
        # What has blown up is worse than anything else, and leaves the
        # picture: one run of many does not take the median with it.
        middle, low, high = (
            _finite(function(losses, 0))
            for function in (np.median, np.min, np.max)
        )
        axis.plot(steps, middle, color=color, label=label, lw=1.4)
        axis.fill_between(
            steps,
            low,
            high,
            color=color,
            alpha=0.13,
            linewidth=0,
        )
        shown.append(middle)
    start = np.nanmedian([c.losses[0] for c in curves])
    _limit_losses(axis, np.concatenate(shown), start)
    axis.set_xlabel("step")
    axis.set_ylabel(f"loss ({window}-step mean)")
    axis.grid(alpha=0.25)


def _limit_losses(axis, losses, start, decades=8):
    """A readable axis: logarithmic if it can be, without extremes.

    What blows up leaves at the top: it must not press everything else flat.
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
    floor = max(losses.min(), ceiling * 10.0**-decades)
    margin = (ceiling / floor) ** 0.05
    if margin > 1:
        axis.set_ylim(floor / margin, ceiling * margin)


def _smooth(losses, window=_WINDOW):
    """Means over the last `window` steps (fewer at the beginning)."""
    losses = np.asarray(losses, float)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    padded = np.concatenate([np.full(window - 1, np.nan), losses])
    views = np.lib.stride_tricks.sliding_window_view(padded, window)
    with np.errstate(invalid="ignore", over="ignore"):
        means = views.mean(-1)
    begin = min(window - 1, len(losses))
    for end in range(begin):
        means[end] = losses[: end + 1].mean()
    return means


def plot_speedups(path, rows, title="Speed-up over tuned Adam"):
    """Draws speed-ups with their intervals, a line for each problem.

    Args:
        path: the PNG file to write.
        rows: dictionaries with "problem", "optimizer", "speedup",
            "speedup_low" and "speedup_high".
        title: the headline.
    """
    rows = [row for row in rows if row["optimizer"] != "adam"]
    problems = list(dict.fromkeys(row["problem"] for row in rows))[::-1]
    colors = _colors(row["optimizer"] for row in rows)
    optimizers = list(colors)
    spread = 0.7 / len(optimizers)
    height = 1.4 + len(problems) * max(0.3, 0.16 * len(optimizers))
    figure, axis = figures.pyplot().subplots(
        figsize=(9, height), layout="constrained"
    )
    for number, optimizer in enumerate(optimizers):
        own = [row for row in rows if row["optimizer"] == optimizer]
        x = np.array([row["speedup"] for row in own])
        low = np.array([row["speedup_low"] for row in own])
        high = np.array([row["speedup_high"] for row in own])
        shift = (len(optimizers) - 1) / 2 - number
        y = [problems.index(row["problem"]) + shift * spread for row in own]
        axis.errorbar(
            x,
            y,
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
    least = min([row["speedup_low"] for row in rows], default=1)
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
        ncols=min(3, len(optimizers)),
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )
    figure.suptitle(title)
    figures.save(figure, path)


def plot_rates(path, rows, title):
    """Draws final losses over learning rates, a panel for each problem.

    Args:
        path: the PNG file to write.
        rows: dictionaries with "problem", "optimizer", "learning_rate",
            "first_loss", "final_loss", "least" and "greatest" (over seeds).
        title: the headline.
    """
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    figure, axes = _panels(len(problems))
    for axis, problem in zip(axes, problems):
        own = [row for row in rows if row["problem"] == problem]
        shown = []
        for optimizer in dict.fromkeys(row["optimizer"] for row in own):
            line = [row for row in own if row["optimizer"] == optimizer]
            x = [row["learning_rate"] for row in line]
            y, low, high = (
                _finite([row[name] for row in line])
                for name in ("final_loss", "least", "greatest")
            )
            color = _COLORS.get(optimizer)
            axis.plot(x, y, "o-", ms=3.5, lw=1.4, color=color, label=optimizer)
            axis.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
            shown.append(y)
        axis.set_xscale("log")
        start = np.mean([row["first_loss"] for row in own])
        _limit_losses(axis, np.concatenate(shown), start)
        axis.set_title(problem, fontsize=10)
        axis.set_xlabel("initial learning rate")
        axis.set_ylabel("final loss")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False)
    figure.suptitle(title)
    figures.save(figure, path)


def _finite(values):
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def plot_log_log(path, lines, x_label, y_label, dashed=None, ticks=None):
    """Draws lines on two logarithmic axes.

    Args:
        path: the PNG file to write.
        lines: {label: list of (x, y)}.
        x_label, y_label: the axes' names.
        dashed: lines to draw dashed and grey.
        ticks: where the axes have their ticks, (on x, on y).
    """
    figure, axis = figures.pyplot().subplots(
        figsize=(8, 5), layout="constrained"
    )
    for label, points in lines.items():
        axis.loglog(*zip(*points), marker="o", markersize=4, label=label)
    for label, points in (dashed or {}).items():
        axis.loglog(*zip(*points), ls="--", lw=1.2, color="0.4", label=label)
    for own, chosen in zip((axis.xaxis, axis.yaxis), ticks or ()):
        least, greatest = own.get_view_interval()
        shown = [tick for tick in chosen if least <= tick <= greatest]
        own.set_ticks(shown, [f"{tick:g}" for tick in shown])
        own.set_minor_formatter(lambda *_: "")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    figures.save(figure, path)
