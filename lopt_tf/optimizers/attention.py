"""Attention's two points: the true parameters, and where gradients are taken.

With attention (arXiv 1703.04813, section 3.2.1) the next gradient is taken at a
point near the parameters. During training the model's variables hold that
point, and the rule's state the true parameters. The optimizer notes what it has
put into the variables: what holds something else was written from outside (by
`set_weights`, a file, clipping by hand), and that is the true parameters then.
"""

import typing
import warnings

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import backends, inputs, layouts

# A constraint that is applied twice may round twice.
_ROUNDING = 1e-5


class Points(typing.NamedTuple):
    """What the optimizer has put into the variables.

    Attributes:
        attended: the attended point, packed.
        holds_true: whether they hold the true parameters instead: 0 or 1.
    """

    attended: object
    holds_true: object


def truth(rule, state, params, points, constrained=()):
    """The true parameters now, and which were written from outside.

    Before the first step all are `params`: since the optimizer was built,
    weights may have been loaded.

    Args:
        rule: the `UpdateRule`.
        state: its state.
        params: list of tensors that the variables hold.
        points: a `Points`.
        constrained: for each of `params` whether Keras applies a constraint
            to its variable after each step; `()` if to none. Defaults to `()`.

    Returns:
        (list of tensors, list of boolean tensors).
    """
    layout = layouts.choose_layout(params)
    true = _unpacked(layout, state["true_parameters"])
    attended = _unpacked(layout, points.attended)
    started = rule.has_started(state)
    holds_true = ops.convert_to_tensor(points.holds_true) > 0
    found, written = [], []
    for i, (held, own, point) in enumerate(zip(params, true, attended)):
        own = ops.cast(own, inputs.wide_type(held.dtype))
        # The true parameters were put in as the variable's type.
        put = ops.where(holds_true, _as_held(own, held), _as_held(point, held))
        held = inputs.wide(held)
        differs = held != put
        if constrained and constrained[i]:
            distance = ops.abs(held - put)
            differs = ops.logical_not(distance <= _ROUNDING * ops.abs(put))
        is_outside = ops.logical_or(ops.logical_not(started), ops.any(differs))
        found.append(ops.where(is_outside, held, own))
        written.append(is_outside)
    return found, written


def _as_held(values, held):
    return inputs.wide(ops.cast(values, held.dtype))


def _unpacked(layout, elements):
    return layout.unpack(layout.each(ops.convert_to_tensor, elements))


def with_constraints(step, constraints):
    """The `guarded_step.Step` with constraints on both points.

    Keras applies them to what the variables hold: the attended point.

    Args:
        step: the step.
        constraints: a function or None for each of its parameters.
    """
    if not any(constraints):
        return step
    layout = layouts.choose_layout(step.params)
    true = layout.unpack(step.state["true_parameters"])

    def apply(tensors):
        return [
            tensor if constraint is None else constraint(tensor)
            for tensor, constraint in zip(tensors, constraints)
        ]

    params = apply(step.params)
    state = {**step.state, "true_parameters": layout.pack(apply(true))}
    attended = layout.pack([inputs.wide(p) for p in params])
    return step._replace(params=params, state=state, attended=attended)


class TwoPoints:
    """The part of `LearnedOptimizer` that swaps the two points.

    Attributes:
        validates_true_parameters: whether `callbacks.TrueParameters` is used,
            or its absence was warned of.
    """

    validates_true_parameters = False

    def _build_points(self):
        if self._rule.attends:
            true = self._state_variables["true_parameters"]
            self._attended_point = self._add_packed(
                "state_attended_parameters",
                keras.tree.map_structure(
                    lambda part: np.zeros(part.shape, part.dtype), plain(true)
                ),
            )
            self._holds_true = self._add(
                "state_holds_true_parameters", inputs.integer(0)
            )

    def _points(self):
        """The variables of `Points`; () without attention."""
        if not self._rule.attends:
            return ()
        return Points(plain(self._attended_point), self._holds_true)

    def _constrained(self):
        return tuple(c is not None for c in self._constraints())

    def _constraints(self):
        """Keras' constraint of each variable, or None: a list."""
        return [
            getattr(v, "constraint", None) for v in self._trainable_variables
        ]

    def _values(self):
        return [backends.value(v) for v in self._trainable_variables]

    def true_parameters(self):
        """The parameters to evaluate, as a list of tensors.

        Without attention these are the variables' own values. With it, the
        variables hold, during training, the point where the next gradient is
        taken.
        """
        if not self._rule.attends:
            return self._values()
        return self._truth()[0]

    def _truth(self):
        return truth(
            self._rule,
            self._state_variables,
            self._values(),
            self._points(),
            self._constrained(),
        )

    def hold_true_parameters(self):
        """Puts the true parameters into the variables, to evaluate or save."""
        if self._has_two_points() and not self._holds_true_parameters():
            true, _ = self._truth()
            self._keep(self._values(), true)
            self._put(true)
            self._holds_true.assign(1)

    def hold_attended_parameters(self):
        """Puts the attended point back, to resume training.

        What was written into the variables meanwhile stays there.
        """
        if self._has_two_points() and self._holds_true_parameters():
            true, written = self._truth()
            layout = layouts.choose_layout(true)
            points = [
                ops.where(is_outside, own, ops.cast(point, own.dtype))
                for is_outside, own, point in zip(
                    written, true, _unpacked(layout, self._attended_point)
                )
            ]
            self._keep(points, true)
            self._put(points)
            self._holds_true.assign(0)

    def _keep(self, points, true):
        """Notes the attended point and the true parameters."""
        layout = layouts.choose_layout(true)
        for variables, values in (
            (self._attended_point, points),
            (self._state_variables["true_parameters"], true),
        ):
            layout.each(
                lambda variable, value: variable.assign(value),
                variables,
                layout.pack([inputs.wide(value) for value in values]),
            )

    def _has_two_points(self):
        if not self._rule.attends or not self.built:
            return False
        started = self._rule.has_started(self._state_variables)
        return bool(ops.convert_to_numpy(started))

    def _holds_true_parameters(self):
        return bool(ops.convert_to_numpy(self._holds_true))

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
            if not self.validates_true_parameters:
                self.validates_true_parameters = True
                warnings.warn(
                    "With attention, validation and checkpoints inside fit() "
                    "saw the attended point, not the model's parameters, and "
                    "a second fit() will start from the parameters. Add "
                    "lopt_tf.callbacks.TrueParameters() to fit's callbacks.",
                    stacklevel=2,
                )
            self.hold_true_parameters()
        super().finalize_variable_values(var_list)


def plain(structure):
    """A tuple without the wrapper of Keras' tracking, or a variable."""
    if isinstance(structure, (list, tuple)):
        return tuple(structure)
    return structure
