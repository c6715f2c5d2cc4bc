"""The Keras shell around an update rule."""

import functools
import random
import typing

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import (
    attention,
    backends,
    guarded_step,
    inputs,
    layers,
    layouts,
    pretrained,
    registry,
    skipped_steps,
    trained_weights,
)


class _Variables(typing.NamedTuple):
    """What a step reads or writes: the model's variables and named ones."""

    params: list
    weights: dict
    state: dict
    points: attention.Points | tuple
    counters: dict


class LearnedOptimizer(
    attention.TwoPoints,
    skipped_steps.SkippedSteps,
    trained_weights.TrainedWeights,
    keras.optimizers.Optimizer,
):
    """Base of Keras optimizers whose update is a learned rule.

    A subclass names its `rule_class` and makes its rule from its constructor's
    arguments; `from_pretrained` then knows it, too. All tensors are updated
    together, in one compiled call, each in its own type (float16, bfloat16,
    float32, float64). A step is skipped (parameters, state and iteration stay
    as they are) and counted in `skipped_steps` if its gradients, or the
    parameters after it, are not all finite. (Of models whose
    parameters times tensors exceed a million only the gradients tell in time
    for the state to stay, too.)

    Args:
        rule: the `UpdateRule`.
        learning_rate: float or Keras schedule that multiplies the learned
            step; 1.0 is as learned. Defaults to `1.0`.
        seed: integer that draws the starting learning rates of the elements
            and, without trained weights, the rule's weights; None takes one
            from Keras' global seed. Defaults to `None`.
        pretrained_name: the name of shipped weights, or None. Defaults to
            `None`.
        jit_compile: whether to compile the update with XLA: "auto" does where
            XLA can run, True always, False never. Defaults to `"auto"`.
        name: as for any Keras optimizer: None makes one of the class' name.
            Defaults to `None`.
        **kwargs: as for any Keras optimizer. `weight_decay` removes
            weight_decay * learning_rate of each parameter in each step. With
            a learning rate of 1.0 that is strong: start from 1e-5.
    """

    rule_class = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "rule_class" in cls.__dict__:
            registry.add(cls)

    def __init__(
        self,
        rule,
        learning_rate=1.0,
        seed=None,
        pretrained_name=None,
        jit_compile="auto",
        name=None,
        **kwargs,
    ):
        if jit_compile not in ("auto", True, False):
            raise ValueError(
                'Argument `jit_compile` must be "auto", True or False. '
                f"Received: jit_compile={jit_compile!r}"
            )
        if isinstance(learning_rate, int):
            learning_rate = float(learning_rate)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        # As Keras' own seeds: drawn from Python's generator, which
        # keras.utils.set_random_seed sets.
        self.seed = random.randint(1, 10**9) if seed is None else seed
        self.pretrained_name = pretrained_name
        self.jit_compile = jit_compile
        self._rule = rule
        self._trained_weights = None
        self._weights_are_known = False
        if pretrained_name is not None:
            path = pretrained.path(pretrained_name)
            self._take_weights(pretrained.load_rule(path, rule.name).weights)

    @classmethod
    def _rule_from(cls, arguments):
        """The rule, from its settings among a constructor's `locals()`."""
        settings = cls.rule_class.default_config()
        return cls.rule_class(**{name: arguments[name] for name in settings})

    @property
    def rule(self):
        """The update rule: a pure function."""
        return self._rule

    # Variables.

    def build(self, variables):
        variables = list(variables)
        # Frozen models, and Keras when it reads .h5 files, come without any.
        if self.built or not variables:
            return
        inputs.check_variables(variables, self._var_key)
        # Values of a large model must not become constants of a graph.
        with backends.outside_of_graphs():
            super().build(variables)
            self._build_own(variables)

    def _build_own(self, variables):
        paths = [inputs.path(variable) for variable in variables]
        self._layers = layers.of_paths(paths)
        weights = self._initial_weights()
        self._weight_variables = {
            name: self._add(f"weights_{name}", weights[name])
            for name in sorted(weights)
        }
        state = self._initial_state(weights)
        # Each value is freed when its variable is there. TensorFlow's
        # checkpoints hold what an attribute has when it is set, no more.
        self._state_variables = {
            name: self._add_packed(f"state_{name}", state.pop(name))
            for name in sorted(state)
        }
        zero = inputs.integer(0)
        self._skipped_steps = self._add("state_skipped_steps", zero)
        self._build_points()
        # The last ones: files of older versions do not have them.
        self._skipped_in_a_row = self._add("state_skipped_in_a_row", zero)
        digest = inputs.integer(skipped_steps.shapes_digest(variables))
        self._shapes_digest = self._add("shapes_digest", digest)
        if self._copied_variables is not None:
            self.load_own_variables(self._copied_variables())
            self._copied_variables = None

    def _add_packed(self, name, value):
        """A variable, or of a large model a tuple of them."""
        if not isinstance(value, tuple):
            return self._add(name, value)
        return tuple(
            self._add(f"{name}_{number}", part)
            for number, part in enumerate(value)
        )

    def _add(self, name, value):
        """A variable that begins with a value."""
        is_spread = backends.spreads_variables()
        variable = self.add_variable(
            shape=value.shape,
            initializer="zeros"
            if is_spread
            else lambda shape, dtype: backends.copied(
                ops.convert_to_tensor(value, dtype=dtype)
            ),
            dtype=value.dtype,
            name=name.replace("/", "_"),
        )
        if is_spread:
            variable.assign(value)
        return variable

    def _initial_state(self, weights):
        variables = self._trainable_variables
        rng = np.random.default_rng([self.seed, 1])
        params, uniforms, tensor_uniforms = [], [], []
        for variable in variables:
            shape = tuple(variable.shape)
            uniforms.append(rng.random(shape, "float32"))
            tensor_uniforms.append(rng.random((1,) * len(shape), "float32"))
            # What is measured, or attended to, is known at the first step.
            zero = np.zeros((), inputs.wide_type(variable.dtype))
            params.append(np.broadcast_to(zero, shape))
        rates = self._rule.draw_log_learning_rates(uniforms, tensor_uniforms)
        del uniforms
        state = self._rule.init_state(weights, params, rates)
        unknown = {n: ops.zeros_like(state[n]) for n in self._rule.measures}
        return {**state, **unknown}

    def reset(self):
        """Back to the start: state, iteration, counters and averages.

        The trained weights, the learning rate and the model's parameters stay.
        """
        if not self.built:
            return
        self.hold_true_parameters()
        digest = skipped_steps.shapes_digest(self._trainable_variables)
        if self._is_zeroed():
            for name, array in self._initial_weights().items():
                self._weight_variables[name].assign(array)
        kept = [self._learning_rate, *self._weight_variables.values()]
        kept = {id(variable) for variable in kept}
        for variable in self.variables:
            if id(variable) not in kept:
                variable.assign(ops.zeros(variable.shape, variable.dtype))
        self._shapes_digest.assign(digest)
        state = self._initial_state(self.rule_weights())
        for name, value in state.items():
            keras.tree.map_structure(
                lambda variable, part: variable.assign(part),
                attention.plain(self._state_variables[name]),
                value,
            )

    # The update.

    def apply(self, grads, trainable_variables=None):
        self._check_weights()
        grads = list(grads)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        known = trainable_variables
        if known is None and self.built:
            known = self._trainable_variables
        if grads and known is not None:
            # Sparse ones become dense: the hidden states of all elements move.
            grads = inputs.checked(grads, known, self._var_key)
        super().apply(grads, trainable_variables)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        if not (self.built or len(trainable_variables)):
            # A frozen model: see `build`.
            return trainable_variables, optimizer_variables
        return super().stateless_apply(
            optimizer_variables, grads, trainable_variables
        )

    def _clip_gradients(self, grads):
        clipped = super()._clip_gradients(grads)
        # Clipping by value would hide an infinite gradient.
        return [
            ops.where(ops.isfinite(g), c, float("nan")) if self.clipvalue else c
            for g, c in zip(grads, clipped)
        ]

    def _apply_weight_decay(self, variables):
        # It is part of the update, so that a skipped step skips it, too, and
        # with attention the true parameters decay.
        pass

    def finalize_variable_values(self, var_list):
        # After a step that failed its own error counts.
        if self.built and backends.has_value(self._iterations):
            super().finalize_variable_values(var_list)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        found = {
            self._get_variable_index(v): gradient
            for v, gradient in zip(trainable_variables, grads)
        }
        # As plain structures: Keras wraps those that are attributes.
        variables = _Variables(
            list(self._trainable_variables),
            dict(self._weight_variables),
            {n: attention.plain(v) for n, v in self._state_variables.items()},
            self._points(),
            {
                "skipped_steps": self._skipped_steps,
                "skipped_in_a_row": self._skipped_in_a_row,
                "shapes_digest": self._shapes_digest,
                "iterations": self._iterations,
            },
        )
        # Arithmetic makes a tensor of it; a conversion would leave a variable.
        learning_rate = ops.cast(learning_rate * 1.0, "float32")
        update = functools.partial(self._update_variables, tuple(found))
        grads = list(found.values())
        backends.update_devices(self, update, variables, grads, learning_rate)

    def _update_variables(self, present, variables, grads, learning_rate):
        """Gives (one device's) variables their values after the step.

        Only this function and what it calls write variables in a step;
        `guarded_step` computes.
        """
        finite = ops.logical_and(
            guarded_step.are_finite(grads),
            variables.counters["shapes_digest"] != 0,
        )
        found = dict(zip(present, map(inputs.narrowed, grads)))
        grads = [found.get(i) for i in range(len(variables.params))]

        is_sharded = layouts.is_sharded(variables.params)

        def compute():
            params, weights, points = map(
                _values, (variables.params, variables.weights, variables.points)
            )
            # A large model's new state is written where the old one is, but
            # tensors that rest need their old one.
            is_written = is_sharded and len(present) == len(params)
            state = keras.tree.map_structure(
                backends.in_place if is_written else backends.value,
                variables.state,
            )
            new = guarded_step.take(
                self._rule,
                weights,
                state,
                params,
                grads,
                learning_rate,
                self._decays(learning_rate),
                points,
                layers=self._layers,
                constrained=self._constrained(),
                jit_compile=self.jit_compile,
            )
            if self._rule.attends:
                new = attention.with_constraints(new, self._constraints())
            return new

        def write_all(new, chosen):
            self._write_state(variables, new, chosen)
            return write_params(new, chosen)

        def write_params(new, chosen):
            self._write_params(present, variables, new, chosen)
            return True

        def write_at_once(chosen):
            new = compute()
            self._write_state(variables, new, chosen)
            return backends.write_if(
                ops.logical_and(finite, new.finite),
                functools.partial(write_params, new),
            )

        if is_sharded:
            taken = backends.write_if(finite, write_at_once)
        else:
            new = compute()
            taken = backends.write_if(
                ops.logical_and(finite, new.finite),
                functools.partial(write_all, new),
            )
        self._count(variables.counters, ops.cast(taken, "int"))

    def _write_state(self, variables, new, chosen):
        for name, own in variables.state.items():
            if name != "true_parameters":
                _assign(own, new.state[name], chosen)

    def _write_params(self, present, variables, new, chosen):
        for i in present:
            _assign(variables.params[i], new.params[i], chosen)
        if self._rule.attends:
            true = "true_parameters"
            _assign(variables.state[true], new.state[true], chosen)
            points = variables.points
            _assign(points.attended, new.attended, chosen)
            zero = ops.zeros_like(backends.value(points.holds_true))
            _assign(points.holds_true, zero, chosen)

    def _decays(self, learning_rate):
        """What weight decay removes of each parameter; None without it."""
        if not self.weight_decay:
            return None
        decay = self.weight_decay * learning_rate
        # What Keras' own optimizers look for names in.
        return [
            decay if self._use_weight_decay(backends.named(v)) else 0.0
            for v in self._trainable_variables
        ]


def _values(structure):
    return keras.tree.map_structure(backends.value, structure)


def _assign(variables, values, chosen):
    """Assigns `chosen(new, old)` to a variable or a tuple of them."""

    def assign(variable, value):
        # What was written in place is the variable itself.
        if value is not backends.in_place(variable):
            variable.assign(chosen(value, backends.value(variable)))

    keras.tree.map_structure(assign, variables, values)
