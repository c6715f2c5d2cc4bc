"""A small residual network on images, with filters for every instance."""

import dataclasses
import math

import tensorflow as tf

from problems.classifiers import Classifier
from problems.convnet import convolve, halved
from problems.problem import Problem
from problems.specification import specified


@specified
class ResidualNet(Classifier):
    """A convolution, halved resolution, residual blocks, a linear layer.

    A block adds to its input two 3x3 convolutions of it, each after a relu.
    The mean over all places goes to the linear layer. Filters start from
    N(0, 2 / fan in), the linear layer and the biases as in `Classifier`.

    Args:
        image_shape: (height, width, channels), height and width even; rows of
            data are flat images.
        num_classes, dataset, batch_size, noise_stdev, num_scored: as in
            `Classifier`.
        channels: of every convolution. Defaults to 8.
        blocks: how many residual blocks. Defaults to 2.
    """

    image_shape: tuple
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    channels: int = 8
    blocks: int = 2
    noise_stdev: float = 0.0
    num_scored: int | None = None

    use_softmax = True

    @property
    def shapes(self):
        size = self.channels
        first = (3, 3, self.image_shape[2], size)
        filters = [first] + [(3, 3, size, size)] * (2 * self.blocks)
        return [*filters, (size, self.num_classes), (self.num_classes,)]

    def init(self, seed, instances):
        *filters, _, _ = Problem.init(self, seed, instances)
        scaled = [(2 / math.prod(p.shape[1:4])) ** 0.5 * p for p in filters]
        return [*scaled, *super().init(seed, instances)[-2:]]

    def logits(self, params, data):
        *filters, weights, bias = params
        images = tf.reshape(data, (*data.shape[:2], *self.image_shape))
        values = halved(convolve(images, filters[0]))
        for first, second in zip(filters[1::2], filters[2::2]):
            branch = convolve(tf.nn.relu(values), first)
            values = values + convolve(tf.nn.relu(branch), second)
        hidden = tf.reduce_mean(tf.nn.relu(values), axis=(2, 3))
        return tf.matmul(hidden, weights) + bias[:, None]
