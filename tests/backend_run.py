"""Trains a small model with one Keras backend, twice, and prints its losses.

Run as a program, one process per backend: KERAS_BACKEND=jax python
backend_run.py WEIGHTS.npz
"""

import json
import sys

import keras
import numpy as np

import lopt_tf

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
        optimizer=lopt_tf.HierarchicalRNN.from_pretrained(path, seed=5),
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


if __name__ == "__main__":
    print(json.dumps([losses(sys.argv[1]), losses(None)]))
