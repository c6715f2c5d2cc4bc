"""Keras networks on scikit-learn's digits, through compile and fit."""

import dataclasses

import keras
import numpy as np
import sklearn.datasets
import sklearn.model_selection

from lopt_tf.evaluation import curves

BASELINES = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
}
BATCH_SIZE = 32
_REPORTED_EPOCHS = (1, 3, 10)


@dataclasses.dataclass
class Digits:
    """1,797 images of 8x8 pixels in 0..1, split 3:1; whole batches only."""

    train: tuple
    test: tuple

    @property
    def steps_per_epoch(self):
        """Minibatches in an epoch."""
        return len(self.train[0]) // BATCH_SIZE

    @classmethod
    def load(cls):
        """Loads the images that come with scikit-learn."""
        images, labels = sklearn.datasets.load_digits(return_X_y=True)
        images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
        train, test, train_labels, test_labels = (
            sklearn.model_selection.train_test_split(
                images, labels, test_size=0.25, random_state=0, stratify=labels
            )
        )
        kept = len(train) // BATCH_SIZE * BATCH_SIZE
        return cls((train[:kept], train_labels[:kept]), (test, test_labels))


def mlp():
    """A fully connected net with one hidden layer of 64, 4,810 parameters."""
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def convnet():
    """Two convolutions and a linear layer, 9,930 parameters."""
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(
                32, 3, strides=2, padding="same", activation="relu"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


NETWORKS = {"digits_mlp": mlp, "digits_convnet": convnet}


def train(network, optimizer_name, optimizer, data, seed, epochs):
    """One run through `compile` and `fit`: a `Curve` of minibatch losses.

    Args:
        network: a key of `NETWORKS`.
        optimizer_name: what to call the optimizer.
        optimizer: a function without arguments that makes it.
        data: `Digits`.
        seed: of initial weights and data order.
        epochs: number of epochs.
    """
    keras.utils.set_random_seed(seed)
    model = NETWORKS[network]()
    made = optimizer()
    model.compile(
        optimizer=made,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    recorder = _Recorder(data.test)
    rate = float(keras.ops.convert_to_numpy(made.learning_rate))
    model.fit(
        *data.train,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[recorder],
    )
    return curves.Curve(
        network,
        optimizer_name,
        rate,
        seed,
        np.array(recorder.losses),
        recorder.metrics,
    )


class _Recorder(keras.callbacks.Callback):
    """Each minibatch's loss, and test results after 1, 3 and 10 epochs."""

    def __init__(self, test):
        super().__init__()
        self.test = test
        self.losses = []
        self.metrics = {}
        self._sum = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._sum = 0.0

    def on_train_batch_end(self, batch, logs=None):
        # Keras reports the mean since the epoch began.
        total = logs["loss"] * (batch + 1)
        self.losses.append(total - self._sum)
        self._sum = total

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 not in _REPORTED_EPOCHS:
            return
        loss, accuracy = self.model.evaluate(
            *self.test, batch_size=512, verbose=0
        )
        self.metrics[f"test_loss_{epoch + 1}"] = loss
        self.metrics[f"accuracy_{epoch + 1}"] = accuracy
