"""PNG plots of loss curves."""

import numpy as np

_COLORS = {
    "learned": "#c0392b",
    "adam": "#2471a3",
    "rmsprop": "#229954",
    "untrained": "#95a5a6",
}


def check_available():
    """Raises ImportError, with advice, if there is no matplotlib."""
    _matplotlib()


def _matplotlib():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: pip install 'lopt-tf[plots]'"
        ) from error
    return matplotlib


def plot_curves(path, results, title):
    """Draws a panel for each problem: smoothed median loss and its range.

    Args:
        path: the PNG file to write.
        results: list of `Curve`.
        title: the headline.

    Raises:
        ImportError: without matplotlib; the message says how to install it.
    """
    _matplotlib().use("Agg")
    from matplotlib import pyplot

    problems = list(dict.fromkeys(c.problem for c in results))
    columns = min(3, len(problems))
    rows = -(-len(problems) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(5.2 * columns, 3.8 * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(problems) :]:
        axis.set_visible(False)
    for axis, problem in zip(axes.flat, problems):
        _panel(axis, [c for c in results if c.problem == problem])
        axis.set_title(problem, fontsize=10)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axis, curves):
    for optimizer in dict.fromkeys(c.optimizer for c in curves):
        members = [c for c in curves if c.optimizer == optimizer]
        losses = np.stack([_smooth(c.losses) for c in members])
        steps = np.arange(1, losses.shape[1] + 1)
        color = _COLORS.get(optimizer)
        label = optimizer
        if optimizer in ("adam", "rmsprop"):
            label = f"{optimizer}, best rate {members[0].learning_rate:g}"
        (line,) = axis.plot(
            steps, np.median(losses, 0), color=color, label=label
        )
        axis.fill_between(
            steps,
            losses.min(0),
            losses.max(0),
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    if min(np.nanmin(c.losses) for c in curves) > 0:
        axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("loss (20-step mean)")
    axis.grid(alpha=0.25)


def _smooth(losses, window=20):
    """Means over the last `window` steps (fewer at the beginning)."""
    losses = np.where(np.isfinite(losses), losses, np.nan)
    sums = np.cumsum(np.insert(losses, 0, 0.0))
    ends = np.arange(1, len(losses) + 1)
    begins = np.maximum(0, ends - window)
    return (sums[ends] - sums[begins]) / (ends - begins)


def plot_log_log(path, lines, x_label, y_label):
    """Draws lines on two logarithmic axes.

    Args:
        path: the PNG file to write.
        lines: {label: list of (x, y)}.
        x_label, y_label: the axes' names.
    """
    _matplotlib().use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for label, points in lines.items():
        axis.loglog(*zip(*points), marker="o", markersize=4, label=label)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
