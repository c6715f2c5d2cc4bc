"""The base of problems with data, and how they take rows of it."""

import tensorflow as tf

from problems.problem import Problem


class DataProblem(Problem):
    """A problem whose constants are "data" and "labels", drawn or read.

    Args:
        dataset: a `datasets.Dataset`, or anything with its `num_examples` and
            `instances`.
        batch_size: examples in a minibatch.
        noise_stdev: standard deviation of the gradient noise.
        num_scored: the objective without a batch is of that many first rows,
            for data too large to go through at every step; None: of all.
    """

    def __init__(self, dataset, batch_size, noise_stdev=0.0, num_scored=None):
        self.dataset = dataset
        self.num_examples = dataset.num_examples
        # A batch never exceeds the data set.
        self.batch_size = min(batch_size, dataset.num_examples)
        self.noise_stdev = noise_stdev
        self.num_scored = num_scored

    def constants(self, seed, instances):
        data, labels = self.dataset.instances(seed.numpy(), instances)
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
