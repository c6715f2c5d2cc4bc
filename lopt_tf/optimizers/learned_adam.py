"""Adam whose learning rate, betas and epsilon are meta-parameters."""

import dataclasses

import numpy as np
from keras import ops

from lopt_tf.optimizers import layouts, scaling, update_rule

# Keeps the slope of the square root finite where no gradient has been.
_ROOT_EPSILON = 1e-10
_LARGEST_GRADIENT = scaling.LARGEST_SQUARE**0.5


@dataclasses.dataclass(frozen=True)
class LearnedAdamRule(update_rule.UpdateRule):
    """Adam (Kingma & Ba, 2015) with learnable constants.

    The arguments are those of `lopt_tf.LearnedAdam`, which documents them.
    """

    name = "learned_adam"
    before_training = "it is Adam with the given constants"

    initial_learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        for name in ("initial_learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(
                    f"Argument `{name}` must be positive and finite: its "
                    f"logarithm is learned. Received: {name}="
                    f"{getattr(self, name)}"
                )
        for name in ("beta_1", "beta_2"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"Argument `{name}` must be between 0 and 1: its logit "
                    f"is learned. Received: {name}={getattr(self, name)}"
                )

    def init_weights(self, seed):
        values = {
            "log_learning_rate": np.log(self.initial_learning_rate),
            "beta_1_logit": np.log(self.beta_1 / (1 - self.beta_1)),
            "beta_2_logit": np.log(self.beta_2 / (1 - self.beta_2)),
            "log_epsilon": np.log(self.epsilon),
        }
        return {n: np.full((1, 1), v, "float32") for n, v in values.items()}

    def init_state(self, weights, params, log_learning_rates, layers=None):
        layout = layouts.choose_layout(params, update_rule.batch_rank(weights))
        step = ops.zeros_like(weights["log_epsilon"])
        zeros = layout.fill(step)
        return {"momentum": zeros, "velocity": zeros, "step": step}

    def updates(self, weights, state, layout, gradients):
        step = state["step"] + 1
        averages = {name: state[name] for name in ("momentum", "velocity")}
        new, _ = layout.map(
            self._element_step,
            (weights, step),
            {**averages, "gradient": gradients},
            {},
        )
        steps = new.pop("step")
        return steps, None, {**new, "step": step}

    def _element_step(self, shared, element, seen):
        """(new averages and "step" of some elements, nothing to average)."""
        del seen
        weights, step = shared
        # A larger one would make a giant step: its square is bounded, too.
        gradient = ops.clip(
            element["gradient"], -_LARGEST_GRADIENT, _LARGEST_GRADIENT
        )
        momentum, unbiased_momentum = _average(
            weights["beta_1_logit"], step, element["momentum"], gradient
        )
        # The release put the formula of the unbiased value here: its second
        # moment stayed 0.
        velocity, unbiased_velocity = _average(
            weights["beta_2_logit"],
            step,
            element["velocity"],
            ops.square(gradient),
        )
        scale = ops.sqrt(unbiased_velocity + _ROOT_EPSILON)
        steps = ops.exp(weights["log_learning_rate"]) * unbiased_momentum
        steps = steps / (scale + ops.exp(weights["log_epsilon"]))
        return {"momentum": momentum, "velocity": velocity, "step": steps}, {}


def _average(logit, step, old, new):
    """(running mean, the same without the bias of its start at 0)."""
    mean = ops.sigmoid(logit) * old + ops.sigmoid(-logit) * new
    # 1 - beta^step, to all digits also when beta is nearly 1.
    weight = -ops.expm1(step * ops.log_sigmoid(logit))
    return mean, mean / weight
