"""Problems of the corpus: learned optimizer against tuned baselines."""

import dataclasses

from lopt_tf.evaluation import comparison, results
from problems import corpus

TITLE = "On the problems of meta-training"
QUESTION = (
    "The paper: on problems of the training set the learned optimizer is as "
    "good as Adam and RMSProp at their best learning rates, or better. Each "
    "run has its own instance of the problem, which meta-training has not "
    "seen."
)
LEARNED = "required"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which problems of the corpus, and how much of each.

    Attributes:
        problems: as for `problems.corpus.select`.
        steps: of each optimizer; Adam runs four times as long.
        seeds: runs in the comparison.
        tuning_seeds: runs of each learning rate.
    """

    problems: tuple
    steps: int
    seeds: int
    tuning_seeds: int


PRESETS = {
    "quick": Settings(
        problems=tuple(f"{name}.0" for name in corpus.default_sets()),
        steps=400,
        seeds=4,
        tuning_seeds=4,
    ),
    "full": Settings(("default",), steps=1000, seeds=10, tuning_seeds=5),
}


def run(study, settings):
    """Compares on every problem; returns an `Outcome`."""
    return results.comparison_outcome(
        *comparison.compare(
            study,
            corpus.select(settings.problems, study.data_dir),
            {"learned": study.learned},
            comparison.Plan(
                settings.steps, settings.seeds, settings.tuning_seeds
            ),
        ),
        "Problems of the training set",
    )
