"""Test settings: TensorFlow's threads, chosen before it starts; memory."""

import ctypes
import gc
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Exact comparisons of resumed with undisturbed runs need one thread.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# For the processes that pytest starts: what is freed can go back.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

import tensorflow as tf  # noqa: E402

# Two devices, for MirroredStrategy.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(autouse=True, scope="module")
def free_memory():
    """Gives memory back after each file: four processes share the machine."""
    yield
    tf.keras.backend.clear_session()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
