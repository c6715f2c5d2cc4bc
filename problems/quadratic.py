"""Quadratics, bowls and p-norms of an affine map."""

import math

import tensorflow as tf

from problems.problem import Problem, fold

_EPSILON = 1e-6


class _AffineMap(Problem):
    """Base of objectives of Wx - y, with W and y standard normal."""

    def __init__(self, n, noise_stdev=0.0):
        self.n = n
        self.noise_stdev = noise_stdev

    @property
    def shapes(self):
        return [(self.n, 1)]

    def constants(self, seed, instances):
        n = self.n
        return {
            "w": tf.random.stateless_normal((instances, n, n), fold(seed, 0)),
            "y": tf.random.stateless_normal((instances, n, 1), fold(seed, 1)),
        }


class Quadratic(_AffineMap):
    """Half the squared norm of Wx - y, W [n, n]."""

    def loss(self, params, constants, batch=None):
        residual = _product(constants["w"], params[0]) - constants["y"]
        return 0.5 * tf.reduce_sum(tf.square(residual), axis=[1, 2])

    def __repr__(self):
        return f"Quadratic({self.n}{_noise(self)})"


class Norm(_AffineMap):
    """The p-norm of Wx - y, smoothed by an epsilon: non-smooth or peaked."""

    def __init__(self, n, norm_power=2.0, noise_stdev=0.0):
        super().__init__(n, noise_stdev)
        self.norm_power = norm_power

    def loss(self, params, constants, batch=None):
        residual = _product(constants["w"], params[0]) - constants["y"]
        powers = tf.pow(tf.abs(residual) + _EPSILON, self.norm_power)
        return tf.pow(tf.reduce_sum(powers, axis=[1, 2]), 1 / self.norm_power)

    def __repr__(self):
        return f"Norm({self.n}, p={self.norm_power:g}{_noise(self)})"


class Bowl(Problem):
    """Half the squared norm of Ax, A = sqrt(diag(condition, 1)) R(angle)."""

    def __init__(self, condition, angle=0.0, noise_stdev=0.0):
        self.condition = condition
        self.angle = angle
        self.noise_stdev = noise_stdev

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

    def __repr__(self):
        turned = f", angle={self.angle:.3g}" if self.angle else ""
        return f"Bowl({self.condition:g}{turned}{_noise(self)})"


def _product(w, x):
    """Wx for every instance: [K, n, n] and [K, n, 1] -> [K, n, 1]."""
    if w.shape[0] == x.shape[0] == 1:
        # XLA multiplies a single large transposed matrix, as the gradient
        # needs it, 30 times slower than the sum that it stands for.
        rows = tf.reduce_sum(w * tf.transpose(x, (0, 2, 1)), axis=2)
        return rows[..., None]
    return tf.matmul(w, x)


def _noise(problem):
    if not problem.noise_stdev:
        return ""
    return f", noise={problem.noise_stdev:g}"
