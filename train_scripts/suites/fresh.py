"""Measurements that need a process of their own; each prints a line of JSON.

python -m train_scripts.suites.fresh step NETWORK OPTIMIZER [THREADS]
python -m train_scripts.suites.fresh alone NETWORK THREADS
python -m train_scripts.suites.fresh floor PARAMETERS THREADS
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

_BLOCK = 4096
_INPUTS, _HIDDEN = 13, 10


def measured(*arguments):
    """What a fresh process prints: a dict.

    Raises:
        RuntimeError: if it fails; with what it said.
    """
    command = [sys.executable, "-m", "train_scripts.suites.fresh"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, arguments))}: {done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def _step(name, optimizer, threads=0):
    """Seconds from compile until the first step is done; peak bytes of fit."""
    _tensorflow(threads)
    from train_scripts.suites import networks

    network = networks.find(name)
    optimizer = networks.OPTIMIZERS[optimizer]()
    # What every first model of a process pays for.
    small = networks.NETWORKS["mlp_235146/batch=8"]
    small.compiled("sgd").train_on_batch(*small.data())
    images, labels = network.data()
    began = time.perf_counter()
    model = network.compiled(optimizer)
    model.fit(images, labels, batch_size=network.batch, verbose=0)
    seconds = time.perf_counter() - began
    model.fit(images, labels, batch_size=network.batch, epochs=3, verbose=0)
    return {
        "first_step": seconds,
        "peak_bytes": _peak_bytes(),
        "state_bytes": _bytes(optimizer.variables),
        "parameters": model.count_params(),
    }


def _peak_bytes():
    """The most memory that this process held, as Linux counts it.

    `resource.getrusage` would begin with the parent's.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _bytes(variables):
    import numpy as np

    return int(
        sum(np.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables)
    )


def _alone(name, threads):
    """Microseconds per parameter of the update without a model."""
    tf = _tensorflow(threads)
    from train_scripts.suites import networks

    model = networks.find(name).build()
    optimizer = networks.OPTIMIZERS["hierarchical_rnn"]()
    variables = model.trainable_variables
    grads = [0.01 * tf.random.normal(v.shape) for v in variables]
    optimizer.build(variables)

    @tf.function(autograph=False)
    def update(grads):
        optimizer.apply(grads)

    count = sum(int(tf.size(g)) for g in grads)
    return {"microseconds": _median(lambda: update(grads)) / count}


def _floor(parameters, threads):
    """The same of its arithmetic alone: products and transcendentals.

    In blocks, as the update: a GRU's two products and its readouts, and the
    functions of an element; the state is read and written.
    """
    tf = _tensorflow(threads)
    shards = max(1, int(threads)) * 2
    blocks = max(1, int(parameters) // (_BLOCK * shards))
    gates, candidate, readouts = (
        tf.random.normal(shape) / 5
        for shape in (
            (2 * _HIDDEN, _HIDDEN + _INPUTS),
            (_HIDDEN, _HIDDEN + _INPUTS),
            (5, _HIDDEN),
        )
    )

    def block(state):
        hidden, averages, squares, rates = state
        averages = 0.9 * averages + 0.1 * rates[:1]
        squares = 0.9 * squares + 0.1 * tf.square(averages)
        scaled = tf.asinh(averages * tf.math.rsqrt(squares + 1e-16))
        logs = tf.math.log(squares + 1e-16)
        inputs = [scaled, scaled[1:] * scaled[:-1], logs, rates[:2], hidden]
        inputs = tf.concat(inputs, 0)
        both = tf.sigmoid(tf.matmul(gates, inputs))
        new = tf.concat([inputs[:_INPUTS], both[:_HIDDEN] * hidden], 0)
        new = tf.tanh(tf.matmul(candidate, new))
        hidden = both[_HIDDEN:] * hidden + (1 - both[_HIDDEN:]) * new
        read = tf.matmul(readouts, hidden)
        rates = tf.concat([tf.sigmoid(read[:2]), tf.exp(read[2:3])], 0)
        return hidden, averages, squares, rates

    @tf.function(jit_compile=True, autograph=False)
    def shard(state):
        return tf.map_fn(block, state)

    rows = (_HIDDEN, 4, 4, 3)
    states = [
        [tf.Variable(tf.random.normal((blocks, r, _BLOCK))) for r in rows]
        for _ in range(shards)
    ]

    @tf.function(autograph=False)
    def update():
        for state in states:
            new = shard(tuple(part.read_value() for part in state))
            for variable, value in zip(state, new):
                variable.assign(value)

    count = shards * blocks * _BLOCK
    return {"microseconds": _median(update) / count}


def _tensorflow(threads):
    """TensorFlow with so many threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    return tf


def _median(function):
    """Microseconds of a call, the first one left out."""
    function()
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        function()
        taken.append(1e6 * (time.perf_counter() - began))
    return statistics.median(taken)


if __name__ == "__main__":
    kinds = {"step": _step, "alone": _alone, "floor": _floor}
    print(json.dumps(kinds[sys.argv[1]](*sys.argv[2:])))
