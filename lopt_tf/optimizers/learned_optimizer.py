"""The Keras shell around an update rule."""

import contextlib
import random
import warnings

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import pretrained, update_rule


class LearnedOptimizer(keras.optimizers.Optimizer):
    """Base of Keras optimizers whose update is a learned rule.

    A subclass makes its rule from its constructor's arguments. All tensors
    are updated together, in one compiled call. A step whose gradients are
    not all finite is skipped (parameters, state and iteration stay as they
    are) and counted in `skipped_steps`.

    Args:
        rule: the `UpdateRule`.
        learning_rate: float or Keras schedule that multiplies the learned
            step; 1.0 is as learned.
        weight_decay: removes weight_decay * learning_rate of each parameter
            in each step. With a learning rate of 1.0 that is strong: start
            from 1e-5.
        seed: integer that draws the starting learning rates of the elements
            and, without trained weights, the rule's weights; None takes one
            from Keras' global seed.
        pretrained_name: the name of shipped weights, or None.
        **kwargs: as for any Keras optimizer.
    """

    rule_class = None

    def __init__(
        self,
        rule,
        learning_rate=1.0,
        seed=None,
        pretrained_name=None,
        name=None,
        **kwargs,
    ):
        if isinstance(learning_rate, int):
            learning_rate = float(learning_rate)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        # As Keras' own seeds: drawn from Python's generator, which
        # keras.utils.set_random_seed sets.
        self.seed = random.randint(1, 10**9) if seed is None else seed
        self.pretrained_name = pretrained_name
        self._rule = rule
        self._trained_weights = None
        self._weights_are_known = False
        self._validates_true_parameters = False
        self._update = None
        if pretrained_name is not None:
            path = pretrained.path(pretrained_name)
            self._take_weights(pretrained.load(path, rule.name)[2])

    @property
    def rule(self):
        """The update rule: a pure function."""
        return self._rule

    @property
    def skipped_steps(self):
        """How many steps were skipped for NaN or infinite gradients."""
        if not self.built:
            return 0
        return int(ops.convert_to_numpy(self._skipped))

    # Pretrained weights.

    @classmethod
    def from_pretrained(cls, path_or_name=None, **kwargs):
        """Makes an optimizer with trained weights.

        Args:
            path_or_name: a file that `save_pretrained` or the meta-training
                wrote, or the name of weights that ship with the package;
                None for the default ones that do.
                `LearnedOptimizer.from_pretrained` makes whatever optimizer
                the file holds; a subclass takes its own kind only.
            **kwargs: Keras arguments such as `learning_rate`. Arguments of
                the rule come from the file, but those in the rule's
                `adjustable` can be given, too.

        Raises:
            ValueError: if the file is missing, damaged or of another kind,
                the name is unknown, or an argument contradicts the file.
        """
        wanted = getattr(cls.rule_class, "name", None)
        path, name = pretrained.find(path_or_name, wanted)
        rule_name, config, weights = pretrained.load(path, wanted)
        if wanted is None:
            # Not at the top: the registry knows the subclasses of this one.
            from lopt_tf.optimizers import registry

            cls = registry.optimizer_class(rule_name)
        # Settings that are newer than the file are at their defaults.
        config = cls.rule_class(**config).get_config()
        for key in sorted(set(config) & set(kwargs)):
            given = kwargs.pop(key)
            given = list(given) if isinstance(given, tuple) else given
            if key in cls.rule_class.adjustable:
                config[key] = given
            elif given != config[key]:
                raise ValueError(
                    f"{path} was trained with {key}={config[key]!r}, which "
                    f"cannot be changed. Received: {key}={given!r}"
                )
        optimizer = cls(**config, **kwargs)
        optimizer.pretrained_name = name
        optimizer._take_weights(weights)
        return optimizer

    def save_pretrained(self, path):
        """Saves the rule's configuration and weights to one file."""
        pretrained.save(path, self._rule, self.rule_weights())

    def rule_weights(self):
        """The rule's meta-parameters now: {name: NumPy array}."""
        if not self.built:
            return self._initial_weights()
        return {
            name: ops.convert_to_numpy(variable)
            for name, variable in zip(
                self._weight_names, self._weight_variables
            )
        }

    def _initial_weights(self):
        if self._trained_weights is not None:
            return self._trained_weights
        return self._rule.init_weights(self.seed)

    def _take_weights(self, weights):
        expected = self._rule.init_weights(0)
        wrong = [
            f"{name}: {weights[name].shape} instead of {array.shape}"
            if name in weights
            else f"{name} is missing"
            for name, array in expected.items()
            if name not in weights or weights[name].shape != array.shape
        ]
        wrong += [f"unknown: {name}" for name in set(weights) - set(expected)]
        if wrong:
            raise ValueError(
                "The weights do not fit this optimizer's configuration "
                f"({'; '.join(sorted(wrong))})."
            )
        self._trained_weights = weights
        self._weights_are_known = True

    # Variables.

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        with _outside_of_graphs():
            weights = self._initial_weights()
            state = self._initial_state(variables)
        self._weight_names = sorted(weights)
        self._weight_variables = [
            self._add(name, weights[name]) for name in self._weight_names
        ]
        self._state_names = sorted(state)
        self._state_variables = [
            self._add(name, state[name]) for name in self._state_names
        ]
        self._skipped = self._add("skipped_steps", np.zeros((), "int32"))
        if "true_parameters" in state:
            true = state["true_parameters"]
            self._attended_point = self._add("attended_parameters", true)
            zero = np.zeros((), "int32")
            self._holds_true = self._add("holds_true_parameters", zero)
        self._update = self._compiled_update()

    def _add(self, name, value):
        """A variable that begins with a value, even while fit is tracing."""
        return self.add_variable(
            shape=value.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(
                value, dtype=dtype
            ),
            dtype=value.dtype,
            name=name.replace("/", "_"),
        )

    def _initial_state(self, variables):
        rng = np.random.default_rng([self.seed, 1])
        params, uniforms, tensor_uniforms = [], [], []
        for variable in variables:
            shape = tuple(variable.shape)
            uniforms.append(rng.random(shape, "float32"))
            tensor_uniforms.append(rng.random((1,) * len(shape), "float32"))
            params.append(
                ops.convert_to_numpy(variable).astype("float32")
                if self._rule.attends
                else np.zeros(shape, "float32")
            )
        state = self._rule.init_state(
            {name: w for name, w in self._initial_weights().items()},
            params,
            self._rule.draw_log_learning_rates(uniforms, tensor_uniforms),
        )
        return {n: ops.convert_to_numpy(value) for n, value in state.items()}

    # The update.

    def apply(self, grads, trainable_variables=None):
        if not self._weights_are_known:
            self._weights_are_known = True
            warnings.warn(
                f"{type(self).__name__} has no trained weights: "
                f"{self._rule.before_training}. Use from_pretrained(), or "
                "meta-train one.",
                stacklevel=2,
            )
        # A sparse gradient updates every element: the hidden states move.
        grads = [_dense(gradient) for gradient in grads]
        super().apply(grads, trainable_variables)

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

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        present = [self._get_variable_index(v) for v in trainable_variables]
        # Arithmetic makes a tensor of it; a conversion would leave a variable.
        learning_rate = ops.cast(learning_rate * 1.0, "float32")
        if keras.backend.backend() == "tensorflow":
            self._tensorflow_update(grads, present, learning_rate)
            return
        values = self._update(
            [v.value for v in self._weight_variables],
            [v.value for v in self._state_variables],
            [v.value for v in self._trainable_variables],
            self._all_gradients(grads, present),
            learning_rate,
            present=tuple(present),
        )
        self._assign(
            values,
            present,
            self._trainable_variables,
            self._state_variables,
            self._counters,
        )

    def _tensorflow_update(self, grads, present, learning_rate):
        """The update under tf.distribute: one `extended.update` for all.

        Replicas sum their gradients first, then each device updates its own
        copies of all variables with the same numbers.
        """
        import tensorflow as tf

        pairs = list(zip(grads, self._trainable_variables))
        grads = [g for g, _ in self._all_reduce_sum_gradients(pairs)]
        owned = (
            self._trainable_variables,
            self._weight_variables,
            self._state_variables,
            self._counters,
        )

        def merged(strategy, grads, learning_rate):
            variables = [[_raw(v) for v in group] for group in owned]
            strategy.extended.update(
                variables[3][0],
                self._device_update(present),
                args=(*variables, grads, learning_rate),
                group=False,
            )

        tf.__internal__.distribute.interim.maybe_merge_call(
            merged, self._distribution_strategy, grads, learning_rate
        )

    def _device_update(self, present):
        def update(_, params, weights, state, counters, grads, learning_rate):
            values = self._update(
                *(
                    [v.read_value() for v in g]
                    for g in (weights, state, params)
                ),
                self._all_gradients(grads, present),
                learning_rate,
                present=tuple(present),
            )
            self._assign(values, present, params, state, counters)

        return update

    @property
    def _counters(self):
        attention = [self._holds_true] if self._rule.attends else []
        return [self._skipped, self._iterations, *attention]

    def _assign(self, values, present, params, state, counters):
        new_params, new_state, fine = values
        skipped, iterations, *attention = counters
        for i in present:
            params[i].assign(new_params[i])
        for variable, value in zip(state, new_state):
            variable.assign(value)
        count = 1 - ops.cast(fine, "int32")
        skipped.assign(skipped + count)
        # `apply` goes on to the next iteration; a skipped step does not.
        back = count * (self.gradient_accumulation_steps or 1)
        iterations.assign(iterations - ops.cast(back, iterations.dtype))
        for holds_true in attention:
            holds_true.assign(ops.zeros_like(holds_true))

    def _all_gradients(self, grads, present):
        """One gradient for every variable; zeros where there is none."""
        found = dict(zip(present, grads))
        return [
            ops.cast(found[i], "float32")
            if i in found
            else ops.zeros(v.shape, "float32")
            for i, v in enumerate(self._trainable_variables)
        ]

    def _compiled_update(self):
        if keras.backend.backend() != "tensorflow":
            return self._pure_update
        import tensorflow as tf

        # Keras compiles train steps with XLA only on request; the update is
        # fast only if it is compiled.
        return tf.function(self._pure_update, jit_compile=True, autograph=False)

    def _pure_update(
        self, weights, state, params, grads, learning_rate, present
    ):
        """New (params, state, whether the step was taken); no side effects.

        Args:
            weights, state: lists of arrays, in the order of their variables.
            params: list of tensors, of the variables' types.
            grads: list of float32 tensors, one for every variable.
            learning_rate: scalar.
            present: indices of the variables that have a gradient; the
                others stay as they are.
        """
        weights = dict(zip(self._weight_names, weights))
        old_state = dict(zip(self._state_names, state))
        fine = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads]))
        # A NaN must not reach the unselected branch's arithmetic either.
        grads = [ops.where(fine, g, ops.zeros_like(g)) for g in grads]
        old = [ops.cast(p, "float32") for p in params]
        if self._rule.attends:
            true = _true_parameters(old_state, old)
            old_state = {**old_state, "true_parameters": true}
        decayed, new_state = self._decayed(old, old_state, learning_rate)
        new, new_state = self._rule.step(
            weights, new_state, decayed, grads, learning_rate
        )
        if len(present) < len(params) and self._rule.attends:
            new_state = self._keep_absent(old_state, new_state, present, params)
        new = [
            ops.cast(ops.where(fine, n, o), p.dtype)
            for n, o, p in zip(new, old, params)
        ]
        new_state = [
            ops.where(fine, new_state[name], old_state[name])
            for name in self._state_names
        ]
        return new, new_state, fine

    def _decayed(self, params, state, learning_rate):
        """Parameters, or with attention the true ones, after weight decay."""
        if not self.weight_decay:
            return params, state
        shares = [
            1 - self.weight_decay * learning_rate * self._use_weight_decay(v)
            for v in self._trainable_variables
        ]
        if not self._rule.attends:
            return [p * share for p, share in zip(params, shares)], state
        layout = update_rule.choose_layout(params)
        true = layout.unpack(state["true_parameters"])
        true = layout.pack([t * share for t, share in zip(true, shares)])
        return params, {**state, "true_parameters": true}

    def _keep_absent(self, old_state, new_state, present, params):
        """True parameters of tensors without a gradient stay."""
        layout = update_rule.choose_layout(params)
        old = layout.unpack(old_state["true_parameters"])
        new = layout.unpack(new_state["true_parameters"])
        kept = [
            n if i in present else o for i, (n, o) in enumerate(zip(new, old))
        ]
        return {**new_state, "true_parameters": layout.pack(kept)}

    # Attention: variables hold the attended point, except when they do not.

    def true_parameters(self):
        """The parameters to evaluate, as a list of tensors.

        Without attention these are the variables' own values. With it, the
        variables hold, during training, the point where the next gradient is
        taken (paper, section 3.3).
        """
        values = [v.value for v in self._trainable_variables]
        if not self._rule.attends:
            return values
        state = dict(zip(self._state_names, self._state_variables))
        values = [ops.cast(value, "float32") for value in values]
        layout = update_rule.choose_layout(values)
        return layout.unpack(_true_parameters(state, values))

    @property
    def _holds_attended_point(self):
        """Whether the variables do; None if there is no such point yet."""
        if not self._rule.attends or not self.built:
            return None
        state = dict(zip(self._state_names, self._state_variables))
        if ops.convert_to_numpy(_no_step_yet(state)):
            return None
        return not int(ops.convert_to_numpy(self._holds_true))

    def hold_true_parameters(self):
        """Puts the true parameters into the variables, to evaluate or save."""
        if self._holds_attended_point is not True:
            return
        layout = update_rule.choose_layout(self._trainable_variables)
        values = [ops.cast(v, "float32") for v in self._trainable_variables]
        self._attended_point.assign(layout.pack(values))
        self._put(self.true_parameters())
        self._holds_true.assign(1)

    def hold_attended_parameters(self):
        """Puts the attended point back, to go on training."""
        if self._holds_attended_point is not False:
            return
        layout = update_rule.choose_layout(self._trainable_variables)
        self._put(layout.unpack(ops.convert_to_tensor(self._attended_point)))
        self._holds_true.assign(0)

    def _put(self, values):
        for variable, value in zip(self._trainable_variables, values):
            variable.assign(ops.cast(value, variable.dtype))

    def _update_model_variables_moving_average(self, trainable_variables):
        if self.use_ema and self._rule.attends:
            trainable_variables = [
                ops.cast(value, variable.dtype)
                for value, variable in zip(
                    self.true_parameters(), trainable_variables
                )
            ]
        super()._update_model_variables_moving_average(trainable_variables)

    def finalize_variable_values(self, var_list):
        """At the end of fit: the model holds the true parameters."""
        if self._rule.attends:
            if not self._validates_true_parameters:
                self._validates_true_parameters = True
                warnings.warn(
                    "With attention, validation and checkpoints inside fit() "
                    "saw the attended point, not the model's parameters, and "
                    "a second fit() will start from the parameters. Add "
                    "lopt_tf.callbacks.TrueParameters() to fit's callbacks.",
                    stacklevel=2,
                )
            self.hold_true_parameters()
        super().finalize_variable_values(var_list)

    # Serialisation.

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self._weights_are_known = True

    def get_config(self):
        config = super().get_config()
        config.update(self._rule.get_config())
        config.update(seed=self.seed, pretrained_name=self.pretrained_name)
        return config


def _true_parameters(state, params):
    """What attention's true parameters are, packed.

    Before the first step they are the parameters: since the optimizer was
    built, weights may have been loaded.
    """
    packed = update_rule.choose_layout(params).pack(params)
    true = ops.convert_to_tensor(state["true_parameters"])
    return ops.where(_no_step_yet(state), packed, true)


def _no_step_yet(state):
    # Any step (but a skipped one) makes every mean square positive.
    mean_squares = ops.convert_to_tensor(state["mean_squares"])
    return ops.reshape(mean_squares, (-1,))[0] == 0


def _raw(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def _dense(gradient):
    """A dense gradient; TensorFlow gives IndexedSlices for embeddings."""
    if hasattr(gradient, "indices") and hasattr(gradient, "dense_shape"):
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return gradient


def _outside_of_graphs():
    """fit() may build an optimizer while it traces a TensorFlow graph."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.init_scope()
    return contextlib.nullcontext()
