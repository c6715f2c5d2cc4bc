"""Keras networks on scikit-learn's digits, through compile and fit."""

import dataclasses

import keras
import numpy as np
import sklearn.datasets
import sklearn.model_selection

from lopt_tf.evaluation import curves, tuning

BASELINES = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
}
BATCH_SIZE = 32
_REPORTED_EPOCHS = (1, 3, 10)
# Seeds of the tuning begin here: the comparison uses 0, 1, 2 ...
_TUNING_SEED = 1000


@dataclasses.dataclass
class Digits:
    """1,797 images of 8x8 pixels in 0..1, split 3:1; whole batches only."""

    train: tuple
    test: tuple

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


def compare(learned, seeds, epochs, tuning_seeds=1, report=None):
    """Learned optimizers and tuned baselines on every network.

    Args:
        learned: {label: function that makes the optimizer}.
        seeds: number of runs of each.
        epochs: number of epochs.
        tuning_seeds: runs for each learning rate of a baseline's grid.
        report: a function of one line of text.

    Returns:
        (curves of the comparison, rows about the tuning).
    """
    data = Digits.load()
    results, tuned = [], []
    for network in NETWORKS:
        makers = dict(learned)
        for name, optimizer_class in BASELINES.items():
            if report:
                report(f"{network}: tuning {name}")
            rate, at_edge = _tune(
                network, name, optimizer_class, data, tuning_seeds, epochs
            )
            makers[name] = lambda c=optimizer_class, r=rate: c(r)
            tuned.append(
                {
                    "problem": network,
                    "optimizer": name,
                    "learning_rate": rate,
                    "at_edge": at_edge,
                }
            )
        for name, maker in makers.items():
            if report:
                report(f"{network}: {seeds} runs of {name}")
            results += [
                train(network, name, maker, data, seed, epochs)
                for seed in range(seeds)
            ]
    return results, tuned


def _tune(network, name, optimizer_class, data, seeds, epochs):
    runs = [
        train(
            network,
            name,
            lambda rate=rate: optimizer_class(rate),
            data,
            _TUNING_SEED + seed,
            epochs,
        )
        for rate in tuning.LEARNING_RATES
        for seed in range(seeds)
    ]
    return tuning.best_learning_rate(runs)


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
