"""Quadratics, bowls and p-norms of an affine map."""

import math

import tensorflow as tf

from problems.problem import Problem, fold
from problems.specification import specified

_EPSILON = 1e-6


class _AffineMap(Problem):
    """Base of objectives of Wx - y, with W and y standard normal."""

    @property
    def shapes(self):
        return [(self.n, 1)]

    def constants(self, seed, instances):
        n = self.n
        return {
            "w": tf.random.stateless_normal((instances, n, n), fold(seed, 0)),
            "y": tf.random.stateless_normal((instances, n, 1), fold(seed, 1)),
        }


@specified
class Quadratic(_AffineMap):
    """Half the squared norm of Wx - y, W [n, n]."""

    n: int
    noise_stdev: float = 0.0

    def loss(self, params, constants, batch=None):
        residual = _product(constants["w"], params[0]) - constants["y"]
        return 0.5 * tf.reduce_sum(tf.square(residual), axis=[1, 2])


@specified
class Norm(_AffineMap):
    """The p-norm of Wx - y, smoothed by an epsilon: non-smooth or peaked."""

    n: int
    norm_power: float = 2.0
    noise_stdev: float = 0.0

    def loss(self, params, constants, batch=None):
        residual = _product(constants["w"], params[0]) - constants["y"]
        powers = tf.pow(tf.abs(residual) + _EPSILON, self.norm_power)
        return tf.pow(tf.reduce_sum(powers, axis=[1, 2]), 1 / self.norm_power)


@specified
class Bowl(Problem):
    """Half the squared norm of Ax, A = sqrt(diag(condition, 1)) R(angle)."""

    condition: float
    angle: float = 0.0
    noise_stdev: float = 0.0

    @property
    def shapes(self):
        return [(2, 1)]

    def constants(self, seed, instances):
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        root = math.sqrt(self.condition)
        matrix = [[root * cos, -root * sin], [sin, cos]]
        return {"matrix": tf.constant([matrix], "float32")}

    def loss(self, params, constants, batch=None):
        image = tf.matmul(constants["matrix"], params[0])
        return 0.5 * tf.reduce_sum(tf.square(image), axis=[1, 2])


def _product(w, x):
    """Wx for every instance: [K, n, n] and [K, n, 1] -> [K, n, 1]."""
    if w.shape[0] == x.shape[0] == 1:
        # XLA multiplies a single large transposed matrix, as the gradient
        # needs it, 30 times slower than the sum that it stands for.
        rows = tf.reduce_sum(w * tf.transpose(x, (0, 2, 1)), axis=2)
        return rows[..., None]
    return tf.matmul(w, x)
