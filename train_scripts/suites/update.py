"""Train steps with the learned optimizer over those with Adam.

And the update by itself, over a program that does just its arithmetic.
"""

import statistics

import tensorflow as tf

from lopt_tf.evaluation.step_time import alternating
from train_scripts.suites import fresh, networks
from train_scripts.suites.rows import row

# The networks without their batch sizes, once each.
LARGE = ("mlp_235146/batch=32", "mobilenet_v2", "resnet50_v2")
THREADS = (1, 2)
_STEPS = {"resnet50_v2": 1, "mobilenet_v2": 3}


def measure(repetitions):
    """All rows: steps, first steps and memory, updates alone."""
    for name, network in networks.NETWORKS.items():
        mlp = name.startswith("mlp")
        yield step_row(
            f"update/{name}/{'hierarchical_rnn' if mlp else 'step'}_over_adam",
            network,
            repetitions,
            _STEPS.get(name, 10),
        )
    for name in LARGE:
        yield from first_step_rows(f"update/{name}", name, min(repetitions, 3))
    for name in LARGE:
        for threads in THREADS:
            yield _alone(name, threads, min(repetitions, 3))


def step_row(title, network, repetitions, steps):
    """The time of a step over that of one with Adam, in turns."""
    models = {
        optimizer: network.compiled(make())
        for optimizer, make in networks.OPTIMIZERS.items()
    }
    times = alternating(models, *network.data(), repetitions, steps)
    medians = {n: statistics.median(s.tolist()) for n, s in times.items()}
    return row(
        title,
        medians["hierarchical_rnn"] / medians["adam"],
        "ratio",
        False,
        milliseconds={n: 1e3 * m for n, m in medians.items()},
    )


def first_step_rows(title, name, repetitions):
    """From compile to the first step done, and peaks, in fresh processes."""
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    found = {n: [] for n in networks.OPTIMIZERS}
    for _ in range(repetitions):
        for optimizer, results in found.items():
            results.append(fresh.measured("step", name, optimizer, threads))
    seconds, peaks = (
        {n: statistics.median(r[what] for r in rs) for n, rs in found.items()}
        for what in ("first_step", "peak_bytes")
    )
    ours = found["hierarchical_rnn"][0]
    yield row(
        f"{title}/first_step_over_adam",
        seconds["hierarchical_rnn"] / seconds["adam"],
        "ratio",
        False,
        seconds=seconds,
    )
    # What Adam's process needs without its state is the model and its step.
    rest = peaks["adam"] - found["adam"][0]["state_bytes"]
    beyond = peaks["hierarchical_rnn"] - rest - ours["state_bytes"]
    yield row(
        f"{title}/peak_bytes",
        peaks["hierarchical_rnn"],
        "bytes",
        False,
        adam=peaks["adam"],
        state_bytes=ours["state_bytes"],
        beyond_over_state=beyond / ours["state_bytes"],
        parameters=ours["parameters"],
    )


def _alone(name, threads, repetitions):
    """Microseconds of the update a parameter, and of the floor beside it."""
    count = networks.NETWORKS[name].build().count_params()
    found = {"alone": [], "floor": []}
    for _ in range(repetitions):
        for kind, what in (("alone", name), ("floor", count)):
            result = fresh.measured(kind, what, threads)
            found[kind].append(result["microseconds"])
    alone, floor = (statistics.median(found[k]) for k in ("alone", "floor"))
    return row(
        f"update/alone/{name.partition('/')[0]}/threads={threads}",
        alone,
        "microseconds a parameter",
        False,
        floor=floor,
        over_floor=alone / floor,
    )
