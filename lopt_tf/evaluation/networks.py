"""Networks that no optimizer was meta-trained on, as problems by name.

The paper's test problems, on MNIST where it is prepared and on scikit-learn's
digits always; the same wider and deeper, with other batch sizes, with batch
normalisation; a residual net; a recurrent net and a transformer that predict
the next character of Python source.
"""

import difflib
import functools

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf
from keras import layers

from lopt_tf.evaluation import text
from problems import corpus, datasets
from problems.classifiers import FullyConnected
from problems.convnet import ConvNet
from problems.keras_model import KerasModelProblem
from problems.residual import ResidualNet

_BATCH = 64
_LENGTH = 32
_TEXT_BATCH = 16
_FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class KerasNetwork(KerasModelProblem):
    """A Keras model as a problem, differentiated one run after the other.

    So the runs need the memory of one, and its backward pass is compiled
    once, whatever the number of runs.
    """

    def value_and_gradients(self, params, constants, batch=None):
        if batch is None:
            return super().value_and_gradients(params, constants)

        def one(arguments):
            tensors, rows = arguments
            single = [tensor[None] for tensor in tensors]
            loss, gradients = KerasModelProblem.value_and_gradients(
                self, single, constants, rows[None]
            )
            return loss[0], [gradient[0] for gradient in gradients]

        signature = (tf.float32, [tf.float32] * len(params))
        return tf.map_fn(
            one, (list(params), batch), fn_output_signature=signature
        )


@functools.cache
def _digits():
    """1,797 images of 8x8 pixels in 0..1 and their labels."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return (images / 16).astype("float32"), labels.astype("int32")


def _digits_rows(num_features, num_examples, random_seed=None):
    """The digits, as `datasets.Dataset` draws data."""
    del num_features, num_examples, random_seed
    return _digits()


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
    images, labels = _digits()
    images = images.reshape(-1, 8, 8, 1)
    return KerasNetwork(build, images, labels, _FROM_LOGITS, _BATCH)


def _keras_text(build):
    inputs, following = text.windows(_LENGTH)
    return KerasNetwork(build, inputs, following, _FROM_LOGITS, _TEXT_BATCH)


def _batch_norm_mlp():
    """Two hidden layers of 32, each with batch normalisation."""
    stack = [layers.Input((8, 8, 1)), layers.Flatten()]
    for _ in range(2):
        stack.append(layers.Dense(32, use_bias=False))
        stack.append(layers.BatchNormalization())
        stack.append(layers.Activation("relu"))
    return keras.Sequential([*stack, layers.Dense(10)], name="batch_norm_mlp")


def _batch_norm_convnet():
    """Two convolutions, each with batch normalisation."""
    stack = [layers.Input((8, 8, 1))]
    for filters, strides in ((8, 1), (16, 2)):
        stack.append(
            layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)
        )
        stack.append(layers.BatchNormalization())
        stack.append(layers.Activation("relu"))
    stack += [layers.Flatten(), layers.Dense(10)]
    return keras.Sequential(stack, name="batch_norm_convnet")


def _recurrent_net():
    """A GRU with 32 units over characters."""
    size = len(text.VOCABULARY)
    return keras.Sequential(
        [
            layers.Input((_LENGTH,)),
            layers.Embedding(size, 16),
            layers.GRU(32, return_sequences=True),
            layers.Dense(size),
        ],
        name="recurrent_net",
    )


class _Positions(layers.Layer):
    """Adds a learned vector for each place of the sequence."""

    def build(self, shape):
        self.vectors = self.add_weight(
            shape=shape[1:], initializer="normal", name="positions"
        )

    def call(self, inputs):
        return inputs + self.vectors


def _transformer():
    """One causal attention block with 2 heads and 32 features."""
    size = len(text.VOCABULARY)
    inputs = layers.Input((_LENGTH,))
    values = layers.Embedding(size, 32)(inputs)
    values = _Positions()(values)
    normed = layers.LayerNormalization()(values)
    attended = layers.MultiHeadAttention(2, 16)(
        normed, normed, use_causal_mask=True
    )
    values = layers.Add()([values, attended])
    normed = layers.LayerNormalization()(values)
    hidden = layers.Dense(64, activation="relu")(normed)
    values = layers.Add()([values, layers.Dense(32)(hidden)])
    outputs = layers.Dense(size)(layers.LayerNormalization()(values))
    return keras.Model(inputs, outputs, name="transformer")


# Each set: functions that make its problems, the one of quick presets first.
_SETS = {
    "fully_connected": [
        lambda: _fully_connected((64,), "relu"),
        lambda: _fully_connected((64,), "sigmoid"),
    ],
    "convolutional": [lambda: _convnet("relu"), lambda: _convnet("sigmoid")],
    "wider": [
        lambda: _fully_connected((256,)),
        lambda: _fully_connected((512,)),
    ],
    "deeper": [
        lambda: _fully_connected((32,) * 4),
        lambda: _fully_connected((32,) * 8),
    ],
    "batch_size": [
        lambda: _fully_connected((64,), batch=8),
        lambda: _fully_connected((64,), batch=512),
    ],
    "batch_norm": [
        lambda: _keras_digits(_batch_norm_mlp),
        lambda: _keras_digits(_batch_norm_convnet),
    ],
    "residual": [lambda: ResidualNet((8, 8, 1), 10, _digits_dataset(), _BATCH)],
    "recurrent": [lambda: _keras_text(_recurrent_net)],
    "transformer": [lambda: _keras_text(_transformer)],
}
_PAPERS = ("mlp_test",)
_MNIST = ("mnist_fully_connected", "mnist_convnet")


def sets(data_dir=None):
    """Names of the sets whose data are there: MNIST's only if prepared.

    Args:
        data_dir: where TensorFlow Datasets are prepared; None means its
            default folder.
    """
    present = _MNIST if _has_mnist(data_dir) else ()
    return [*present, *_SETS, *_PAPERS]


def _has_mnist(data_dir):
    import tensorflow_datasets as tfds

    return tfds.builder("mnist", data_dir=data_dir).is_prepared()


def select(names, data_dir=None):
    """Problems by name: {name: problem}, in the given order.

    Args:
        names: sets of networks ("recurrent"), single ones ("wider.1"), or
            whatever `problems.corpus.select` knows.
        data_dir: where TensorFlow Datasets are prepared.

    Raises:
        ValueError: for an unknown name.
    """
    chosen = {}
    for name in names:
        set_name, _, index = name.partition(".")
        if set_name not in _SETS:
            _check_known(set_name)
            chosen.update(corpus.select([name], data_dir))
            continue
        makers = _SETS[set_name]
        if index and not (index.isdigit() and int(index) < len(makers)):
            raise ValueError(
                f"Unknown problem {name!r}: {set_name} holds "
                f"{set_name}.0 to {set_name}.{len(makers) - 1}."
            )
        wanted = [int(index)] if index else range(len(makers))
        chosen.update({f"{set_name}.{i}": makers[i]() for i in wanted})
    if not chosen:
        raise ValueError(f"No problem was named. Networks: {_listed()}.")
    return chosen


def _check_known(name):
    of_corpus = ("default", *corpus.set_names(), *corpus.test_sets())
    if name in of_corpus:
        return
    close = difflib.get_close_matches(name, [*_SETS, *of_corpus], 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown problem set {name!r}.{hint} Networks: {_listed()}. "
        f"Known sets of the corpus: {', '.join(of_corpus)}."
    )


def _listed():
    return ", ".join(_SETS)


def num_parameters(problem):
    """Elements of a problem's parameters."""
    return int(sum(np.prod(shape) for shape in problem.shapes))
