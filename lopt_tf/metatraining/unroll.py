"""Compiled chains of inner steps: forward, and backward by hand.

An unroll is a chain of segments of one fixed length, each one call of a
compiled function, so that no unroll length needs a compilation of its own.
"""

import dataclasses

import tensorflow as tf

from lopt_tf.optimizers import update_rule
from problems import datasets
from problems.problem import fold, value_and_gradients


@dataclasses.dataclass
class Run:
    """K inner runs of one problem, somewhere on their way.

    Attributes:
        params: list of tensors [K, *shape]: where gradients are taken.
        state: the optimizer state.
        step: number of inner steps done.
        seed: integers that determine minibatches and gradient noise.
        initial: the objectives at the start, [K].
        alive: bool [K]: which have not blown up.
    """

    params: list
    state: dict
    step: int
    seed: tuple
    initial: tf.Tensor
    alive: tf.Tensor

    def arrays(self):
        """Everything but step and seed as {name: array}."""
        params = {f"params/{i}": p for i, p in enumerate(self.params)}
        state = {f"state/{name}": value for name, value in self.state.items()}
        rest = {"initial": self.initial, "alive": self.alive}
        return {**params, **state, **rest}

    @classmethod
    def from_arrays(cls, arrays, step, seed):
        """The inverse of `arrays`."""
        tensors = {name: tf.constant(a) for name, a in arrays.items()}
        count = sum(name.startswith("params/") for name in tensors)
        return cls(
            params=[tensors[f"params/{i}"] for i in range(count)],
            state={
                name.removeprefix("state/"): value
                for name, value in tensors.items()
                if name.startswith("state/")
            },
            step=step,
            seed=tuple(seed),
            initial=tensors["initial"],
            alive=tensors["alive"],
        )


class Unroller:
    """Inner steps of an update rule on one problem, K instances at a time.

    Args:
        problem: a `problems.Problem`.
        rule: an `UpdateRule`.
        instances: K.
        segment_length: inner steps in one compiled call.
        use_second_derivatives: whether meta-gradients flow through the
            problem's gradients.
        copies: 2 runs every instance twice with the same noise and data (an
            antithetic pair): the leading axis is then 2 K, first copy first.
    """

    def __init__(
        self,
        problem,
        rule,
        instances,
        segment_length=20,
        use_second_derivatives=True,
        copies=1,
    ):
        self.problem = problem
        self.rule = rule
        self.instances = instances
        self.segment_length = segment_length
        self.use_second_derivatives = use_second_derivatives
        self.copies = copies
        self.forward = compiled(self._forward)
        self.backward = compiled(self._backward)
        self.start = compiled(self._start)
        self.start_backward = compiled(self._start_backward)

    @property
    def size(self):
        """Inner runs side by side: the length of the leading axis."""
        return self.copies * self.instances

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

    def constants(self, seed):
        """The problem's constants for all runs; copies share theirs."""
        constants = self.problem.constants(run_seed(seed), self.instances)
        # What has a single row is the same for all, and stays so.
        return {
            name: self._tiled(c) if c.shape[0] == self.instances > 1 else c
            for name, c in constants.items()
        }

    def _tiled(self, array):
        return tf.tile(array, [self.copies] + [1] * (array.shape.rank - 1))

    def new_run(self, weights, constants, seed):
        """Fresh runs: params, optimizer state and starting objectives.

        Args:
            weights: meta-parameters with or without a leading axis.
            constants: what `constants` returned.
            seed: sequence of integers.
        """
        seed = tuple(int(s) for s in seed)
        params = self.problem.init(fold(run_seed(seed), 0), self.instances)
        params = [self._tiled(p) for p in params]
        log_lrs = self.draw_log_learning_rates(seed)
        state, initial = self.start(weights, constants, params, log_lrs)
        return Run(params, state, 0, seed, initial, tf.math.is_finite(initial))

    def draw_log_learning_rates(self, seed):
        """Starting log learning rates: list of tensors [K, *shape]."""
        seed, drawn = fold(run_seed(seed), 1), ([], [])
        for i, shape in enumerate(self.problem.shapes):
            full = (self.instances, *shape)
            one = (self.instances, *(1,) * len(shape))
            for draws, size, use in zip(drawn, (full, one), (2 * i, 2 * i + 1)):
                draws.append(tf.random.stateless_uniform(size, fold(seed, use)))
        log_lrs = self.rule.draw_log_learning_rates(*drawn)
        return [self._tiled(value) for value in log_lrs]

    def batches(self, seed, first_step):
        """Minibatches of one segment, int32 [steps, K, B] (B may be 0)."""
        if self.problem.batch_size is None:
            return tf.zeros((self.segment_length, self.size, 0), "int32")
        batches = datasets.minibatches(
            seed,
            first_step,
            self.segment_length,
            self.instances,
            self.problem.num_examples,
            self.problem.batch_size,
        )
        return tf.tile(batches, (1, self.copies, 1))

    def segment_inputs(self, run):
        """What `forward` and `backward` take besides weights and constants."""
        return (
            run_seed(run.seed),
            tf.constant(run.step, "int32"),
            self.batches(run.seed, run.step),
        )

    def advance(self, weights, constants, run):
        """One segment: (run after it, objectives [steps, K])."""
        params, state, objectives = self.forward(
            weights,
            constants,
            run.params,
            run.state,
            *self.segment_inputs(run),
        )
        step = run.step + self.segment_length
        run = dataclasses.replace(run, params=params, state=state, step=step)
        return run, objectives

    # The compiled functions.

    def _start(self, weights, constants, params, log_lrs):
        weights = _for_each(weights, self.size)
        state = self.rule.init_state(weights, params, log_lrs)
        return state, self.problem.loss(params, constants)

    def _start_backward(self, weights, params, log_lrs, state_cotangents):
        """Gradients [K, out, in] with respect to weights through the start."""
        weights = _for_each(weights, self.size)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            state = self.rule.init_state(weights, params, log_lrs)
        return _gradients(tape, state, weights, state_cotangents)

    def _forward(
        self, weights, constants, params, state, seed, first_step, batches
    ):
        """A segment: params and state after it, objectives [steps, K]."""
        weights = _for_each(weights, self.size)
        reuses_loss = self._reuses_loss(state)

        def body(t, params, state, values):
            params, state, value, _ = self._step(
                weights, constants, params, state,
                fold(seed, first_step + t), batches[t],
            )  # fmt: skip
            if not reuses_loss:
                true = self.rule.true_parameters(weights, state, params)
                value = self.problem.loss(true, constants)
            return t + 1, params, state, values.write(t, value)

        values = tf.TensorArray(
            "float32", self.segment_length, element_shape=(self.size,)
        )
        params, state, values = self._loop(body, params, state, values)
        values = values.stack()
        if reuses_loss:
            last = self.problem.loss(params, constants)
            values = tf.concat([values[1:], last[None]], axis=0)
        return params, state, values

    def _backward(
        self,
        weights,
        constants,
        params,
        state,
        seed,
        first_step,
        batches,
        alive,
        cotangents,
    ):
        """Pulls cotangents back through a segment.

        The gradient of a recorded objective joins the cotangent of the point
        where it was recorded, then one step is pulled back, and so on.

        Args:
            weights, constants, params, state, seed, first_step, batches: as
                given to `forward`.
            alive: bool [steps, K]: whose steps count.
            cotangents: of the final params, the final state, and the
                objectives [steps, K].

        Returns:
            Cotangents of params and state, and gradients [K, out, in] with
            respect to the weights.
        """
        weights = _for_each(weights, self.size)
        reuses_loss = self._reuses_loss(state)
        stored = self._trajectory(
            weights, constants, params, state, seed, first_step, batches
        )

        def carry_at(t):
            arrays = [array[t] for array in stored]
            return tf.nest.pack_sequence_as((params, state), arrays)

        def objective_gradient(carry):
            true = self.rule.true_parameters(weights, carry[1], carry[0])
            return value_and_gradients(self.problem, true, constants)[1]

        def body(i, bars, weights_bar, next_gradient):
            t = self.segment_length - 1 - i
            if not reuses_loss:
                next_gradient = objective_gradient(carry_at(t + 1))
            bars = _add_objective(
                bars, next_gradient, tf.where(alive[t], cotangents[2][t], 0.0)
            )
            now = carry_at(t)
            with tf.GradientTape() as tape:
                tape.watch((weights, now))
                new_params, new_state, _, clean = self._step(
                    weights, constants, *now,
                    fold(seed, first_step + t), batches[t],
                )  # fmt: skip
            step_bar, bars = _gradients(
                tape, (new_params, new_state), (weights, now), bars
            )
            # An instance that has blown up must not spoil what it had
            # contributed: no instance's numbers mix with another's.
            step_bar, bars = _only_alive(alive[t], step_bar, bars)
            weights_bar = tf.nest.map_structure(tf.add, weights_bar, step_bar)
            return i + 1, bars, weights_bar, clean

        weights_bar = {n: tf.zeros_like(w) for n, w in weights.items()}
        if reuses_loss:
            last = objective_gradient(carry_at(self.segment_length))
        else:
            last = params
        (params_bar, state_bar), weights_bar, _ = self._loop(
            body, (cotangents[0], cotangents[1]), weights_bar, last
        )
        return params_bar, state_bar, weights_bar

    def _trajectory(
        self, weights, constants, params, state, seed, first_step, batches
    ):
        """All carries of a segment, flattened: arrays [steps + 1, ...]."""

        def write(arrays, t, params, state):
            carry = tf.nest.flatten((params, state))
            return [array.write(t, c) for array, c in zip(arrays, carry)]

        def body(t, params, state, arrays):
            params, state, _, _ = self._step(
                weights, constants, params, state,
                fold(seed, first_step + t), batches[t],
            )  # fmt: skip
            return t + 1, params, state, write(arrays, t + 1, params, state)

        arrays = [
            tf.TensorArray(
                c.dtype, self.segment_length + 1, element_shape=c.shape
            )
            for c in tf.nest.flatten((params, state))
        ]
        arrays = write(arrays, 0, params, state)
        _, _, arrays = self._loop(body, params, state, arrays)
        return [array.stack() for array in arrays]

    def _step(self, weights, constants, params, state, seed, batch):
        """One inner step: params, state, loss before it, clean gradients."""
        batch = None if self.problem.batch_size is None else batch
        loss, clean = value_and_gradients(
            self.problem, params, constants, batch
        )
        gradients = self._perturbed(clean, seed)
        if not self.use_second_derivatives:
            gradients = [tf.stop_gradient(g) for g in gradients]
        params, state = self.rule.step(weights, state, params, gradients)
        return params, state, loss, clean

    def _perturbed(self, gradients, seed):
        """Gradients with the problem's noise, the same for all copies."""
        if not self.problem.is_noisy:
            return gradients
        copies = [
            self.problem.perturb(part, seed)
            for part in zip(*(tf.split(g, self.copies) for g in gradients))
        ]
        return [tf.concat(parts, axis=0) for parts in zip(*copies)]

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


def compiled(function):
    """An XLA-compiled function; its Python runs as written, once."""
    return tf.function(function, jit_compile=True, autograph=False)


def run_seed(numbers):
    """A stateless seed [2] from a sequence of integers."""
    seed = tf.constant([0, 0], "int32")
    for number in numbers:
        seed = fold(seed, int(number))
    return seed
