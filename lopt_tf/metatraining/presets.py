"""Recipes of meta-training: problems, options, settings of the rule."""

import dataclasses
from typing import NamedTuple

from lopt_tf.metatraining.curriculum import Curriculum
from lopt_tf.metatraining.options import TrainingOptions
from lopt_tf.optimizers import hierarchical_rnn


class Validations(NamedTuple):
    """How weights are chosen.

    Attributes:
        every: meta-updates between validations; 0 for none.
        steps: inner steps of each.
        problems: names for `problems.corpus.select`.
    """

    every: int = 0
    steps: int = 200
    problems: tuple = ("wide_classifier_validation_problems",)


class Preset(NamedTuple):
    """A whole recipe.

    Attributes:
        problems: names for `problems.corpus.select`.
        options: `TrainingOptions`.
        rule_settings: settings of the hierarchical RNN, where no trained
            weights are given, which have theirs.
        lower_bound: of learning rates, `min_log_lr`, in place of a higher one
            of trained weights. Defaults to `None`: theirs.
        validations: `Validations`. Defaults to none.
    """

    problems: tuple
    options: TrainingOptions
    rule_settings: dict
    lower_bound: float | None = None
    validations: Validations = Validations()


_NETS = "fully_connected_random_2_class_problems"
_QUICK_PROBLEMS = (
    *(f"wide_classifier_problems.{i}" for i in (0, 3, 4, 9)),
    *(f"{_NETS}.{i}" for i in (0, 7, 10)),
    "softmax_2_class_problems.0",
    "quadratic_problems_noisy.0",
    "optimization_test_problems.4",
    "bowl_problems.2",
)
# All but the widest two, whose steps take many times as long as the others'.
_EVERYDAY = tuple(
    f"everyday_network_problems.{i}" for i in range(22) if i not in (16, 17)
)
# All below 20,000 parameters.
_SMALL_EVERYDAY = tuple(
    f"everyday_network_problems.{i}"
    for i in range(22)
    if i not in (2, 3, 16, 17)
)
# Networks of everyday shapes above all, and a few of whatever else there is.
_RECOMMENDED_PROBLEMS = (
    "wide_classifier_problems",
    *(f"{_NETS}.{i}" for i in (0, 1, 2, 3, 6, 7, 8, 10)),
    *(f"softmax_2_class_problems.{i}" for i in (0, 3)),
    *(f"softmax_2_class_problems_noisy.{i}" for i in (1, 2)),
    *(f"sparse_gradient_problems_mlp.{i}" for i in (0, 1)),
    *(f"quadratic_problems_noisy.{i}" for i in (0, 2)),
    *(f"bowl_problems.{i}" for i in (0, 2, 3)),
    *(f"optimization_test_problems.{i}" for i in (0, 1, 2, 5, 7)),
    "optimization_test_problems_noisy.3",
    *(f"matmul_problems.{i}" for i in (1, 6)),
    *(f"log_objective_problems.{i}" for i in (1, 5)),
    *(f"norm_problems.{i}" for i in (0, 2)),
    "sum_problems.3",
    *(f"sparse_gradient_problems.{i}" for i in (0, 1, 3, 5)),
    *(f"rescale_problems.{i}" for i in (2, 4, 6)),
)

# Learns fast and steadily: backpropagation through some hundred steps, in
# which no instance outvotes the others. Chosen on held-out problems of the
# corpus (docs/lab_log.md), as everything that is not said to be published.
_QUICK = TrainingOptions(
    meta_updates=500,
    estimator="bptt",
    instances=8,
    instance_clip=1.0,
    meta_learning_rate=1e-3,
    meta_learning_rate_decay=0.05,
    obj_train_max_multiplier=1e4,
    curriculum=Curriculum(
        starts=1, mean_partials=6, min_length=40, mean_length=60
    ),
)
_RECOMMENDED = dataclasses.replace(
    _QUICK,
    meta_updates=4500,
    meta_learning_rate=5e-4,
    objective_epsilon=1e-12,
    curriculum=dataclasses.replace(_QUICK.curriculum, mean_partials=10),
)
# Sees more of what changes with scale: wide networks, small starts, and runs
# whose lengths are log-uniform. The parameters' unit stays the problem's own:
# a rule that is equivariant to it would see no difference. For other rules
# set `min_parameter_scale=1e-3, max_parameter_scale=1e3`.
_SCALE = dataclasses.replace(
    _RECOMMENDED,
    weight_average_decay=0.99,
    curriculum=dataclasses.replace(
        _RECOMMENDED.curriculum, min_steps=100, max_steps=2000
    ),
)
# The second of two stages: of trained weights only those that set the rates go
# on, over longer runs. So few have little variance without backpropagation, and
# what they do shows late in a run. Not compared with other settings yet.
_RATES = dataclasses.replace(
    _SCALE,
    meta_updates=20_000,
    estimator="pes",
    instances=16,
    # No pair outvotes the others: one of which half has diverged, or fallen
    # into another basin, would by a hundred times and for the rest of its run.
    instance_clip=1.0,
    obj_train_max_multiplier=10.0,
    segment_length=50,
    truncation=50,
    staggered_starts=True,
    meta_optimizer="adamw",
    meta_learning_rate=3e-4,
    # Steps are forgotten after 3,000 updates, if nothing repeats them.
    meta_weight_decay=1.0,
    weight_average_decay=0.999,
    perturbation=0.01,
    use_log_objective=False,
    use_minibatch_objective=True,
    curriculum=dataclasses.replace(_SCALE.curriculum, max_steps=5000),
    trained_weights=(
        "learning_rate",
        "learning_rate_bias",
        "learning_rate_momentum",
        "step_offset",
    ),
)
_RATES_PROBLEMS = (
    *_SMALL_EVERYDAY,
    "wide_classifier_problems",
    *(f"{_NETS}.{i}" for i in (0, 3, 7)),
    "softmax_2_class_problems.0",
    "softmax_2_class_problems_noisy.1",
    "sparse_gradient_problems_mlp.0",
    # Solved after some hundred steps: they say little of long runs.
    "quadratic_problems_noisy.0",
    "bowl_problems.0",
)
# No test networks, and none that is trained on.
_RATES_VALIDATIONS = Validations(
    every=500,
    steps=2000,
    problems=(
        *(f"everyday_validation_problems.{i}" for i in (1, 3)),
        *(f"wide_classifier_validation_problems.{i}" for i in (1, 3)),
    ),
)
# The meta-trainings of experiments, which give `meta_updates`: runs of 500
# steps on average.
SHORT = dataclasses.replace(
    _QUICK,
    meta_learning_rate=3e-4,
    meta_learning_rate_decay=0.1,
    obj_train_max_multiplier=0.0,
    curriculum=dataclasses.replace(_QUICK.curriculum, mean_partials=4),
)
# The published procedure and budget: 1000 problems, 5 starts, 41 partial
# unrolls on average.
_PAPER = TrainingOptions(
    meta_updates=205_000,
    estimator="bptt",
    instances=1,
    segment_length=10,
    parallel_tasks=1,
    meta_optimizer="rmsprop",
    meta_learning_rate=1e-6,
)

PRESETS = {
    "quick": Preset(_QUICK_PROBLEMS, _QUICK, hierarchical_rnn.ROBUST),
    "recommended": Preset(
        _RECOMMENDED_PROBLEMS, _RECOMMENDED, hierarchical_rnn.ROBUST
    ),
    "paper": Preset(("default",), _PAPER, {}),
    "scale": Preset(
        (*_EVERYDAY, *_RECOMMENDED_PROBLEMS),
        _SCALE,
        hierarchical_rnn.ROBUST,
    ),
    # The shipped weights' lower bound holds nine tenths of all rates after
    # 1,000 steps: nothing could be learned of them.
    "rates": Preset(
        _RATES_PROBLEMS,
        _RATES,
        {},
        lower_bound=-8.5,
        validations=_RATES_VALIDATIONS,
    ),
}
