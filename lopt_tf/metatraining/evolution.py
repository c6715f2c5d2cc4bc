"""Meta-gradients by antithetic evolution strategies, plain or persistent."""

import dataclasses

import tensorflow as tf

from lopt_tf.metatraining import objective as objectives_lib
from lopt_tf.metatraining import unroll
from lopt_tf.metatraining.estimator import Estimator, Outcome


@dataclasses.dataclass(eq=False)
class _Evolution(Estimator):
    """Base of antithetic evolution strategies.

    Every instance runs with weights w + e and w - e; the difference of the
    two losses estimates the slope along e.

    Args:
        stdev: the perturbations' standard deviation.
        max_multiplier: a larger multiple of the starting objective, or one
            that is not finite, counts as this multiple. 0 stands for 1e6.
    """

    stdev: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        if self.max_multiplier <= 0:
            self.max_multiplier = 1e6

    def inputs(self, vector, run, num_segments):
        inputs = super().inputs(vector, run, num_segments)
        seed = unroll.run_seed((*run.seed, 7, run.step))
        return inputs._replace(noise=(seed, self.replicas.index))

    def compute(self, vector, weights, constants, carry, inputs):
        """See `Estimator.compute`."""
        # Not compiled: XLA draws normal numbers 30 times slower on a CPU.
        noise, moved = self.replicas.each(
            self._perturbed, weights, *inputs.noise, vector.is_trained
        )
        moved = self.replicas.each(vector.unflatten, moved)
        directions = self._directions(carry, noise)
        if inputs.start:
            # The start, too, belongs to the perturbed weights.
            carry = self.unroller.begin(moved, constants, inputs.start)
        carry, objectives = self.unroller.run(
            moved, constants, carry, inputs.segments
        )
        # Not compiled: truncations differ in length.
        summary, alive = self.replicas.each(
            self._slopes, directions, objectives, carry.initial
        )
        carry = self._carried(carry, alive, directions)
        return Outcome(self.replicas.mean(summary), objectives, carry)

    def _directions(self, carry, noise):
        """The perturbations to credit, from those of this step."""
        raise NotImplementedError

    def _carried(self, carry, alive, directions):
        """The `Carry` that the next step begins with."""
        raise NotImplementedError

    def _perturbed(self, weights, seed, replica, is_trained):
        """Perturbations [K, P], and the weights of all copies."""
        shape = (self.unroller.instances, weights.shape[0])
        noise = tf.random.stateless_normal(shape, seed)
        noise *= self.stdev * is_trained
        count = self.unroller.size // self.copies
        # As the problem's noise: the same for any number of replicas.
        noise = tf.slice(noise, [replica * count, 0], [count, shape[1]])
        unmoved = tf.zeros_like(noise) + weights
        moved = [weights + noise, weights - noise, unmoved][: self.copies]
        return noise, tf.concat(moved, axis=0)

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
        negative = objectives_lib.negative(objectives, initial)
        # One that was lost from its start has no loss.
        counted = tf.math.is_finite(losses)
        found = self._summary(gradients, losses, alive, negative, counted)
        return found, alive


class PersistentEvolution(_Evolution):
    """Antithetic persistent evolution strategies (Vicol et al., 2021).

    The perturbation is drawn anew for each truncation; the difference of
    the two losses is credited to the *sum* of all perturbations since the
    run began, which makes the estimate unbiased for the whole run however
    short the truncations are. See `_Evolution` for the arguments; the
    unroller has two copies.
    """

    copies = 2

    def _directions(self, carry, noise):
        if not carry:
            return noise
        return self.replicas.each(tf.add, carry.accumulated, noise)

    def _carried(self, carry, alive, directions):
        return carry._replace(alive=alive, accumulated=directions)


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

    def _directions(self, carry, noise):
        return noise

    def _carried(self, carry, alive, directions):
        return self.replicas.each(self._from_unmoved, carry, alive)

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
