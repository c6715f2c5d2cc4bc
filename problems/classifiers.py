"""Classifiers, and the two without convolutions: linear and fully connected."""

import dataclasses

import tensorflow as tf

from problems.data_problem import DataProblem
from problems.specification import specified

_WEIGHT_DECAY = 1e-3
_ACTIVATIONS = {"sigmoid": tf.sigmoid, "relu": tf.nn.relu, "tanh": tf.tanh}


class Classifier(DataProblem):
    """Mean cross entropy of `logits`, plus an L2 term.

    With two classes the cross entropy is the sigmoid one of the first logit,
    as in the release; with more, or on demand, it is that of the softmax. The
    L2 term is (1e-3 / T) * sum of squares over the T parameter tensors.

    Args:
        num_classes: at least 2.
        dataset, batch_size, noise_stdev, num_scored: as in `DataProblem`.
        use_softmax: whether the cross entropy is that of the softmax. Defaults
            to `None`: with more than two classes.
    """

    use_softmax = None
    activation = None

    def __post_init__(self):
        super().__post_init__()
        if self.activation not in (None, *_ACTIVATIONS):
            raise ValueError(
                f"Unknown activation {self.activation!r}. "
                f"Known: {', '.join(sorted(_ACTIVATIONS))}"
            )
        use_softmax = self.use_softmax
        if use_softmax is None:
            use_softmax = self.num_classes > 2
            object.__setattr__(self, "use_softmax", use_softmax)
        if self.num_classes < 2 or (self.num_classes > 2 and not use_softmax):
            raise ValueError(
                "A classifier has at least two classes, and more than two "
                "need `use_softmax`. "
                f"Received: num_classes={self.num_classes}, "
                f"use_softmax={use_softmax}"
            )

    def constants(self, seed, instances):
        found = super().constants(seed, instances)
        labels = found["labels"].numpy()
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"Labels must be 0 to {self.num_classes - 1}, for "
                f"num_classes={self.num_classes}. The data set has "
                f"{labels.min()} to {labels.max()}."
            )
        return found

    def init(self, seed, instances):
        normal = super().init(seed, instances)
        return [1.2 / p.shape[1] ** 0.5 * p for p in normal]

    def loss(self, params, constants, batch=None):
        data, labels = self.rows(constants, batch)
        losses = self._cross_entropy(self.logits(params, data), labels)
        axes = list(range(1, losses.shape.rank))
        return tf.reduce_mean(losses, axis=axes) + self.decay(params)

    def decay(self, params):
        """The L2 term, [K]."""
        squares = [
            tf.reduce_sum(tf.square(p), axis=list(range(1, p.shape.rank)))
            for p in params
        ]
        return _WEIGHT_DECAY / len(params) * tf.add_n(squares)

    def _cross_entropy(self, logits, labels):
        """Losses [K, rows, ...] of labels [K or 1, rows, ...]."""
        if self.use_softmax:
            wanted = tf.one_hot(labels, self.num_classes, dtype=logits.dtype)
            return -tf.reduce_sum(wanted * tf.nn.log_softmax(logits), axis=-1)
        first = logits[..., 0]
        labels = tf.cast(labels, first.dtype) + tf.zeros_like(first)
        return tf.nn.sigmoid_cross_entropy_with_logits(labels, first)

    def logits(self, params, data):
        """Logits [K, rows, classes] of data [K or 1, rows, features]."""
        raise NotImplementedError

    def activate(self, values):
        """The function named `activation` of values."""
        return _ACTIVATIONS[self.activation](values)


class _Layers(Classifier):
    """Base of stacks of fully connected layers: weights and biases."""

    hidden_sizes = ()
    activation = "sigmoid"

    @property
    def layer_sizes(self):
        return (self.num_features, *self.hidden_sizes, self.num_classes)

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


@specified
class FullyConnected(_Layers):
    """A fully connected classifier.

    Args:
        num_features: input size.
        num_classes, dataset, batch_size, noise_stdev, use_softmax,
            num_scored: as in `Classifier`.
        hidden_sizes: sizes of the hidden layers. Defaults to none.
        activation: "sigmoid", "relu" or "tanh". Defaults to "sigmoid".
    """

    num_features: int
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    hidden_sizes: tuple = ()
    activation: str = "sigmoid"
    noise_stdev: float = 0.0
    use_softmax: bool | None = None
    num_scored: int | None = None


@specified
class SoftmaxRegression(_Layers):
    """A classifier without hidden layers: weights and one bias.

    Args:
        num_features: input size.
        num_classes, dataset, batch_size, noise_stdev: as in `Classifier`.
    """

    num_features: int
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    noise_stdev: float = 0.0
