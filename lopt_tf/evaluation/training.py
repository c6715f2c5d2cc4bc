"""Optimizers that an experiment meta-trains itself."""

from lopt_tf import metatraining
from lopt_tf.evaluation import comparison
from lopt_tf.optimizers import pretrained
from problems import corpus


def options(meta_updates, **changes):
    """`TrainingOptions` of a short meta-training, as the quick preset's."""
    return metatraining.TrainingOptions(
        **{
            "meta_updates": meta_updates,
            "instances": 16,
            "meta_learning_rate_decay": 0.1,
            "curriculum": metatraining.Curriculum(
                mean_partials=0, min_length=100, mean_length=250
            ),
            **changes,
        }
    )


def train(study, label, rule, settings, problems):
    """Meta-trains a rule, or goes on where it was stopped: a `Contender`.

    Args:
        study: the `Study` that remembers it.
        label: what to call it.
        rule: the `UpdateRule`.
        settings: `TrainingOptions`.
        problems: as for `problems.corpus.select`.
    """
    folder = study.store.path(f"training/{label}")

    def say(line):
        study.progress.say(f"{label}: {line}")

    def make():
        try:
            return metatraining.train(
                corpus.select(problems, study.data_dir),
                rule,
                settings,
                output_dir=folder,
                resume=any((folder / "checkpoints").glob("checkpoint-*.npz")),
                report=say,
            )
        except FloatingPointError as error:
            # That a variant cannot be trained is a result, too: it is tested
            # with the weights from before it blew up.
            say(f"given up ({error})")
            return pretrained.load(folder / "optimizer.npz")[2]

    weights = study.piece(
        f"training/{label}", f"meta-training {label}", make, 0, 0
    )
    return comparison.Contender(rule, weights)
