"""What the Keras optimizer does differently on TensorFlow.

TensorFlow compiles the update by itself, tf.distribute has a copy of every
variable on every device, and embeddings have sparse gradients. On the other
backends these functions change nothing, and TensorFlow is not imported.
"""

import contextlib
import contextvars
import functools
import operator
import warnings

import keras
from keras import ops

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if _ON_TENSORFLOW:
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks
    from tensorflow.python.ops import control_flow_util

    from lopt_tf import compilation


_jit_compile = contextvars.ContextVar("jit_compile", default="auto")


@contextlib.contextmanager
def jit_compiling(choice):
    """A context in which `compiled` and `map_shards` compile so.

    Args:
        choice: True, False, or "auto": with XLA where it can run.
    """
    token = _jit_compile.set(choice)
    try:
        yield
    finally:
        _jit_compile.reset(token)


def _uses_xla():
    if _jit_compile.get() != "auto":
        return _jit_compile.get()
    # Such as of tf.debugging.enable_check_numerics(): XLA has no kernels for
    # what they insert.
    return _devices_have_xla() and not op_callbacks.should_invoke_op_callbacks()


@functools.cache
def _devices_have_xla():
    devices = tf.config.list_logical_devices()
    return all(d.device_type in ("CPU", "GPU", "TPU") for d in devices)


def compiled(function, /, **fixed):
    """The function, compiled where the backend's `fit` would not do that.

    Keras compiles TensorFlow's train steps with XLA only on request; the
    update is fast only if it is compiled. Equal functions share one program,
    whichever optimizer asks.

    Args:
        function: a pure function of structures of arrays.
        **fixed: arguments that the program is made for: hashable.
    """
    if not _ON_TENSORFLOW:
        return functools.partial(function, **fixed)
    return _compiled(function, tuple(sorted(fixed.items())), _uses_xla())


@functools.lru_cache(maxsize=256)
def _compiled(function, fixed, jit_compile):
    function = functools.partial(function, **dict(fixed))
    return compilation.compiled(function, jit_compile)


def map_shards(step, function, shared, shards):
    """Calls `step(function, shared, shard)` for each shard: a list of results.

    On TensorFlow one compiled program does all; its calls do not depend on
    each other, so that they run side by side. Inside a function that is being
    compiled as a whole that would be as many copies of the program: there, and
    on JAX, shards are a loop.

    Args:
        step: a pure function.
        function: a method of an update rule.
        shared: structure of arrays.
        shards: list of structures of arrays, all alike.
    """
    if _ON_TENSORFLOW and not _is_being_compiled():
        # Methods of equal rules are not equal.
        program = compiled(
            _method_step,
            step=step,
            function=function.__func__,
            rule=function.__self__,
        )
        return [program(shared, shard) for shard in shards]
    if keras.backend.backend() == "torch" or len(shards) == 1:
        return [step(function, shared, shard) for shard in shards]
    stacked = keras.tree.map_structure(lambda *s: ops.stack(s), *shards)
    results = ops.map(lambda shard: step(function, shared, shard), stacked)
    return [
        keras.tree.map_structure(operator.itemgetter(i), results)
        for i in range(len(shards))
    ]


def _method_step(shared, shard, step, function, rule):
    return step(functools.partial(function, rule), shared, shard)


def _is_being_compiled():
    """Whether TensorFlow is tracing a function that XLA will compile."""
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


@functools.cache
def has_accelerator():
    """Whether there is a GPU or TPU to compute on."""
    if _ON_TENSORFLOW:
        devices = tf.config.list_logical_devices()
        return any(device.device_type != "CPU" for device in devices)
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return keras.backend.backend() == "torch"


# Elsewhere compiled steps cannot call Python.
WARNS_DURING_FIT = _ON_TENSORFLOW


def warn_if(condition, message, value):
    """Warns, where a step can, if a boolean tensor is True.

    Args:
        condition: the boolean tensor.
        message: function of the value: the warning's text.
        value: scalar tensor.
    """
    if not _ON_TENSORFLOW or _is_being_compiled():
        return

    def warn():
        tf.py_function(
            lambda value: warnings.warn(message(value.numpy()), stacklevel=2),
            [value],
            [],
        )
        return True

    tf.cond(condition, warn, lambda: False)


def write_if(condition, write):
    """Writes variables if a boolean tensor is True: whether it was written.

    Args:
        condition: the boolean tensor.
        write: function of `chosen`; writes variables, and returns whether it
            did. `chosen` is a function of (new, old values): the new one, or,
            where nothing but a choice of values can depend on a tensor, that
            choice.
    """
    if _ON_TENSORFLOW:
        # In eager code and in graphs.
        return tf.cond(condition, lambda: write(_new), lambda: False)
    if keras.backend.backend() == "torch":
        return write(_new) if condition else condition
    written = write(lambda new, old: ops.where(condition, new, old))
    return ops.logical_and(condition, written)


def _new(new, old):
    del old
    return new


def outside_of_graphs():
    """A context; fit() may build an optimizer while it traces a graph."""
    return tf.init_scope() if _ON_TENSORFLOW else contextlib.nullcontext()


def _is_sparse(gradient):
    return _ON_TENSORFLOW and isinstance(gradient, tf.IndexedSlices)


def dense_shape(gradient, shape):
    """A gradient's shape as a tuple, None where it is not known.

    Args:
        gradient: a tensor, or a sparse gradient.
        shape: of its variable: what counts where a sparse gradient has none.
    """
    found = gradient.shape
    if _is_sparse(gradient):
        # Its rows tell all but their number.
        rows = gradient.values.shape
        if rows.rank is not None and tuple(rows[1:]) != shape[1:]:
            return (shape or (None,))[:1] + tuple(rows[1:])
        if gradient.dense_shape is None:
            return shape
    return None if getattr(found, "rank", 0) is None else tuple(found)


def dense(gradient, shape):
    """A dense gradient of that shape; embeddings have sparse ones."""
    if not _is_sparse(gradient):
        if (
            _ON_TENSORFLOW
            and not tf.TensorShape(gradient.shape).is_fully_defined()
        ):
            # In a graph, where it is only known when it runs.
            gradient = tf.ensure_shape(gradient, shape)
        return gradient
    if gradient.dense_shape is None:
        gradient = tf.IndexedSlices(gradient.values, gradient.indices, shape)
    return tf.convert_to_tensor(gradient)


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
