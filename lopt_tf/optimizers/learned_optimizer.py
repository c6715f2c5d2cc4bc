"""The Keras shell around an update rule."""

import functools
import random
import typing
import warnings

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import (
    attention,
    backends,
    guarded_step,
    pretrained,
    registry,
)

# Steps skipped in a row.
_TOO_MANY = 100
_SKIPPING = (
    f"The last {_TOO_MANY} steps were skipped: their gradients were not "
    "finite. The model no longer trains; look for NaN in its data, loss or "
    "weights."
)


class _Variables(typing.NamedTuple):
    """What a step reads or writes: the model's variables and named ones."""

    params: list
    weights: dict
    state: dict
    counters: dict


class LearnedOptimizer(attention.TwoPoints, keras.optimizers.Optimizer):
    """Base of Keras optimizers whose update is a learned rule.

    A subclass names its `rule_class` and makes its rule from its constructor's
    arguments; `from_pretrained` then knows it, too. All tensors are updated
    together, in one compiled call. A step whose gradients are not all finite
    is skipped (parameters, state and iteration stay as they are) and counted
    in `skipped_steps`.

    Args:
        rule: the `UpdateRule`.
        learning_rate: float or Keras schedule that multiplies the learned
            step; 1.0 is as learned. Defaults to `1.0`.
        seed: integer that draws the starting learning rates of the elements
            and, without trained weights, the rule's weights; None takes one
            from Keras' global seed. Defaults to `None`.
        pretrained_name: the name of shipped weights, or None. Defaults to
            `None`.
        name: as for any Keras optimizer. Defaults to `None`.
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

    @property
    def skipped_steps(self):
        """How many steps were skipped for NaN or infinite gradients."""
        if not self.built:
            return 0
        return int(ops.convert_to_numpy(self._skipped_steps))

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
        trained = pretrained.load_rule(path_or_name, wanted)
        if wanted is None:
            cls = registry.optimizer_class(trained.rule.name)
        config = trained.rule.get_config()
        for key in sorted(set(config) & set(kwargs)):
            given = kwargs.pop(key)
            given = list(given) if isinstance(given, tuple) else given
            if key in trained.rule.adjustable:
                config[key] = given
            elif given != config[key]:
                raise ValueError(
                    f"{trained.path} was trained with {key}={config[key]!r}, "
                    f"which cannot be changed. Received: {key}={given!r}"
                )
        optimizer = cls(**config, **kwargs)
        optimizer.pretrained_name = trained.name
        optimizer._take_weights(trained.weights)
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
            for name, variable in self._weight_variables.items()
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
        # Values of a large model must not become constants of a graph.
        with backends.outside_of_graphs():
            super().build(variables)
            self._build_own(variables)

    def _build_own(self, variables):
        self._layers = _layers(variables)
        weights = self._initial_weights()
        self._weight_variables = {
            name: self._add(name, weights[name]) for name in sorted(weights)
        }
        state = self._initial_state(variables)
        self._state_variables = {}
        for name in sorted(state):
            # Each value is freed when its variable is there.
            self._state_variables[name] = self._add_packed(
                name, state.pop(name)
            )
        self._skipped_steps = self._add("skipped_steps", np.zeros((), "int32"))
        self._build_points()
        # The last one: files of older versions do not have it.
        zero = np.zeros((), "int32")
        self._skipped_in_a_row = self._add("skipped_in_a_row", zero)

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
            # What is measured, or attended to, is known at the first step.
            params.append(np.broadcast_to(np.float32(0), shape))
        rates = self._rule.draw_log_learning_rates(uniforms, tensor_uniforms)
        del uniforms
        weights = self._initial_weights()
        state = self._rule.init_state(weights, params, rates)
        unknown = {n: ops.zeros_like(state[n]) for n in self._rule.measures}
        return {**state, **unknown}

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
        grads = [backends.dense(gradient) for gradient in grads]
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
        found = {
            self._get_variable_index(v): gradient
            for v, gradient in zip(trainable_variables, grads)
        }
        counters = {
            "skipped_steps": self._skipped_steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "iterations": self._iterations,
        }
        if self._rule.attends:
            counters["holds_true"] = self._holds_true
        # As plain structures: Keras wraps those that are attributes.
        variables = _Variables(
            list(self._trainable_variables),
            dict(self._weight_variables),
            {n: _plain(v) for n, v in self._state_variables.items()},
            counters,
        )
        # Arithmetic makes a tensor of it; a conversion would leave a variable.
        learning_rate = ops.cast(learning_rate * 1.0, "float32")
        update = functools.partial(self._update_variables, tuple(found))
        grads = list(found.values())
        backends.update_devices(self, update, variables, grads, learning_rate)

    def _update_variables(self, present, variables, grads, learning_rate):
        """Gives (one device's) variables their values after the step.

        Only this function writes variables; `guarded_step` computes.
        """
        grads = [ops.cast(gradient, "float32") for gradient in grads]
        finite = guarded_step.are_finite(grads)
        found = dict(zip(present, grads))
        grads = [found.get(i) for i in range(len(variables.params))]

        def update(chosen):
            weights, state, params = keras.tree.map_structure(
                backends.value,
                (variables.weights, variables.state, variables.params),
            )
            new = guarded_step.take(
                self._rule,
                weights,
                state,
                params,
                grads,
                learning_rate,
                self._kept_shares(learning_rate),
                layers=self._layers,
            )
            for i in present:
                value = chosen(new.params[i], params[i])
                variables.params[i].assign(value)
            keras.tree.map_structure(
                lambda variable, new, old: variable.assign(chosen(new, old)),
                variables.state,
                new.state,
                state,
            )

        backends.if_finite(finite, update)
        self._count(variables.counters, ops.cast(finite, "int32"))

    def _kept_shares(self, learning_rate):
        """What weight decay leaves of each parameter; None without it."""
        if not self.weight_decay:
            return None
        decay = self.weight_decay * learning_rate
        return [
            1 - decay * float(self._use_weight_decay(v))
            for v in self._trainable_variables
        ]

    def _count(self, counters, finite):
        """Counts a step that was taken (finite: 1) or skipped (0)."""
        skipped = 1 - finite
        counters["skipped_steps"].assign(counters["skipped_steps"] + skipped)
        in_a_row = (counters["skipped_in_a_row"] + 1) * skipped
        counters["skipped_in_a_row"].assign(in_a_row)
        backends.warn_if(in_a_row == _TOO_MANY, _SKIPPING)
        # `apply` counts the iteration; a skipped step takes it back.
        iterations = counters["iterations"]
        back = skipped * (self.gradient_accumulation_steps or 1)
        iterations.assign(iterations - ops.cast(back, iterations.dtype))
        if "holds_true" in counters:
            counters["holds_true"].assign(ops.zeros((), "int32"))

    # Serialisation.

    def load_own_variables(self, store):
        if len(store.keys()) == len(self.variables) - 1:
            zero = np.zeros((), "int32")
            store = {**store, str(len(self.variables) - 1): zero}
        super().load_own_variables(store)
        self._weights_are_known = True

    def finalize_variable_values(self, var_list):
        """At the end of fit: says if it has not trained at all lately."""
        in_a_row = int(ops.convert_to_numpy(self._skipped_in_a_row))
        if in_a_row >= _TOO_MANY and not backends.WARNS_DURING_FIT:
            warnings.warn(_SKIPPING, stacklevel=2)
        super().finalize_variable_values(var_list)

    def get_config(self):
        config = super().get_config()
        config.update(self._rule.get_config())
        config.update(seed=self.seed, pretrained_name=self.pretrained_name)
        return config


def _layers(variables):
    """For each variable the number of its layer, which its path tells."""
    parents = [variable.path.rpartition("/")[0] for variable in variables]
    numbers = {parent: i for i, parent in enumerate(dict.fromkeys(parents))}
    return tuple(numbers[parent] for parent in parents)


def _plain(structure):
    """A tuple without the wrapper of Keras' tracking, or a variable."""
    if isinstance(structure, (list, tuple)):
        return tuple(structure)
    return structure
