"""Adam and RMSProp as update rules, to run beside learned ones.

They follow `keras.optimizers.Adam` and `keras.optimizers.RMSprop` with their
default arguments; the learning rate is the rule's one weight, so that a whole
grid of learning rates runs at once.
"""

import numpy as np
from keras import ops

from lopt_tf.optimizers import update_rule


class _TunedRule(update_rule.UpdateRule):
    def init_weights(self, seed):
        return {"learning_rate": np.full((1, 1), 1e-3, "float32")}

    def draw_log_learning_rates(self, uniforms, tensor_uniforms):
        return uniforms

    def get_config(self):
        return {}

    def _zeros(self, weights, params):
        batch_dims = update_rule.batch_rank(weights)
        layout = update_rule.choose_layout(params, batch_dims)
        batch = tuple(params[0].shape[:batch_dims])
        return layout.fill(ops.zeros((*batch, 1, 1)))


class AdamRule(_TunedRule):
    """Adam: beta_1 0.9, beta_2 0.999, epsilon 1e-7."""

    name = "adam"

    def init_state(self, weights, params, log_learning_rates):
        zeros = self._zeros(weights, params)
        step = ops.zeros_like(weights["learning_rate"])
        return {"momentum": zeros, "velocity": zeros, "step": step}

    def updates(self, weights, state, layout, gradients):
        step = state["step"] + 1
        rate = weights["learning_rate"] * ops.sqrt(1 - 0.999**step)
        rate = rate / (1 - 0.9**step)
        momentum = 0.9 * state["momentum"] + 0.1 * gradients
        velocity = 0.999 * state["velocity"] + 0.001 * ops.square(gradients)
        steps = rate * momentum / (ops.sqrt(velocity) + 1e-7)
        state = {"momentum": momentum, "velocity": velocity, "step": step}
        return steps, None, state


class RMSPropRule(_TunedRule):
    """RMSProp: rho 0.9, epsilon 1e-7."""

    name = "rmsprop"

    def init_state(self, weights, params, log_learning_rates):
        return {"velocity": self._zeros(weights, params)}

    def updates(self, weights, state, layout, gradients):
        velocity = 0.9 * state["velocity"] + 0.1 * ops.square(gradients)
        steps = gradients / ops.sqrt(velocity + 1e-7)
        return weights["learning_rate"] * steps, None, {"velocity": velocity}
