"""The hierarchical RNN: the paper's optimizer as a pure update rule.

*Learned Optimizers that Scale and Generalize* (Wichrowska et al., 2017,
arXiv 1703.04813), section 3. A small GRU runs for every parameter, a second one
for every tensor, a third one for the whole problem; each level biases the one
below.
"""

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import (
    cells,
    layouts,
    lower_bound,
    scaling,
    step_unit,
    update_rule,
)
from lopt_tf.optimizers.hierarchical_rnn_element import ElementStep

# Of a tensor's elements: none has had a gradient if there are fewer.
_SMALLEST_SHARE = 1e-12
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
    "step_unit": "role",
    "rest_without_gradient": True,
}


class HierarchicalRNNRule(ElementStep):
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
    adjustable = (
        "min_log_lr",
        "max_log_lr",
        "use_parameter_scale",
        "step_unit",
        "rest_without_gradient",
        "bound_reference",
    )

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

    def init_state(self, weights, params, log_learning_rates, layers=None):
        batch_dims = update_rule.batch_rank(weights)
        layout = layouts.choose_layout(params, batch_dims)
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
            if self.bound_reference == "least":
                state["least_mean_square"] = ops.zeros((*batch, 1, 1), dtype)
        if self.step_unit:
            state["gradient_square"] = ops.zeros((*batch, 1, 1), dtype)
        return {**state, **self.measured(params, batch_dims, layers)}

    @property
    def measures(self):
        """What of the state the start's values decide."""
        if self.step_unit:
            return ("step_unit",)
        return ("parameter_scale",) * self.use_parameter_scale

    def measured(self, params, batch_dims=0, layers=None):
        if self.step_unit:
            by_role = self.step_unit == "role"
            unit = step_unit.measure(params, batch_dims, layers, by_role)
            return {"step_unit": unit}
        if self.use_parameter_scale:
            return {"parameter_scale": step_unit.sizes(params, batch_dims)}
        return {}

    def has_started(self, state):
        # Any step makes mean squares positive: of tensors with a gradient.
        parts = keras.tree.flatten(state["mean_squares"])
        found = [ops.any(ops.convert_to_tensor(x) != 0) for x in parts]
        return ops.any(ops.stack(found))

    def updates(self, weights, state, layout, gradients):
        elements = {n: state[n] for n in _ELEMENT_STATE if n in state}
        seen, problem_state = self._seen_of_tensor(
            weights, state, layout, gradients
        )
        new, means = layout.map(
            self.element_step,
            weights,
            {**elements, "gradient": gradients},
            seen,
        )
        new_state = {
            **state,
            **problem_state,
            **{name: new[name] for name in elements},
            **self._upper_levels(weights, state, means, layout),
        }
        steps = self._steps("direction", state, layout, new, means)
        attended = None
        if self.attends:
            attended = self._steps(
                "attended_direction", state, layout, new, means
            )
        return steps, attended, new_state

    def _steps(self, name, state, layout, new, means):
        """Learning rates times directions, in the tensors' own length."""
        if not self.dynamic_output_scale:
            return new[name]
        square = means[name]
        if self.rest_without_gradient:
            square = square / ops.maximum(means["is_live"], _SMALLEST_SHARE)
        length = ops.rsqrt(square + scaling.SCALE_EPSILON)
        unit = state.get("step_unit", state.get("parameter_scale", 1.0))
        return layout.each(
            ops.multiply, new[name], layout.spread(unit * length)
        )

    def _seen_of_tensor(self, weights, state, layout, gradients):
        """What each element sees of its tensor: arrays [..., features, T].

        Returns ({"bias", "lower_bound", "mean_log_lr", "unit", "epsilon"},
        new state of the problem), with those of them that the configuration
        has.
        """
        seen, problem_state = {}, {}
        if len(self.level_sizes) > 1:
            seen["bias"] = cells.affine(
                weights, "tensor_to_parameter", state["tensor_hidden"]
            )
        if len(self.level_sizes) > 2:
            seen["bias"] = seen["bias"] + cells.affine(
                weights, "global_to_parameter", state["global_hidden"]
            )
        epsilon = scaling.SCALE_EPSILON
        means = self._means(state, layout, gradients)
        if self.step_unit:
            unit = state["step_unit"]
            square = scaling.problem_square(
                unit, state["gradient_square"], layout, means["square"]
            )
            epsilon = scaling.relative_epsilon(square)
            problem_state["gradient_square"] = square
            seen["unit"] = unit
            seen["epsilon"] = _for_tensors(epsilon, layout)
        if self.has_lower_bound:
            now = layout.problem_mean(means["mean_square"])
            bound_state, bound = self._lower_bound(state, now, epsilon)
            seen["lower_bound"] = _for_tensors(bound, layout)
            problem_state.update(bound_state)
        if self.use_relative_lr:
            mean = means["log_learning_rate"]
            if self.use_problem_lr_mean:
                mean = _for_tensors(layout.problem_mean(mean), layout)
            seen["mean_log_lr"] = mean
        return seen, problem_state

    def _lower_bound(self, state, now, epsilon):
        """(new state of the bound, bound [..., 1, 1])."""
        first = state["first_mean_square"]
        if self.bound_reference == "first":
            first, bound = lower_bound.follow(
                self.min_log_lr, now, first, epsilon
            )
            return {"first_mean_square": first}, bound
        first, least, bound = lower_bound.follow_least(
            self.min_log_lr, now, first, state["least_mean_square"], epsilon
        )
        new = {"first_mean_square": first, "least_mean_square": least}
        return new, bound

    def _means(self, state, layout, gradients):
        """Means over tensors before the step, [..., 1, T], in one pass."""
        needed = {}
        if self.step_unit:
            needed["gradient"] = gradients
        if self.has_lower_bound:
            needed["mean_squares"] = state["mean_squares"]
        if self.use_relative_lr:
            needed["log_learning_rate"] = state["log_learning_rate"]
        if not needed:
            return {}
        return layout.map(self._averaged_before, {}, needed, {})[1]

    def _averaged_before(self, shared, element, seen):
        """(nothing new, element arrays to average before the step)."""
        del shared, seen
        averaged = {}
        if "gradient" in element:
            square = ops.square(element["gradient"])
            averaged["square"] = ops.minimum(square, lower_bound.LARGEST)
        if "mean_squares" in element:
            averaged["mean_square"] = ops.minimum(
                element["mean_squares"][..., :1, :], lower_bound.LARGEST
            )
        if "log_learning_rate" in element:
            averaged["log_learning_rate"] = element["log_learning_rate"]
        return {}, averaged

    def _upper_levels(self, weights, state, means, layout):
        """The tensor RNN and the global RNN, one step each."""
        new, bias = {}, None
        if len(self.level_sizes) > 2:
            bias = cells.affine(
                weights, "global_to_tensor", state["global_hidden"]
            )
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
                layout.tensor_mean(new["tensor_hidden"]),
                state["global_hidden"],
            )
        return new


def _for_tensors(value, layout):
    """A value of the problem, [..., 1], for each tensor: [..., T]."""
    return ops.broadcast_to(value, (*value.shape[:-1], len(layout.sizes)))
