"""Any problems by name, also beside the optimizer before meta-training."""

import dataclasses

from lopt_tf.evaluation import comparison, results
from problems import corpus

TITLE = "On chosen problems"
QUESTION = (
    "The learned optimizer, on the problems that were named, beside tuned "
    "baselines and what it was before meta-training."
)
LEARNED = "required"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which problems, and how much of each.

    Attributes:
        problems: as for `corpus.select`.
        steps: of each optimizer; Adam runs four times as long.
        seeds: runs in the comparison.
        tuning_seeds: runs of each learning rate.
        untrained: also the optimizer as it was before meta-training.
    """

    problems: tuple
    steps: int
    seeds: int
    tuning_seeds: int
    untrained: bool = True


_PROBLEMS = (
    "quadratic_problems.0",
    "softmax_2_class_problems.0",
    "bowl_problems.2",
)
PRESETS = {
    "quick": Settings(_PROBLEMS, steps=500, seeds=3, tuning_seeds=3),
    "full": Settings(_PROBLEMS, steps=2000, seeds=10, tuning_seeds=5),
}


def run(study, settings):
    """Compares on the named problems; returns an `Outcome`."""
    learned = {"learned": study.learned}
    if settings.untrained:
        rule = study.learned.rule
        learned["untrained"] = comparison.Contender(rule, rule.init_weights(0))
    return results.comparison_outcome(
        *comparison.compare(
            study,
            corpus.select(settings.problems, study.data_dir),
            learned,
            comparison.Plan(
                settings.steps, settings.seeds, settings.tuning_seeds
            ),
        ),
        "Chosen problems",
    )
