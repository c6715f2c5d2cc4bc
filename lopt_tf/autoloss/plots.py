"""PNG plots of schedules, rewards, and results."""

import numpy as np

from lopt_tf.reporting import figures


def _axes(height, rows=1):
    return figures.pyplot().subplots(
        rows, figsize=(7, height), sharex=True, layout="constrained"
    )


def plot_schedule(path, shares, actions, segment_length, groups=None):
    """The shares of the actions over an episode's steps.

    Args:
        path: of the picture.
        shares: as `episodes.play` returns them [segments, E, actions].
        actions: their names.
        segment_length: steps of a segment.
        groups: a label for each episode: a line for each of them instead, with
            the share of the first action. Defaults to `None`.
    """
    figure, axis = _axes(4)
    steps = (np.arange(len(shares)) + 0.5) * segment_length
    if groups is None or len(set(groups)) < 2:
        # Some episode is alive in every segment that was run.
        lines = dict(zip(actions, np.nanmean(shares, axis=1).T))
        what = "share of the actions"
    else:
        what, groups = f"share of the {actions[0]}", np.array(groups)
        lines = {
            label: np.nanmean(shares[:, groups == label, 0], axis=1)
            for label in dict.fromkeys(sorted(groups, key=_as_number))
        }
    for name, share in lines.items():
        axis.plot(steps, share, label=name, marker="o", markersize=3)
    axis.set(title="Learned schedule", xlabel="task step")
    axis.set(ylabel=what, ylim=(0, 1))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figures.save(figure, path)


def _as_number(label):
    """Sorts labels by value where they are numbers."""
    try:
        return float(label), label
    except ValueError:
        return np.inf, label


def plot_training(path, history, result_name):
    """Rewards and results over episodes."""
    figure, (axis, below) = _axes(6, rows=2)

    def plot(where, name, **style):
        rows = [row for row in history if row[name] is not None]
        x, y = ([row[column] for row in rows] for column in ("episodes", name))
        where.plot(x, y, **style)

    plot(axis, "result", label="episodes, controller splits")
    label = "validation, task splits"
    plot(axis, "validation", label=label, marker="o", markersize=4)
    axis.set_title("Training of the controller")
    axis.set_ylabel(f"validation {result_name}")
    axis.legend(frameon=False)
    plot(below, "reward", color="#229954")
    below.set(xlabel="episodes", ylabel="final reward")
    for each in (axis, below):
        each.grid(alpha=0.25)
    figures.save(figure, path)


def plot_results(path, results, result_name):
    """Test results {schedule: `comparison.Outcome`}, a line for each."""
    # A schedule that is far off would flatten all others.
    medians = {name: np.median(x.results) for name, x in results.items()}
    known = [x for x in medians.values() if np.isfinite(x)]
    middle = np.median(known) if known else 0.0
    shown = {
        name: value
        for name, value in results.items()
        if abs(medians[name] - middle) <= 0.3 * abs(middle)
    }
    figure, axis = _axes(0.45 * len(shown) + 1.4)
    names = list(shown)[::-1]
    for place, name in enumerate(names):
        values = shown[name].results
        color = "#c0392b" if name == "controller" else "#2471a3"
        heights = np.full(len(values), place)
        axis.plot(values, heights, ".", color=color, alpha=0.4)
        axis.plot(values.mean(), place, "|", color=color, markersize=16)
    labels = [f"{name} ({shown[name].label})" for name in names]
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    left_out = [name for name in results if name not in shown]
    note = f" (far off: {', '.join(left_out)})" if left_out else ""
    axis.set_xlabel(f"test {result_name}{note}")
    axis.grid(alpha=0.25, axis="x")
    figures.save(figure, path)


def plot_curves(path, curves, result_name):
    """Results over updates, {schedule: a curve for each start}.

    A curve is a list of pairs. The means over starts are drawn in bold, where
    starts were validated after the same updates.
    """
    figure, axis = _axes(4.5)
    for number, (name, each) in enumerate(curves.items()):
        color = f"C{number}"
        columns = [np.transpose(curve) for curve in each if curve]
        for updates, results in columns:
            axis.plot(updates, results, color=color, alpha=0.3, linewidth=1)
        shortest = min((x.shape[1] for x in columns), default=0)
        both = np.array([x[:, :shortest] for x in columns]).reshape(
            len(columns), 2, shortest
        )
        if len(columns) and (both[:, 0] == both[0, 0]).all():
            axis.plot(*both.mean(0), color=color, linewidth=2.5, label=name)
        else:
            axis.plot([], [], color=color, label=name)
    axis.set(xlabel="updates", ylabel=result_name)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figures.save(figure, path)


def plot_samples(path, images, labels):
    """Images in -1..1, a row for each episode.

    They are [E, count, height, width], or [E, count, height, width, 3].
    """
    rows, count, height, width, *colours = images.shape
    grid = np.clip(np.swapaxes(images, 1, 2) / 2 + 0.5, 0, 1)
    grid = grid.reshape(rows, height, count * width, *colours)
    figure, axes = figures.new(
        (0.4 * count + 1.2, 0.4 * rows + 0.3), rows, squeeze=False
    )
    for axis, row, label in zip(axes[:, 0], grid, labels):
        axis.imshow(row, cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figures.save(figure, path)
