"""A convolutional classifier with filters of its own for every instance."""

import dataclasses

import tensorflow as tf

from problems.classifiers import Classifier
from problems.problem import Problem
from problems.specification import specified

_START_STDEV = 0.01


@specified
class ConvNet(Classifier):
    """Convolutions (stride 1, same size, no biases), then a linear layer.

    Args:
        image_shape: (height, width, channels); rows of data are flat images.
        num_classes, dataset, batch_size, noise_stdev, use_softmax,
            num_scored: as in `Classifier`.
        filters: (height, width, channels out) for each convolution. Defaults
            to 8 of 3x3 and 8 of 5x5.
        activation: "sigmoid", "relu" or "tanh", after each convolution.
            Defaults to "relu".
    """

    image_shape: tuple
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    filters: tuple = ((3, 3, 8), (5, 5, 8))
    activation: str = "relu"
    noise_stdev: float = 0.0
    use_softmax: bool | None = None
    num_scored: int | None = None

    @property
    def shapes(self):
        height, width, channels = self.image_shape
        shapes = []
        for rows, columns, out in self.filters:
            shapes.append((rows, columns, channels, out))
            channels = out
        flat = height * width * channels
        return [*shapes, (flat, self.num_classes), (self.num_classes,)]

    def init(self, seed, instances):
        return [_START_STDEV * p for p in Problem.init(self, seed, instances)]

    def logits(self, params, data):
        *filters, weights, bias = params
        images = tf.reshape(data, (*data.shape[:2], *self.image_shape))
        for kernel in filters:
            images = self.activate(convolve(images, kernel))
        hidden = tf.reshape(images, (*images.shape[:2], -1))
        return tf.matmul(hidden, weights) + bias[:, None]


def convolve(images, kernel):
    """Same-size convolution, each instance with its own filters.

    As one product of all patches, cut out by slicing: its derivatives of any
    order are again slices and products.

    Args:
        images: [K or 1, rows, height, width, channels].
        kernel: [K, filter height, filter width, channels, channels out].
    """
    height, width = images.shape[2:4]
    rows, columns, channels, out = kernel.shape[1:]
    padding = [((n - 1) // 2, n // 2) for n in (rows, columns)]
    padded = tf.pad(images, [(0, 0), (0, 0), *padding, (0, 0)])
    patches = [
        padded[:, :, i : i + height, j : j + width]
        for i in range(rows)
        for j in range(columns)
    ]
    patches = tf.concat(patches, axis=-1)
    flat = tf.reshape(patches, (images.shape[0], -1, rows * columns * channels))
    product = tf.matmul(flat, tf.reshape(kernel, (kernel.shape[0], -1, out)))
    return tf.reshape(product, (kernel.shape[0], -1, height, width, out))


def halved(images):
    """Means over 2x2 pixels of images [K, rows, height, width, channels]."""
    *outer, height, width, channels = images.shape
    shape = (*outer, height // 2, 2, width // 2, 2, channels)
    return tf.reduce_mean(tf.reshape(images, shape), axis=(3, 5))
