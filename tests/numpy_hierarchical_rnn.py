"""A second opinion: the hierarchical RNN in plain NumPy, tensor by tensor.

Written from the equations, in float64, rows = elements, without any of the
package's layouts. Slow and obvious.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(w, name, inputs, hidden, bias):
    size = hidden.shape[1]
    both = np.concatenate([inputs, hidden], 1)
    gates = both @ w[f"{name}/gates"].T + w[f"{name}/gates_bias"].T
    gates = sigmoid(gates + bias[:, : 2 * size])
    reset, update = gates[:, :size], gates[:, size:]
    both = np.concatenate([inputs, reset * hidden], 1)
    candidate = both @ w[f"{name}/candidate"].T + w[f"{name}/candidate_bias"].T
    candidate = np.tanh(candidate + bias[:, 2 * size :])
    return update * hidden + (1 - update) * candidate


def affine(w, name, x):
    return x @ w[name].T + w[f"{name}_bias"].T


def units(params, layers=None, by_role=False):
    """The unit of the step of each tensor."""
    own = {}
    for i, p in enumerate(params):
        if p.ndim > 1 and np.ptp(p) > 0:
            inputs = np.prod(p.shape[:-1])
            size = np.sqrt(np.mean(np.square(p, dtype="float64")))
            own[i] = size / 0.2 * min(1, (64 / inputs) ** 0.5)

    def mean(indices):
        return np.exp(np.mean([np.log(own[i]) for i in indices]))

    if by_role and layers is not None:
        others = mean([i for i in own if not layers.roles[i]])
        for i in own:
            if layers.roles[i] == "embedding":
                own[i] = max(own[i], 2 * others)
            if layers.roles[i] == "attention":
                own[i] = 0.4 * others

    found = []
    for i in range(len(params)):
        same = []
        if layers is not None:
            whose = layers.numbers
            same = [j for j in own if whose[i] == whose[j]]
        found.append(own[i] if i in own else mean(same or own))
    return found


class Reference:
    """State and step of the optimizer for a list of tensors."""

    def __init__(self, rule, weights, params, log_lrs, layers=None):
        self.rule = rule
        self.w = {n: np.asarray(a, "float64") for n, a in weights.items()}
        self.levels = len(rule.level_sizes)
        sizes, scales = rule.level_sizes, rule.num_gradient_scales

        def start(level, name):
            if rule.learnable_rnn_init:
                return self.w[f"{name}/initial_state"].T
            return np.zeros((1, sizes[level]))

        self.unit, self.square = [1.0] * len(params), 0.0
        if rule.step_unit:
            self.unit = units(params, layers, rule.step_unit == "role")
        self.true = [np.array(p, "float64") for p in params]
        self.tensors, self.first = [], None
        for p, log_lr in zip(params, log_lrs):
            n = p.size
            tensor = {
                "h": np.repeat(start(0, "parameter_rnn"), n, 0),
                "d": np.zeros((n, 1)),
                "b": np.zeros((n, 1)),
                "g": np.zeros((n, scales)),
                "m": np.zeros((n, scales)),
                "lr": np.array(log_lr, "float64").reshape(n, 1),
                "scale": self.unit[len(self.tensors)],
            }
            if rule.use_parameter_scale and not rule.step_unit:
                root = np.sqrt(np.mean(np.square(p, dtype="float64")))
                tensor["scale"] = max(1.0, root)
            if self.levels > 1:
                tensor["t"] = start(1, "tensor_rnn")
            self.tensors.append(tensor)
        if self.levels > 2:
            self.top = start(2, "global_rnn")

    def step(self, grads):
        """(updates, attended steps or None) and the state moves on."""
        self.epsilon = 1e-16
        if self.rule.step_unit:
            grads = [
                u * np.asarray(g, "float64") for u, g in zip(self.unit, grads)
            ]
            now = np.mean(np.concatenate([g.ravel() for g in grads]) ** 2)
            self.square = max(now, 0.9 * self.square)
            self.epsilon = max(1e-16 * self.square, 1e-36)
        every = np.concatenate([t["lr"] for t in self.tensors])
        self.lowest = self._lowest()
        updates, attended = [], []
        new_means = []
        for tensor, grad, true in zip(self.tensors, grads, self.true):
            u, a = self._tensor_step(tensor, grad, every.mean())
            updates.append(u.reshape(true.shape))
            attended.append(None if a is None else a.reshape(true.shape))
            if self.levels > 1:
                new_means.append(tensor["t"])
        if self.levels > 2:
            mean = np.mean(np.concatenate(new_means), 0, keepdims=True)
            zero = np.zeros((1, 3 * self.rule.level_sizes[2]))
            self.top = gru(self.w, "global_rnn", mean, self.top, zero)
        return updates, attended

    def _lowest(self):
        """The lower bound of log learning rates, from the last step's m."""
        squares = np.concatenate([t["m"][:, 0] for t in self.tensors])
        if self.rule.min_log_lr == -33 or not squares.any():
            return -33
        if self.first is None:
            self.first = squares.mean()
        log_g = np.log(squares.mean() / self.first) / 2
        fall = -log_g / 2 if log_g < 0 else 3 * log_g
        return max(-33, self.rule.min_log_lr - fall)

    def _tensor_step(self, s, grad, problem_mean):
        rule, w = self.rule, self.w
        grad = np.asarray(grad, "float64").reshape(-1, 1)
        scales = rule.num_gradient_scales
        powers = 0.5 ** np.arange(scales)
        if scales == 1:
            s["g"] = grad
        else:
            d = s["d"] ** powers
            s["g"] = (1 - d) * grad + d * s["g"]
        b = s["b"] ** (powers if rule.use_multiple_scale_decays else 1.0)
        b = np.broadcast_to(b, s["m"].shape).copy()
        b[:, np.all(s["m"] == 0, 0)] = 0
        s["m"] = (1 - b) * (s["g"] ** 2 + 1e4 * self.epsilon) + b * s["m"]
        scaled = np.arcsinh(s["g"] / np.sqrt(s["m"] + self.epsilon))
        extra = []
        if rule.use_grad_products:
            extra.append(scaled[:, 1:] * scaled[:, :-1])
        if rule.use_log_means_squared:
            logs = np.log(s["m"] + self.epsilon)
            extra.append(logs - logs.mean(1, keepdims=True))
        if rule.use_relative_lr:
            whole = rule.use_problem_lr_mean
            extra.append(s["lr"] - (problem_mean if whole else s["lr"].mean()))
        if rule.use_extreme_indicator:
            low = np.maximum(np.log(1e-6) - s["lr"], 0)
            extra.append(np.maximum(s["lr"], 0) - low)
        if rule.use_lr_shortcut:
            extra.append(s["lr"] - np.log(1e-3))
        inputs = np.concatenate([scaled, *extra], 1)
        bias = np.zeros((1, 3 * rule.level_sizes[0]))
        if self.levels > 1:
            bias = bias + affine(w, "tensor_to_parameter", s["t"])
        if self.levels > 2:
            bias = bias + affine(w, "global_to_parameter", self.top)
        s["h"] = h = gru(w, "parameter_rnn", inputs, s["h"], bias)
        if self.levels > 1:
            seen = h if not extra else np.concatenate([h, inputs], 1)
            bias = np.zeros((1, 3 * rule.level_sizes[1]))
            if self.levels > 2:
                bias = affine(w, "global_to_tensor", self.top)
            mean = seen.mean(0, keepdims=True)
            s["t"] = gru(w, "tensor_rnn", mean, s["t"], bias)

        live = np.ones(len(h), bool)
        if rule.rest_without_gradient:
            live = np.any(s["g"] != 0, axis=1)

        def direction(readout, shortcut):
            value = h @ w[readout].T
            if rule.use_gradient_shortcut:
                value = value + scaled @ w[shortcut].T
            value = np.where(live[:, None], value, 0.0)
            if rule.dynamic_output_scale and live.any():
                value = value / np.sqrt(np.mean(value[live] ** 2) + 1e-16)
            return value

        learns = rule.learnable_decay
        s["b"] = sigmoid(affine(w, "scale_decay", h)) if learns else 0.93
        s["b"] = np.broadcast_to(s["b"], s["d"].shape)
        if learns and rule.learnable_inp_decay and scales > 1:
            s["d"] = sigmoid(affine(w, "input_decay", h))
        else:
            s["d"] = np.full(s["d"].shape, 0.89)
        size = attended_size = 1.0
        if rule.dynamic_output_scale:
            new = s["lr"] + affine(w, "learning_rate", h)
            new = np.clip(new, self.lowest, rule.max_log_lr)
            p = sigmoid(w["learning_rate_momentum"])
            mean = p * s["lr"] + (1 - p) * new
            s["lr"] = np.where(live[:, None], mean, s["lr"])
            size = s["scale"] * np.exp(new + w["step_offset"])
            attended_size = s["scale"] * np.exp(new)
        update = size * direction("update", "gradient_shortcut")
        if not rule.use_attention:
            return update, None
        return update, attended_size * direction(
            "attention", "attention_shortcut"
        )
