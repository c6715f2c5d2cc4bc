"""Unrolls: chains of compiled segments of inner steps.

All segments have one length, so that no unroll length needs a compilation of
its own. A chain carries a `Carry` from segment to segment.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from lopt_tf import checkpointing
from lopt_tf.metatraining.inner_steps import Carry, InnerSteps, SegmentInputs
from lopt_tf.metatraining.replicas import Replicas
from lopt_tf.optimizers.update_rule import UpdateRule
from problems import datasets
from problems.problem import Problem, fold


@dataclasses.dataclass(eq=False)
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
        records_batches: whether the objective of a step is the loss on its
            minibatch, before the step, if there are minibatches: it costs
            nothing more. Not with `keeps_trail`. Defaults to `False`.
    """

    problem: Problem
    rule: UpdateRule
    instances: int
    segment_length: int = 20
    use_second_derivatives: bool = True
    copies: int = 1
    replicas: Replicas | None = None
    keeps_trail: bool = False
    records_batches: bool = False

    def __post_init__(self):
        self.replicas = self.replicas or Replicas()
        if self.instances % self.replicas.count:
            raise ValueError(
                f"{self.instances} instances cannot be shared evenly by "
                f"{self.replicas.count} replicas. Choose a multiple."
            )
        steps = InnerSteps(
            self.problem,
            self.rule,
            self.size,
            self.segment_length,
            self.use_second_derivatives,
            self.copies,
            self.replicas.count,
            self.keeps_trail,
            self.records_batches,
        )
        compiled = self.replicas.compiled
        self.forward = compiled(steps.forward)
        self.backward = compiled(steps.backward)
        self.start = compiled(steps.start)
        self.start_backward = compiled(steps.start_backward)
        self._all = self.forward, self.backward, self.start, self.start_backward

    @property
    def size(self):
        """Inner runs side by side on one replica."""
        return self.copies * self.instances // self.replicas.count

    def num_compilations(self):
        """Traces, hence XLA compilations, so far."""
        return sum(f.experimental_get_tracing_count() for f in self._all)

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
            for j, axes in enumerate((shape, (1,) * len(shape))):
                size, use = (self.instances, *axes), fold(seed, 2 * i + j)
                drawn[j].append(tf.random.stateless_uniform(size, use))
        log_lrs = self.rule.draw_log_learning_rates(*drawn)
        return tuple([self._share(x) for x in xs] for xs in (params, log_lrs))

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
        """The `Carry` of fresh runs, from what `draw_start` returned."""
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
        """Several segments, without trails.

        Args:
            weights, constants, carry: as for `advance`.
            segments: list of what `segment_inputs` returned.

        Returns:
            (the carry after them, objectives [n, K]).
        """
        values = []
        for inputs in segments:
            carry, objectives, _ = self.advance(
                weights, constants, carry, inputs
            )
            values.append(objectives)
        return carry, self.replicas.each(_joined, values)

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
        entries = {n: (*entry, self.copies) for n, entry in entries.items()}
        if not isinstance(carry.accumulated, tuple):
            entries["accumulated"] = (carry.accumulated, 0, 1)
        return entries

    def load(self, saved):
        """A carry from the arrays of all instances, named as `entries`."""
        saved = {name: tf.convert_to_tensor(a) for name, a in saved.items()}

        def split(array, axis=0):
            return self.replicas.split(array, axis, self.copies)

        params = checkpointing.below("params/", saved)
        state = checkpointing.below("state/", saved)
        accumulated = ()
        if "accumulated" in saved:
            accumulated = self.replicas.split(saved["accumulated"])
        return Carry(
            [split(params[str(i)]) for i in range(len(params))],
            {
                n: split(a, instance_axis(a.shape.rank))
                for n, a in state.items()
            },
            split(saved["initial"]),
            split(saved["alive"]),
            accumulated,
        )


def _joined(pieces):
    return tf.concat(pieces, axis=0)


def instance_axis(rank):
    """Where the instances are in a state array of that many axes."""
    return rank - 3


def run_seed(numbers):
    """A stateless seed [2] from a sequence of integers."""
    seed = tf.constant([0, 0], "int32")
    for number in numbers:
        seed = fold(seed, int(number))
    return seed
