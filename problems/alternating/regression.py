"""Task 1: a quadratic form fitted to linear data, and an L1 penalty."""

import numpy as np
import tensorflow as tf

from problems.alternating.supervised import SupervisedTask, check_positive

_ROWS = 200
_ROLES = {"controller": (0, 1), "task": (2, 3)}


class Regression(SupervisedTask):
    """d-ary quadratic regression (AutoLoss, section 5.1).

    The data are linear, y = x.w + noise; the model x.w1 + x'(W2)x / 10 has far
    more parameters than they need, so that the penalty matters.

    Args:
        role: "controller" for the splits that schedules are trained on,
            "task" for those on which baselines and trained schedules are
            compared. The test split is the same.
        data_seed: of the data.
        dimensions: number of inputs, d.
        noise: standard deviation of the targets' noise.
        penalty: weight of the L1 loss.
        learning_rate, max_steps, patience: see `SupervisedTask`.
    """

    name = "regression"
    actions = ("mse", "l1")
    result_name = "mean squared error"
    result_key = "loss"

    def __init__(
        self,
        role="task",
        data_seed=1,
        dimensions=16,
        noise=2.0,
        penalty=0.2,
        learning_rate=5e-4,
        max_steps=20_000,
        patience=100,
    ):
        super().__init__(learning_rate, max_steps, patience)
        check_positive(int, dimensions=dimensions, data_seed=data_seed)
        check_positive(float, noise=noise, penalty=penalty)
        self.role = role
        self.data_seed = data_seed
        self.dimensions = dimensions
        self.noise = noise
        self.penalty = penalty
        splits = draw_data(data_seed, dimensions, noise)
        train, valid = (splits[i] for i in role_places(role))
        named = {"train": train, "valid": valid, "test": splits[-1]}
        self.splits = {
            name: (tf.constant(_terms(x)), tf.constant(y))
            for name, (x, y) in named.items()
        }

    def get_config(self):
        return {
            "role": self.role,
            "data_seed": self.data_seed,
            "dimensions": self.dimensions,
            "noise": self.noise,
            "penalty": self.penalty,
            "learning_rate": self.learning_rate,
            "max_steps": self.max_steps,
            "patience": self.patience,
        }

    def initial_params(self, seeds):
        """One array [E, d + d * d]: w1, then W2 row by row."""
        d = self.dimensions
        scale = np.repeat([0.1, 0.01], [d, d * d])
        draws = [np.random.default_rng(s).normal(size=d + d * d) for s in seeds]
        return [(scale * np.stack(draws)).astype("float32")]

    def losses(self, params):
        (weights,) = params
        l1 = self.penalty * tf.reduce_sum(tf.abs(weights), axis=1)
        return [self._mse(weights, "train"), l1]

    def measure(self, params, split):
        loss = self._mse(params[0], split)
        return {"loss": loss, "score": loss}

    def _mse(self, weights, split):
        terms, targets = self.splits[split]
        # The model is linear in its weights.
        predictions = tf.matmul(weights, terms, transpose_b=True)
        return tf.reduce_mean(tf.square(predictions - targets), axis=1)


def role_places(role):
    """Which of the five splits are for training and validation."""
    if role not in _ROLES:
        raise ValueError(
            f"Unknown role {role!r}. Known: {', '.join(sorted(_ROLES))}."
        )
    return _ROLES[role]


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
