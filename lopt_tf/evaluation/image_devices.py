"""What a Keras model is trained on, by the name of a strategy."""

import contextlib

import keras
import tensorflow as tf

from lopt_tf import distribution


@contextlib.contextmanager
def strategy(name, tpu=None):
    """A context in which Keras trains so: a strategy, or None for no scope.

    On Keras' JAX backend "mirrored" shares batches among all of its devices,
    and TensorFlow, which reads the data, leaves the accelerators alone.

    Args:
        name: one of `distribution.STRATEGIES`.
        tpu: with "tpu", the TPU's name or address.

    Raises:
        ValueError: see `distribution.make`; or if the backend has no such
            strategy.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        yield None if name == "default" else distribution.make(name, tpu)
        return
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    if name == "default":
        yield None
        return
    if (backend, name) != ("jax", "mirrored"):
        raise ValueError(
            f"The strategy {name!r} needs Keras' TensorFlow backend. "
            f"Received: KERAS_BACKEND={backend}"
        )
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield None
    finally:
        keras.distribution.set_distribution(None)


def count(group):
    """How many devices share a batch.

    Args:
        group: the `Replicas` of TensorFlow's strategy.
    """
    shared = keras.distribution.distribution()
    if shared is None:
        return group.count
    return shared.num_model_replicas


class MultiWorkerModel(keras.Model):
    """A built network that `fit` can train in step with other processes.

    Keras 3.15 fails there in two places: it averages what a step returns over
    rows that scalars do not have, and it looks at a first batch to build what
    it was given, which is built already.
    """

    def train_step(self, data):
        return _rows(super().train_step(data))

    def test_step(self, data):
        return _rows(super().test_step(data))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass


def _rows(logs):
    return {name: tf.reshape(value, (1,)) for name, value in logs.items()}
