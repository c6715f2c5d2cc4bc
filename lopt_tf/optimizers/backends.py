"""What the Keras optimizer does differently on TensorFlow.

TensorFlow compiles the update by itself, tf.distribute has a copy of every
variable on every device, and embeddings have sparse gradients. On the other
backends these functions change nothing, and TensorFlow is not imported.
"""

import contextlib

import keras

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if _ON_TENSORFLOW:
    import tensorflow as tf

    from lopt_tf import compilation


def compiled(function):
    """The function, compiled where the backend's `fit` would not do that.

    Keras compiles TensorFlow's train steps with XLA only on request; the
    update is fast only if it is compiled.
    """
    return compilation.compiled(function) if _ON_TENSORFLOW else function


def outside_of_graphs():
    """A context; fit() may build an optimizer while it traces a graph."""
    return tf.init_scope() if _ON_TENSORFLOW else contextlib.nullcontext()


def dense(gradient):
    """A dense gradient; embeddings have sparse ones."""
    if _ON_TENSORFLOW and isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def value(variable):
    """The value of one of Keras' variables, or of a device's own."""
    if isinstance(variable, keras.Variable):
        return variable.value
    return variable.read_value()


def update_devices(optimizer, update, variables, grads, learning_rate):
    """Calls `update(variables, grads, learning_rate)` on each device.

    Replicas sum their gradients first; then each device updates its own copies
    of all variables with the same numbers, in one `extended.update`.

    Args:
        optimizer: the Keras optimizer.
        update: the function; `variables` holds that device's copies.
        variables: lists and dicts of variables, the first of them in
            `variables.params`.
        grads: list of this replica's gradients.
        learning_rate: scalar.
    """
    if not _ON_TENSORFLOW:
        update(variables, grads, learning_rate)
        return
    pairs = list(zip(grads, variables.params))
    grads = [g for g, _ in optimizer._all_reduce_sum_gradients(pairs)]

    def merged(strategy, grads, learning_rate):
        devices = tf.nest.map_structure(_of_devices, variables)
        strategy.extended.update(
            devices.params[0],
            lambda _, *args: update(*args),
            args=(devices, grads, learning_rate),
            group=False,
        )

    tf.__internal__.distribute.interim.maybe_merge_call(
        merged, optimizer._distribution_strategy, grads, learning_rate
    )


def _of_devices(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable
