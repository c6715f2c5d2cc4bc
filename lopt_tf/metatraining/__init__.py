"""Meta-training: learn an update rule's weights on many small problems."""

import importlib

_HOMES = {
    "train": "lopt_tf.metatraining.loop",
    "TrainingOptions": "lopt_tf.metatraining.options",
    "Validation": "lopt_tf.metatraining.validation",
    "TruncatedBackpropagation": "lopt_tf.metatraining.estimators",
    "PersistentEvolution": "lopt_tf.metatraining.estimators",
    "TruncatedEvolution": "lopt_tf.metatraining.estimators",
    "MetaObjective": "lopt_tf.metatraining.objective",
    "Curriculum": "lopt_tf.metatraining.curriculum",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(
        f"module 'lopt_tf.metatraining' has no attribute {name!r}"
    )
