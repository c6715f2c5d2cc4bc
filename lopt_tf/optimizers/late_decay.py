"""A learning rate that falls at the end of a run of known length."""

import math

import keras
from keras import ops

from lopt_tf import checks


@keras.saving.register_keras_serializable(package="lopt_tf")
class LateDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Constant, then half a cosine down to 0 over the last part of a run.

    Learned optimizers spike in long runs; over the last quarter of the steps a
    decay lowers the loss that they end with, and costs short runs nothing.

    Args:
        num_steps: of the whole run. It stays at 0 afterwards.
        learning_rate: until it falls. Defaults to `1.0`, the learned step as
            it is.
        share: of the steps in which it falls, in 0..1. Defaults to `0.25`.

    Raises:
        ValueError: for a value out of bounds.
    """

    def __init__(self, num_steps, learning_rate=1.0, share=0.25):
        super().__init__()
        num_steps = _whole(num_steps)
        checks.in_range("num_steps", num_steps, 1, 10**9)
        checks.in_range("learning_rate", learning_rate, checks.POSITIVE, 1e6)
        checks.in_range("share", share, checks.POSITIVE, 1.0)
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.share = share

    def __call__(self, step):
        left = 1 - ops.cast(step, "float32") / self.num_steps
        left = ops.clip(left / self.share, 0, 1)
        return self.learning_rate * 0.5 * (1 - ops.cos(math.pi * left))

    def get_config(self):
        return {
            "num_steps": self.num_steps,
            "learning_rate": self.learning_rate,
            "share": self.share,
        }


def _whole(number):
    """A whole number, also of `dataset.cardinality()`, as one of Python's."""
    try:
        found = float(number)
    except (TypeError, ValueError):
        return number
    is_count = found.is_integer() and not isinstance(number, (bool, str))
    return int(found) if is_count else number
