"""Trains a small model with one Keras backend, and prints what was seen.

Run as a program, one process per backend: KERAS_BACKEND=jax python
backend_run.py WEIGHTS.npz
"""

import json
import sys

import keras
import numpy as np

import lopt_tf
from lopt_tf.optimizers import registry

STEPS = 100


def losses(path):
    """Losses of 100 steps: everything but the backend is given.

    Args:
        path: trained weights; None for the default ones.
    """
    rng = np.random.default_rng(0)
    data = rng.normal(size=(STEPS * 8, 6)).astype("float32")
    labels = (data[:, 0] * data[:, 1] > 0).astype("int32")
    model = keras.Sequential(
        [
            keras.layers.Input((6,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    model.set_weights(
        [rng.normal(size=w.shape) * 0.5 for w in model.get_weights()]
    )
    model.compile(
        optimizer=_optimizer(path),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    found = []

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append(float(logs["loss"]))

    model.fit(
        data,
        labels,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[Recorder()],
    )
    return found


def losses_of_all_kinds():
    """The loss after a few steps with each learned optimizer, untrained."""
    found = []
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    for name in sorted(registry.OPTIMIZERS):
        net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        net.set_weights([0.5 * np.ones_like(w) for w in net.get_weights()])
        net.compile(registry.OPTIMIZERS[name](seed=1), "mse")
        net.fit(x, x[:, :1], batch_size=8, shuffle=False, verbose=0)
        found.append(float(net.evaluate(x, x[:, :1], verbose=0)))
    return found


def error_of_a_failed_step():
    """The message of an error that the first step of fit raises."""

    def learning_rate():
        raise ValueError("of the user's own schedule")

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    optimizer = _optimizer(None, learning_rate=learning_rate)
    model.compile(optimizer=optimizer, loss="mse")
    try:
        model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)
    except Exception as error:
        return str(error)


def fit_a_frozen_model():
    """As with any optimizer, nothing happens."""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.trainable = False
    model.compile(optimizer=_optimizer(None), loss="mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)


def _optimizer(path, **settings):
    return lopt_tf.HierarchicalRNN.from_pretrained(path, seed=5, **settings)


def main(path):
    fit_a_frozen_model()
    found = [losses(path), losses(None), losses_of_all_kinds()]
    found.append(error_of_a_failed_step())
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
