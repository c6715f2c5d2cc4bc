"""Attention's two points: the true parameters, and where gradients are taken.

With attention (arXiv 1703.04813, section 3.2.1) the next gradient is taken at a
point near the parameters. During training the model's variables hold that
point, and the rule's state the true parameters.
"""

import warnings

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import layouts


def packed_true_parameters(rule, state, params):
    """The true parameters, packed.

    Before the first step they are `params`: since the optimizer was built,
    weights may have been loaded.
    """
    layout = layouts.choose_layout(params)
    started = rule.has_started(state)
    return layout.each(
        lambda true, own: ops.where(started, ops.convert_to_tensor(true), own),
        state["true_parameters"],
        layout.pack(params),
    )


class TwoPoints:
    """The part of `LearnedOptimizer` that swaps the two points.

    Attributes:
        validates_true_parameters: whether `callbacks.TrueParameters` is used,
            or its absence was warned of.
    """

    validates_true_parameters = False

    def _build_points(self):
        if self._rule.attends:
            self._attended_point = keras.tree.map_structure(
                lambda true: self._add(
                    "attended_parameters", np.zeros(true.shape, "float32")
                ),
                self._state_variables["true_parameters"],
            )
            zero = np.zeros((), "int32")
            self._holds_true = self._add("holds_true_parameters", zero)

    def true_parameters(self):
        """The parameters to evaluate, as a list of tensors.

        Without attention these are the variables' own values. With it, the
        variables hold, during training, the point where the next gradient is
        taken.
        """
        values = [v.value for v in self._trainable_variables]
        if not self._rule.attends:
            return values
        values = [ops.cast(value, "float32") for value in values]
        packed = packed_true_parameters(
            self._rule, self._state_variables, values
        )
        return layouts.choose_layout(values).unpack(packed)

    def hold_true_parameters(self):
        """Puts the true parameters into the variables, to evaluate or save."""
        if self._has_two_points() and not self._holds_true_parameters():
            values = [ops.cast(v, "float32") for v in self._trainable_variables]
            layout = layouts.choose_layout(values)
            layout.each(
                lambda point, now: point.assign(now),
                self._attended_point,
                layout.pack(values),
            )
            self._put(self.true_parameters())
            self._holds_true.assign(1)

    def hold_attended_parameters(self):
        """Puts the attended point back, to resume training."""
        if self._has_two_points() and self._holds_true_parameters():
            layout = layouts.choose_layout(self._trainable_variables)
            point = layout.each(ops.convert_to_tensor, self._attended_point)
            self._put(layout.unpack(point))
            self._holds_true.assign(0)

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
