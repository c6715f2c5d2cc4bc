"""lopt_tf: learned optimizers and learned schedules for Keras."""

import importlib

from lopt_tf.optimizers import pretrained
from lopt_tf.optimizers.keras_optimizers import (
    CoordinatewiseRNN,
    GlobalLearningRate,
    HierarchicalRNN,
    LearnedAdam,
    LearningRateSchedule,
)
from lopt_tf.optimizers.late_decay import LateDecay
from lopt_tf.optimizers.learned_optimizer import LearnedOptimizer

__version__ = "0.1.0"

_LAZY = ("autoloss", "callbacks", "checkpointing", "evaluation", "metatraining")

__all__ = [
    "CoordinatewiseRNN",
    "GlobalLearningRate",
    "HierarchicalRNN",
    "LateDecay",
    "LearnedAdam",
    "LearnedOptimizer",
    "LearningRateSchedule",
    "list_pretrained",
    *_LAZY,
]


def list_pretrained():
    """Names of the weights that ship with the package, the default first."""
    return pretrained.names()


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f"lopt_tf.{name}")
    raise AttributeError(f"module 'lopt_tf' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
