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
        step: a pure function: returns (dict of new elements, anything).
        function: a method of an update rule.
        shared: structure of arrays.
        shards: list of tuples of structures of arrays, all alike; first
            comes a dict of elements. TensorFlow's variables among them take
            their new values at once, and are returned themselves.
    """
    if _ON_TENSORFLOW and not _is_being_compiled():
        # Methods of equal rules are not equal.
        program = compiled(
            _method_step,
            step=step,
            function=function.__func__,
            rule=function.__self__,
            variables=_specs(shards[0]),
        )
        return [
            _with_variables(shard, program(shared, _with_handles(shard)))
            for shard in shards
        ]
    if keras.backend.backend() == "torch" or len(shards) == 1:
        return [step(function, shared, shard) for shard in shards]
    stacked = keras.tree.map_structure(lambda *s: ops.stack(s), *shards)
    results = ops.map(lambda shard: step(function, shared, shard), stacked)
    return [
        keras.tree.map_structure(operator.itemgetter(i), results)
        for i in range(len(shards))
    ]


def _method_step(shared, shard, step, function, rule, variables):
    """The step's results without what went into variables.

    Variables come as handles: those of another model may be passed when the
    first one's have been deleted, which TensorFlow allows of handles only.
    """
    elements, *rest = shard
    values = {
        name: tf.ensure_shape(
            tf.raw_ops.ReadVariableOp(resource=elements[name], dtype=dtype),
            shape,
        )
        for name, dtype, shape in variables
    }
    shard = ({**elements, **values}, *rest)
    new, others = step(functools.partial(function, rule), shared, shard)
    for name in values:
        if name in new:
            tf.raw_ops.AssignVariableOp(
                resource=elements[name], value=new.pop(name)
            )
    return new, others


def _with_variables(shard, results):
    """A program's results with the variables that it has written."""
    new, others = results
    return {**_variables(shard), **new}, others


def _with_handles(shard):
    elements, *rest = shard
    handles = {n: v.handle for n, v in _variables(shard).items()}
    return ({**elements, **handles}, *rest)


def _specs(shard):
    """(name, dtype, shape) of each of a shard's variables: hashable."""
    return tuple(
        (name, variable.dtype, tuple(variable.shape))
        for name, variable in _variables(shard).items()
    )


def _variables(shard):
    """Those of a shard's elements that are variables."""
    return {n: e for n, e in shard[0].items() if isinstance(e, tf.Variable)}


def map_blocks(function, elements, others, count):
    """Maps (elements, *others) to (new elements, anything) block by block.

    As `ops.map`, but XLA then writes new elements where the old ones of the
    same name were: neither does a step of a large model need both, nor are
    they copied.

    Args:
        function: takes one block of what `ops.map` would.
        elements: dict of arrays; the first axis is that of the blocks.
        others: tuple of structures of arrays.
        count: scalar tensor: so many blocks hold something. The others may
            stay as they are, and what they map to may be zeros.
    """
    if not (_ON_TENSORFLOW and _is_being_compiled()):
        return ops.map(lambda block: function(*block), (elements, *others))
    arrays = keras.tree.map_structure(
        ops.convert_to_tensor, (elements, *others)
    )

    def result(number, old):
        """(new elements of names in old, all else) of a block."""
        block = _block(arrays, number)
        new, rest = function({**block[0], **old}, *block[1:])
        kept = {name: new.pop(name) for name in elements if name in new}
        return kept, (new, rest)

    # Tells what there is besides; nothing of it is run.
    kept, structure = result(0, {})
    kept = {name: arrays[0][name] for name in kept}
    length = next(iter(arrays[0].values())).shape[0]
    stacks = [
        tf.TensorArray(leaf.dtype, length, element_shape=leaf.shape)
        for leaf in keras.tree.flatten(structure)
    ]

    def body(number, kept, old, stacks):
        new, others = result(number, old)
        kept = {n: _replaced(a, number, new[n]) for n, a in kept.items()}
        leaves = keras.tree.flatten(others)
        stacks = [s.write(number, leaf) for s, leaf in zip(stacks, leaves)]
        # Read here, after writing: a read that waits would need a copy of all.
        old = _block(kept, tf.minimum(number + 1, length - 1))
        return number + 1, kept, old, stacks

    _, kept, _, stacks = tf.while_loop(
        lambda number, *_: number < count,
        body,
        (0, kept, _block(kept, 0), stacks),
    )
    new, rest = keras.tree.pack_sequence_as(
        structure, [stack.stack() for stack in stacks]
    )
    return {**kept, **new}, rest


def _block(arrays, number):
    """A structure of what arrays hold at a place of their first axis."""
    return keras.tree.map_structure(lambda array: array[number], arrays)


def _replaced(array, number, block):
    """The array with a block put at a place of its first axis."""
    place = [number] + [0] * len(block.shape)
    return ops.slice_update(array, place, block[None])


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


def warn_if(condition, message, value):
    """Warns, where a step can, if a boolean tensor is True.

    Steps that are compiled cannot call Python.

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


def copied(tensor):
    """The same in memory of its own, where variables take what they are given.

    PyTorch's would write into it, and JAX gives up the memory of variables in
    a step: two must not have the same.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return tensor.clone()
    return ops.copy(tensor) if backend == "jax" else tensor


def spreads_variables():
    """Whether variables must begin with zeros, and be assigned then.

    With `keras.distribution` Keras compiles the initializers of large ones:
    their values would be constants of programs.
    """
    if keras.backend.backend() != "jax":
        return False
    return keras.distribution.distribution() is not None


def named(variable):
    """What has the name that `exclude_from_weight_decay` looks at.

    On TensorFlow that is its own variable's, with the layer's name before it.
    """
    if _ON_TENSORFLOW and isinstance(variable, keras.Variable):
        return variable.value
    return variable


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
    """The value of one of Keras' variables, or of a device's own: a tensor."""
    found = in_place(variable)
    # Not what is in a variable of another backend.
    is_variable = _ON_TENSORFLOW and isinstance(found, tf.Variable)
    return found.read_value() if is_variable else found


def in_place(variable):
    """What stands for the value in `map_shards`, which then overwrites it.

    On TensorFlow it is the variable in one of Keras'. A device's own is read:
    written like that, replicas come to other numbers.
    """
    if isinstance(variable, keras.Variable):
        return variable.value
    return variable.read_value()


def can_be_read():
    """Whether all variables have values that Python may look at now."""
    return _ON_TENSORFLOW and (
        not tf.distribute.has_strategy()
        or tf.distribute.in_cross_replica_context()
    )


def has_value(variable):
    """Whether one of Keras' variables has a value.

    On JAX Keras takes a model's values away while it steps, and has none to
    give back where the first step fails.
    """
    return variable._value is not None


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
    if not (_ON_TENSORFLOW and tf.distribute.has_strategy()):
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
