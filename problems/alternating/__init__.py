"""Tasks that alternate between losses or parameter sets (AutoLoss)."""

from problems.alternating.classification import Classification
from problems.alternating.regression import Regression
from problems.alternating.task import AlternatingTask, ModelTask, Task

__all__ = [
    "AlternatingTask",
    "Classification",
    "ModelTask",
    "Regression",
    "Task",
]
