"""Task 1: a quadratic form fitted to linear data, and an L1 penalty."""

import dataclasses

import numpy as np
import tensorflow as tf

from problems.alternating.supervised import SupervisedTask

_ROWS = 200
# The model has as many terms as their square.
_MOST_DIMENSIONS = 512


@dataclasses.dataclass(eq=False)
class Regression(SupervisedTask):
    """d-ary quadratic regression (AutoLoss, section 5.1).

    The data are linear, y = x.w + noise; the model x.w1 + x'(W2)x / 10 has far
    more parameters than they need, so that the penalty matters.

    Args, besides those of `SupervisedTask`:
        dimensions: number of inputs, d. Defaults to 16.
        noise: standard deviation of the targets' noise. Defaults to 2.
    """

    dimensions: int = 16
    noise: float = 2.0
    penalty: float = 0.2
    learning_rate: float = 5e-4
    max_steps: int = 20_000
    patience: int = 100

    name = "regression"
    actions = ("mse", "l1")
    result_name = "mean squared error"

    def __post_init__(self):
        super().__post_init__()
        self.check_positive(int, "dimensions", most=_MOST_DIMENSIONS)
        self.check_positive(float, "noise")
        parts = draw_data(self.data_seed, self.dimensions, self.noise)
        self.take_data([(_terms(x), y) for x, y in parts])

    def initial_params(self, seeds):
        """One array [E, d + d * d]: w1, then W2 row by row."""
        d = self.dimensions
        scale = np.repeat([0.1, 0.01], [d, d * d])
        draws = [np.random.default_rng(s).normal(size=d + d * d) for s in seeds]
        return [(scale * np.stack(draws)).astype("float32")]

    def products(self):
        return [(_ROWS, self.dimensions + self.dimensions**2, 1)]

    def measure(self, params, split):
        terms, targets = self.splits[split]
        # The model is linear in its weights.
        predictions = tf.matmul(params[0], terms, transpose_b=True)
        loss = tf.reduce_mean(tf.square(predictions - targets), axis=1)
        return {"loss": loss, "score": loss}


def draw_data(seed, dimensions, noise):
    """Controller train and valid, task train and valid, test: (x, y) each.

    The order of the draws is the release's, with NumPy's legacy generator.
    """
    rng = np.random.RandomState(seed)
    weights = rng.rand(dimensions) - 0.5

    def row():
        x = 10 * (rng.rand(dimensions) - 0.5)
        return x, x @ weights + rng.normal(0, noise)

    splits = []
    for _ in range(5):
        x, y = zip(*(row() for _ in range(_ROWS)))
        splits.append((np.float32(x), np.float32(y)))
    return splits


def _terms(x):
    """What the weights multiply: x, and the products x_i x_j / 10."""
    products = x[:, :, None] * x[:, None, :] / 10
    return np.concatenate([x, products.reshape(len(x), -1)], axis=1)
