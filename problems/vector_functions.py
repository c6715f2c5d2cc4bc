"""Functions of one vector: a well, a chain, and sums over rows of data."""

import dataclasses
import math

import tensorflow as tf

from problems.data_problem import DataProblem
from problems.problem import Problem
from problems.specification import specified

_EPSILON = 1e-6
_OFFSET = 1e-12


@specified
class MinMaxWell(Problem):
    """max x^2 + 1 / min x^2 - 2 + 1e-12: two coordinates count."""

    n: int
    noise_stdev: float = 0.0

    @property
    def shapes(self):
        return [(self.n,)]

    def loss(self, params, constants, batch=None):
        squares = tf.square(params[0])
        high = tf.reduce_max(squares, axis=1)
        low = tf.reduce_min(squares, axis=1)
        # A sum of two terms that rounding cannot make negative.
        return (high - low) + tf.square(low - 1) / low + _OFFSET


@specified
class _VectorWithData(DataProblem):
    """Base of functions of a vector and of rows of data of its size."""

    n: int
    dataset: object
    batch_size: int = dataclasses.field()
    noise_stdev: float = 0.0

    @property
    def shapes(self):
        return [(1, self.n)]


class DependencyChain(_VectorWithData):
    """A chain of quotients: each element is to vanish before the one before.

    The objective is the sum over i = 1..n of x_0^2 + x_i^2 / (x_(i-1)^2 +
    1e-6), with x_0^2 counted n times, as in the release. So is the data set:
    it goes with the problem, which never looks at it.
    """

    @property
    def shapes(self):
        return [(self.n + 1,)]

    def constants(self, seed, instances):
        return {}

    def loss(self, params, constants, batch=None):
        squares = tf.square(params[0])
        quotients = squares[:, 1:] / (squares[:, :-1] + _EPSILON)
        return tf.reduce_sum(squares[:, :1] + quotients, axis=1)


class OutwardSnake(_VectorWithData):
    """A winding path outwards: the distance from it, and 1 / the radius.

    The sum over rows of data of data_0 / (|x| + 1e-6), plus, over i, of
    ((x_(i+1) - pi cos x_i) data_(i+1))^2.
    """

    nonnegative = False

    @property
    def shapes(self):
        return [(self.n,)]

    def loss(self, params, constants, batch=None):
        (x,) = params
        data, _ = self.rows(constants, batch)
        # Sums over rows first: the rest is then of the size of the vector.
        inward = tf.reduce_sum(data[..., 0], axis=1)
        weights = tf.reduce_sum(tf.square(data[..., 1:]), axis=1)
        distance = tf.square(x[:, 1:] - math.pi * tf.cos(x[:, :-1]))
        path = tf.reduce_sum(distance * weights, axis=1)
        return inward / (tf.norm(x, axis=1) + _EPSILON) + path


class ProjectionQuadratic(_VectorWithData):
    """The sum over rows of data of (x * data)^2, element by element."""

    def loss(self, params, constants, batch=None):
        data, _ = self.rows(constants, batch)
        return tf.reduce_sum(tf.square(params[0] * data), axis=[1, 2])


class SumOfQuadratics(_VectorWithData):
    """The sum over rows of data of (x - data)^2 - data^2, plus 1e-12."""

    nonnegative = False

    def loss(self, params, constants, batch=None):
        (x,) = params
        data, _ = self.rows(constants, batch)
        # The difference of squares as a product, which cancels less.
        return tf.reduce_sum(x * (x - 2 * data), axis=[1, 2]) + _OFFSET
