"""Problems of the corpus: learned optimizer against tuned baselines."""

from lopt_tf.evaluation import comparison, results
from problems import corpus

TITLE = "On the problems of meta-training"
QUESTION = (
    "The paper: on problems of the training set the learned optimizer is as "
    "good as Adam and RMSProp at their best learning rates, or better. Each "
    "run has a start and batches of its own, and its own instance of those "
    "problems that are drawn."
)
LEARNED = "required"
PRESETS = {
    "quick": comparison.Settings(
        problems=tuple(f"{name}.0" for name in corpus.default_sets()),
        steps=400,
        seeds=4,
        tuning_seeds=4,
    ),
    "full": comparison.Settings(
        ("default",), steps=1000, seeds=10, tuning_seeds=5
    ),
}


def run(folder, settings):
    """Compares on every problem; returns an `Outcome`."""
    problems = corpus.select(settings.problems, folder.data_dir)
    learned = {"learned": folder.learned}
    found, tuned = comparison.compare(folder, problems, learned, settings)
    return results.comparison_outcome(
        found, tuned, "Problems of the training set"
    )
