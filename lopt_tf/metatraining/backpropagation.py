"""Meta-gradients by truncated backpropagation (paper, section 4)."""

import functools
from typing import NamedTuple

import tensorflow as tf

from lopt_tf.metatraining import objective as objectives_lib
from lopt_tf.metatraining.estimator import Estimator, Outcome
from lopt_tf.metatraining.inner_steps import Cotangents


class _Unrolled(NamedTuple):
    """A partial unroll; all lists have an element for each segment.

    Attributes:
        carries: the `Carry` before each segment.
        objectives: those recorded, [steps, K].
        trails: `Trail`s; None for those that were dropped.
        end: the `Carry` after the last segment.
    """

    carries: list
    objectives: list
    trails: list
    end: tuple


class _Scores(NamedTuple):
    """Meta-objectives of a partial unroll, and their gradients.

    Attributes:
        objectives: those recorded, [n, K].
        losses: meta-objectives, [K].
        survived: for each segment bool [steps, K], as `survivors` gives it.
        recorded_bars: for each segment cotangents of the objectives,
            [steps, K].
    """

    objectives: tf.Tensor
    losses: tf.Tensor
    survived: list
    recorded_bars: list


class TruncatedBackpropagation(Estimator):
    """Backpropagation through a whole partial unroll (paper, section 4).

    The gradient flows back through the optimizer, and through the problem's
    gradients if the unroller uses second derivatives, over all segments of
    the partial unroll, and into the learned initial states if the unroll is
    the run's first. It is cut between partial unrolls. See `Estimator` for
    the arguments; the unroller must keep trails.
    """

    # Trails beyond this many bytes are computed again when they are needed.
    trail_bytes = 2**29

    def compute(self, vector, weights, constants, carry, inputs):
        """See `Estimator.compute`: forward, meta-objective, backward."""
        weights = vector.unflatten(weights)
        if inputs.start:
            carry = self.unroller.begin(weights, constants, inputs.start)
        unrolled = self._forward(weights, constants, carry, inputs.segments)
        end = unrolled.end
        scores = self.replicas.each(
            self._score, unrolled.objectives, end.initial, end.alive
        )
        gradients, start_bars = self._backward(
            weights, constants, unrolled, inputs.segments, scores
        )
        if inputs.start:
            more = self.unroller.start_backward(
                weights, constants, *inputs.start, start_bars.state
            )
            gradients = self._sum(gradients, more)
        summarize = functools.partial(self._summarized, vector)
        summary, alive = self.replicas.each(
            summarize, gradients, scores, end.initial
        )
        summary = self.replicas.mean(summary)
        return Outcome(summary, scores.objectives, end._replace(alive=alive))

    def _forward(self, weights, constants, carry, segments):
        """All segments: an `_Unrolled`, with as many last trails as fit."""
        unrolled = _Unrolled([], [], [], carry)
        for segment in segments:
            unrolled.carries.append(carry)
            carry, objectives, trail = self.unroller.advance(
                weights, constants, carry, segment
            )
            unrolled.objectives.append(objectives)
            unrolled.trails.append(trail)
            kept = max(1, self.trail_bytes // self.replicas.num_bytes(trail))
            if len(unrolled.trails) > kept:
                unrolled.trails[-1 - kept] = None
        return unrolled._replace(end=carry)

    def _backward(self, weights, constants, unrolled, segments, scores):
        """Pulls the meta-objectives' gradients back, last segment first.

        Returns:
            Gradients with respect to the weights, {name: [K, out, in]}, and
            the `Cotangents` of the point before the first segment.
        """
        end = unrolled.end
        bars = self.replicas.each(_no_cotangents, end.params, end.state)
        total = None
        for i in reversed(range(len(segments))):
            trail = unrolled.trails.pop()
            if trail is None:
                _, _, trail = self.unroller.advance(
                    weights, constants, unrolled.carries[i], segments[i]
                )
            given = scores.survived[i], bars, scores.recorded_bars[i]
            bars, gradients = self.unroller.backward(
                weights, constants, trail, segments[i], *given
            )
            total = gradients if total is None else self._sum(total, gradients)
        return total, bars

    def _score(self, objectives, initial, alive):
        """The `_Scores` of recorded objectives, a list of [steps, K]."""
        pieces = len(objectives)
        objectives = tf.concat(objectives, axis=0)
        survived = objectives_lib.survivors(
            objectives, initial, alive, self.max_multiplier
        )
        with tf.GradientTape() as tape:
            tape.watch(objectives)
            losses = self.objective(objectives, initial, survived)
        recorded_bars = tape.gradient(losses, objectives)
        survived, recorded_bars = (
            tf.split(array, pieces) for array in (survived, recorded_bars)
        )
        return _Scores(objectives, losses, survived, recorded_bars)

    def _summarized(self, vector, gradients, scores, initial):
        """(`Summary` of a replica, bool [K]: whether a run is alive)."""
        alive_before = scores.survived[0][0]
        alive = scores.survived[-1][-1]
        negative = objectives_lib.negative(scores.objectives, initial)
        gradients = vector.flatten(gradients) * vector.is_trained
        # Instances lost before this unroll get a zero gradient.
        gradients = tf.where(alive_before[:, None], gradients, float("nan"))
        summary = self._summary(
            gradients, scores.losses, alive, negative, alive_before
        )
        return summary, alive

    def _sum(self, ours, others):
        """The sum of two structures of per-replica values."""
        return self.replicas.each(
            lambda *pair: tf.nest.map_structure(tf.add, *pair), ours, others
        )


def _no_cotangents(params, state):
    return tf.nest.map_structure(tf.zeros_like, Cotangents(params, state))
