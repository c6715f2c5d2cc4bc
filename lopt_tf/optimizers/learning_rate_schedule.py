"""Gradient descent whose learning rates over the steps are meta-parameters."""

import dataclasses

import numpy as np
from keras import ops

from lopt_tf import checks
from lopt_tf.optimizers import update_rule


@dataclasses.dataclass(frozen=True)
class LearningRateScheduleRule(update_rule.UpdateRule):
    """parameter -= learning rates[step] * gradient.

    The arguments are those of `lopt_tf.LearningRateSchedule`.
    """

    name = "learning_rate_schedule"
    before_training = "it is gradient descent with the given learning rate"

    initial_learning_rate: float = 1e-3
    num_steps: int = 1000

    def __post_init__(self):
        super().__post_init__()
        rate = self.initial_learning_rate
        checks.in_range("initial_learning_rate", rate, -1e30, 1e30)
        checks.in_range("num_steps", self.num_steps, 1, 10**7)

    def init_weights(self, seed):
        shape = (self.num_steps, 1)
        rates = np.full(shape, self.initial_learning_rate, "float32")
        return {"learning_rates": rates}

    def init_state(self, weights, params, log_learning_rates, layers=None):
        return {"step": ops.zeros_like(weights["learning_rates"][..., :1, :])}

    def updates(self, weights, state, layout, gradients):
        step = state["step"]
        rates = weights["learning_rates"]
        # After the table's end its last entry holds. A sum over the table
        # has a gradient everywhere, for any leading axes.
        rows = np.arange(self.num_steps, dtype="float32")[:, None]
        rows = ops.convert_to_tensor(rows)
        chosen = rows == ops.minimum(step, float(self.num_steps - 1))
        rate = ops.where(chosen, rates, ops.zeros_like(rates))
        rate = ops.sum(rate, axis=-2, keepdims=True)
        steps = layout.each(lambda g: rate * g, gradients)
        return steps, None, {"step": step + 1}
