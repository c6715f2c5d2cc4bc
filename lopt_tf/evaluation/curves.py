"""Loss curves, what they boil down to, and the files that hold them."""

import csv
import dataclasses
import os
import pathlib

import numpy as np

_WINDOW = 20


@dataclasses.dataclass
class Curve:
    """One training run.

    Attributes:
        problem: what was optimised.
        optimizer: what optimised it.
        learning_rate: the baseline's learning rate; the multiplier of the
            learned step.
        seed: of start, data order and optimizer.
        losses: loss of each step, [steps].
        metrics: further results, {column: number}.
    """

    problem: str
    optimizer: str
    learning_rate: float
    seed: int
    losses: np.ndarray
    metrics: dict = dataclasses.field(default_factory=dict)

    @property
    def identity(self):
        """The columns that say in every file which run this is."""
        return {
            "problem": self.problem,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }

    @property
    def final_loss(self):
        """The mean loss of the last 20 steps; infinite if not finite."""
        mean = float(np.mean(self.losses[-_WINDOW:]))
        return mean if np.isfinite(mean) else float("inf")

    @property
    def diverged(self):
        """Whether it ended above its start, or not finite."""
        return not self.final_loss <= float(np.mean(self.losses[:_WINDOW]))

    def steps_to(self, loss):
        """The first step whose 20-step mean is at most `loss`, or None."""
        losses = np.where(np.isfinite(self.losses), self.losses, np.inf)
        window = min(_WINDOW, len(losses))
        sums = np.convolve(losses, np.ones(window), "valid")
        reached = np.flatnonzero(sums / window <= loss)
        return int(reached[0]) + window if len(reached) else None


def summary(curves, baseline="adam"):
    """Rows {problem, optimizer, ...}: means over seeds, one per pair.

    `steps_to_<baseline>` is the median number of steps to the final loss
    which that baseline reached with the same seed; runs that never reach it
    count as infinite.
    """
    finals = {
        (c.problem, c.seed): c.final_loss
        for c in curves
        if c.optimizer == baseline
    }
    groups = {}
    for curve in curves:
        key = (curve.problem, curve.optimizer)
        groups.setdefault(key, []).append(curve)
    rows = []
    for (problem, optimizer), members in groups.items():
        losses = [c.final_loss for c in members]
        row = {
            "problem": problem,
            "optimizer": optimizer,
            "learning_rate": members[0].learning_rate,
            "seeds": len(members),
            "final_loss": float(np.mean(losses)),
            "final_loss_std": _spread(losses),
            "diverged": sum(c.diverged for c in members),
        }
        steps = [
            c.steps_to(finals[c.problem, c.seed])
            for c in members
            if (c.problem, c.seed) in finals
        ]
        if steps:
            steps = [np.inf if s is None else s for s in steps]
            row[f"steps_to_{baseline}"] = float(np.median(steps))
        for name in members[0].metrics:
            values = [c.metrics[name] for c in members]
            row[name] = float(np.mean(values))
        rows.append(row)
    return rows


def _spread(values):
    return float(np.std(values)) if np.all(np.isfinite(values)) else np.inf


def write_csv(path, rows):
    """Writes dictionaries as a CSV file, whole or not at all."""
    path = pathlib.Path(path)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def write_curves(path, curves):
    """Writes every step of every run: problem, optimizer, ..., step, loss."""
    write_csv(
        path,
        [
            {
                **c.identity,
                "step": step + 1,
                "loss": float(loss),
            }
            for c in curves
            for step, loss in enumerate(c.losses)
        ],
    )


def write_runs(path, curves):
    """Writes one row for every run: what it ended with."""
    write_csv(
        path,
        [
            {
                **c.identity,
                "final_loss": c.final_loss,
                "diverged": c.diverged,
                **c.metrics,
            }
            for c in curves
        ],
    )


def format_table(rows):
    """Rows as a plain text table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_format(row.get(name, "")) for name in columns] for row in rows]
    widths = [
        max(len(line[i]) for line in [columns, *cells])
        for i in range(len(columns))
    ]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths))
        for line in [columns, ["-" * width for width in widths], *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _format(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
