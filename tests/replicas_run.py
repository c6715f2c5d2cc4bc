"""Trains one classifier on 1, 2 and 4 devices, and prints how they differ.

Run as a program, in a process of its own: it has four logical CPUs.
"""

import json
import pathlib
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from lopt_tf.evaluation import image_settings, image_training
from lopt_tf.images import models

STEPS = 20


def small_net(name, size, classes):
    """A convolutional net with batch normalization over all replicas.

    Its start is the same on every backend.
    """
    is_shared = keras.backend.backend() == "tensorflow"
    model = keras.Sequential(
        [
            layers.Input((size, size, 3)),
            layers.Conv2D(4, 3, 2),
            layers.BatchNormalization(synchronized=is_shared),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense(classes),
        ]
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(0.2 * rng.normal(size=layer.kernel.shape))
    return model


def weights(strategy, **settings):
    """(the network's weights, rows) after a training."""
    settings = image_settings.Settings(
        batch_size=16, steps=STEPS, augmentation="shift", **settings
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = image_training.train(settings, folder, strategy=strategy)
        model = keras.saving.load_model(pathlib.Path(folder) / "model.keras")
        return model.get_weights(), rows


def mirrored(count):
    names = [f"CPU:{number}" for number in range(count)]
    return tf.distribute.MirroredStrategy(names)


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 4
    )
    models.build = small_net
    found = {}
    for name in ("hierarchical_rnn_scaled", "adam"):
        expected, rows = weights(None, optimizer=name)
        for count in (2, 4):
            ours, own = weights(mirrored(count), optimizer=name)
            found[f"{name}/{count}"] = {
                "weights": max(
                    float(np.max(np.abs(a - b))) for a, b in zip(ours, expected)
                ),
                "moved": float(rows[0]["loss"] - rows[-1]["loss"]),
                "loss": max(
                    abs(a["loss"] - b["loss"]) for a, b in zip(own, rows)
                ),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
