"""All gradient estimators, and the one that goes with given options."""

from lopt_tf.metatraining.backpropagation import TruncatedBackpropagation
from lopt_tf.metatraining.estimator import Run, WeightVector
from lopt_tf.metatraining.evolution import (
    PersistentEvolution,
    TruncatedEvolution,
)
from lopt_tf.metatraining.unroll import Unroller

__all__ = ["ESTIMATORS", "Run", "WeightVector", "make"]

ESTIMATORS = {
    "bptt": TruncatedBackpropagation,
    "full": TruncatedBackpropagation,
    "es": TruncatedEvolution,
    "pes": PersistentEvolution,
}


def make(options, problem, rule, replicas):
    """The estimator of a problem, with its compiled functions.

    Args:
        options: `TrainingOptions`.
        problem, rule, replicas: see `Unroller`.
    """
    kind = ESTIMATORS[options.estimator]
    evolves = kind.copies > 1
    unroller = Unroller(
        problem,
        rule,
        options.instances,
        options.segment_length,
        options.use_second_derivatives,
        copies=kind.copies,
        replicas=replicas,
        keeps_trail=not evolves,
        records_batches=options.use_minibatch_objective,
    )
    more = {"stdev": options.perturbation} if evolves else {}
    limits = options.obj_train_max_multiplier, options.instance_clip
    return kind(unroller, options.objective(), *limits, **more)
