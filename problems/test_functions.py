"""Functions of two variables: the nine classic ones, and a saddle."""

import math

import tensorflow as tf

from problems.problem import Problem
from problems.specification import specified


@specified
class _TestFunction(Problem):
    """A function of (x, y), started uniformly in a box.

    Subclasses set `low` and `high` (the box) and implement `value`.
    """

    noise_stdev: float = 0.0

    @property
    def shapes(self):
        return [(2,)]

    def init(self, seed, instances):
        uniform = tf.random.stateless_uniform((instances, 2), seed)
        low, high = tf.constant(self.low), tf.constant(self.high)
        return [low + (high - low) * uniform]

    def loss(self, params, constants, batch=None):
        return self.value(params[0][:, 0], params[0][:, 1])

    def value(self, x, y):
        raise NotImplementedError


class Rosenbrock(_TestFunction):
    """A curved valley; minimum 0 at (1, 1)."""

    low, high = (-5.0, -5.0), (10.0, 10.0)

    def value(self, x, y):
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2


class LogSumExp(_TestFunction):
    """The logarithm of a sum of exponentials; standard normal start."""

    init = Problem.init

    def value(self, x, y):
        terms = [x + 3 * y - 0.1, x - 3 * y - 0.1, -x - 0.1, tf.zeros_like(x)]
        return tf.reduce_logsumexp(tf.stack(terms), axis=0)


class Ackley(_TestFunction):
    """Many local minima in a funnel; minimum 0 at the origin."""

    low, high = (-32.768, -32.768), (32.768, 32.768)

    def value(self, x, y):
        square = 0.5 * (x**2 + y**2)
        # The root has no gradient at the very minimum.
        away = square > 0
        root = tf.where(away, tf.sqrt(tf.where(away, square, 1.0)), 0.0)
        waves = 0.5 * (tf.cos(2 * math.pi * x) + tf.cos(2 * math.pi * y))
        return -20 * tf.exp(-0.2 * root) - tf.exp(waves) + math.e + 20


class Beale(_TestFunction):
    """Flat far away, steep ridges; minimum 0 at (3, 0.5)."""

    low, high = (-4.5, -4.5), (4.5, 4.5)

    def value(self, x, y):
        return (
            (1.5 - x + x * y) ** 2
            + (2.25 - x + x * y**2) ** 2
            + (2.625 - x + x * y**3) ** 2
        )


class Booth(_TestFunction):
    """A tilted quadratic; minimum 0 at (1, 3)."""

    low, high = (-10.0, -10.0), (10.0, 10.0)

    def value(self, x, y):
        return (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2


class StyblinskiTang(_TestFunction):
    """Four local minima; shifted up by 80 so that it stays positive."""

    low, high = (-5.0, -5.0), (5.0, 5.0)

    def value(self, x, y):
        terms = [v**4 - 16 * v**2 + 5 * v for v in (x, y)]
        return 0.5 * (terms[0] + terms[1]) + 80


class Matyas(_TestFunction):
    """A plate; minimum 0 at the origin."""

    low, high = (-10.0, -10.0), (10.0, 10.0)

    def value(self, x, y):
        return 0.26 * (x**2 + y**2) - 0.48 * x * y


class Branin(_TestFunction):
    """Three equal minima of 0.397887."""

    low, high = (-5.0, 0.0), (10.0, 15.0)

    def value(self, x, y):
        b, c = 5.1 / (4 * math.pi**2), 5 / math.pi
        valley = (y - b * x**2 + c * x - 6) ** 2
        return valley + 10 * (1 - 1 / (8 * math.pi)) * tf.cos(x) + 10


class Michalewicz(_TestFunction):
    """Steep valleys (m = 5); shifted up by 2."""

    low, high = (0.0, 0.0), (math.pi, math.pi)

    def value(self, x, y):
        terms = [
            tf.sin(v) * tf.sin(i * v**2 / math.pi) ** 10
            for i, v in ((1, x), (2, y))
        ]
        return 2 - (terms[0] + terms[1])


class Saddle(_TestFunction):
    """x^2 - y^2, without a minimum; for tests only. Standard normal start."""

    nonnegative = False
    init = Problem.init

    def value(self, x, y):
        return x**2 - y**2
