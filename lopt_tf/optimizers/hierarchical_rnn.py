"""The hierarchical RNN: the paper's optimizer as a pure update rule.

*Learned Optimizers that Scale and Generalize* (Wichrowska et al., 2017),
sections 3 and 4. A small GRU runs for every parameter, a second one for every
tensor, a third one for the whole problem; each level biases the one below.
"""

import numpy as np
from keras import ops

from lopt_tf.optimizers import cells, scaling, update_rule

# The square root has infinite slope at 0; below this a decay counts as 0.
_SMALLEST_DECAY = 1e-30
_FIXED_SCALE_DECAY = 0.93
_FIXED_INPUT_DECAY = 0.89
_SMALLEST_LOG_LR = -33.0
_EXTREME_LOG_LR = float(np.log(1e-6))
_TYPICAL_LOG_LR = float(np.log(1e-3))
_LARGEST_SCALE = 1e15
# Logarithmic learning rates' lower bound falls by so much for each e-fold that
# the gradients' mean square is below, or above, its first value.
_FALL_IF_SMALLER = 0.25
_FALL_IF_LARGER = 1.5
# Mean squares beyond could overflow in a sum.
_LARGEST_MEAN_SQUARE = 1e30
# What differs from the paper where optimizers are to be robust: learning rates
# that cannot run away, are seen, and suit parameters of any size.
ROBUST = {
    "use_lr_shortcut": True,
    "max_log_lr": -2.3,
    "use_parameter_scale": True,
}


class HierarchicalRNNRule(update_rule.UpdateRule):
    """The hierarchical RNN update rule (paper, sections 3 and 4).

    The arguments are those of `lopt_tf.HierarchicalRNN`, which documents
    them. Element arrays are [..., features, elements]; "the paper" is
    arXiv 1703.04813.
    """

    name = "hierarchical_rnn"
    adjustable = ("min_log_lr", "max_log_lr", "use_parameter_scale")

    def __init__(
        self,
        level_sizes=(10, 20, 20),
        use_attention=False,
        num_gradient_scales=4,
        use_grad_products=True,
        use_log_means_squared=True,
        use_relative_lr=True,
        use_problem_lr_mean=True,
        use_extreme_indicator=False,
        use_lr_shortcut=False,
        use_gradient_shortcut=True,
        use_multiple_scale_decays=False,
        dynamic_output_scale=True,
        learnable_decay=True,
        learnable_inp_decay=True,
        learnable_rnn_init=True,
        zero_init_lr_weights=True,
        init_lr_range=(1e-6, 1e-2),
        min_log_lr=_SMALLEST_LOG_LR,
        max_log_lr=33.0,
        use_parameter_scale=False,
    ):
        self.level_sizes = tuple(int(size) for size in level_sizes)
        self.use_attention = use_attention
        self.num_gradient_scales = num_gradient_scales
        self.use_grad_products = use_grad_products
        self.use_log_means_squared = use_log_means_squared
        self.use_relative_lr = use_relative_lr
        self.use_problem_lr_mean = use_problem_lr_mean
        self.use_extreme_indicator = use_extreme_indicator
        self.use_lr_shortcut = use_lr_shortcut
        self.use_gradient_shortcut = use_gradient_shortcut
        self.use_multiple_scale_decays = use_multiple_scale_decays
        self.dynamic_output_scale = dynamic_output_scale
        self.learnable_decay = learnable_decay
        self.learnable_inp_decay = learnable_inp_decay
        self.learnable_rnn_init = learnable_rnn_init
        self.zero_init_lr_weights = zero_init_lr_weights
        self.init_lr_range = update_rule.checked_range(init_lr_range)
        self.min_log_lr = float(min_log_lr)
        self.max_log_lr = float(max_log_lr)
        self.use_parameter_scale = use_parameter_scale
        self._check_arguments()

    def _check_arguments(self):
        sizes = self.level_sizes
        if not 1 <= len(sizes) <= 3 or min(sizes, default=0) < 1:
            raise ValueError(
                "Argument `level_sizes` must hold 1, 2 or 3 positive sizes "
                "(parameter, tensor and global RNN). "
                f"Received: level_sizes={sizes}"
            )
        if not _SMALLEST_LOG_LR <= self.min_log_lr < self.max_log_lr:
            raise ValueError(
                "Argument `min_log_lr` must be at least -33, and below "
                "`max_log_lr`. Received: "
                f"min_log_lr={self.min_log_lr}, max_log_lr={self.max_log_lr}"
            )
        if self.num_gradient_scales < 1:
            raise ValueError(
                "Argument `num_gradient_scales` must be at least 1. "
                f"Received: num_gradient_scales={self.num_gradient_scales}"
            )
        needs_rates = {
            "use_relative_lr=True": self.use_relative_lr,
            "use_extreme_indicator=True": self.use_extreme_indicator,
            "use_lr_shortcut=True": self.use_lr_shortcut,
            "use_parameter_scale=True": self.use_parameter_scale,
            f"min_log_lr={self.min_log_lr}": (
                self.min_log_lr > _SMALLEST_LOG_LR
            ),
        }
        for setting, is_set in needs_rates.items():
            if is_set and not self.dynamic_output_scale:
                raise ValueError(
                    f"`{setting}` needs the learning rate of each element, "
                    "which exists only with `dynamic_output_scale=True`."
                )

    def get_config(self):
        return {
            "level_sizes": list(self.level_sizes),
            "use_attention": self.use_attention,
            "num_gradient_scales": self.num_gradient_scales,
            "use_grad_products": self.use_grad_products,
            "use_log_means_squared": self.use_log_means_squared,
            "use_relative_lr": self.use_relative_lr,
            "use_problem_lr_mean": self.use_problem_lr_mean,
            "use_extreme_indicator": self.use_extreme_indicator,
            "use_lr_shortcut": self.use_lr_shortcut,
            "use_gradient_shortcut": self.use_gradient_shortcut,
            "use_multiple_scale_decays": self.use_multiple_scale_decays,
            "dynamic_output_scale": self.dynamic_output_scale,
            "learnable_decay": self.learnable_decay,
            "learnable_inp_decay": self.learnable_inp_decay,
            "learnable_rnn_init": self.learnable_rnn_init,
            "zero_init_lr_weights": self.zero_init_lr_weights,
            "init_lr_range": list(self.init_lr_range),
            "min_log_lr": self.min_log_lr,
            "max_log_lr": self.max_log_lr,
            "use_parameter_scale": self.use_parameter_scale,
        }

    @property
    def attends(self):
        """Whether gradients are taken at a point of the rule's choice."""
        return self.use_attention

    def has_started(self, state):
        # Any step makes every mean square positive.
        mean_squares = ops.convert_to_tensor(state["mean_squares"])
        return ops.reshape(mean_squares, (-1,))[0] != 0

    @property
    def learns_input_decay(self):
        """Whether the time scale of the momentum is read out of the RNN."""
        return (
            self.learnable_decay
            and self.learnable_inp_decay
            and self.num_gradient_scales > 1
        )

    @property
    def has_lower_bound(self):
        """Whether `min_log_lr` is more than the paper's clipping."""
        return self.dynamic_output_scale and self.min_log_lr > _SMALLEST_LOG_LR

    @property
    def num_extra_inputs(self):
        """Level-0 inputs beyond the scaled gradients."""
        scales = self.num_gradient_scales
        return (
            (scales - 1) * self.use_grad_products
            + scales * self.use_log_means_squared
            + self.use_relative_lr
            + self.use_extreme_indicator
            + self.use_lr_shortcut
        )

    @property
    def num_inputs(self):
        """Input features of the parameter RNN."""
        return self.num_gradient_scales + self.num_extra_inputs

    # Meta-parameters.

    def init_weights(self, seed):
        """Draws the meta-parameters: {name: float32 array [out, in]}."""
        rng = np.random.default_rng(seed)
        shapes = {}

        def normal(name, out_size, in_size, mean=0.0, stdev=None):
            stdev = 0.5 / np.sqrt(in_size) if stdev is None else stdev
            shapes[name] = rng.normal(mean, stdev, (out_size, in_size))

        def constant(name, size, value):
            shapes[name] = np.full((size, 1), value)

        def cell(name, size, inputs):
            for part, array in cells.gru_weights(rng, size, inputs).items():
                shapes[f"{name}/{part}"] = array
            if self.learnable_rnn_init:
                start = rng.uniform(-1, 1, (size, 1))
                shapes[f"{name}/initial_state"] = start

        def affine(name, out_size, in_size):
            normal(name, out_size, in_size)
            constant(f"{name}_bias", out_size, 0.0)

        size, *upper = self.level_sizes
        cell("parameter_rnn", size, self.num_inputs)
        if upper:
            averaged = size + self.num_inputs if self.num_extra_inputs else size
            cell("tensor_rnn", upper[0], averaged)
            affine("tensor_to_parameter", 3 * size, upper[0])
        if len(upper) == 2:
            cell("global_rnn", upper[1], upper[0])
            affine("global_to_parameter", 3 * size, upper[1])
            affine("global_to_tensor", 3 * upper[0], upper[1])
        normal("update", 1, size)
        scales = self.num_gradient_scales
        shortcut = {"mean": 1 / scales, "stdev": 0.1 / np.sqrt(scales)}
        if self.use_gradient_shortcut:
            normal("gradient_shortcut", 1, scales, **shortcut)
        if self.use_attention:
            shapes["attention"] = shapes["update"].copy()
            if self.use_gradient_shortcut:
                normal("attention_shortcut", 1, scales, **shortcut)
        if self.learnable_decay:
            normal("scale_decay", 1, size)
            constant("scale_decay_bias", 1, 3.2)
        if self.learns_input_decay:
            normal("input_decay", 1, size)
            constant("input_decay_bias", 1, 2.2)
        if self.dynamic_output_scale:
            stdev = 0.0 if self.zero_init_lr_weights else None
            normal("learning_rate", 1, size, stdev=stdev)
            constant("learning_rate_bias", 1, 0.0)
            constant("learning_rate_momentum", 1, 3.2)
            constant("step_offset", 1, -1.0)
        return {name: a.astype("float32") for name, a in shapes.items()}

    # State.

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

    # One step.

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
        fine = ops.isfinite(values)
        values = ops.where(fine, values, ops.zeros_like(values))
        squares = ops.square(ops.minimum(values, _LARGEST_SCALE))
        scale = ops.sqrt(ops.maximum(layout.mean(squares), 1))
        known = state["parameter_scale"]
        scale = ops.where(known == 0, scale, known)
        return {**state, "parameter_scale": scale}

    def updates(self, weights, state, layout, gradients):
        per_element = (
            "parameter_hidden",
            "input_decay",
            "scale_decay",
            "gradient_averages",
            "mean_squares",
            "log_learning_rate",
        )
        elements = {name: state[name] for name in per_element if name in state}
        largest, lower_bound = self._lower_bound(state, layout)
        new, means = layout.map(
            lambda element, from_tensor: self._element_step(
                weights, element, from_tensor
            ),
            {**elements, "gradient": gradients},
            self._from_tensors(weights, state, layout, gradients, lower_bound),
        )
        steps = self._scaled_steps(
            weights, layout, new, means, state.get("parameter_scale", 1.0)
        )
        upper = self._upper_levels(weights, state, means)
        kept = {name: new[name] for name in elements}
        return *steps, {**state, **kept, **upper, **largest}

    def _lower_bound(self, state, layout):
        """({new state}, [lower bounds of log learning rates, [..., 1, T]]).

        Meta-trained on short runs, learning rates come to rest early. While
        the whole problem's gradients are as large as at first there is a way
        to go, and the bound keeps it open. It falls where gradients shrink,
        and faster where they grow: near a cusp long steps are out of place.
        """
        if not self.has_lower_bound:
            return {}, []
        squares = state["mean_squares"][..., :1, :]
        now = layout.mean(ops.minimum(squares, _LARGEST_MEAN_SQUARE))
        now = _mean_over_problem(now, layout.sizes)[..., :1]
        # Gradients of zero count as 1e-12: sparse ones that begin there keep
        # the bound until there are others, and do better with it.
        first = state["first_mean_square"]
        first = ops.where(first == 0, now, first)
        change = ops.log(
            (now + scaling.SCALE_EPSILON) / (first + scaling.SCALE_EPSILON)
        )
        fall = ops.maximum(-_FALL_IF_SMALLER * change, _FALL_IF_LARGER * change)
        # Nothing is known before the first step.
        bound = ops.where(now > 0, self.min_log_lr - fall, _SMALLEST_LOG_LR)
        bound = ops.maximum(bound, _SMALLEST_LOG_LR)
        bound = ops.broadcast_to(bound, (*now.shape[:-1], len(layout.sizes)))
        return {"first_mean_square": first}, [bound]

    def _from_tensors(self, weights, state, layout, gradients, lower_bound):
        """What every element sees of its tensor: [..., 3 H0 + 1 or 2, T].

        First the extra bias of the parameter RNN (with 2 or 3 levels), last
        the lower bound of the log learning rate, if any, and its mean.
        """
        rows = []
        if len(self.level_sizes) > 1:
            bias = _affine(
                weights, "tensor_to_parameter", state["tensor_hidden"]
            )
            if len(self.level_sizes) > 2:
                bias = bias + _affine(
                    weights, "global_to_parameter", state["global_hidden"]
                )
            rows.append(bias)
        rows += lower_bound
        if self.dynamic_output_scale:
            mean_lr = layout.mean(state["log_learning_rate"])
            if self.use_problem_lr_mean:
                mean_lr = _mean_over_problem(mean_lr, layout.sizes)
            rows.append(mean_lr)
        else:
            rows.append(layout.mean(ops.zeros_like(gradients)))
        return ops.concatenate(rows, axis=-2)

    def _element_step(self, weights, element, from_tensor):
        """Everything that needs one element only (and its tensor's bias).

        Returns the new element arrays, and [..., H0 + inputs + 1 or 2, n] to
        average over the tensor: hidden state, inputs, squared directions.
        """
        mean_log_lr = from_tensor[..., -1:, :]
        bias, lower_bound = None, _SMALLEST_LOG_LR
        if self.has_lower_bound:
            lower_bound = from_tensor[..., -2:-1, :]
        if len(self.level_sizes) > 1:
            bias = from_tensor[..., : 3 * self.level_sizes[0], :]
        averages = self._gradient_averages(element)
        mean_squares = self._mean_squares(element, averages)
        scaled = scaling.scaled(averages, mean_squares)
        inputs = self._inputs(
            scaled, mean_squares, element.get("log_learning_rate"), mean_log_lr
        )
        hidden = cells.gru(
            weights, "parameter_rnn", inputs, element["parameter_hidden"], bias
        )
        new = {
            "parameter_hidden": hidden,
            "gradient_averages": averages,
            "mean_squares": mean_squares,
            **self._readouts(weights, element, hidden, scaled, lower_bound),
        }
        averaged = [hidden, inputs, ops.square(new["direction"])]
        if self.use_attention:
            averaged.append(ops.square(new["attended_direction"]))
        return new, ops.concatenate(averaged, axis=-2)

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

    def _inputs(self, scaled, mean_squares, log_lr, mean_log_lr):
        """The parameter RNN's inputs, [..., features, n]."""
        columns = [scaled]
        if self.use_grad_products and self.num_gradient_scales > 1:
            columns.append(scaled[..., 1:, :] * scaled[..., :-1, :])
        if self.use_log_means_squared:
            logs = ops.log(mean_squares + scaling.SCALE_EPSILON)
            columns.append(logs - ops.mean(logs, axis=-2, keepdims=True))
        if self.use_relative_lr:
            columns.append(log_lr - mean_log_lr)
        if self.use_extreme_indicator:
            low = ops.relu(_EXTREME_LOG_LR - log_lr)
            columns.append(ops.relu(log_lr) - low)
        if self.use_lr_shortcut:
            columns.append(log_lr - _TYPICAL_LOG_LR)
        return ops.concatenate(columns, axis=-2)

    def _readouts(self, weights, element, hidden, scaled, lower_bound):
        """Directions, next decays and learning rates from the new state."""

        def read(name):
            value = ops.matmul(weights[name], hidden)
            bias = weights.get(f"{name}_bias")
            return value if bias is None else value + bias

        def direction(name, shortcut):
            value = read(name)
            if self.use_gradient_shortcut:
                value = value + ops.matmul(weights[shortcut], scaled)
            return value

        new = {"direction": direction("update", "gradient_shortcut")}
        if self.use_attention:
            new["attended_direction"] = direction(
                "attention", "attention_shortcut"
            )
        old_decay = element["scale_decay"]
        new["scale_decay"] = (
            ops.sigmoid(read("scale_decay"))
            if self.learnable_decay
            else ops.full_like(old_decay, _FIXED_SCALE_DECAY)
        )
        new["input_decay"] = (
            ops.sigmoid(read("input_decay"))
            if self.learns_input_decay
            else ops.full_like(old_decay, _FIXED_INPUT_DECAY)
        )
        if self.dynamic_output_scale:
            log_lr = element["log_learning_rate"]
            step_log_lr = _clip_straight_through(
                log_lr + read("learning_rate"),
                lower_bound,
                self.max_log_lr,
            )
            momentum = ops.sigmoid(weights["learning_rate_momentum"])
            new["step_log_lr"] = step_log_lr
            new["log_learning_rate"] = (
                momentum * log_lr + (1 - momentum) * step_log_lr
            )
        return new

    def _scaled_steps(self, weights, layout, new, means, parameter_scale):
        """Direction and length put together: (steps, attended steps)."""
        first = -2 if self.use_attention else -1

        def scale(direction, row, offset):
            if not self.dynamic_output_scale:
                return direction
            mean_square = means[..., row : row + 1 or None, :]
            length = ops.rsqrt(mean_square + scaling.SCALE_EPSILON)
            length = parameter_scale * length
            size = ops.exp(new["step_log_lr"] + offset)
            return size * direction * layout.spread(length)

        steps = scale(new["direction"], first, weights.get("step_offset", 0.0))
        if not self.use_attention:
            return steps, None
        return steps, scale(new["attended_direction"], -1, 0.0)

    def _upper_levels(self, weights, state, means):
        """The tensor RNN and the global RNN, one step each."""
        new = {}
        if len(self.level_sizes) > 1:
            bias = None
            if len(self.level_sizes) > 2:
                bias = _affine(
                    weights, "global_to_tensor", state["global_hidden"]
                )
            used = self.level_sizes[0]
            if self.num_extra_inputs:
                used += self.num_inputs
            new["tensor_hidden"] = cells.gru(
                weights,
                "tensor_rnn",
                means[..., :used, :],
                state["tensor_hidden"],
                bias,
            )
        if len(self.level_sizes) > 2:
            new["global_hidden"] = cells.gru(
                weights,
                "global_rnn",
                ops.mean(new["tensor_hidden"], axis=-1, keepdims=True),
                state["global_hidden"],
                None,
            )
        return new


def _affine(weights, name, values):
    return ops.matmul(weights[name], values) + weights[f"{name}_bias"]


def _mean_over_problem(tensor_means, sizes):
    """Means over tensors of `sizes` elements -> the mean over all elements."""
    shares = np.array(sizes, "float32") / max(sum(sizes), 1)
    shares = ops.convert_to_tensor(shares, dtype=tensor_means.dtype)
    mean = ops.sum(tensor_means * shares, axis=-1, keepdims=True)
    return ops.broadcast_to(mean, tensor_means.shape)


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
