"""Loss curves, rows of means over seeds, and the files that hold them."""

import dataclasses
import operator

import numpy as np

from lopt_tf.evaluation import speedup
from lopt_tf.reporting import tables


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
        names = ("problem", "optimizer", "learning_rate", "seed")
        return {name: getattr(self, name) for name in names}

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
        return speedup.steps_to(self.losses, loss)


def final_loss(losses):
    """The mean of the last 20 losses; infinite if not finite."""
    # Sums of large float32 numbers would overflow.
    mean = float(np.mean(np.asarray(losses[-speedup.WINDOW :], float)))
    return mean if np.isfinite(mean) else float("inf")


def grouped(items, key=operator.attrgetter("problem", "optimizer")):
    """{key: its items}, in the order in which they come."""
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def of_adam(curves):
    """{(problem, seed): Adam's curve}."""
    return {(c.problem, c.seed): c for c in curves if c.optimizer == "adam"}


def means(curves, *attributes, **measures):
    """{column: mean over runs}, shares of runs where a value is a bool.

    Columns are attributes of a `Curve`, then functions of one.
    """
    own = {name: operator.attrgetter(name) for name in attributes}
    return {
        name: float(np.mean([measure(curve) for curve in curves]))
        for name, measure in (own | measures).items()
    }


def summary(curves, columns):
    """One row for each problem and optimizer.

    Its further columns, {name: value}, are a function of its curves.
    """
    return [
        {
            "problem": problem,
            "optimizer": optimizer,
            "learning_rate": members[0].learning_rate,
            "at_edge": members[0].at_edge,
            "seeds": len(members),
            **columns(members),
        }
        for (problem, optimizer), members in grouped(curves).items()
    ]


def write_curves(path, curves):
    """Writes every step of every run: problem, optimizer, ..., step, loss."""
    rows = (
        {**c.identity, "step": step, "loss": f"{loss:.7g}"}
        for c in curves
        for step, loss in enumerate(c.all_losses, start=1)
    )
    # One by one: they may be millions.
    names = [*curves[0].identity, "step", "loss"] if curves else []
    tables.write_csv(path, rows, names)


def write_runs(path, curves):
    """Writes one row for every run: what it ended with."""
    rows = []
    for c in curves:
        ends = {"final_loss": c.final_loss, "diverged": c.diverged}
        rows.append({**c.identity, **ends, **c.metrics})
    tables.write_csv(path, rows)
