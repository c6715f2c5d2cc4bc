"""Loss curves, what they boil down to, and the files that hold them."""

import dataclasses

import numpy as np

from lopt_tf.reporting import tables

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
        extension: losses of further steps, for Adam to be caught up with.
        at_edge: whether the learning rate is the lowest or highest tried.
    """

    problem: str
    optimizer: str
    learning_rate: float
    seed: int
    losses: np.ndarray
    metrics: dict = dataclasses.field(default_factory=dict)
    extension: np.ndarray = ()
    at_edge: bool = False

    @property
    def all_losses(self):
        """Losses of all steps, the extension's too."""
        return np.concatenate([self.losses, self.extension])

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
        return final_loss(self.losses)

    @property
    def diverged(self):
        """Whether it ended not finite, or above its start.

        That is: the last 20 steps' mean is more than a tenth above the first
        loss, which is the start's own. Any later loss may have blown up.
        """
        start, final = float(self.losses[0]), self.final_loss
        return not np.isfinite(final) or final > start + 0.1 * abs(start)

    def steps_to(self, loss):
        """The first step whose 20-step mean is at most `loss`, or None."""
        losses = np.where(np.isfinite(self.losses), self.losses, np.inf)
        window = min(_WINDOW, len(losses))
        sums = np.convolve(losses, np.ones(window), "valid")
        reached = np.flatnonzero(sums / window <= loss)
        return int(reached[0]) + window if len(reached) else None


def final_loss(losses):
    """The mean of the last 20 losses; infinite if not finite."""
    # Sums of large float32 numbers would overflow.
    mean = float(np.mean(np.asarray(losses[-_WINDOW:], float)))
    return mean if np.isfinite(mean) else float("inf")


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
            "at_edge": members[0].at_edge,
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


def write_curves(path, curves):
    """Writes every step of every run: problem, optimizer, ..., step, loss."""
    tables.write_csv(
        path,
        [
            {**c.identity, "step": step, "loss": f"{loss:.7g}"}
            for c in curves
            for step, loss in enumerate(c.all_losses, start=1)
        ],
    )


def write_runs(path, curves):
    """Writes one row for every run: what it ended with."""
    tables.write_csv(
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
