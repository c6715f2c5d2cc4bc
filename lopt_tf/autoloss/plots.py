"""PNG plots of schedules, rewards, and results."""

import numpy as np

from lopt_tf.reporting import figures


def plot_schedule(path, shares, actions, segment_length):
    """The share of each action over the steps of an episode.

    Args:
        path: the PNG file to write.
        shares: [segments, actions].
        actions: their names.
        segment_length: steps of a segment.
    """
    figure, axis = figures.pyplot().subplots(
        figsize=(7, 4), layout="constrained"
    )
    steps = (np.arange(len(shares)) + 0.5) * segment_length
    for name, share in zip(actions, np.transpose(shares)):
        axis.plot(steps, share, label=name, marker="o", markersize=3)
    axis.set(
        xlabel="task step",
        ylabel="share of the actions",
        ylim=(0, 1),
        title="Learned schedule",
    )
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figures.save(figure, path)


def plot_training(path, history, result_name):
    """Rewards and results over episodes."""
    figure, (axis, below) = figures.pyplot().subplots(
        2, 1, figsize=(7, 6), sharex=True, layout="constrained"
    )
    episodes = [row["episodes"] for row in history]
    axis.plot(
        episodes,
        [row["result"] for row in history],
        label="episodes, controller splits",
    )
    checked = [row for row in history if row["validation"] is not None]
    axis.plot(
        [row["episodes"] for row in checked],
        [row["validation"] for row in checked],
        label="validation, task splits",
        marker="o",
        markersize=4,
    )
    axis.set(
        ylabel=f"validation {result_name}",
        title="Training of the controller",
    )
    axis.legend(frameon=False)
    below.plot(episodes, [row["reward"] for row in history], color="#229954")
    below.set(xlabel="episodes", ylabel="final reward")
    for each in (axis, below):
        each.grid(alpha=0.25)
    figures.save(figure, path)


def plot_results(path, results, result_name):
    """Test results of every start, one line for each schedule.

    Args:
        path: the PNG file to write.
        results: {name: (label, array [starts])}, the controller first.
        result_name: what they measure.
    """
    # A schedule that is far off would flatten all others.
    medians = {name: np.median(v) for name, (_, v) in results.items()}
    middle = np.median(list(medians.values()))
    shown = {
        name: value
        for name, value in results.items()
        if abs(medians[name] - middle) < 0.3 * abs(middle)
    }
    height = 0.45 * len(shown) + 1.4
    figure, axis = figures.pyplot().subplots(
        figsize=(7, height), layout="constrained"
    )
    names = list(shown)[::-1]
    for place, name in enumerate(names):
        values = shown[name][1]
        color = "#c0392b" if name == "controller" else "#2471a3"
        heights = np.full(len(values), place)
        axis.plot(values, heights, ".", color=color, alpha=0.4)
        axis.plot(values.mean(), place, "|", color=color, markersize=16)
    labels = [f"{name} ({shown[name][0]})" for name in names]
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    left_out = [name for name in results if name not in shown]
    note = f" (far off: {', '.join(left_out)})" if left_out else ""
    axis.set_xlabel(f"test {result_name}{note}")
    axis.grid(alpha=0.25, axis="x")
    figures.save(figure, path)
