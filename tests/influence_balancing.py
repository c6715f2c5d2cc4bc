"""A problem on which short truncations lead astray.

The influence-balancing regression of Tallec and Ollivier (2017), which the
paper on persistent evolution strategies takes up: theta drives all elements
of a linear system, the loss sees the first one. For some steps theta pushes
it up, in the long run down.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from lopt_tf.optimizers import update_rule
from problems.problem import Problem

SIZE, POSITIVE = 23, 10


class Balance(Problem):
    """Half the squared distance of the first element from 1; start 0."""

    shapes = [(SIZE,)]

    def init(self, seed, instances):
        return [tf.zeros((instances, SIZE))]

    def loss(self, params, constants, batch=None):
        return 0.5 * tf.square(params[0][:, 0] - 1)


@dataclasses.dataclass(frozen=True)
class BalanceRule(update_rule.UpdateRule):
    """x <- A x + theta * signs, whatever the gradient."""

    name = "balance"

    def init_weights(self, seed):
        return {"theta": tf.zeros((1, 1))}

    def init_state(self, weights, params, log_learning_rates):
        return {}

    def step(self, weights, state, params, grads, learning_rate=1.0):
        (x,) = params
        behind = tf.concat([x[:, 1:], tf.zeros_like(x[:, :1])], axis=1)
        signs = tf.where(tf.range(SIZE) < POSITIVE, 1.0, -1.0)
        return [0.5 * (x + behind) + weights["theta"][:, 0] * signs], state


def loss(theta, steps):
    """The mean loss of a run, in closed loop: NumPy's second opinion."""
    matrix = 0.5 * (np.eye(SIZE) + np.eye(SIZE, k=1))
    signs = np.where(np.arange(SIZE) < POSITIVE, 1.0, -1.0)
    x, total = np.zeros(SIZE), 0.0
    for _ in range(steps):
        x = matrix @ x + theta * signs
        total += 0.5 * (x[0] - 1) ** 2
    return total / steps
