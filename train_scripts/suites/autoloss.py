"""Task steps per second of AutoLoss episodes, sampling included."""

import statistics
import time

from train_scripts.suites.rows import row

# Measured by running the release.
_RELEASE = {"regression": 285.0, "classification": 220.0}
_STEPS = 2000


def measure(counts, repetitions):
    """Episodes under an untrained policy, one alone and many side by side."""
    for name in _RELEASE:
        for count in counts:
            yield _measure(name, count, repetitions)
    yield row(
        "autoloss/matrix_product",
        _matrix_product(),
        "GFLOP/s",
        True,
        size=1024,
    )


def _measure(name, count, repetitions):
    from lopt_tf import autoloss
    from lopt_tf.autoloss import episodes, rewards
    from lopt_tf.autoloss.controller import ScheduleController
    from problems import alternating

    task = alternating.TASKS[name](max_steps=_STEPS, patience=_STEPS)
    options = autoloss.recipe(name)
    config = {
        "num_actions": len(task.actions),
        "hidden": options.hidden,
        "logit_scale": options.logit_scale,
        "seed": 0,
    }
    controller = ScheduleController(
        name, task.actions, options.features, config
    )
    runner = episodes.Episodes(
        task, controller.schedule(), 500, rewards.step_reward()
    )
    began = time.perf_counter()
    runner.advance(runner.begin(range(count)))
    compiling = time.perf_counter() - began
    speeds = []
    for repetition in range(repetitions):
        position = runner.begin(range(count), repetition)
        began = time.perf_counter()
        while not runner.finished(position):
            position, _ = runner.advance(position)
        speeds.append(count * _STEPS / (time.perf_counter() - began))
    speed = statistics.median(speeds)
    return row(
        f"autoloss/{name}/episodes={count}",
        speed,
        "task steps/s",
        True,
        times_the_release=speed / _RELEASE[name],
        first_call_s=compiling,
        gigaflops=speed * _flops(task) / 1e9,
    )


def _flops(task):
    """Floating point operations of the products in one task step.

    Forward once and backward once in the weights (and in the values between
    layers), on the training rows; validation and the optimizer not counted.
    """
    rows = task.splits["train"][0].shape[0]
    sizes = [p.shape[1:] for p in task.initial_params([0])]
    if task.name == "regression":
        return 2 * 2 * rows * sizes[0][0]
    layers = [2 * rows * a * b for a, b in (s for s in sizes if len(s) == 2)]
    return 2 * sum(layers) + sum(layers[1:])


def _matrix_product():
    """What this machine reaches on a large matrix product, compiled alike."""
    import tensorflow as tf

    size = 1024
    multiply = tf.function(tf.matmul, jit_compile=True)
    a = tf.random.stateless_normal([size, size], [0, 0])
    multiply(a, a).numpy()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        multiply(a, a).numpy()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(times) / 1e9
