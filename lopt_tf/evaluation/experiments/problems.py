"""Any problems by name, also beside the optimizer before meta-training."""

import dataclasses

from lopt_tf.evaluation import comparison, results
from lopt_tf.optimizers.pretrained import TrainedRule
from problems import corpus

TITLE = "On chosen problems"
QUESTION = (
    "The learned optimizer, on the problems that were named, beside tuned "
    "baselines and what it was before meta-training."
)
LEARNED = "required"


@dataclasses.dataclass(frozen=True)
class Settings(comparison.Settings):
    """Which problems, and how much of each.

    Attributes:
        untrained: also the optimizer as it was before meta-training.
    """

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


def run(folder, settings):
    """Compares on the named problems; returns an `Outcome`."""
    learned = {"learned": folder.learned}
    if settings.untrained:
        rule = folder.learned.rule
        learned["untrained"] = TrainedRule(rule, rule.init_weights(0))
    problems = corpus.select(settings.problems, folder.data_dir)
    found, tuned = comparison.compare(folder, problems, learned, settings)
    return results.comparison_outcome(found, tuned, "Chosen problems")
