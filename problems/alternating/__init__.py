"""Tasks that alternate between losses or parameter sets (AutoLoss)."""

from problems.alternating.classification import Classification
from problems.alternating.gan import Gan
from problems.alternating.keras_gan import KerasGan
from problems.alternating.regression import Regression
from problems.alternating.task import (
    AlternatingTask,
    DataMissing,
    Feedback,
    ModelTask,
    Task,
)
from problems.alternating.translation import (
    PublishedTranslation,
    Translation,
)

__all__ = [
    "AlternatingTask",
    "Classification",
    "DataMissing",
    "Feedback",
    "Gan",
    "KerasGan",
    "ModelTask",
    "PublishedTranslation",
    "Regression",
    "Task",
    "Translation",
]
