"""Regressions on sums of embeddings, by lookup and by one-hot vectors."""

import dataclasses

import tensorflow as tf

from problems.classifiers import Classifier
from problems.specification import specified


@specified
class SparseSoftmaxRegression(Classifier):
    """Sums the embeddings of class ids, then classifies the sum linearly.

    Embeddings are looked up, so that their gradients are sparse: an id that
    does not occur in the batch gets the L2 term's only.

    Args:
        num_features: size of an embedding.
        num_classes: of the ids and of the labels.
        dataset, batch_size, noise_stdev: as in `Classifier`; the data are
            ids.
    """

    num_features: int
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    noise_stdev: float = 0.0

    @property
    def shapes(self):
        f, classes = self.num_features, self.num_classes
        return [(classes, f), (f, classes), (classes,)]

    def logits(self, params, data):
        embeddings, weights, bias = params
        hidden = self._embed(embeddings, tf.cast(data, "int32"))
        return tf.matmul(hidden, weights) + bias[:, None]

    def _embed(self, embeddings, ids):
        """Embeddings [K, classes, f] and ids [K or 1, rows, ids] -> sums."""
        ids = tf.broadcast_to(ids, (embeddings.shape[0], *ids.shape[1:]))
        return tf.reduce_sum(tf.gather(embeddings, ids, batch_dims=1), axis=2)


class OneHotSparseSoftmaxRegression(SparseSoftmaxRegression):
    """The same objective, with counts of the ids times the embeddings."""

    def _embed(self, embeddings, ids):
        one_hot = tf.one_hot(ids, self.num_classes, dtype=embeddings.dtype)
        return tf.matmul(tf.reduce_sum(one_hot, axis=2), embeddings)
