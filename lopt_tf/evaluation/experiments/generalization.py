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
    "recurrent net and a transformer on text; and other starts: wide nets from "
    "Keras' own, the transformer from a small one, a regression whose weights "
    "are stored ten times smaller."
)
LEARNED = "required"


@dataclasses.dataclass(frozen=True)
class Settings(comparison.Settings):
    """Which networks, and how much of each.

    No problems means all sets whose data are there.

    Attributes:
        one_of_each: only the first network of each set.
    """

    one_of_each: bool = False


PRESETS = {
    "quick": Settings(
        None, steps=150, seeds=4, tuning_seeds=2, one_of_each=True
    ),
    "full": Settings(None, steps=2000, seeds=5, tuning_seeds=2),
}


def run(folder, settings):
    """Compares on every network; returns an `Outcome`."""
    names = settings.problems
    if names is None:
        names = corpus.network_sets(folder.data_dir)
        if settings.one_of_each:
            names = [f"{name}.0" for name in names]
    problems = corpus.select(names, folder.data_dir)
    learned = {"learned": folder.learned}
    found, tuned = comparison.compare(folder, problems, learned, settings)
    return results.comparison_outcome(
        found, tuned, "Networks never seen in meta-training: minibatch loss"
    )
