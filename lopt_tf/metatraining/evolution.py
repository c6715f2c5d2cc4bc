"""Meta-gradients by antithetic evolution strategies, plain or persistent."""

import dataclasses

import tensorflow as tf

from lopt_tf.metatraining import objective as objectives_lib
from lopt_tf.metatraining import unroll
from lopt_tf.metatraining.estimator import Estimator, Outcome


class _Evolution(Estimator):
    """Base of antithetic evolution strategies.

    Every instance runs with weights w + e and w - e; the difference of the
    two losses estimates the slope along e.

    Args:
        stdev: the perturbations' standard deviation.
        max_multiplier: a larger multiple of the starting objective, or one
            that is not finite, counts as this multiple. 0 stands for 1e6.
    """

    def __init__(
        self,
        unroller,
        objective,
        max_multiplier=0.0,
        instance_clip=0.0,
        stdev=0.02,
    ):
        limit = max_multiplier if max_multiplier > 0 else 1e6
        super().__init__(unroller, objective, limit, instance_clip)
        self.stdev = stdev

    def inputs(self, vector, run, num_segments):
        inputs = super().inputs(vector, run, num_segments)
        seed = unroll.run_seed((*run.seed, 7, run.step))
        return inputs._replace(noise=(seed, self.replicas.index))

    def _unrolled(self, weights, constants, carry, inputs):
        """All segments: (the carry after them, objectives [n, copies * K])."""
        carry, values, _ = self.unroller.run(
            weights, constants, carry, inputs.segments
        )
        if len(values) == 1:
            return carry, values[0]
        joined = self.replicas.each(
            lambda values: tf.concat(values, axis=0), values
        )
        return carry, joined

    def _draw(self, weights, inputs):
        """Perturbations [K, P], and the weights [copies * K, P]."""
        # Not compiled: XLA draws normal numbers 30 times slower on a CPU.
        return self.replicas.each(self._perturbed, weights, *inputs.noise)

    def _perturbed(self, weights, seed, replica):
        """Perturbations [K, P], and the weights of all copies."""
        shape = (self.unroller.instances, weights.shape[0])
        noise = self.stdev * tf.random.stateless_normal(shape, seed)
        count = self.unroller.size // self.copies
        # As the problem's noise: the same for any number of replicas.
        noise = tf.slice(noise, [replica * count, 0], [count, shape[1]])
        unmoved = tf.zeros_like(noise) + weights
        moved = [weights + noise, weights - noise, unmoved][: self.copies]
        return noise, tf.concat(moved, axis=0)

    def _score(self, directions, objectives, carry):
        """`_slopes` on every replica."""
        # Not compiled: truncations differ in length.
        return self.replicas.each(
            self._slopes, directions, objectives, carry.initial
        )

    def _slopes(self, directions, objectives, initial):
        """(`Summary` of a replica, bool: whether a run is alive).

        Args:
            directions: the perturbations to credit, [K, P].
            objectives: recorded objectives [n, copies * K].
            initial: the objectives at the start.
        """
        is_finite = tf.math.is_finite(objectives)
        losses = self.objective(
            objectives_lib.capped(objectives, initial, self.max_multiplier),
            initial,
        )
        up, down, *_ = tf.split(losses, self.copies)
        scale = (up - down) / (2 * self.stdev**2)
        # A pair without a finite loss gets a zero gradient.
        up, down, *_ = tf.split(tf.reduce_any(is_finite, axis=0), self.copies)
        scale = tf.where(up | down, scale, float("nan"))
        alive = tf.reduce_all(is_finite, axis=0)
        gradients = directions * scale[:, None]
        return self._summary(gradients, losses, alive), alive


class PersistentEvolution(_Evolution):
    """Antithetic persistent evolution strategies (Vicol et al., 2021).

    The perturbation is drawn anew for each truncation; the difference of
    the two losses is credited to the *sum* of all perturbations since the
    run began, which makes the estimate unbiased for the whole run however
    short the truncations are. See `_Evolution` for the arguments; the
    unroller has two copies.
    """

    copies = 2

    def compute(self, vector, weights, constants, carry, inputs):
        """See `Estimator.compute`."""
        noise, pairs = self._draw(weights, inputs)
        pairs = self.replicas.each(vector.unflatten, pairs)
        accumulated = noise
        if inputs.start:
            # The start, too, belongs to the perturbed weights.
            carry = self.unroller.begin(pairs, constants, inputs.start)
        else:
            accumulated = self.replicas.each(tf.add, carry.accumulated, noise)
        carry, objectives = self._unrolled(pairs, constants, carry, inputs)
        summary, alive = self._score(accumulated, objectives, carry)
        carry = carry._replace(alive=alive, accumulated=accumulated)
        return Outcome(self.replicas.mean(summary), objectives, carry)

    def _entries(self, carry):
        entries = super()._entries(carry)
        if carry:
            entries["accumulated"] = (carry.accumulated, 0, 1)
        return entries

    def load(self, arrays, about):
        accumulated = arrays.pop("accumulated", None)
        run = super().load(arrays, about)
        if accumulated is None:
            return run
        rows = self.replicas.split(tf.convert_to_tensor(accumulated))
        carry = run.carry._replace(accumulated=rows)
        return dataclasses.replace(run, carry=carry)


class TruncatedEvolution(_Evolution):
    """Plain antithetic evolution strategies on each truncation by itself.

    The difference of the two losses is credited to the truncation's own
    perturbation. A third copy of every instance runs with unmoved weights:
    the next truncation begins where it ends, for the whole pair. The
    estimate is blind to what weights do to later truncations: biased,
    unless one truncation is the whole run. See `_Evolution` for the
    arguments; the unroller has three copies.
    """

    copies = 3

    def compute(self, vector, weights, constants, carry, inputs):
        """See `Estimator.compute`."""
        noise, moved = self._draw(weights, inputs)
        moved = self.replicas.each(vector.unflatten, moved)
        if inputs.start:
            carry = self.unroller.begin(moved, constants, inputs.start)
        carry, objectives = self._unrolled(moved, constants, carry, inputs)
        summary, alive = self._score(noise, objectives, carry)
        carry = self.replicas.each(self._from_unmoved, carry, alive)
        return Outcome(self.replicas.mean(summary), objectives, carry)

    def _from_unmoved(self, carry, alive):
        """All copies where the unmoved one is."""

        def last_copy(array, axis=0):
            part = tf.split(array, self.copies, axis=axis)[-1]
            return tf.concat([part] * self.copies, axis=axis)

        return carry._replace(
            params=[last_copy(tensor) for tensor in carry.params],
            state={
                name: last_copy(array, unroll.instance_axis(array.shape.rank))
                for name, array in carry.state.items()
            },
            initial=last_copy(carry.initial),
            alive=last_copy(alive),
        )
