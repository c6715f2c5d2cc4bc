"""The hierarchical RNN's lowest level: what happens to one element."""

import numpy as np
from keras import ops

from lopt_tf.optimizers import cells, lower_bound, scaling
from lopt_tf.optimizers.hierarchical_rnn_settings import (
    HierarchicalRNNSettings,
)

# The square root has infinite slope at 0; below this a decay counts as 0.
_SMALLEST_DECAY = 1e-30
_FIXED_SCALE_DECAY = 0.93
_FIXED_INPUT_DECAY = 0.89
_EXTREME_LOG_LR = float(np.log(1e-6))
_TYPICAL_LOG_LR = float(np.log(1e-3))
# A large unit must not make infinities of large gradients.
_LARGEST_GRADIENT = 1e38


class ElementStep(HierarchicalRNNSettings):
    """The part of `HierarchicalRNNRule` that an element goes through.

    The equations are in that class; arrays are [..., features, elements].
    """

    def element_step(self, weights, element, seen):
        """One element's part of the step, given what it sees of its tensor.

        Returns (new element arrays, element arrays to average over tensors).
        """
        if self.step_unit:
            gradient = element["gradient"] * seen["unit"]
            gradient = ops.clip(gradient, -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
            element = {**element, "gradient": gradient}
        epsilon = seen.get("epsilon", scaling.SCALE_EPSILON)
        averages = self._gradient_averages(element)
        mean_squares = self._mean_squares(element, averages, epsilon)
        scaled = scaling.scaled(averages, mean_squares, epsilon)
        logs = ops.log(mean_squares + epsilon)
        inputs = self._inputs(scaled, logs, element, seen)
        hidden = cells.gru(
            weights,
            "parameter_rnn",
            inputs,
            element["parameter_hidden"],
            seen.get("bias"),
        )
        directions = self._directions(weights, hidden, scaled)
        new = {
            "parameter_hidden": hidden,
            "gradient_averages": averages,
            "mean_squares": mean_squares,
            **self._decays(weights, element, hidden),
        }
        averaged = {}
        if len(self.level_sizes) > 1:
            averaged["hidden"] = hidden
            if self.num_extra_inputs:
                averaged["inputs"] = inputs
        if self.rest_without_gradient:
            is_live = ops.any(averages != 0, axis=-2, keepdims=True)
            zeros = ops.zeros_like(directions["direction"])
            directions = {
                name: ops.where(is_live, value, zeros)
                for name, value in directions.items()
            }
            averaged["is_live"] = ops.cast(is_live, zeros.dtype)
        if not self.dynamic_output_scale:
            return {**new, **directions}, averaged
        for name, direction in directions.items():
            averaged[name] = ops.square(direction)
        step_log_lr, log_lr = self._log_learning_rates(
            weights, element, hidden, seen
        )
        if self.rest_without_gradient:
            log_lr = ops.where(is_live, log_lr, element["log_learning_rate"])
        new["log_learning_rate"] = log_lr
        offset = {"direction": weights.get("step_offset", 0.0)}
        for name, direction in directions.items():
            size = ops.exp(step_log_lr + offset.get(name, 0.0))
            new[name] = size * direction
        return new, averaged

    def _gradient_averages(self, element):
        """Momentum on several time scales, [..., S, n]."""
        gradient = element["gradient"]
        if self.num_gradient_scales == 1:
            return gradient
        decay = _roots(element["input_decay"], self.num_gradient_scales)
        return (1 - decay) * gradient + decay * element["gradient_averages"]

    def _mean_squares(self, element, averages, epsilon):
        """Running mean squares of the averages, [..., S, n]."""
        decay = element["scale_decay"]
        if self.use_multiple_scale_decays:
            decay = _roots(decay, self.num_gradient_scales)
        return scaling.mean_squares(
            element["mean_squares"], decay, averages, epsilon
        )

    def _inputs(self, scaled, logs, element, seen):
        """The parameter RNN's inputs, [..., features, n]."""
        inputs = [scaled]
        log_lr = element.get("log_learning_rate")
        if self.use_grad_products and self.num_gradient_scales > 1:
            inputs.append(scaled[..., 1:, :] * scaled[..., :-1, :])
        if self.use_log_means_squared:
            inputs.append(logs - ops.mean(logs, axis=-2, keepdims=True))
        if self.use_relative_lr:
            inputs.append(log_lr - seen["mean_log_lr"])
        if self.use_extreme_indicator:
            low = ops.relu(_EXTREME_LOG_LR - log_lr)
            inputs.append(ops.relu(log_lr) - low)
        if self.use_lr_shortcut:
            inputs.append(log_lr - _TYPICAL_LOG_LR)
        return ops.concatenate(inputs, axis=-2)

    def _directions(self, weights, hidden, scaled):
        """The direction of the step, and that of the attended step."""

        def direction(name, shortcut):
            value = ops.matmul(weights[name], hidden)
            if self.use_gradient_shortcut:
                value = value + ops.matmul(weights[shortcut], scaled)
            return value

        directions = {"direction": direction("update", "gradient_shortcut")}
        if self.use_attention:
            directions["attended_direction"] = direction(
                "attention", "attention_shortcut"
            )
        return directions

    def _decays(self, weights, element, hidden):
        """The next step's decays."""

        def decay(name, is_learned, fixed):
            if is_learned:
                return ops.sigmoid(cells.affine(weights, name, hidden))
            return ops.full_like(element[name], fixed)

        return {
            "scale_decay": decay(
                "scale_decay", self.learnable_decay, _FIXED_SCALE_DECAY
            ),
            "input_decay": decay(
                "input_decay", self.learns_input_decay, _FIXED_INPUT_DECAY
            ),
        }

    def _log_learning_rates(self, weights, element, hidden, seen):
        """Log learning rates: (that of this step, their running mean)."""
        log_lr = element["log_learning_rate"]
        step_log_lr = _clip_straight_through(
            log_lr + cells.affine(weights, "learning_rate", hidden),
            seen.get("lower_bound", lower_bound.SMALLEST_LOG_LR),
            self.max_log_lr,
        )
        momentum = ops.sigmoid(weights["learning_rate_momentum"])
        return step_log_lr, momentum * log_lr + (1 - momentum) * step_log_lr


def _roots(decay, count):
    """decay^(2^-s) for s = 0 .. count - 1, [..., count, n]; 0 stays 0."""
    positive = decay > _SMALLEST_DECAY
    root = ops.where(positive, decay, ops.ones_like(decay))
    roots = [root]
    for _ in range(count - 1):
        roots.append(ops.sqrt(roots[-1]))
    roots = ops.concatenate(roots, axis=-2)
    return ops.where(positive, roots, ops.zeros_like(roots))


def _clip_straight_through(value, low, high):
    """Clips the value, and lets the gradient pass as if it had not."""
    # `clip` would not take an array and a number on every backend.
    clipped = ops.stop_gradient(ops.minimum(ops.maximum(value, low), high))
    return clipped + (value - ops.stop_gradient(value))
