"""The coordinatewise RNN, without the paper's ideas: where it fails."""

import dataclasses

from lopt_tf import metatraining
from lopt_tf.evaluation import comparison, curves, results, speedup, training
from lopt_tf.optimizers import registry
from lopt_tf.optimizers.hierarchical_rnn import ROBUST
from lopt_tf.reporting import report
from problems import corpus

TITLE = "Where earlier learned optimizers fail"
QUESTION = (
    "The paper: an RNN for each coordinate without its ideas fails on simple "
    "problems, or stops making progress after the horizon that it was "
    "trained for; the hierarchical RNN does not. Both are meta-trained here "
    "in the same way, on the same problems, the latter as published and with "
    "an upper bound of its learning rates (these an input, and in units of the "
    "parameters' size). Only if the RNN does well on a problem of that "
    "meta-training has it been trained at all, and tells its failure elsewhere "
    "something about what it has learned."
)
LEARNED = "optional"
# Of the instances that weights are chosen on, and of those that then tell
# what meta-training achieved.
_VALIDATION_SEED, _REPORT_SEED = 1, 2
# What is meta-trained: (name of the rule, its arguments).
_RULES = {
    "coordinatewise_rnn": ("coordinatewise_rnn", {}),
    "hierarchical_rnn": ("hierarchical_rnn", {}),
    "hierarchical_rnn_robust": ("hierarchical_rnn", ROBUST),
}


@dataclasses.dataclass(frozen=True)
class Settings(comparison.Settings):
    """How much meta-training and testing.

    Attributes:
        train_problems: as for `problems.corpus.select`.
        validation_problems: of each optimizer, the weights that did best on
            them are taken; other instances than those of the training.
        meta_updates: of each optimizer.
        horizon: steps after which progress counts as beyond what was
            trained for; the mean length of a run in meta-training.
        training_seed: of the meta-training.
    """

    train_problems: tuple
    validation_problems: tuple
    meta_updates: int
    horizon: int
    training_seed: int = 0


_NETS = "fully_connected_random_2_class_problems"
_SMALL = (f"{_NETS}.1", "quadratic_problems_noisy.0", "bowl_problems.2")
PRESETS = {
    "quick": Settings(
        train_problems=_SMALL,
        validation_problems=_SMALL,
        meta_updates=600,
        problems=(
            # Of the meta-training: what does badly here was never trained.
            "quadratic_problems_noisy.0",
            "bowl_problems.3",
            "quadratic_problems.0",
            "rescale_problems.6",
            f"{_NETS}.0",
            "fully_connected.0",
        ),
        horizon=500,
        steps=1500,
        seeds=3,
        tuning_seeds=3,
    ),
    "full": Settings(
        train_problems=("default",),
        validation_problems=(*_SMALL, "rescale_problems.6", f"{_NETS}.6"),
        meta_updates=20_000,
        problems=(
            "bowl_problems",
            "quadratic_problems",
            "rescale_problems",
            "optimization_test_problems",
            _NETS,
            "mlp_test",
            "fully_connected",
            "convolutional",
        ),
        horizon=500,
        steps=3500,
        seeds=10,
        tuning_seeds=5,
    ),
}


def run(folder, settings):
    """Meta-trains and tests all; returns an `Outcome`."""
    if settings.steps <= settings.horizon:
        raise ValueError(
            f"The experiment is about what follows step {settings.horizon}: "
            f"{settings.steps} steps do not get there. Give more --steps."
        )
    problems = corpus.select(settings.problems, folder.data_dir)
    options = training.options(
        settings.meta_updates, seed=settings.training_seed
    )
    validate, measure = (
        metatraining.Validation(
            corpus.select(settings.validation_problems),
            steps=settings.horizon,
            seed=seed,
        )
        for seed in (_VALIDATION_SEED, _REPORT_SEED)
    )
    trained, trainings = {}, []
    for name, (kind, config) in _RULES.items():
        rule = registry.rule(kind, **config)
        trained[name] = training.train(
            folder, name, rule, options, settings.train_problems, validate
        )
        trainings.append(
            training.progress_made(folder, name, rule, options, measure)
        )
    if folder.learned is not None:
        trained["learned"] = folder.learned
    found, tuned = comparison.compare(folder, problems, trained, settings)
    outcome = results.comparison_outcome(
        found, tuned, "Beyond the horizon of meta-training"
    )
    outcome.tables[1:1] = [
        report.Table(
            "meta_training",
            "What meta-training achieved",
            trainings,
            "Mean logarithm of loss over starting loss, on fresh instances "
            f"of {', '.join(settings.validation_problems)}, runs of "
            f"{settings.horizon} steps: before, with the weights that did "
            "best at one of about 20 validations (on other instances; these "
            "weights are tested below), and with the last ones. Fewer "
            f"meta-updates than {settings.meta_updates}: it blew up.",
        ),
        report.Table(
            "beyond_horizon",
            "Progress beyond the horizon",
            _beyond(found, settings.horizon),
            f"Means of 20 steps: the least one within {settings.horizon} "
            "steps (the mean length of a run in meta-training) and the last "
            "one, means over seeds. still_improves: the share of runs that "
            "end at least 1 % below the former, and have not diverged.",
        ),
    ]
    return outcome


def _beyond(found, horizon):
    def before(curve):
        return speedup.reached(curve.losses[:horizon])

    def improves(curve):
        """Whether a run ends at least 1 % below its loss at the horizon."""
        level = before(curve) - 0.01 * abs(before(curve))
        return curve.final_loss < level and not curve.diverged

    return [
        {
            "problem": problem,
            "optimizer": optimizer,
            **curves.means(
                members,
                loss_at_horizon=before,
                loss_at_end=lambda c: c.final_loss,
                still_improves=improves,
            ),
            **curves.means(members, "diverged"),
        }
        for (problem, optimizer), members in curves.grouped(found).items()
    ]
