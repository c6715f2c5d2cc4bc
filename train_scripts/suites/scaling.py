"""Time per inner step against parameters, tensors and instances."""

import statistics

import numpy as np
import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.evaluation import plots
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from train_scripts.suites.rows import row, seconds

LARGEST = 4_000_000
PARAMETERS = (10, 100, 1000, 10_000, 100_000, 1_000_000)
TENSORS = (1, 10, 50, 200)
INSTANCES = (1, 8, 32, 128)
_STEPS = 10


def measure(repetitions):
    """Rows for one axis at a time, and for all N x K with one tensor."""
    cases = [(n, 1, k) for n in PARAMETERS for k in INSTANCES]
    cases += [(n, t, 1) for n in PARAMETERS for t in TENSORS if 1 < t <= n]
    for n, t, k in cases:
        if n * k <= LARGEST:
            yield _step(n, t, k, repetitions)


def _step(n, t, k, repetitions):
    """Nanoseconds per parameter and instance of one update, forward."""
    rule = HierarchicalRNNRule()
    sizes = [len(part) for part in np.array_split(np.arange(n), t)]
    weights = {
        name: tf.repeat(array[None], k, axis=0)
        for name, array in rule.init_weights(0).items()
    }
    seeds = ((i, 0) for i in range(2 * t))
    params, grads = (
        [tf.random.stateless_normal((k, size), next(seeds)) for size in sizes]
        for _ in range(2)
    )
    log_lrs = [tf.zeros_like(p) - 5.0 for p in params]

    @compilation.compiled
    def steps(weights, params, state):
        def body(i, params, state):
            return i + 1, *rule.step(weights, state, params, grads)

        return tf.while_loop(
            lambda i, *_: i < _STEPS,
            body,
            (0, params, state),
            maximum_iterations=_STEPS,
        )[1:]

    state = rule.init_state(weights, params, log_lrs)
    first_call, *taken = seconds(
        lambda: steps(weights, params, state)[0][0].numpy(), repetitions + 1
    )
    median = statistics.median(taken) / _STEPS
    return row(
        f"scaling/parameters={n}/tensors={t}/instances={k}",
        1e9 * median / (n * k),
        "ns per parameter",
        False,
        milliseconds_a_step=1e3 * median,
        first_call_s=round(first_call, 2),
    )


def plot(path, rows):
    """A log-log plot of the time per step against N * K."""
    lines = {}
    for found in rows:
        name = found["name"].split("/")[1:]
        n, t, k = (int(part.split("=")[1]) for part in name)
        label = f"{k} instances" if t == 1 else f"{t} tensors"
        point = (n * k, found["settings"]["milliseconds_a_step"])
        lines.setdefault(label, []).append(point)
    plots.plot_log_log(
        path,
        {label: sorted(points) for label, points in lines.items()},
        "parameters x instances",
        "milliseconds per inner step",
    )
