"""Task steps per second of AutoLoss episodes, sampling included."""

import statistics

import tensorflow as tf

from lopt_tf.autoloss import tasks, trainer
from train_scripts.suites import gan
from train_scripts.suites.rows import episodes_speed, row, seconds

_STEPS = 2000


def measure(counts, repetitions):
    """Episodes under an untrained policy, one alone and many side by side."""
    for name, entry in tasks.TASKS.items():
        for count in counts:
            if entry.reported_speed:
                yield _measure(name, entry, count, repetitions)
    yield from gan.measure(counts, repetitions)
    speed = _matrix_product()
    yield row("autoloss/matrix_product", speed, "GFLOP/s", True, size=1024)


def _measure(name, entry, count, repetitions):
    task = entry.task(max_steps=_STEPS, patience=_STEPS)
    runner = trainer.Trainer(task, entry.recipe).episodes
    speed, compiling = episodes_speed(runner, count, _STEPS, repetitions)
    return row(
        f"autoloss/{name}/episodes={count}",
        speed,
        "task steps/s",
        True,
        times_the_release=speed / entry.reported_speed,
        first_call_s=compiling,
        gigaflops=speed * _flops(task) / 1e9,
    )


def _flops(task):
    """Floating point operations of the products in one task step.

    Forward once and backward once in the weights (and in the values between
    layers), on the training rows; validation and the optimizer not counted.
    """
    products = [2 * rows * a * b for rows, a, b in task.products()]
    return 2 * sum(products) + sum(products[1:])


def _matrix_product():
    """What this machine reaches on a large matrix product, compiled alike."""
    size = 1024
    multiply = tf.function(tf.matmul, jit_compile=True)
    a = tf.random.stateless_normal([size, size], [0, 0])
    multiply(a, a).numpy()
    times = seconds(lambda: multiply(a, a).numpy(), 10)
    return 2 * size**3 / statistics.median(times) / 1e9
