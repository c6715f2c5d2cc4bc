"""The base of problems with data, and how they take rows of it."""

import tensorflow as tf

from problems.problem import Problem


class DataProblem(Problem):
    """A problem whose constants are "data" and "labels", drawn or read.

    Subclasses are dataclasses with these settings; only the first two are
    necessary. (`batch_size: int = dataclasses.field()` has no default, where
    `batch_size: int` alone would take the None of `Problem` for one.)

    Args:
        dataset: a `datasets.Dataset`, or anything with its `num_examples` and
            `instances`.
        batch_size: examples in a minibatch; at most the data set's.
        noise_stdev: standard deviation of the gradient noise. Defaults to 0.
        num_scored: the objective without a batch is of that many first rows,
            for data too large to go through at every step. Defaults to
            `None`: all rows.
    """

    num_scored = None

    def __post_init__(self):
        for name in ("batch_size", "num_scored"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        size = min(self.batch_size, self.num_examples)
        object.__setattr__(self, "batch_size", size)

    @property
    def num_examples(self):
        return self.dataset.num_examples

    def constants(self, seed, instances):
        data, labels = self.dataset.instances(seed.numpy(), instances)
        if not data.shape[1] == labels.shape[1] == self.num_examples:
            raise ValueError(
                f"The data set {self.dataset} has {data.shape[1]} rows and "
                f"{labels.shape[1]} labels, {self.num_examples} are needed."
            )
        return {"data": tf.constant(data), "labels": tf.constant(labels)}

    def rows(self, constants, batch):
        """Data and labels [K or 1, rows, ...] of a batch [K, B], or scored."""
        data, labels = constants["data"], constants["labels"]
        if batch is None:
            return data[:, : self.num_scored], labels[:, : self.num_scored]
        return _gather(data, batch), _gather(labels, batch)


def _gather(rows, batch):
    """rows [K or 1, N, ...], batch [K, B] -> [K, B, ...]."""
    if rows.shape[0] == 1:
        return tf.gather(rows[0], batch)
    return tf.gather(rows, batch, batch_dims=1)
