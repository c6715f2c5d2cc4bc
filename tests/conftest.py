"""Test settings: TensorFlow's threads, chosen before it starts; memory."""

import ctypes
import gc
import os
import signal

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Exact comparisons of resumed with undisturbed runs need one thread.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Tests compile much and run little: code that is not optimized (by LLVM; XLA's
# own passes run) saves a third of their time. `XLA_FLAGS= pytest ...` tests as
# users compile.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# For the processes that pytest starts: what is freed can go back.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

import tensorflow as tf  # noqa: E402

import lopt_tf  # noqa: E402

# A shell's background jobs ignore it, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


@pytest.fixture(autouse=True)
def own_collectives():
    """Each strategy of a process has keys of its own, as in TensorFlow's tests.

    It would start from the same ones, and then finds those of the last one.
    """
    tf.distribute.MirroredStrategy._collective_key_base += 100_000


@pytest.fixture
def own_signals():
    """A program's handler of SIGTERM must not outlive its test."""
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file of a small optimizer's weights."""
    path = tmp_path_factory.mktemp("optimizer") / "optimizer.npz"
    lopt_tf.HierarchicalRNN(level_sizes=(3,), seed=1).save_pretrained(path)
    return path
