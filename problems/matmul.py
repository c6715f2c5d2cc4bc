"""Search for fast matrix multiplication algorithms, as least squares."""

import numpy as np
import tensorflow as tf

from problems.problem import Problem
from problems.specification import specified

# Keeps the normal equations solvable in float32 when two products coincide.
# It changes the objective by its square only.
_RIDGE = 1e-6


@specified
class MatMulAlgorithm(Problem):
    """Finds an n x n matrix product with k multiplications.

    The multiplications are products of linear forms of the two matrices,
    P = (A a) * (B b) over all n^4 pairs of one-hot matrices; the objective is
    the squared error of the best linear read-out of the true product C from
    P. Strassen's algorithm is a zero of n = 2, k = 7.

    Args:
        n: size of the matrices.
        k: number of multiplications.
        noise_stdev: standard deviation of the gradient noise. Defaults to 0.
    """

    n: int
    k: int
    noise_stdev: float = 0.0

    @property
    def shapes(self):
        return [(self.n**2, self.k)] * 2

    def constants(self, seed, instances):
        n = self.n
        units = np.eye(n**2, dtype="float32")
        a, b = np.repeat(units, n**2, axis=0), np.tile(units, (n**2, 1))
        c = (a.reshape(-1, n, n) @ b.reshape(-1, n, n)).reshape(-1, n**2)
        return {n: tf.constant(m[None]) for n, m in zip("abc", (a, b, c))}

    def init(self, seed, instances):
        starts = super().init(seed, instances)
        return [tf.math.l2_normalize(start, axis=1) for start in starts]

    def loss(self, params, constants, batch=None):
        wanted = constants["c"]
        products = tf.matmul(constants["a"], params[0])
        products *= tf.matmul(constants["b"], params[1])
        # The read-out undoes any scale of a column; without it the normal
        # equations are better conditioned.
        products = tf.math.l2_normalize(products, axis=1, epsilon=1e-30)
        gram = tf.matmul(products, products, transpose_a=True)
        identity = tf.eye(self.k, dtype=gram.dtype)
        factor = tf.linalg.cholesky(gram + _RIDGE * identity)
        moments = tf.matmul(products, wanted, transpose_a=True)
        readout = tf.linalg.cholesky_solve(factor, moments)
        residual = tf.matmul(products, readout) - wanted
        return tf.reduce_sum(tf.square(residual), axis=[1, 2])
