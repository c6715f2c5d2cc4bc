"""The interface of gradient estimators: a run in, a meta-gradient out."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lopt_tf.metatraining.objective import MetaObjective
from lopt_tf.metatraining.unroll import Unroller


class WeightVector:
    """Meta-parameters as one vector and back, in the order of their names.

    Args:
        weights: {name: array [out, in]}.
        trained: names of those that are trained; the others never change.
            Empty for all. Defaults to `()`.

    Attributes:
        is_trained: [P], 1 where an element is trained, else 0.
    """

    def __init__(self, weights, trained=()):
        self.names = sorted(weights)
        self.shapes = [tuple(weights[name].shape) for name in self.names]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        unknown = [name for name in trained if name not in weights]
        if unknown:
            raise ValueError(
                f"Unknown weights {', '.join(unknown)}. Known: "
                f"{', '.join(self.names)}."
            )
        are_trained = [not trained or name in trained for name in self.names]
        self.is_trained = np.repeat(are_trained, self.sizes).astype("float32")

    def flatten(self, weights):
        """{name: [..., out, in]} -> [..., P]."""
        batch = tuple(weights[self.names[0]].shape[:-2])
        parts = [tf.reshape(weights[n], (*batch, -1)) for n in self.names]
        return tf.concat(parts, axis=-1)

    def unflatten(self, vector):
        """[..., P] -> {name: [..., out, in]}."""
        batch = tuple(vector.shape[:-1])
        parts = tf.split(vector, self.sizes, axis=-1)
        return {
            name: tf.reshape(part, batch + shape)
            for name, shape, part in zip(self.names, self.shapes, parts)
        }


@dataclasses.dataclass(frozen=True)
class Run:
    """K inner runs of one problem, somewhere on their way.

    Attributes:
        seed: integers that determine starts, minibatches and noise.
        step: number of inner steps done.
        carry: the runs' `Carry`; () before the first step.
    """

    seed: tuple
    step: int = 0
    carry: tuple = ()


class Inputs(NamedTuple):
    """What a step needs besides weights, constants and carry.

    Attributes:
        start: what `Unroller.draw_start` drew for fresh runs; () for others.
        segments: list of `SegmentInputs`.
        noise: (seed, replica) of the weights' perturbations, if there are any.
    """

    start: tuple
    segments: list
    noise: tuple = ()


class Summary(NamedTuple):
    """What counts of a step: of one replica, or the mean over all.

    Attributes:
        gradient: the meta-gradient [P], averaged over instances.
        loss: the sum of the meta-objectives.
        counted: of how many it is.
        lost: number of inner runs that have blown up so far.
        skipped: number of instances that had blown up, or whose
            meta-gradient was not finite: it counts as zero.
        negative: number of inner runs whose objective was below zero, which
            a logarithmic meta-objective would turn round.
    """

    gradient: tf.Tensor
    loss: tf.Tensor
    counted: tf.Tensor
    lost: tf.Tensor
    skipped: tf.Tensor
    negative: tf.Tensor


class Outcome(NamedTuple):
    """What `Estimator.compute` returns.

    Attributes:
        summary: the `Summary`, a mean over replicas.
        objectives: recorded inner objectives, [steps, K], of each replica.
        carry: the `Carry` after the step.
    """

    summary: Summary
    objectives: tf.Tensor
    carry: tuple


@dataclasses.dataclass
class Estimate:
    """The result of one estimator step, over all replicas.

    Attributes:
        gradient, lost, skipped, negative: as in `Summary`.
        meta_loss: the mean meta-objective; NaN if none counts.
        size: inner runs side by side.
        inner_steps: updates of one instance each that were made.
        objectives: recorded inner objectives, [steps, K], of each replica.
    """

    gradient: tf.Tensor
    meta_loss: float
    lost: int
    skipped: int
    negative: int
    size: int
    inner_steps: int
    objectives: tf.Tensor


@dataclasses.dataclass(eq=False)
class Estimator:
    """Base of the estimators: a run and weights in, a meta-gradient out.

    A step has two halves: `inputs` draws whatever is random, in Python;
    `compute` is pure, and may be part of a graph that runs elsewhere.

    Args:
        unroller: an `Unroller` with `copies` copies.
        objective: a `MetaObjective`.
        max_multiplier: an instance whose objective exceeds this multiple of
            its start is lost (`obj_train_max_multiplier`); 0 for no limit.
        instance_clip: the meta-gradient of an instance (a pair) is clipped
            to this norm, so that one that is about to blow up does not
            outvote all others; 0 for no limit.
    """

    copies = 1

    unroller: Unroller
    objective: MetaObjective
    max_multiplier: float = 0.0
    instance_clip: float = 0.0

    def __post_init__(self):
        self.replicas = self.unroller.replicas

    def step(self, vector, weights, constants, run, num_segments):
        """One partial unroll: (`Estimate`, the run after it).

        Args:
            vector: the `WeightVector`.
            weights: the meta-parameters as a vector [P].
            constants: the problem's constants.
            run: a `Run`; a fresh one begins with the first step.
            num_segments: the length of the partial unroll.
        """
        inputs = self.inputs(vector, run, num_segments)
        outcome = self.compute(vector, weights, constants, run.carry, inputs)
        return self.estimate(run, num_segments, outcome)

    def inputs(self, vector, run, num_segments):
        """The `Inputs` of a step."""
        length = self.unroller.segment_length
        segments = [
            self.unroller.segment_inputs(run.seed, run.step + i * length)
            for i in range(num_segments)
        ]
        start = self.unroller.draw_start(run.seed) if not run.carry else ()
        return Inputs(start, segments)

    def compute(self, vector, weights, constants, carry, inputs):
        """The pure half of a step: an `Outcome`.

        Args:
            vector, weights, constants: as for `step`.
            carry: a `Carry`; () before the first step.
            inputs: what `inputs` returned.
        """
        raise NotImplementedError

    def estimate(self, run, num_segments, outcome):
        """An `Outcome` of `compute` as (`Estimate`, the run after it)."""
        steps = num_segments * self.unroller.segment_length
        count = self.replicas.count
        size = self.unroller.size * count
        summary = outcome.summary
        counted = float(summary.counted)
        estimate = Estimate(
            gradient=summary.gradient,
            meta_loss=float(summary.loss) / counted if counted else np.nan,
            lost=round(float(summary.lost) * count),
            skipped=round(float(summary.skipped) * count),
            negative=round(float(summary.negative) * count),
            size=size,
            inner_steps=steps * size,
            objectives=outcome.objectives,
        )
        return estimate, Run(run.seed, run.step + steps, outcome.carry)

    def save(self, run):
        """A run as (arrays of all instances, JSON-ready description)."""
        about = {"step": run.step, "seed": list(run.seed)}
        entries = self.unroller.entries(run.carry) if run.carry else {}
        return self.replicas.join(entries), about

    def load(self, arrays, about):
        """The inverse of `save`."""
        carry = self.unroller.load(arrays) if arrays else ()
        return Run(tuple(about["seed"]), about["step"], carry)

    def _summary(self, gradients, losses, alive, negative, counted=None):
        """The `Summary` of one replica.

        Args:
            gradients: each instance's meta-gradient, [K, P].
            losses: meta-objectives.
            alive: bool, whether an inner run has not blown up.
            negative: bool, whether one had an objective below zero.
            counted: bool, whether a loss counts. Defaults to `None`: all do.
        """
        if counted is None:
            counted = tf.ones_like(losses, bool)
        is_finite = tf.reduce_all(tf.math.is_finite(gradients), axis=1)
        gradients = tf.where(is_finite[:, None], gradients, 0.0)
        if self.instance_clip:
            gradients = _clipped(gradients, self.instance_clip)
        return Summary(
            gradient=tf.reduce_mean(gradients, axis=0),
            loss=tf.reduce_sum(tf.where(counted, losses, 0.0)),
            counted=tf.reduce_sum(tf.cast(counted, "float32")),
            lost=tf.reduce_sum(tf.cast(~alive, "float32")),
            skipped=tf.reduce_sum(tf.cast(~is_finite, "float32")),
            negative=tf.reduce_sum(tf.cast(negative, "float32")),
        )


def _clipped(gradients, most):
    """Rows [K, P] with norms of at most `most`, however large they were."""
    # The squares of large numbers are infinite.
    largest = tf.reduce_max(tf.abs(gradients), axis=1, keepdims=True)
    rows = tf.math.divide_no_nan(gradients, largest)
    norms = tf.norm(rows, axis=1, keepdims=True)
    # norms * largest > most, without its overflow.
    is_long = norms > tf.math.divide_no_nan(most, largest)
    short = tf.math.divide_no_nan(most * rows, norms)
    return tf.where(is_long & (largest > 0), short, gradients)
