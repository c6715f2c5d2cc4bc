"""Networks that no optimizer was meta-trained on, as problems by name.

The paper's test problems on scikit-learn's digits (`corpus` joins those on
MNIST, where it is prepared); the same wider and deeper, with other batch sizes,
with batch normalisation; a residual net; a recurrent net and a transformer that
predict the next character of Python source, the latter also from a small start;
wide nets from Keras' own start; a regression, also with its weights stored
smaller.
"""

import functools

import keras
import numpy as np
import sklearn.datasets
from keras import layers
from sklearn import model_selection

from problems import datasets, text
from problems.classifiers import FullyConnected
from problems.convnet import ConvNet
from problems.keras_model import KerasNetwork
from problems.residual import ResidualNet
from problems.wrappers import Rescale

_BATCH = 64
_LENGTH = 32
_TEXT_BATCH = 16
# The objective without a batch looks at so many pieces of text.
_SCORED_TEXTS = 256
_FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def digits():
    """1,797 images of 8x8 pixels in 0..1 and their labels."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return (images / 16).astype("float32"), labels.astype("int32")


def split_digits():
    """The digits, split 3:1 into training and test data.

    Returns:
        (images [n, 8, 8, 1] in 0..1, labels [n]) of each.
    """
    images, labels = digits()
    train, test, train_labels, test_labels = model_selection.train_test_split(
        images.reshape(-1, 8, 8, 1),
        labels,
        test_size=0.25,
        random_state=0,
        stratify=labels,
    )
    return (train, train_labels), (test, test_labels)


def _digits_rows(num_features, num_examples, random_seed=None):
    """The digits, as `datasets.Dataset` draws data."""
    del num_features, num_examples, random_seed
    return digits()


def _digits_dataset():
    # Any seed: the runs share one data set.
    return datasets.Dataset(_digits_rows, 64, 1797, random_seed=0)


def _fully_connected(hidden, activation="relu", batch=_BATCH):
    return FullyConnected(64, 10, _digits_dataset(), batch, hidden, activation)


def _convnet(activation):
    return ConvNet(
        (8, 8, 1), 10, _digits_dataset(), _BATCH, activation=activation
    )


def _keras_digits(build):
    images, labels = digits()
    images = images.reshape(-1, 8, 8, 1)
    return KerasNetwork(build, images, labels, _FROM_LOGITS, _BATCH)


def _keras_text(build):
    inputs, following = text.windows(_LENGTH)
    data = (inputs, following, _FROM_LOGITS, _TEXT_BATCH)
    return KerasNetwork(build, *data, num_scored=_SCORED_TEXTS)


def _wide_net(width):
    """Two hidden layers of relu; weights as Glorot and Bengio draw them."""
    stack = [layers.Input((8, 8, 1)), layers.Flatten()]
    stack += [layers.Dense(width, activation="relu") for _ in range(2)]
    return keras.Sequential([*stack, layers.Dense(10)], name="wide_net")


def _normed_relu():
    return [layers.BatchNormalization(), layers.Activation("relu")]


def _batch_norm_mlp():
    """Two hidden layers of 32, each with batch normalisation."""
    stack = [layers.Input((8, 8, 1)), layers.Flatten()]
    for _ in range(2):
        stack += [layers.Dense(32, use_bias=False), *_normed_relu()]
    return keras.Sequential([*stack, layers.Dense(10)], name="batch_norm_mlp")


def _batch_norm_convnet():
    """Two convolutions, each with batch normalisation."""
    stack = [layers.Input((8, 8, 1))]
    for filters, strides in ((8, 1), (16, 2)):
        stack += [
            layers.Conv2D(filters, 3, strides, padding="same", use_bias=False),
            *_normed_relu(),
        ]
    stack += [layers.Flatten(), layers.Dense(10)]
    return keras.Sequential(stack, name="batch_norm_convnet")


def _recurrent_net():
    """A GRU with 32 units over characters."""
    size = len(text.VOCABULARY)
    stack = [layers.Input((_LENGTH,)), layers.Embedding(size, 16)]
    stack += [layers.GRU(32, return_sequences=True), layers.Dense(size)]
    return keras.Sequential(stack, name="recurrent_net")


class _Positions(layers.Layer):
    """Adds a learned vector for each place of the sequence."""

    # Not an argument: Keras would list it among the model's settings, and
    # these tell problems apart.
    initializer = "normal"

    def build(self, shape):
        self.vectors = self.add_weight(
            shape=shape[1:], initializer=self.initializer, name="positions"
        )

    def call(self, inputs):
        return inputs + self.vectors


def _transformer(start=lambda usual: usual):
    """One causal attention block with 2 heads and 32 features.

    Args:
        start: function of the usual initializer of a kernel or embedding that
            returns the one to take. Defaults to the usual one.
    """

    def kernel():
        return {"kernel_initializer": start("glorot_uniform")}

    size = len(text.VOCABULARY)
    inputs = layers.Input((_LENGTH,))
    values = layers.Embedding(size, 32, start("uniform"))(inputs)
    positions = _Positions()
    positions.initializer = start(positions.initializer)
    values = positions(values)
    normed = layers.LayerNormalization()(values)
    attended = layers.MultiHeadAttention(2, 16, **kernel())(
        normed, normed, use_causal_mask=True
    )
    values = layers.Add()([values, attended])
    normed = layers.LayerNormalization()(values)
    hidden = layers.Dense(64, activation="relu", **kernel())(normed)
    values = layers.Add()([values, layers.Dense(32, **kernel())(hidden)])
    normed = layers.LayerNormalization()(values)
    outputs = layers.Dense(size, **kernel())(normed)
    return keras.Model(inputs, outputs, name="transformer")


def _transformer_small_init():
    """The transformer, kernels and embeddings with a deviation of 0.02."""
    # A new initializer for each: one draws the same numbers every time.
    return _transformer(lambda _: keras.initializers.RandomNormal(0.0, 0.02))


@functools.cache
def _taught():
    """2,000 normal inputs of 10 features, and what a noisy teacher answers.

    The teacher has the student's shape, biases of 0 and normal weights with
    standard deviations of sqrt(2 / fan in). Its answers are standardised; the
    noise has a standard deviation of 0.1.
    """
    rng = np.random.default_rng(0)
    inputs = values = rng.standard_normal((2000, 10))
    for size in (32, 32, 1):
        spread = (2 / values.shape[1]) ** 0.5
        values = values @ rng.normal(0, spread, (values.shape[1], size))
        values = np.tanh(values) if size > 1 else values
    values = (values - values.mean()) / values.std()
    answers = values + rng.normal(0, 0.1, values.shape)
    return inputs.astype("float32"), answers.astype("float32")


def _regression_net():
    """Two hidden layers of 32, tanh."""
    stack = [layers.Dense(32, activation="tanh") for _ in range(2)]
    return keras.Sequential([layers.Input((10,)), *stack, layers.Dense(1)])


def _regression():
    return KerasNetwork(_regression_net, *_taught(), "mse", _BATCH)


# {set name: function that makes its problems, the quick presets' one first}.
SETS = {
    "fully_connected": lambda: [
        _fully_connected((64,), name) for name in ("relu", "sigmoid")
    ],
    "convolutional": lambda: [_convnet("relu"), _convnet("sigmoid")],
    "wider": lambda: [_fully_connected((256,)), _fully_connected((512,))],
    "deeper": lambda: [_fully_connected((32,) * n) for n in (4, 8)],
    "batch_size": lambda: [_fully_connected((64,), batch=n) for n in (8, 512)],
    "batch_norm": lambda: [
        _keras_digits(build) for build in (_batch_norm_mlp, _batch_norm_convnet)
    ],
    "residual": lambda: [ResidualNet((8, 8, 1), 10, _digits_dataset(), _BATCH)],
    "recurrent": lambda: [_keras_text(_recurrent_net)],
    "transformer": lambda: [_keras_text(_transformer)],
    "transformer_small_init": lambda: [_keras_text(_transformer_small_init)],
    "wide": lambda: [
        _keras_digits(functools.partial(_wide_net, width))
        for width in (128, 512, 1024)
    ],
    # The same function of weights that are stored 10 times smaller.
    "regression_stored_smaller": lambda: [
        _regression(),
        Rescale(_regression(), 0.1),
    ],
}
