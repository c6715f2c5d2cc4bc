"""Meta-training: learn an update rule's weights on many small problems."""

from lopt_tf.metatraining.curriculum import Curriculum
from lopt_tf.metatraining.estimators import (
    PersistentEvolution,
    TruncatedBackpropagation,
    TruncatedEvolution,
)
from lopt_tf.metatraining.loop import train
from lopt_tf.metatraining.objective import MetaObjective
from lopt_tf.metatraining.options import TrainingOptions
from lopt_tf.metatraining.validation import Validation

__all__ = [
    "Curriculum",
    "MetaObjective",
    "PersistentEvolution",
    "TrainingOptions",
    "TruncatedBackpropagation",
    "TruncatedEvolution",
    "Validation",
    "train",
]
