"""The hierarchical RNN: the paper's optimizer as a pure update rule.

*Learned Optimizers that Scale and Generalize* (Wichrowska et al., 2017,
arXiv 1703.04813), section 3. A small GRU runs for every parameter, a second one
for every tensor, a third one for the whole problem; each level biases the one
below.
"""

import functools

import numpy as np
from keras import ops

from lopt_tf.optimizers import cells, lower_bound, scaling, update_rule
from lopt_tf.optimizers.hierarchical_rnn_settings import (
    HierarchicalRNNSettings,
)

# The square root has infinite slope at 0; below this a decay counts as 0.
_SMALLEST_DECAY = 1e-30
_FIXED_SCALE_DECAY = 0.93
_FIXED_INPUT_DECAY = 0.89
_EXTREME_LOG_LR = float(np.log(1e-6))
_TYPICAL_LOG_LR = float(np.log(1e-3))
_LARGEST_SCALE = 1e15
_ELEMENT_STATE = (
    "parameter_hidden",
    "input_decay",
    "scale_decay",
    "gradient_averages",
    "mean_squares",
    "log_learning_rate",
)
# What differs from the paper where optimizers are to be robust: learning rates
# that cannot run away, are seen, and suit parameters of any size.
ROBUST = {
    "use_lr_shortcut": True,
    "max_log_lr": -2.3,
    "use_parameter_scale": True,
}


class HierarchicalRNNRule(HierarchicalRNNSettings):
    """The hierarchical RNN update rule (paper, section 3).

    The arguments are those of `lopt_tf.HierarchicalRNN`, which documents
    them. In the default configuration, x is an element's gradient, l its log
    learning rate, h, h_T and h_G are the hidden states of its parameter RNN,
    its tensor's RNN and the global RNN, and <.> is the mean over a tensor's
    elements. In one step, each element has

        Momentum on multiple timescales, s = 0 .. S - 1 (section 3.2.2):
            g_s = d^(1 / 2^s) g_s + (1 - d^(1 / 2^s)) x
        Dynamic input scaling (section 3.2.3):
            m_s = b m_s + (1 - b) g_s^2
            a_s = asinh(g_s / sqrt(m_s))
        Hierarchical architecture (section 3.1):
            i = [a_s, a_s a_(s+1), log m_s - mean_s(log m_s), l - mean(l)]
            h = GRU(i, h, bias: A h_T + B h_G)
            h_T = GRU(<[h, i]>, h_T, bias: C h_G)
            h_G = GRU(mean over tensors of h_T, h_G)
        Direction and step length (section 3.2.4):
            u = w_u . h + v_u . a
            k = clip(l + w_l . h + c_l)
            parameter -= exp(k + c) u / sqrt(<u^2>)
            l = p l + (1 - p) k
        Attention, if used, a second point for gradients (section 3.2.1):
            u' = w_u' . h + v_u' . a
            attended = parameter before the step - exp(k) u' / sqrt(<u'^2>)
        Decays for the next step, 0 in the first one:
            d = sigmoid(w_d . h + c_d)
            b = sigmoid(w_b . h + c_b)

    The biases of GRUs are affine maps of states before the step. Arrays are
    [..., features, elements].
    """

    name = "hierarchical_rnn"
    adjustable = ("min_log_lr", "max_log_lr", "use_parameter_scale")

    @property
    def attends(self):
        """Whether gradients are taken at a point of the rule's choice."""
        return self.use_attention

    def draw_log_learning_rates(self, uniforms, tensor_uniforms):
        low, high = np.log(self.init_lr_range) / 2
        return [
            float(low) * 2 + float(high - low) * (u + v)
            for u, v in zip(uniforms, tensor_uniforms)
        ]

    def init_state(self, weights, params, log_learning_rates):
        batch_dims = update_rule.batch_rank(weights)
        layout = update_rule.choose_layout(params, batch_dims)
        batch = tuple(params[0].shape[:batch_dims])
        dtype = next(iter(weights.values())).dtype

        def hidden(level, name):
            if self.learnable_rnn_init:
                return ops.convert_to_tensor(weights[f"{name}/initial_state"])
            return ops.zeros((*batch, self.level_sizes[level], 1), dtype)

        def zeros(rows):
            return layout.fill(ops.zeros((*batch, rows, 1), dtype))

        scales = self.num_gradient_scales
        state = {
            "parameter_hidden": layout.fill(hidden(0, "parameter_rnn")),
            "input_decay": zeros(1),
            "scale_decay": zeros(1),
            "gradient_averages": zeros(scales),
            "mean_squares": zeros(scales),
        }
        if len(self.level_sizes) > 1:
            start = hidden(1, "tensor_rnn")
            shape = (*start.shape[:-1], len(params))
            state["tensor_hidden"] = ops.broadcast_to(start, shape)
        if len(self.level_sizes) > 2:
            state["global_hidden"] = hidden(2, "global_rnn")
        if self.dynamic_output_scale:
            state["log_learning_rate"] = layout.pack(log_learning_rates)
        if self.use_attention:
            state["true_parameters"] = layout.pack(params)
        if self.has_lower_bound:
            state["first_mean_square"] = ops.zeros((*batch, 1, 1), dtype)
        if self.use_parameter_scale:
            # Not known before the first step: see `step`.
            state["parameter_scale"] = ops.zeros(
                (*batch, 1, len(params)), dtype
            )
        return state

    def has_started(self, state):
        # Any step makes every mean square positive.
        mean_squares = ops.convert_to_tensor(state["mean_squares"])
        return ops.reshape(mean_squares, (-1,))[0] != 0

    def step(self, weights, state, params, grads, learning_rate=1.0):
        """As `UpdateRule.step`; the first one fixes the parameters' scale."""
        if self.use_parameter_scale:
            state = self.with_parameter_scale(weights, state, params)
        return super().step(weights, state, params, grads, learning_rate)

    def with_parameter_scale(self, weights, state, params):
        """The state with each tensor's scale, measured if it is not yet.

        An optimizer is often built before its model has the values that
        training starts from (loaded weights, a first call while tracing).
        """
        batch_dims = update_rule.batch_rank(weights)
        layout = update_rule.choose_layout(params, batch_dims)
        values = ops.abs(layout.pack(params))
        # A tensor that overflows must not spoil the others' means.
        finite = ops.isfinite(values)
        values = ops.where(finite, values, ops.zeros_like(values))
        squares = ops.square(ops.minimum(values, _LARGEST_SCALE))
        scale = ops.sqrt(ops.maximum(layout.mean(squares), 1))
        known = state["parameter_scale"]
        scale = ops.where(known == 0, scale, known)
        return {**state, "parameter_scale": scale}

    def updates(self, weights, state, layout, gradients):
        elements = {n: state[n] for n in _ELEMENT_STATE if n in state}
        seen, bound_state = self._seen_of_tensor(weights, state, layout)
        new, means = layout.map(
            functools.partial(self._element_step, weights),
            {**elements, "gradient": gradients},
            seen,
        )

        def step(name, offset):
            """Direction and length put together."""
            if not self.dynamic_output_scale:
                return new[name]
            length = ops.rsqrt(means[name] + scaling.SCALE_EPSILON)
            length = state.get("parameter_scale", 1.0) * length
            size = ops.exp(new["step_log_lr"] + offset)
            return size * new[name] * layout.spread(length)

        steps = step("direction", weights.get("step_offset", 0.0))
        attended = step("attended_direction", 0.0) if self.attends else None
        new_state = {
            **state,
            **bound_state,
            **{name: new[name] for name in elements},
            **self._upper_levels(weights, state, means),
        }
        return steps, attended, new_state

    def _seen_of_tensor(self, weights, state, layout):
        """What each element sees of its tensor: arrays [..., features, T].

        Returns ({"bias", "lower_bound", "mean_log_lr"}, new state of the
        lower bound), with those of them that the configuration has.
        """
        seen, bound_state = {}, {}
        if len(self.level_sizes) > 1:
            seen["bias"] = _affine(
                weights, "tensor_to_parameter", state["tensor_hidden"]
            )
        if len(self.level_sizes) > 2:
            seen["bias"] = seen["bias"] + _affine(
                weights, "global_to_parameter", state["global_hidden"]
            )
        if self.has_lower_bound:
            first, bound = lower_bound.follow(
                self.min_log_lr,
                state["mean_squares"][..., :1, :],
                state["first_mean_square"],
                layout,
            )
            seen["lower_bound"] = bound
            bound_state["first_mean_square"] = first
        if self.use_relative_lr:
            mean = layout.mean(state["log_learning_rate"])
            if self.use_problem_lr_mean:
                whole = update_rule.problem_mean(mean, layout)
                mean = ops.broadcast_to(whole, mean.shape)
            seen["mean_log_lr"] = mean
        return seen, bound_state

    def _element_step(self, weights, element, seen):
        """One element's part of the step, given what it sees of its tensor.

        Returns (new element arrays, element arrays to average over tensors).
        """
        averages = self._gradient_averages(element)
        mean_squares = self._mean_squares(element, averages)
        scaled = scaling.scaled(averages, mean_squares)
        inputs = self._inputs(scaled, mean_squares, element, seen)
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
            **directions,
        }
        averaged = {}
        if len(self.level_sizes) > 1:
            averaged["hidden"] = hidden
            if self.num_extra_inputs:
                averaged["inputs"] = inputs
        if self.dynamic_output_scale:
            new.update(self._learning_rates(weights, element, hidden, seen))
            for name, direction in directions.items():
                averaged[name] = ops.square(direction)
        return new, averaged

    def _gradient_averages(self, element):
        """Momentum on several time scales, [..., S, n]."""
        gradient = element["gradient"]
        if self.num_gradient_scales == 1:
            return gradient
        decay = _roots(element["input_decay"], self.num_gradient_scales)
        return (1 - decay) * gradient + decay * element["gradient_averages"]

    def _mean_squares(self, element, averages):
        """Running mean squares of the averages, [..., S, n]."""
        decay = element["scale_decay"]
        if self.use_multiple_scale_decays:
            decay = _roots(decay, self.num_gradient_scales)
        return scaling.mean_squares(element["mean_squares"], decay, averages)

    def _inputs(self, scaled, mean_squares, element, seen):
        """The parameter RNN's inputs, [..., features, n]."""
        inputs = [scaled]
        log_lr = element.get("log_learning_rate")
        if self.use_grad_products and self.num_gradient_scales > 1:
            inputs.append(scaled[..., 1:, :] * scaled[..., :-1, :])
        if self.use_log_means_squared:
            logs = ops.log(mean_squares + scaling.SCALE_EPSILON)
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
                return ops.sigmoid(_affine(weights, name, hidden))
            return ops.full_like(element[name], fixed)

        return {
            "scale_decay": decay(
                "scale_decay", self.learnable_decay, _FIXED_SCALE_DECAY
            ),
            "input_decay": decay(
                "input_decay", self.learns_input_decay, _FIXED_INPUT_DECAY
            ),
        }

    def _learning_rates(self, weights, element, hidden, seen):
        """Log learning rates: that of this step, and their running mean."""
        log_lr = element["log_learning_rate"]
        step_log_lr = _clip_straight_through(
            log_lr + _affine(weights, "learning_rate", hidden),
            seen.get("lower_bound", lower_bound.SMALLEST_LOG_LR),
            self.max_log_lr,
        )
        momentum = ops.sigmoid(weights["learning_rate_momentum"])
        return {
            "step_log_lr": step_log_lr,
            "log_learning_rate": (
                momentum * log_lr + (1 - momentum) * step_log_lr
            ),
        }

    def _upper_levels(self, weights, state, means):
        """The tensor RNN and the global RNN, one step each."""
        new, bias = {}, None
        if len(self.level_sizes) > 2:
            bias = _affine(weights, "global_to_tensor", state["global_hidden"])
        if len(self.level_sizes) > 1:
            inputs = [means[n] for n in ("hidden", "inputs") if n in means]
            new["tensor_hidden"] = cells.gru(
                weights,
                "tensor_rnn",
                ops.concatenate(inputs, axis=-2),
                state["tensor_hidden"],
                bias,
            )
        if len(self.level_sizes) > 2:
            new["global_hidden"] = cells.gru(
                weights,
                "global_rnn",
                ops.mean(new["tensor_hidden"], axis=-1, keepdims=True),
                state["global_hidden"],
            )
        return new


def _affine(weights, name, values):
    return ops.matmul(weights[name], values) + weights[f"{name}_bias"]


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
