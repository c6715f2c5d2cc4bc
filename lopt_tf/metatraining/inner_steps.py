"""Inner steps to be compiled: a segment forward, and backward by hand.

A segment is a loop of a fixed number of steps. `x_bar` is the cotangent of x:
the gradient of the meta-objective with respect to x.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from lopt_tf.optimizers import layouts, update_rule
from problems.problem import Problem, fold, in_own_unit, scaled


class Carry(NamedTuple):
    """What inner runs carry from segment to segment.

    Attributes:
        params: list of tensors [K, *shape], where gradients are taken.
        state: the optimizer state.
        initial: the objectives at the start, [K].
        alive: bool [K], whether a run has not blown up.
        accumulated: perturbations of the weights since the start, [K, P], if
            the estimator adds them up; () if not.
    """

    params: list
    state: dict
    initial: tf.Tensor
    alive: tf.Tensor
    accumulated: tuple = ()


class SegmentInputs(NamedTuple):
    """What a segment needs besides weights, constants and carry.

    Attributes:
        seed: int32 [2].
        first_step: number of the segment's first step in its run.
        batches: int32 [steps, K, B]; B may be 0.
        replica: number of this replica.
    """

    seed: tf.Tensor
    first_step: tf.Tensor
    batches: tf.Tensor
    replica: tf.Tensor


class Trail(NamedTuple):
    """What `InnerSteps.backward` needs of a segment.

    Attributes:
        points: (params, state) before each step, [steps, K, ...].
        slopes: gradients of the recorded objectives, [steps, K, *shape];
            empty where `backward` computes them anyway.
        end: params after the last step.
    """

    points: tuple
    slopes: list
    end: list


class Segment(NamedTuple):
    """What comes out of a segment.

    Attributes:
        params, state: those after the last step.
        objectives: the objectives after each step, [steps, K]; where batches
            are recorded, minibatch losses before each step.
        trail: a `Trail`, or () if none is kept.
    """

    params: list
    state: dict
    objectives: tf.Tensor
    trail: tuple


class Cotangents(NamedTuple):
    """Cotangents of params and state at one point of a run."""

    params: list
    state: dict


@dataclasses.dataclass(frozen=True, eq=False)
class InnerSteps:
    """The pure functions of an `Unroller`; see there for the arguments.

    Attributes:
        size: inner runs side by side on one replica.
        num_replicas: replicas that share the instances.
    """

    problem: Problem
    rule: update_rule.UpdateRule
    size: int
    segment_length: int
    use_second_derivatives: bool
    copies: int
    num_replicas: int
    keeps_trail: bool
    records_batches: bool

    @property
    def reuses_loss(self):
        """Whether the loss that the next step computes is the objective.

        So it is without minibatches and without attention.
        """
        return self.problem.batch_size is None and not self.rule.attends

    def start(self, weights, constants, params, log_lrs):
        """The `Carry` of fresh runs."""
        weights = _for_each(weights, self.size)
        params = self._per_scale(constants, params)
        initial = self.problem.loss(params, constants)
        state = update_rule.start_state(
            self.rule, weights, params, log_lrs, self.problem.structure
        )
        return Carry(params, state, initial, tf.math.is_finite(initial))

    def start_backward(self, weights, constants, params, log_lrs, state_bar):
        """Gradients [K, out, in] with respect to weights through the start."""
        weights = _for_each(weights, self.size)
        params = self._per_scale(constants, params)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            state = update_rule.start_state(
                self.rule, weights, params, log_lrs, self.problem.structure
            )
        return _gradients(tape, state, weights, state_bar)

    def forward(self, weights, constants, params, state, inputs):
        """A `Segment` from given params and state."""
        weights = _for_each(weights, self.size)
        has_batches = self.problem.batch_size is not None
        takes_loss = self.reuses_loss or (self.records_batches and has_batches)
        # `backward` computes the slopes of reused losses anyway.
        keeps_slopes = self.keeps_trail and not takes_loss

        def body(t, params, state, values, slopes, points):
            points = _write(points, t, (params, state))
            params, state, value, _ = self._step(
                weights, constants, params, state, inputs, t
            )
            true = self.rule.true_parameters(weights, state, params)
            if keeps_slopes:
                value, slope = self.problem.value_and_gradients(true, constants)
                slopes = _write(slopes, t, slope)
            elif not takes_loss:
                value = self.problem.loss(true, constants)
            values = values.write(t, value)
            return t + 1, params, state, values, slopes, points

        values = self._recorded(tf.zeros(self.size))
        slopes = [self._recorded(p) for p in params if keeps_slopes]
        points = [
            self._recorded(array)
            for array in tf.nest.flatten((params, state))
            if self.keeps_trail
        ]
        params, state, values, slopes, points = self._loop(
            body, params, state, values, slopes, points
        )
        values = values.stack()
        if self.reuses_loss:
            last = self.problem.loss(params, constants)
            values = tf.concat([values[1:], last[None]], axis=0)
        if not self.keeps_trail:
            return Segment(params, state, values, ())
        points = tf.nest.pack_sequence_as(
            (params, state), [array.stack() for array in points]
        )
        trail = Trail(points, [slope.stack() for slope in slopes], params)
        return Segment(params, state, values, trail)

    def _recorded(self, like):
        return tf.TensorArray(
            like.dtype, self.segment_length, element_shape=like.shape
        )

    def backward(self, weights, constants, trail, inputs, alive, end, recorded):
        """Pulls cotangents back through a segment.

        The gradient of a recorded objective joins the cotangent of the point
        where it was recorded, then one step is pulled back, and so on.

        Args:
            weights, constants, inputs: as given to `forward`.
            trail: the `Trail` that `forward` returned.
            alive: bool [steps, K], whether a step counts.
            end: `Cotangents` after the segment.
            recorded: cotangents of the recorded objectives, [steps, K].

        Returns:
            `Cotangents` before the segment, and gradients [K, out, in] with
            respect to the weights.
        """
        weights = _for_each(weights, self.size)

        def body(i, bars, weights_bar, next_slope):
            t = self.segment_length - 1 - i
            if not self.reuses_loss:
                next_slope = [slope[t] for slope in trail.slopes]
            weight = tf.where(alive[t], recorded[t], 0.0)
            bars = self._add_objective(bars, next_slope, weight)
            point = tf.nest.map_structure(lambda array: array[t], trail.points)
            known = None
            if not self.use_second_derivatives:
                # Outside of the tape: nothing of it is differentiated again.
                known = self._gradients(constants, point[0], inputs, t)
            with tf.GradientTape() as tape:
                tape.watch((weights, point))
                params, state, _, slope = self._step(
                    weights, constants, *point, inputs, t, known
                )
            step_bar, bars = _gradients(
                tape, Cotangents(params, state), (weights, point), bars
            )
            # An instance that has blown up must not spoil what it had
            # contributed: no instance's numbers mix with another's.
            step_bar, bars = _only_alive(alive[t], step_bar, Cotangents(*bars))
            weights_bar = tf.nest.map_structure(tf.add, weights_bar, step_bar)
            return i + 1, bars, weights_bar, slope

        weights_bar = {n: tf.zeros_like(w) for n, w in weights.items()}
        last_slope = trail.end
        if self.reuses_loss:
            _, last_slope = self.problem.value_and_gradients(
                trail.end, constants
            )
        bars, weights_bar, _ = self._loop(body, end, weights_bar, last_slope)
        return bars, weights_bar

    def _step(self, weights, constants, params, state, inputs, t, known=None):
        """One inner step: params, state, loss before it, clean gradients.

        Args:
            weights, constants, params, state, inputs, t: of the step.
            known: what `_gradients` told of it. Defaults to `None`.
        """
        if known is None:
            known = self._gradients(constants, params, inputs, t)
        loss, clean, gradients = known
        params, state = self.rule.step(weights, state, params, gradients)
        return params, state, loss, clean

    def _gradients(self, constants, params, inputs, t):
        """(Loss, its gradients, these with noise) at a step's point."""
        has_batches = self.problem.batch_size is not None
        batch = inputs.batches[t] if has_batches else None
        loss, clean = self.problem.value_and_gradients(params, constants, batch)
        seed = fold(fold(inputs.seed, 2), inputs.first_step + t)
        return loss, clean, self._noisy(clean, constants, seed, inputs.replica)

    def _per_scale(self, constants, params):
        """Parameters in the problem's own unit -> those that are trained."""
        scale = self.problem.parameter_scale(constants)
        return params if scale is None else scaled(params, 1 / scale)

    def _noisy(self, gradients, constants, seed, replica):
        """Gradients with the problem's noise, which has its own unit."""
        if not self.problem.is_noisy:
            return gradients
        return in_own_unit(
            lambda own: self._perturbed(own, seed, replica),
            *(gradients, self.problem.parameter_scale(constants)),
        )

    def _perturbed(self, gradients, seed, replica):
        """Gradients with the problem's noise, the same for all copies.

        Noise is drawn for all instances, also for those of other replicas:
        so it does not depend on how many there are.
        """
        copies = []
        for part in zip(*(tf.split(g, self.copies) for g in gradients)):
            rows = part[0].shape[0]
            all_rows = [tf.concat([g] * self.num_replicas, 0) for g in part]
            noisy = self.problem.perturb(all_rows, seed)
            copies.append([_rows(g, replica * rows, rows) for g in noisy])
        return [tf.concat(parts, axis=0) for parts in zip(*copies)]

    def _add_objective(self, bars, slope, weight):
        """Adds weight [K] * slope to the cotangent of the true parameters."""
        weights = [_column(weight, g) for g in slope]
        # where, not a product with 0: a slope that does not count may be nan.
        slope = [tf.where(w == 0, 0.0, g) * w for g, w in zip(slope, weights)]
        if not self.rule.attends:
            added = [b + g for b, g in zip(bars.params, slope)]
            return bars._replace(params=added)
        layout = layouts.choose_layout(slope, 1)
        true_bar = bars.state["true_parameters"] + layout.pack(slope)
        return bars._replace(state={**bars.state, "true_parameters": true_bar})

    def _loop(self, body, *variables):
        _, *variables = tf.while_loop(
            lambda t, *_: t < self.segment_length,
            body,
            (0, *variables),
            maximum_iterations=self.segment_length,
        )
        return variables


def _write(arrays, t, values):
    """Writes flat or nested values to a list of arrays; to none, nothing."""
    values = tf.nest.flatten(values)
    return [array.write(t, v) for array, v in zip(arrays, values)]


def _only_alive(alive, weights_bar, bars):
    """Sets the cotangents of lost instances to zero."""

    def masked(mask, bar):
        return tf.where(mask, bar, tf.zeros_like(bar))

    # Arrays of weights and state keep the instances third from the right.
    weights_bar, state = (
        {name: masked(alive[:, None, None], bar) for name, bar in bars.items()}
        for bars in (weights_bar, bars.state)
    )
    params = [masked(_column(alive, bar), bar) for bar in bars.params]
    return weights_bar, Cotangents(params, state)


def _column(rows, array):
    """Values [K] with as many axes as an array [K, ...]."""
    return tf.reshape(rows, (-1,) + (1,) * (len(array.shape) - 1))


def _gradients(tape, targets, sources, cotangents):
    """Vector-Jacobian products, structured like `sources`; 0 for none."""
    gradients = tape.gradient(
        tf.nest.flatten(targets),
        tf.nest.flatten(sources),
        output_gradients=tf.nest.flatten(cotangents),
        unconnected_gradients="zero",
    )
    return tf.nest.pack_sequence_as(sources, gradients)


def _for_each(weights, size):
    """Weights with a leading axis of `size` equal rows, unless they have."""
    return {
        name: w
        if len(w.shape) == 3
        else tf.tile(tf.convert_to_tensor(w)[None], (size, 1, 1))
        for name, w in weights.items()
    }


def _rows(array, first, count):
    """`count` rows of an array from row `first` (a tensor) on."""
    if array.shape[0] == count:
        return array
    begin = [first] + [0] * (array.shape.rank - 1)
    return tf.slice(array, begin, [count, *array.shape[1:]])
