"""The coordinatewise RNN: a stacked LSTM or GRU for every parameter.

One of the release's simpler optimizers; after *Learning to learn by gradient
descent by gradient descent* (Andrychowicz et al., 2016).
"""

import dataclasses

import numpy as np
from keras import ops

from lopt_tf import checks
from lopt_tf.optimizers import cells, layouts, scaling, update_rule

_DECAY_BIAS = 2.2
_FIXED_DECAY = float(1 / (1 + np.exp(-_DECAY_BIAS)))
# Within these bounds a learning rate is a normal float32. A run that leaves
# them stands still or has blown up.
_EXTREME_LOG_LR = 80.0


@dataclasses.dataclass(frozen=True)
class CoordinatewiseRNNRule(update_rule.UpdateRule):
    """The coordinatewise RNN update rule.

    The arguments are those of `lopt_tf.CoordinatewiseRNN`, which documents
    them. With g the gradient and h the top cell's output, each element has

        s = decay * s + (1 - decay) * g^2
        h = RNN(asinh(g / sqrt(s)))
        learning rate *= 2 * sigmoid(a . h + a0)
        parameter -= learning rate * (u . h)
        decay = sigmoid(b . h + b0)
    """

    name = "coordinatewise_rnn"

    cell_sizes: tuple[int, ...] = (20, 20)
    cell: str = "lstm"
    init_lr_range: tuple[float, float] = (1e-6, 1e-2)
    dynamic_output_scale: bool = True
    learnable_decay: bool = True
    zero_init_lr_weights: bool = True

    def __post_init__(self):
        super().__post_init__()
        update_rule.check_init_lr_range(self.init_lr_range)
        if min(self.cell_sizes, default=0) < 1:
            raise ValueError(
                "Argument `cell_sizes` must hold one or more positive sizes. "
                f"Received: cell_sizes={self.cell_sizes}"
            )
        checks.in_range(
            "cell_sizes", max(self.cell_sizes), 1, checks.LARGEST_LAYER
        )
        checks.in_range("the number of cells", len(self.cell_sizes), 1, 16)
        if self.cell not in ("lstm", "gru"):
            raise ValueError(
                "Argument `cell` must be 'lstm' or 'gru'. "
                f"Received: cell={self.cell!r}"
            )

    @property
    def state_sizes(self):
        """Rows of each cell's state; an LSTM has two for each unit."""
        return [size * (1 + (self.cell == "lstm")) for size in self.cell_sizes]

    def init_weights(self, seed):
        rng = np.random.default_rng(seed)
        draw = cells.lstm_weights if self.cell == "lstm" else cells.gru_weights
        weights, inputs = {}, 1
        for i, size in enumerate(self.cell_sizes):
            for name, array in draw(rng, size, inputs).items():
                weights[f"cell_{i}/{name}"] = array
            inputs = size
        shape = (sum(self.state_sizes), 1)
        weights["initial_state"] = rng.uniform(-1, 1, shape)
        weights["update"] = cells.normal(rng, 1, inputs)
        if self.learnable_decay:
            weights["decay"] = cells.normal(rng, 1, inputs)
            weights["decay_bias"] = np.full((1, 1), _DECAY_BIAS)
        if self.dynamic_output_scale:
            drawn = cells.normal(rng, 1, inputs)
            weights["learning_rate"] = drawn * (not self.zero_init_lr_weights)
            weights["learning_rate_bias"] = np.zeros((1, 1))
        return {name: a.astype("float32") for name, a in weights.items()}

    def draw_log_learning_rates(self, uniforms, tensor_uniforms):
        # Each element's alone: the release's have no share of their tensor.
        low, high = (float(bound) for bound in np.log(self.init_lr_range))
        return [low + (high - low) * u for u in uniforms]

    def init_state(self, weights, params, log_learning_rates, layers=None):
        layout = layouts.choose_layout(params, update_rule.batch_rank(weights))
        start = ops.convert_to_tensor(weights["initial_state"])
        one = layout.fill(ops.ones_like(start[..., :1, :]))
        return {
            "hidden": layout.fill(start),
            # The first gradient does not count: the release's start.
            "decay": one,
            "mean_square": one,
            "log_learning_rate": layout.pack(log_learning_rates),
        }

    def updates(self, weights, state, layout, gradients):
        new, _ = layout.map(
            self._element_step, weights, {**state, "gradient": gradients}, {}
        )
        steps = new.pop("step")
        return steps, None, new

    def _element_step(self, weights, element, seen):
        """(new state of some elements and their "step", nothing to average)."""
        del seen
        gradient, decay = element["gradient"], element["decay"]
        mean_square = scaling.mean_squares(
            element["mean_square"], decay, gradient
        )
        hidden, output = self._cells(
            weights, element["hidden"], scaling.scaled(gradient, mean_square)
        )
        log_lr = element["log_learning_rate"]
        if self.dynamic_output_scale:
            # learning rate *= 2 * sigmoid(.), in logarithms.
            factor = ops.log_sigmoid(_read(weights, "learning_rate", output))
            log_lr = log_lr + float(np.log(2)) + factor
            log_lr = ops.clip(log_lr, -_EXTREME_LOG_LR, _EXTREME_LOG_LR)
        decay = (
            ops.sigmoid(_read(weights, "decay", output))
            if self.learnable_decay
            else ops.full_like(decay, _FIXED_DECAY)
        )
        direction = ops.matmul(weights["update"], output)
        new = {
            "hidden": hidden,
            "decay": decay,
            "mean_square": mean_square,
            "log_learning_rate": log_lr,
            "step": ops.exp(log_lr) * direction,
        }
        return new, {}

    def _cells(self, weights, hidden, inputs):
        """All cells, one step: (new states, the top cell's output)."""
        cell = cells.lstm if self.cell == "lstm" else cells.gru
        states, first = [], 0
        for i, size in enumerate(self.cell_sizes):
            last = first + self.state_sizes[i]
            old = hidden[..., first:last, :]
            states.append(cell(weights, f"cell_{i}", inputs, old))
            # An LSTM's cell state lies above its output.
            inputs = states[-1][..., -size:, :]
            first = last
        return ops.concatenate(states, axis=-2), inputs


def _read(weights, name, output):
    return ops.matmul(weights[name], output) + weights[f"{name}_bias"]
