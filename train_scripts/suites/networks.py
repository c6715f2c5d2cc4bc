"""The networks whose train steps the suites measure."""

from typing import NamedTuple

import keras
import numpy as np

import lopt_tf
from lopt_tf.evaluation import keras_training


class Network(NamedTuple):
    """A network with random data.

    Attributes:
        build: makes the Keras model.
        input_shape: of one example.
        classes: labels are below.
        batch: examples in a minibatch.
        has_softmax: whether the model ends with it.
    """

    build: object
    input_shape: tuple
    classes: int
    batch: int
    has_softmax: bool = True

    def compiled(self, optimizer):
        """The model, compiled with an optimizer."""
        model = self.build()
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=not self.has_softmax
        )
        model.compile(optimizer=optimizer, loss=loss)
        return model

    def data(self):
        """One minibatch: (images, labels)."""
        rng = np.random.default_rng(0)
        images = rng.random((self.batch, *self.input_shape), "float32")
        return images, rng.integers(self.classes, size=self.batch)


def _fully_connected():
    return keras_training.fully_connected((784,), (256, 128), 10)


def _mobilenet():
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=10
    )


def _resnet():
    return keras.applications.ResNet50V2(weights=None, input_shape=(96, 96, 3))


def _inception():
    return keras.applications.InceptionV3(weights=None, input_shape=(96, 96, 3))


NETWORKS = {
    **{
        f"mlp_235146/batch={batch}": Network(
            _fully_connected, (784,), 10, batch, has_softmax=False
        )
        for batch in (8, 32, 128, 512)
    },
    "mobilenet_v2": Network(_mobilenet, (32, 32, 3), 10, 16),
    "resnet50_v2": Network(_resnet, (96, 96, 3), 1000, 8),
}
# Of the images suite.
IMAGE_NETWORKS = {
    f"{name}/batch={batch}": Network(build, (96, 96, 3), 1000, batch)
    for name, build in (("resnet50_v2", _resnet), ("inception_v3", _inception))
    for batch in (8, 32)
}
OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "hierarchical_rnn": lopt_tf.HierarchicalRNN.from_pretrained,
}


def find(name):
    """The network of that name."""
    return {**NETWORKS, **IMAGE_NETWORKS}[name]
