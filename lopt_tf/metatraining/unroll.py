"""Unrolls: chains of compiled segments of inner steps.

All segments have one length, so that no unroll length needs a compilation of
its own. A chain carries a `Carry` from segment to segment.
"""

import numpy as np
import tensorflow as tf

from lopt_tf.metatraining import replicas as replicas_lib
from lopt_tf.metatraining.inner_steps import Carry, InnerSteps, SegmentInputs
from problems import datasets
from problems.problem import fold


class Unroller:
    """Inner steps of an update rule on one problem, K instances at a time.

    Args:
        problem: a `problems.Problem`.
        rule: an `UpdateRule`.
        instances: K, over all replicas.
        segment_length: inner steps in one compiled call.
        use_second_derivatives: whether meta-gradients flow through the
            problem's gradients.
        copies: n runs every instance n times with the same start, noise and
            data, for instance an antithetic pair: the leading axis is then
            n K, all first copies first.
        replicas: the `Replicas` that share the instances; the current
            strategy's if None.
        keeps_trail: whether `forward` also returns what `backward` needs.
    """

    def __init__(
        self,
        problem,
        rule,
        instances,
        segment_length=20,
        use_second_derivatives=True,
        copies=1,
        replicas=None,
        keeps_trail=False,
    ):
        self.problem = problem
        self.rule = rule
        self.instances = instances
        self.segment_length = segment_length
        self.use_second_derivatives = use_second_derivatives
        self.copies = copies
        self.replicas = replicas or replicas_lib.Replicas()
        if instances % self.replicas.count:
            raise ValueError(
                f"{instances} instances cannot be shared evenly by "
                f"{self.replicas.count} replicas. Choose a multiple."
            )
        steps = InnerSteps(
            problem,
            rule,
            self.size,
            segment_length,
            use_second_derivatives,
            copies,
            self.replicas.count,
            keeps_trail,
        )
        compiled = self.replicas.compiled
        self.forward = compiled(steps.forward)
        self.backward = compiled(steps.backward)
        self.start = compiled(steps.start)
        self.start_backward = compiled(steps.start_backward)

    @property
    def size(self):
        """Inner runs side by side on one replica."""
        return self.copies * self.instances // self.replicas.count

    def num_compilations(self):
        """Traces, hence XLA compilations, so far."""
        return sum(
            function.experimental_get_tracing_count()
            for function in (
                self.forward,
                self.backward,
                self.start,
                self.start_backward,
            )
        )

    # Draws, outside of compiled functions.

    def constants(self, seed):
        """The problem's constants for all runs; copies share theirs."""
        constants = self.problem.constants(run_seed(seed), self.instances)
        # Constants with one row are shared by all instances.
        return {
            name: self._share(c) if c.shape[0] == self.instances > 1 else c
            for name, c in constants.items()
        }

    def draw_start(self, seed):
        """(starting points, starting log learning rates) of fresh runs."""
        params = self.problem.init(fold(run_seed(seed), 0), self.instances)
        seed, drawn = fold(run_seed(seed), 1), ([], [])
        for i, shape in enumerate(self.problem.shapes):
            full = (self.instances, *shape)
            one = (self.instances, *(1,) * len(shape))
            for draws, size, use in zip(drawn, (full, one), (2 * i, 2 * i + 1)):
                draws.append(tf.random.stateless_uniform(size, fold(seed, use)))
        log_lrs = self.rule.draw_log_learning_rates(*drawn)
        return (
            [self._share(tensor) for tensor in params],
            [self._share(tensor) for tensor in log_lrs],
        )

    def segment_inputs(self, seed, first_step):
        """The `SegmentInputs` of the segment that begins with a step."""
        return SegmentInputs(
            run_seed(seed),
            tf.constant(first_step, "int32"),
            self._share(self.batches(seed, first_step), axis=1),
            self.replicas.index,
        )

    def batches(self, seed, first_step):
        """Minibatches of one segment, int32 [steps, K, B] (B may be 0)."""
        if self.problem.batch_size is None:
            return np.zeros((self.segment_length, self.instances, 0), "int32")
        return datasets.minibatches(
            seed,
            first_step,
            self.segment_length,
            self.instances,
            self.problem.num_examples,
            self.problem.batch_size,
        )

    def _share(self, array, axis=0):
        """Copies of all instances' rows, each replica with its own ones."""
        multiples = [1] * len(array.shape)
        multiples[axis] = self.copies
        tiled = tf.tile(array, multiples) if self.copies > 1 else array
        return self.replicas.split(
            tf.convert_to_tensor(tiled), axis, self.copies
        )

    # Chains.

    def begin(self, weights, constants, drawn):
        """The `Carry` of fresh runs, from what `draw_start` returned.

        Args:
            weights: meta-parameters with or without a leading axis.
            constants: what `constants` returned.
            drawn: what `draw_start` returned.
        """
        return self.start(weights, constants, *drawn)

    def advance(self, weights, constants, carry, inputs):
        """One segment.

        Args:
            weights: meta-parameters with or without a leading axis.
            constants: what `constants` returned.
            carry: what `begin` or the last `advance` returned.
            inputs: what `segment_inputs` returned.

        Returns:
            (the carry after it, objectives [steps, K], the `Trail`, empty
            unless `keeps_trail`).
        """
        segment = self.forward(
            weights, constants, carry.params, carry.state, inputs
        )
        carry = carry._replace(params=segment.params, state=segment.state)
        return carry, segment.objectives, segment.trail

    def run(self, weights, constants, carry, segments):
        """Several segments.

        Args:
            weights, constants, carry: as for `advance`.
            segments: list of what `segment_inputs` returned.

        Returns:
            (the carry after them, list of objectives [steps, K], list of
            trails).
        """
        values, trails = [], []
        for inputs in segments:
            carry, objectives, trail = self.advance(
                weights, constants, carry, inputs
            )
            values.append(objectives)
            trails.append(trail)
        return carry, values, trails

    def entries(self, carry):
        """A carry as {name: (value, axis of instances, copies)}."""
        entries = {
            f"params/{i}": (tensor, 0) for i, tensor in enumerate(carry.params)
        }
        for name, array in carry.state.items():
            axis = instance_axis(self.replicas.rank(array))
            entries[f"state/{name}"] = (array, axis)
        entries["initial"] = (carry.initial, 0)
        entries["alive"] = (carry.alive, 0)
        return {n: (*entry, self.copies) for n, entry in entries.items()}

    def load(self, saved):
        """A carry from the arrays of all instances, named as `entries`."""
        saved = {name: tf.convert_to_tensor(a) for name, a in saved.items()}

        def split(name, axis=0):
            return self.replicas.split(saved[name], axis, self.copies)

        count = sum(name.startswith("params/") for name in saved)
        return Carry(
            params=[split(f"params/{i}") for i in range(count)],
            state={
                name.removeprefix("state/"): split(
                    name, instance_axis(array.shape.rank)
                )
                for name, array in saved.items()
                if name.startswith("state/")
            },
            initial=split("initial"),
            alive=split("alive"),
        )


def instance_axis(rank):
    """Where the instances are in a state array of that many axes."""
    return rank - 3


def run_seed(numbers):
    """A stateless seed [2] from a sequence of integers."""
    seed = tf.constant([0, 0], "int32")
    for number in numbers:
        seed = fold(seed, int(number))
    return seed
