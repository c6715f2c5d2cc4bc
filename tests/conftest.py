"""Test settings: TensorFlow's threads, chosen before it starts."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Exact comparisons of resumed with undisturbed runs need one thread.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tensorflow as tf  # noqa: E402

# Two devices, for MirroredStrategy.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
