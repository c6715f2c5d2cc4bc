"""Classifiers, and the two without convolutions: linear and fully connected."""

import tensorflow as tf

from problems.data_problem import DataProblem
from problems.problem import fold

_WEIGHT_DECAY = 1e-3
_ACTIVATIONS = {"sigmoid": tf.sigmoid, "relu": tf.nn.relu, "tanh": tf.tanh}


class Classifier(DataProblem):
    """Mean cross entropy of `logits`, plus an L2 term.

    With two classes the cross entropy is the sigmoid one of the first logit,
    as in the release; with more, or on demand, it is that of the softmax. The
    L2 term is (1e-3 / T) * sum of squares over the T parameter tensors.

    Args:
        num_classes: at least 2.
        dataset: a `datasets.Dataset`.
        batch_size: examples in a minibatch.
        noise_stdev: standard deviation of the gradient noise.
        use_softmax: None means: with more than two classes.
        num_scored: rows that the objective without a batch looks at; None
            means all.
    """

    def __init__(
        self,
        num_classes,
        dataset,
        batch_size,
        noise_stdev=0.0,
        use_softmax=None,
        num_scored=None,
    ):
        super().__init__(dataset, batch_size, noise_stdev, num_scored)
        if use_softmax is None:
            use_softmax = num_classes > 2
        if num_classes < 2 or (num_classes > 2 and not use_softmax):
            raise ValueError(
                "A classifier has at least two classes, and more than two "
                "need `use_softmax`. "
                f"Received: num_classes={num_classes}, "
                f"use_softmax={use_softmax}"
            )
        self.num_classes = num_classes
        self.use_softmax = use_softmax

    def init(self, seed, instances):
        return [
            1.2
            / shape[0] ** 0.5
            * tf.random.stateless_normal((instances, *shape), fold(seed, i))
            for i, shape in enumerate(self.shapes)
        ]

    def loss(self, params, constants, batch=None):
        data, labels = self.rows(constants, batch)
        losses = self._cross_entropy(self.logits(params, data), labels)
        squares = [
            tf.reduce_sum(tf.square(p), axis=list(range(1, p.shape.rank)))
            for p in params
        ]
        decay = _WEIGHT_DECAY / len(params) * tf.add_n(squares)
        return tf.reduce_mean(losses, axis=-1) + decay

    def _cross_entropy(self, logits, labels):
        """Losses [K, rows] of labels [K or 1, rows]."""
        if self.use_softmax:
            wanted = tf.one_hot(labels, self.num_classes, dtype=logits.dtype)
            return -tf.reduce_sum(wanted * tf.nn.log_softmax(logits), axis=-1)
        first = logits[..., 0]
        labels = tf.cast(labels, first.dtype) + tf.zeros_like(first)
        return tf.nn.sigmoid_cross_entropy_with_logits(labels, first)

    def logits(self, params, data):
        """Logits [K, rows, classes] of data [K or 1, rows, features]."""
        raise NotImplementedError


class FullyConnected(Classifier):
    """A fully connected classifier.

    Args:
        num_features: input size.
        num_classes, dataset, batch_size, noise_stdev, use_softmax,
            num_scored: as in `Classifier`.
        hidden_sizes: sizes of the hidden layers.
        activation: "sigmoid", "relu" or "tanh".
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
        use_softmax=None,
        num_scored=None,
    ):
        super().__init__(
            num_classes,
            dataset,
            batch_size,
            noise_stdev,
            use_softmax,
            num_scored,
        )
        self.layer_sizes = (num_features, *hidden_sizes, num_classes)
        self.activation = activation
        self.activate = find_activation(activation)

    @property
    def shapes(self):
        shapes = []
        for fan_in, fan_out in zip(self.layer_sizes, self.layer_sizes[1:]):
            shapes += [(fan_in, fan_out), (fan_out,)]
        return shapes

    def logits(self, params, data):
        hidden = data
        for i in range(0, len(params), 2):
            if i:
                hidden = self.activate(hidden)
            hidden = tf.matmul(hidden, params[i]) + params[i + 1][:, None]
        return hidden

    def __repr__(self):
        sizes = "-".join(map(str, self.layer_sizes))
        noise = f", noise={self.noise_stdev:g}" if self.noise_stdev else ""
        return (
            f"{type(self).__name__}({sizes}, {self.activation}, "
            f"{self.dataset!r}, batch={self.batch_size}{noise})"
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


def find_activation(name):
    """The function of that name; an unknown name lists the known ones."""
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"Unknown activation {name!r}. "
            f"Known: {', '.join(sorted(_ACTIVATIONS))}"
        )
    return _ACTIVATIONS[name]
