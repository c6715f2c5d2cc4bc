"""Gradient descent whose one learning rate is the meta-parameter."""

import dataclasses

import numpy as np

from lopt_tf import checks
from lopt_tf.optimizers import update_rule


@dataclasses.dataclass(frozen=True)
class GlobalLearningRateRule(update_rule.UpdateRule):
    """parameter -= learning rate * gradient.

    The argument is that of `lopt_tf.GlobalLearningRate`.
    """

    name = "global_learning_rate"
    before_training = "it is gradient descent with the given learning rate"

    initial_learning_rate: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        rate = self.initial_learning_rate
        checks.in_range("initial_learning_rate", rate, -1e30, 1e30)

    def init_weights(self, seed):
        rate = np.full((1, 1), self.initial_learning_rate, "float32")
        return {"learning_rate": rate}

    def init_state(self, weights, params, log_learning_rates, layers=None):
        return {}

    def updates(self, weights, state, layout, gradients):
        rate = weights["learning_rate"]
        return layout.each(lambda g: rate * g, gradients), None, {}
