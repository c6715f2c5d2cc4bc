"""Trains a classifier on one device and on several: how they differ.

Run as a program, in a process of its own: python replicas_run.py COUNT
OPTIMIZER ... prints differences as JSON. TensorFlow allows one number of
replicas in a process.
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
            # A bias would have no gradient but rounding errors.
            layers.Conv2D(4, 3, 2, use_bias=False),
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


def differences(count, optimizer):
    """How far a training on `count` logical CPUs is from that on one.

    Returns:
        {"weights", "loss": the largest difference, "moved": by how much the
        loss fell}.
    """
    expected, rows = weights(None, optimizer=optimizer)
    names = [f"CPU:{number}" for number in range(count)]
    strategy = tf.distribute.MirroredStrategy(names)
    ours, own = weights(strategy, optimizer=optimizer)
    return {
        "weights": max(
            float(np.max(np.abs(a - b))) for a, b in zip(ours, expected)
        ),
        "loss": max(abs(a["loss"] - b["loss"]) for a, b in zip(own, rows)),
        "moved": float(rows[0]["loss"] - rows[-1]["loss"]),
    }


def main(count, *optimizers):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * int(count)
    )
    models.build = small_net
    found = {name: differences(int(count), name) for name in optimizers}
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
