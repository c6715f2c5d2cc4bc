"""Compiled chains of inner steps: forward, and backward by hand.

An unroll is a chain of segments of one fixed length, each one call of a
compiled function, so that no unroll length needs a compilation of its own.

What a chain carries from segment to segment is a dictionary: "params" (list
of tensors [K, *shape], where gradients are taken), "state" (the optimizer
state), "initial" (the objectives at the start, [K]) and "alive" (bool [K]:
who has not blown up).
"""

import numpy as np
import tensorflow as tf

from lopt_tf.metatraining import replicas as replicas_lib
from lopt_tf.optimizers import update_rule
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
        self.keeps_trail = keeps_trail
        if instances % self.replicas.count:
            raise ValueError(
                f"{instances} instances cannot be shared evenly by "
                f"{self.replicas.count} replicas. Choose a multiple."
            )
        compiled = self.replicas.compiled
        self.forward = compiled(self._forward)
        self.backward = compiled(self._backward)
        self.start = compiled(self._start)
        self.start_backward = compiled(self._start_backward)

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

    # What is drawn outside of compiled functions.

    def constants(self, seed):
        """The problem's constants for all runs; copies share theirs."""
        constants = self.problem.constants(run_seed(seed), self.instances)
        # What has a single row is the same for all, and stays so.
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
        """(seed, first step, minibatches, replica) of a segment."""
        return (
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
        """The carry of fresh runs, from what `draw_start` returned.

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
            (the carry after it, objectives [steps, K], the trail: what
            `backward` needs, empty unless `keeps_trail`).
        """
        params, state, objectives, trail = self.forward(
            weights, constants, carry["params"], carry["state"], inputs
        )
        carry = {**carry, "params": params, "state": state}
        return carry, objectives, trail

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
            f"params/{i}": (tensor, 0)
            for i, tensor in enumerate(carry["params"])
        }
        for name, array in carry["state"].items():
            axis = instance_axis(self.replicas.rank(array))
            entries[f"state/{name}"] = (array, axis)
        for name in ("initial", "alive"):
            entries[name] = (carry[name], 0)
        return {n: (*entry, self.copies) for n, entry in entries.items()}

    def load(self, saved):
        """A carry from the arrays of all instances, named as `entries`."""
        split = self.replicas.split
        saved = {name: tf.convert_to_tensor(a) for name, a in saved.items()}
        count = sum(name.startswith("params/") for name in saved)
        return {
            "params": [
                split(saved[f"params/{i}"], 0, self.copies)
                for i in range(count)
            ],
            "state": {
                name.removeprefix("state/"): split(
                    array, instance_axis(array.shape.rank), self.copies
                )
                for name, array in saved.items()
                if name.startswith("state/")
            },
            "initial": split(saved["initial"], 0, self.copies),
            "alive": split(saved["alive"], 0, self.copies),
        }

    # The compiled functions.

    def _start(self, weights, constants, params, log_lrs):
        weights = _for_each(weights, self.size)
        initial = self.problem.loss(params, constants)
        return {
            "params": params,
            "state": self.rule.init_state(weights, params, log_lrs),
            "initial": initial,
            "alive": tf.math.is_finite(initial),
        }

    def _start_backward(self, weights, params, log_lrs, state_cotangents):
        """Gradients [K, out, in] with respect to weights through the start."""
        weights = _for_each(weights, self.size)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            state = self.rule.init_state(weights, params, log_lrs)
        return _gradients(tape, state, weights, state_cotangents)

    def _forward(self, weights, constants, params, state, inputs):
        """A segment: params and state after it, objectives, trail."""
        weights = _for_each(weights, self.size)
        reuses_loss = self._reuses_loss(state)
        # What `backward` can have for nothing need not be kept.
        keeps_slopes = self.keeps_trail and not reuses_loss

        def body(t, params, state, values, slopes, points):
            points = _write(points, t, (params, state))
            params, state, value, _ = self._step(
                weights, constants, params, state, inputs, t
            )
            if not reuses_loss:
                true = self.rule.true_parameters(weights, state, params)
                value, slope = self._objective(true, constants, keeps_slopes)
                slopes = _write(slopes, t, slope)
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
        if reuses_loss:
            last = self.problem.loss(params, constants)
            values = tf.concat([values[1:], last[None]], axis=0)
        if not self.keeps_trail:
            return params, state, values, ()
        points = tf.nest.pack_sequence_as(
            (params, state), [array.stack() for array in points]
        )
        trail = (points, [slope.stack() for slope in slopes], params)
        return params, state, values, trail

    def _objective(self, true, constants, with_slope):
        """The objectives [K] and, if wanted, their gradients."""
        if with_slope:
            return self.problem.value_and_gradients(true, constants)
        return self.problem.loss(true, constants), []

    def _recorded(self, like):
        return tf.TensorArray(
            like.dtype, self.segment_length, element_shape=like.shape
        )

    def _backward(self, weights, constants, trail, inputs, alive, cotangents):
        """Pulls cotangents back through a segment.

        The gradient of a recorded objective joins the cotangent of the point
        where it was recorded, then one step is pulled back, and so on.

        Args:
            weights, constants, inputs: as given to `forward`.
            trail: what `forward` returned: params and state before each step
                ([steps, K, ...]), the objectives' gradients unless they are
                had for nothing, and the final params.
            alive: bool [steps, K]: whose steps count.
            cotangents: of the final params, the final state, and the
                objectives [steps, K].

        Returns:
            Cotangents of params and state, and gradients [K, out, in] with
            respect to the weights.
        """
        weights = _for_each(weights, self.size)
        points, slopes, end = trail
        reuses_loss = self._reuses_loss(points[1])

        def body(i, bars, weights_bar, next_gradient):
            t = self.segment_length - 1 - i
            if not reuses_loss:
                next_gradient = [slope[t] for slope in slopes]
            bars = _add_objective(
                bars, next_gradient, tf.where(alive[t], cotangents[2][t], 0.0)
            )
            now = tf.nest.map_structure(lambda array: array[t], points)
            with tf.GradientTape() as tape:
                tape.watch((weights, now))
                new_params, new_state, _, clean = self._step(
                    weights, constants, *now, inputs, t
                )
            step_bar, bars = _gradients(
                tape, (new_params, new_state), (weights, now), bars
            )
            # An instance that has blown up must not spoil what it had
            # contributed: no instance's numbers mix with another's.
            step_bar, bars = _only_alive(alive[t], step_bar, bars)
            weights_bar = tf.nest.map_structure(tf.add, weights_bar, step_bar)
            return i + 1, bars, weights_bar, clean

        weights_bar = {n: tf.zeros_like(w) for n, w in weights.items()}
        last = end
        if reuses_loss:
            _, last = self.problem.value_and_gradients(end, constants)
        (params_bar, state_bar), weights_bar, _ = self._loop(
            body, (cotangents[0], cotangents[1]), weights_bar, last
        )
        return params_bar, state_bar, weights_bar

    def _step(self, weights, constants, params, state, inputs, t):
        """One inner step: params, state, loss before it, clean gradients."""
        seed, first_step, batches, replica = inputs
        batch = None if self.problem.batch_size is None else batches[t]
        loss, clean = self.problem.value_and_gradients(params, constants, batch)
        gradients = self._perturbed(
            clean, fold(fold(seed, 2), first_step + t), replica
        )
        if not self.use_second_derivatives:
            gradients = [tf.stop_gradient(g) for g in gradients]
        params, state = self.rule.step(weights, state, params, gradients)
        return params, state, loss, clean

    def _perturbed(self, gradients, seed, replica):
        """Gradients with the problem's noise, the same for all copies.

        Noise is drawn for all instances, also for those of other replicas:
        so it does not depend on how many there are.
        """
        if not self.problem.is_noisy:
            return gradients
        copies = []
        for part in zip(*(tf.split(g, self.copies) for g in gradients)):
            rows = part[0].shape[0]
            everyone = [self._repeated(g, self.replicas.count) for g in part]
            noisy = self.problem.perturb(everyone, seed)
            copies.append([_rows(g, replica * rows, rows) for g in noisy])
        return [tf.concat(parts, axis=0) for parts in zip(*copies)]

    def _repeated(self, array, count):
        if count == 1:
            return array
        return tf.tile(array, [count] + [1] * (array.shape.rank - 1))

    def _reuses_loss(self, state):
        """Whether the loss at a step's gradient is the recorded objective.

        So it is without minibatches and without attention: then the loss
        that the next step computes anyway is the objective of this one.
        """
        attends = "true_parameters" in state
        return self.problem.batch_size is None and not attends

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


def _add_objective(bars, gradient, weight):
    """Adds weight [K] * gradient to the cotangent of the true parameters."""
    params_bar, state_bar = bars
    shapes = [(-1,) + (1,) * (g.shape.rank - 1) for g in gradient]
    # where, not a product with 0: a gradient that does not count may be nan.
    gradient = [
        tf.where(tf.reshape(weight, shape) == 0, 0.0, g)
        * tf.reshape(weight, shape)
        for g, shape in zip(gradient, shapes)
    ]
    if "true_parameters" not in state_bar:
        return [b + g for b, g in zip(params_bar, gradient)], state_bar
    layout = update_rule.choose_layout(gradient, 1)
    true_bar = state_bar["true_parameters"] + layout.pack(gradient)
    return params_bar, {**state_bar, "true_parameters": true_bar}


def _only_alive(alive, weights_bar, bars):
    """Sets cotangents of instances that are out to zero."""
    params_bar, state_bar = bars

    def rows(bar):
        return _where(
            tf.reshape(alive, (-1,) + (1,) * (len(bar.shape) - 1)), bar
        )

    # State arrays keep the instances third from the right.
    matrices = tf.reshape(alive, (-1, 1, 1))
    return (
        {name: _where(matrices, bar) for name, bar in weights_bar.items()},
        (
            [rows(bar) for bar in params_bar],
            {name: _where(matrices, bar) for name, bar in state_bar.items()},
        ),
    )


def _where(mask, value):
    return tf.where(mask, value, tf.zeros_like(value))


def _gradients(tape, targets, sources, cotangents):
    """Vector-Jacobian products, structured like `sources`; 0 for none."""
    found = tape.gradient(
        tf.nest.flatten(targets),
        tf.nest.flatten(sources),
        output_gradients=tf.nest.flatten(cotangents),
        unconnected_gradients="zero",
    )
    return tf.nest.pack_sequence_as(sources, found)


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


def instance_axis(rank):
    """Where the instances are in a state array of that many axes."""
    return rank - 3


def run_seed(numbers):
    """A stateless seed [2] from a sequence of integers."""
    seed = tf.constant([0, 0], "int32")
    for number in numbers:
        seed = fold(seed, int(number))
    return seed
