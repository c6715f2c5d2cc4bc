"""Gradient estimators: state in, meta-gradient out."""

import dataclasses

import numpy as np
import tensorflow as tf

from lopt_tf.metatraining import objective as objectives_lib
from lopt_tf.metatraining import unroll


class WeightVector:
    """Meta-parameters as one vector and back, in the order of their names.

    Args:
        weights: {name: array [out, in]}.
    """

    def __init__(self, weights):
        self.names = sorted(weights)
        self.shapes = [tuple(weights[name].shape) for name in self.names]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]

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


@dataclasses.dataclass
class Estimate:
    """What one estimator step found out.

    Attributes:
        gradient: the meta-gradient as a vector [P].
        meta_loss: the meta-objective, averaged over instances.
        objectives: recorded inner objectives, [steps, K].
        inner_steps: updates of one instance each that were made.
        lost: instances that have blown up so far.
    """

    gradient: tf.Tensor
    meta_loss: float
    objectives: tf.Tensor
    inner_steps: int
    lost: int


class TruncatedBackpropagation:
    """Backpropagation through a whole partial unroll (paper, section 4).

    The gradient flows back through the optimizer, and through the problem's
    gradients if the unroller uses second derivatives, over all segments of
    the partial unroll, and into the learned initial states if the unroll is
    the run's first. It is cut between partial unrolls.

    Args:
        unroller: an `Unroller` with one copy.
        objective: a `MetaObjective`.
        max_multiplier: an instance whose objective exceeds this multiple of
            its start is out (`obj_train_max_multiplier`); 0 for no limit.
    """

    copies = 1

    def __init__(self, unroller, objective, max_multiplier=0.0):
        self.unroller = unroller
        self.objective = objective
        self.max_multiplier = max_multiplier

    def start(self, vector, weights, constants, seed):
        """Begins K fresh inner runs; returns the estimator's state."""
        weights = vector.unflatten(weights)
        return self.unroller.new_run(weights, constants, seed), {}

    def step(self, vector, weights, constants, state, num_segments):
        """One partial unroll: (`Estimate`, state after it).

        Args:
            vector: the `WeightVector`.
            weights: the meta-parameters as a vector [P].
            constants: the problem's constants.
            state: what `start` or the last `step` returned.
            num_segments: the length of the partial unroll.
        """
        weights = vector.unflatten(weights)
        run, rest = state
        first = run
        trail, values, alive = [], [], run.alive
        for _ in range(num_segments):
            trail.append(run)
            run, objectives = self.unroller.advance(weights, constants, run)
            survived = objectives_lib.survivors(
                objectives, run.initial, alive, self.max_multiplier
            )
            values.append((objectives, survived))
            alive = survived[-1]
            if not bool(tf.reduce_any(alive)):
                break
        objectives = tf.concat([o for o, _ in values], axis=0)
        survived = tf.concat([s for _, s in values], axis=0)
        losses, cotangents = self._score(objectives, run.initial, survived)
        gradients = self._pull_back(
            weights, constants, trail, run, survived, cotangents
        )
        gradient = tf.reduce_mean(vector.flatten(gradients), axis=0)
        run = dataclasses.replace(run, alive=alive)
        estimate = Estimate(
            gradient=gradient,
            meta_loss=float(tf.reduce_mean(losses)),
            objectives=objectives,
            inner_steps=(run.step - first.step) * self.unroller.instances,
            lost=int(tf.reduce_sum(tf.cast(~alive, "int32"))),
        )
        return estimate, (run, rest)

    def _score(self, objectives, initial, survived):
        """Meta-objectives [K] and their gradients [n, K]."""
        with tf.GradientTape() as tape:
            tape.watch(objectives)
            losses = self.objective(objectives, initial, survived)
        return losses, tape.gradient(losses, objectives)

    def _pull_back(self, weights, constants, trail, end, survived, cotangents):
        """Gradients [K, out, in] through the chain of segments."""
        length = self.unroller.segment_length
        bars = tf.nest.map_structure(tf.zeros_like, (end.params, end.state))
        total = None
        for i, run in reversed(list(enumerate(trail))):
            rows = slice(i * length, (i + 1) * length)
            *bars, gradients = self.unroller.backward(
                weights,
                constants,
                run.params,
                run.state,
                *self.unroller.segment_inputs(run),
                survived[rows],
                (*bars, cotangents[rows]),
            )
            total = _sum(total, gradients)
        start = trail[0]
        if start.step == 0:
            log_lrs = self.unroller.draw_log_learning_rates(start.seed)
            gradients = self.unroller.start_backward(
                weights, start.params, log_lrs, bars[1]
            )
            total = _sum(total, gradients)
        return total


class PersistentEvolution:
    """Antithetic persistent evolution strategies (Vicol et al., 2021).

    Every instance runs twice, with weights w + e and w - e. The perturbation
    e is drawn anew for each truncation; the difference of the two losses is
    credited to the *sum* of all perturbations since the run began, which
    makes the estimate unbiased for the whole run however short the
    truncations are.

    Args:
        unroller: an `Unroller` with two copies.
        objective: a `MetaObjective`.
        stdev: the perturbations' standard deviation.
        max_multiplier: a larger multiple of the starting objective, or one
            that is not finite, counts as this multiple. 0 stands for 1e6.
    """

    copies = 2

    def __init__(self, unroller, objective, stdev=0.02, max_multiplier=0.0):
        self.unroller = unroller
        self.objective = objective
        self.stdev = stdev
        self.max_multiplier = max_multiplier if max_multiplier > 0 else 1e6
        self._draw = unroll.compiled(self._perturbed)
        self._estimate = unroll.compiled(self._gradient)

    def start(self, vector, weights, constants, seed):
        """Begins K fresh pairs of inner runs; returns the state."""
        weights = vector.unflatten(weights)
        run = self.unroller.new_run(weights, constants, seed)
        size = (self.unroller.instances, sum(vector.sizes))
        return run, {"accumulated": tf.zeros(size)}

    def step(self, vector, weights, constants, state, num_segments):
        """One truncation: (`Estimate`, state after it)."""
        run, rest = state
        first = run
        seed = unroll.run_seed((*run.seed, 7, run.step))
        noise, pairs = self._draw(weights, seed)
        pairs = vector.unflatten(pairs)
        if run.step == 0:
            # The start, too, belongs to the perturbed weights.
            run = self.unroller.new_run(pairs, constants, run.seed)
        values = []
        for _ in range(num_segments):
            run, objectives = self.unroller.advance(pairs, constants, run)
            values.append(objectives)
        objectives = tf.concat(values, axis=0)
        accumulated = rest["accumulated"] + noise
        gradient, losses, alive = self._estimate(
            accumulated, objectives, run.initial
        )
        run = dataclasses.replace(run, alive=alive)
        estimate = Estimate(
            gradient=gradient,
            meta_loss=float(tf.reduce_mean(losses)),
            objectives=objectives,
            inner_steps=(run.step - first.step) * self.unroller.size,
            lost=int(tf.reduce_sum(tf.cast(~alive, "int32"))),
        )
        return estimate, (run, {"accumulated": accumulated})

    def _perturbed(self, weights, seed):
        """Perturbations [K, P], and weights [2 K, P] moved both ways."""
        shape = (self.unroller.instances, weights.shape[0])
        noise = self.stdev * tf.random.stateless_normal(shape, seed)
        return noise, tf.concat([weights + noise, weights - noise], axis=0)

    def _gradient(self, accumulated, objectives, initial):
        """The estimate [P], meta-objectives [2 K], and who is alive [2 K]."""
        limit = self.max_multiplier * (initial + 1e-6)
        finite = tf.math.is_finite(objectives)
        bounded = tf.minimum(tf.where(finite, objectives, limit), limit)
        losses = self.objective(bounded, initial)
        up, down = tf.split(losses, 2)
        scale = (up - down) / (2 * self.stdev**2)
        gradient = tf.reduce_mean(accumulated * scale[:, None], axis=0)
        return gradient, losses, tf.reduce_all(finite, axis=0)


def _sum(total, gradients):
    if total is None:
        return gradients
    return tf.nest.map_structure(tf.add, total, gradients)
