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


@dataclasses.dataclass(frozen=True)
class Run:
    """K inner runs of one problem, somewhere on their way.

    Attributes:
        seed: integers that determine starts, minibatches and noise.
        step: number of inner steps done.
        carry: what the runs carry along (see `unroll`); empty before the
            first step.
    """

    seed: tuple
    step: int = 0
    carry: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Estimate:
    """What one estimator step found out.

    Attributes:
        gradient: the meta-gradient as a vector [P].
        meta_loss: the meta-objective, averaged over instances.
        lost: instances that have blown up so far, of `size`.
        skipped: instances that had blown up, or whose meta-gradient was not
            finite: they count as zero.
        size: inner runs side by side.
        inner_steps: updates of one instance each that were made.
        objectives: recorded inner objectives, [steps, K], of each replica.
    """

    gradient: tf.Tensor
    meta_loss: float
    lost: int
    skipped: int
    size: int
    inner_steps: int
    objectives: tf.Tensor


class Estimator:
    """Base of the estimators: a run and weights in, a meta-gradient out.

    A step has two halves: `inputs` draws whatever is random, in Python;
    `compute` is pure, and may be part of a graph that runs elsewhere.

    Args:
        unroller: an `Unroller` with `copies` copies.
        objective: a `MetaObjective`.
        max_multiplier: an instance whose objective exceeds this multiple of
            its start is out (`obj_train_max_multiplier`); 0 for no limit.
        instance_clip: the meta-gradient of an instance (a pair) is clipped
            to this norm, so that one that is about to blow up does not
            outvote all others; 0 for no limit.
    """

    copies = 1

    def __init__(
        self, unroller, objective, max_multiplier=0.0, instance_clip=0.0
    ):
        self.unroller = unroller
        self.objective = objective
        self.max_multiplier = max_multiplier
        self.instance_clip = instance_clip
        self.replicas = unroller.replicas

    def step(self, vector, weights, constants, run, num_segments):
        """One partial unroll: (`Estimate`, the run after it).

        Args:
            vector: the `WeightVector`.
            weights: the meta-parameters as a vector [P].
            constants: the problem's constants.
            run: a `Run`; a fresh one begins with the first step.
            num_segments: the length of the partial unroll.
        """
        outcome = self.compute(
            vector,
            weights,
            constants,
            run.carry,
            self.inputs(vector, run, num_segments),
        )
        return self.estimate(run, num_segments, *outcome)

    def inputs(self, vector, run, num_segments):
        """What a step needs besides weights, constants and carry."""
        length = self.unroller.segment_length
        segments = [
            self.unroller.segment_inputs(run.seed, run.step + i * length)
            for i in range(num_segments)
        ]
        start = self.unroller.draw_start(run.seed) if not run.carry else ()
        return {"start": start, "segments": segments}

    def compute(self, vector, weights, constants, carry, inputs):
        """The pure half of a step.

        Returns:
            (vector [P + 3]: meta-gradient, meta-loss, numbers of lost and
            of skipped instances, all as means over replicas; objectives;
            carry).
        """
        raise NotImplementedError

    def estimate(self, run, num_segments, found, objectives, carry):
        """What `compute` returned, as (`Estimate`, the run after it)."""
        steps = num_segments * self.unroller.segment_length
        size = self.unroller.size * self.replicas.count
        estimate = Estimate(
            gradient=found[:-3],
            meta_loss=float(found[-3]),
            lost=round(float(found[-2]) * self.replicas.count),
            skipped=round(float(found[-1]) * self.replicas.count),
            size=size,
            inner_steps=steps * size,
            objectives=objectives,
        )
        return estimate, Run(run.seed, run.step + steps, carry)

    def save(self, run):
        """A run as (arrays of all instances, JSON-ready description)."""
        about = {"step": run.step, "seed": list(run.seed)}
        return self.replicas.join(self._entries(run.carry)), about

    def _entries(self, carry):
        """What a carry holds, as `Replicas.join` takes it."""
        return self.unroller.entries(carry) if carry else {}

    def load(self, arrays, about):
        """The inverse of `save`."""
        carry = self.unroller.load(arrays) if arrays else {}
        return Run(tuple(about["seed"]), about["step"], carry)

    def _summary(self, gradients, losses, alive):
        """The result of one replica as a vector [P + 3].

        Args:
            gradients: each instance's meta-gradient, [K, P].
            losses: meta-objectives, or their mean.
            alive: bool, who has not blown up.
        """
        fine = tf.reduce_all(tf.math.is_finite(gradients), axis=1)
        gradients = tf.where(fine[:, None], gradients, 0.0)
        if self.instance_clip:
            gradients = _clipped(gradients, self.instance_clip)
        numbers = [
            tf.reduce_mean(losses),
            tf.reduce_sum(tf.cast(~alive, "float32")),
            tf.reduce_sum(tf.cast(~fine, "float32")),
        ]
        return tf.concat([tf.reduce_mean(gradients, axis=0), numbers], axis=0)


class TruncatedBackpropagation(Estimator):
    """Backpropagation through a whole partial unroll (paper, section 4).

    The gradient flows back through the optimizer, and through the problem's
    gradients if the unroller uses second derivatives, over all segments of
    the partial unroll, and into the learned initial states if the unroll is
    the run's first. It is cut between partial unrolls. See `Estimator` for
    the arguments; the unroller must keep trails.
    """

    # Trails beyond this many bytes are made anew when they are needed.
    trail_bytes = 2**29

    def compute(self, vector, weights, constants, carry, inputs):
        weights = vector.unflatten(weights)
        unroller, segments = self.unroller, inputs["segments"]
        if inputs["start"]:
            carry = unroller.begin(weights, constants, inputs["start"])
        begins, values, trails = [], [], []
        for segment in segments:
            begins.append(carry)
            carry, objectives, trail = unroller.advance(
                weights, constants, carry, segment
            )
            values.append(objectives)
            trails.append(trail)
            kept = max(1, self.trail_bytes // self.replicas.num_bytes(trail))
            if len(trails) > kept:
                trails[-1 - kept] = None
        objectives, losses, survived, cotangents = self.replicas.each(
            self._score, values, carry["initial"], carry["alive"]
        )
        bars = self.replicas.each(
            lambda *ends: tf.nest.map_structure(tf.zeros_like, ends),
            carry["params"],
            carry["state"],
        )
        total = None
        for i in reversed(range(len(segments))):
            trail = trails.pop()
            if trail is None:
                _, _, trail = unroller.advance(
                    weights, constants, begins[i], segments[i]
                )
            *bars, gradients = unroller.backward(
                weights,
                constants,
                trail,
                segments[i],
                survived[i],
                (*bars, cotangents[i]),
            )
            total = self._sum(total, gradients)
        if inputs["start"]:
            params, log_lrs = inputs["start"]
            gradients = unroller.start_backward(
                weights, params, log_lrs, bars[1]
            )
            total = self._sum(total, gradients)
        found, alive = self.replicas.each(
            lambda *args: self._result(vector, *args), total, losses, survived
        )
        carry = {**carry, "alive": alive}
        return self.replicas.mean(found), objectives, carry

    def _score(self, values, initial, alive):
        """Meta-objectives [K], and their gradients segment by segment."""
        objectives = tf.concat(values, axis=0)
        survived = objectives_lib.survivors(
            objectives, initial, alive, self.max_multiplier
        )
        with tf.GradientTape() as tape:
            tape.watch(objectives)
            losses = self.objective(objectives, initial, survived)
        cotangents = tape.gradient(losses, objectives)
        pieces = len(values)
        return (
            objectives,
            losses,
            tf.split(survived, pieces),
            tf.split(cotangents, pieces),
        )

    def _result(self, vector, gradients, losses, survived):
        alive = survived[-1][-1]
        # Who had blown up before the unroll has nothing to say in it.
        heard = survived[0][0]
        gradients = tf.where(
            heard[:, None], vector.flatten(gradients), float("nan")
        )
        counted = tf.reduce_sum(tf.cast(heard, "float32"))
        losses = tf.reduce_sum(tf.where(heard, losses, 0.0)) / counted
        return self._summary(gradients, losses, alive), alive

    def _sum(self, total, gradients):
        if total is None:
            return gradients
        return self.replicas.each(
            lambda *pair: tf.nest.map_structure(tf.add, *pair),
            total,
            gradients,
        )


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
        inputs["noise"] = (
            unroll.run_seed((*run.seed, 7, run.step)),
            self.replicas.index,
        )
        return inputs

    def _unrolled(self, weights, constants, carry, inputs):
        carry, values, _ = self.unroller.run(
            weights, constants, carry, inputs["segments"]
        )
        if len(values) == 1:
            return carry, values[0]
        joined = self.replicas.each(
            lambda values: tf.concat(values, axis=0), values
        )
        return carry, joined

    def _draw(self, weights, inputs):
        # Not compiled: XLA draws normal numbers 30 times slower on a CPU.
        return self.replicas.each(self._perturbed, weights, *inputs["noise"])

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
        # Not compiled: truncations differ in length.
        return self.replicas.each(
            self._slopes, directions, objectives, carry["initial"]
        )

    def _slopes(self, directions, objectives, initial):
        """The result as a vector [P + 3], and who is alive.

        Args:
            directions: the perturbations to credit, [K, P].
            objectives: recorded objectives [n, copies * K].
            initial: the objectives at the start.
        """
        finite = tf.math.is_finite(objectives)
        losses = self.objective(
            objectives_lib.capped(objectives, initial, self.max_multiplier),
            initial,
        )
        up, down, *_ = tf.split(losses, self.copies)
        scale = (up - down) / (2 * self.stdev**2)
        # A pair that has blown up altogether has nothing to say.
        said = tf.split(tf.reduce_any(finite, axis=0), self.copies)
        scale = tf.where(said[0] | said[1], scale, float("nan"))
        alive = tf.reduce_all(finite, axis=0)
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
        noise, pairs = self._draw(weights, inputs)
        pairs = self.replicas.each(vector.unflatten, pairs)
        accumulated = noise
        if inputs["start"]:
            # The start, too, belongs to the perturbed weights.
            carry = self.unroller.begin(pairs, constants, inputs["start"])
        else:
            accumulated = self.replicas.each(
                tf.add, carry["accumulated"], noise
            )
        carry, objectives = self._unrolled(pairs, constants, carry, inputs)
        found, alive = self._score(accumulated, objectives, carry)
        carry = {**carry, "alive": alive, "accumulated": accumulated}
        return self.replicas.mean(found), objectives, carry

    def _entries(self, carry):
        entries = super()._entries(carry)
        if carry:
            entries["accumulated"] = (carry["accumulated"], 0, 1)
        return entries

    def load(self, arrays, about):
        accumulated = arrays.pop("accumulated", None)
        run = super().load(arrays, about)
        if accumulated is not None:
            split = self.replicas.split(tf.convert_to_tensor(accumulated))
            run.carry["accumulated"] = split
        return run


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
        noise, moved = self._draw(weights, inputs)
        moved = self.replicas.each(vector.unflatten, moved)
        if inputs["start"]:
            carry = self.unroller.begin(moved, constants, inputs["start"])
        carry, objectives = self._unrolled(moved, constants, carry, inputs)
        found, alive = self._score(noise, objectives, carry)
        carry = self.replicas.each(self._from_unmoved, carry, alive)
        return self.replicas.mean(found), objectives, carry

    def _from_unmoved(self, carry, alive):
        """Every copy goes on from where the unmoved one is."""

        def last_copy(array, axis=0):
            part = tf.split(array, self.copies, axis=axis)[-1]
            return tf.concat([part] * self.copies, axis=axis)

        return {
            "params": [last_copy(tensor) for tensor in carry["params"]],
            "state": {
                name: last_copy(array, unroll.instance_axis(array.shape.rank))
                for name, array in carry["state"].items()
            },
            "initial": last_copy(carry["initial"]),
            "alive": last_copy(alive),
        }


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


ESTIMATORS = {
    "bptt": TruncatedBackpropagation,
    "full": TruncatedBackpropagation,
    "es": TruncatedEvolution,
    "pes": PersistentEvolution,
}
