"""Softmax regression and fully connected nets on drawn data sets."""

import tensorflow as tf

from problems.problem import Problem, fold

_WEIGHT_DECAY = 1e-3
_ACTIVATIONS = {"sigmoid": tf.sigmoid, "relu": tf.nn.relu, "tanh": tf.tanh}


class FullyConnected(Problem):
    """A fully connected two-class classifier.

    The objective is the mean sigmoid cross entropy of the first logit, plus
    (1e-3 / T) * sum of squares over the T parameter tensors, as in the
    release.

    Args:
        num_features: input size.
        num_classes: must be 2 (the release's loss reads one logit).
        dataset: a `datasets.Dataset`.
        batch_size: examples in a minibatch.
        hidden_sizes: sizes of the hidden layers.
        activation: "sigmoid", "relu" or "tanh".
        noise_stdev: standard deviation of the gradient noise.
    """

    def __init__(
        self,
        num_features,
        num_classes,
        dataset,
        batch_size,
        hidden_sizes=(),
        activation="sigmoid",
        noise_stdev=0.0,
    ):
        if num_classes != 2:
            raise ValueError(
                "FullyConnected classifies two classes. "
                f"Received: num_classes={num_classes}"
            )
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"Unknown activation {activation!r}. "
                f"Known: {', '.join(sorted(_ACTIVATIONS))}"
            )
        self.layer_sizes = (num_features, *hidden_sizes, num_classes)
        self.dataset = dataset
        self.num_examples = dataset.num_examples
        # A batch never exceeds the data set.
        self.batch_size = min(batch_size, dataset.num_examples)
        self.activation = activation
        self.noise_stdev = noise_stdev

    @property
    def shapes(self):
        shapes = []
        for fan_in, fan_out in zip(self.layer_sizes, self.layer_sizes[1:]):
            shapes += [(fan_in, fan_out), (fan_out,)]
        return shapes

    def constants(self, seed, instances):
        data, labels = self.dataset.instances(seed.numpy(), instances)
        return {"data": tf.constant(data), "labels": tf.constant(labels)}

    def init(self, seed, instances):
        return [
            1.2
            / shape[0] ** 0.5
            * tf.random.stateless_normal((instances, *shape), fold(seed, i))
            for i, shape in enumerate(self.shapes)
        ]

    def loss(self, params, constants, batch=None):
        data, labels = constants["data"], constants["labels"]
        if batch is not None:
            data, labels = _gather(data, batch), _gather(labels, batch)
        logits = self.logits(params, data)[..., 0]
        labels = tf.cast(labels, logits.dtype) + tf.zeros_like(logits)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        squares = [
            tf.reduce_sum(tf.square(p), axis=list(range(1, p.shape.rank)))
            for p in params
        ]
        decay = _WEIGHT_DECAY / len(params) * tf.add_n(squares)
        return tf.reduce_mean(losses, axis=-1) + decay

    def logits(self, params, data):
        """Logits [K, rows, classes] of data [K or 1, rows, features]."""
        hidden = data
        for i in range(0, len(params), 2):
            if i:
                hidden = _ACTIVATIONS[self.activation](hidden)
            hidden = tf.matmul(hidden, params[i]) + params[i + 1][:, None]
        return hidden

    def __repr__(self):
        sizes = "-".join(map(str, self.layer_sizes))
        noise = f", noise={self.noise_stdev:g}" if self.noise_stdev else ""
        return (
            f"{type(self).__name__}({sizes}, {self.activation}, "
            f"batch={self.batch_size}{noise})"
        )


class SoftmaxRegression(FullyConnected):
    """A classifier without hidden layers: weights and one bias."""

    def __init__(
        self, num_features, num_classes, dataset, batch_size, noise_stdev=0.0
    ):
        super().__init__(
            num_features,
            num_classes,
            dataset,
            batch_size,
            noise_stdev=noise_stdev,
        )


def _gather(rows, batch):
    """rows [K or 1, N, ...], batch [K, B] -> [K, B, ...]."""
    if rows.shape[0] == 1:
        return tf.gather(rows[0], batch)
    return tf.gather(rows, batch, batch_dims=1)
