"""Tasks that alternate between losses or parameter sets (AutoLoss)."""

from problems.alternating.classification import Classification
from problems.alternating.gan import Gan
from problems.alternating.regression import Regression
from problems.alternating.task import (
    AlternatingTask,
    Feedback,
    ModelTask,
    Task,
)
from problems.alternating.translation import Translation

__all__ = [
    "AlternatingTask",
    "Classification",
    "Feedback",
    "Gan",
    "ModelTask",
    "Regression",
    "Task",
    "Translation",
]
