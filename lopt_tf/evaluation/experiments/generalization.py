"""Networks that were never trained on: does what was learned carry over?"""

import dataclasses

from lopt_tf.evaluation import comparison, results
from problems import corpus

TITLE = "On networks never seen in meta-training"
QUESTION = (
    "The paper: on problem types that meta-training has not seen, a fully "
    "connected and a convolutional net on images, the learned optimizer is "
    "comparable to tuned baselines or better. Beyond the paper: wider and "
    "deeper nets, other batch sizes, batch normalisation, a residual net, a "
    "recurrent net and a transformer on text."
)
LEARNED = "required"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks, and how much of each.

    Attributes:
        problems: as for `corpus.select`; None means all sets whose data
            are there.
        one_of_each: only the first network of each set.
        steps: of each optimizer; Adam runs four times as long.
        seeds: runs in the comparison.
        tuning_seeds: runs of each learning rate.
    """

    problems: tuple | None
    one_of_each: bool
    steps: int
    seeds: int
    tuning_seeds: int


PRESETS = {
    "quick": Settings(None, True, steps=150, seeds=4, tuning_seeds=2),
    "full": Settings(None, False, steps=2000, seeds=5, tuning_seeds=2),
}


def run(study, settings):
    """Compares on every network; returns an `Outcome`."""
    names = settings.problems
    if names is None:
        names = corpus.network_sets(study.data_dir)
        if settings.one_of_each:
            names = [f"{name}.0" for name in names]
    return results.comparison_outcome(
        *comparison.compare(
            study,
            corpus.select(names, study.data_dir),
            {"learned": study.learned},
            comparison.Plan(
                settings.steps, settings.seeds, settings.tuning_seeds
            ),
        ),
        "Networks never seen in meta-training: minibatch loss",
    )
