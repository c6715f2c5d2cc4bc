"""Meta-trains and tests variants, each without one of the paper's ideas."""

import dataclasses

from keras import ops

from lopt_tf import metatraining
from lopt_tf.evaluation import comparison, plots, results, training
from lopt_tf.optimizers.hierarchical_rnn import ROBUST, HierarchicalRNNRule
from lopt_tf.reporting import report
from problems import corpus

TITLE = "Which of its parts matter?"
QUESTION = (
    "The paper: without attention, several time scales of momentum, dynamic "
    "input scaling, relative learning rates, the logarithmic objective, "
    "heavy-tailed unrolls, or with 1 or 2 levels only, the optimizer is "
    "worse. Each variant is meta-trained here in the same way, then tested "
    "on problems outside of that training. Beyond the paper: an upper bound "
    "of the learning rates, their unit, the size of the parameters, and rest "
    "without gradients, which all variants but one each have; and a lower "
    "bound, which one of them has."
)
LEARNED = "never"


class UnscaledInputsRule(HierarchicalRNNRule):
    """The hierarchical RNN without dynamic input scaling.

    Mean squares are the constant 1: gradients come in as they are.
    """

    name = "hierarchical_rnn_unscaled_inputs"

    def _mean_squares(self, element, averages, epsilon):
        del element, epsilon
        return ops.ones_like(averages)


# With the learning rate itself as an input, too, the relative one would hardly
# be missed.
_COMPLETE = {**ROBUST, "use_lr_shortcut": False, "use_attention": True}


def _rule(**config):
    return HierarchicalRNNRule(**{**_COMPLETE, **config})


_SHORT_UNROLLS = metatraining.Curriculum(
    starts=1, mean_partials=0, min_length=20, mean_length=0
)
# Each variant: (its rule, what differs in its meta-training).
VARIANTS = {
    "complete": (lambda: _rule(), {}),
    "no_attention": (lambda: _rule(use_attention=False), {}),
    "one_time_scale": (lambda: _rule(num_gradient_scales=1), {}),
    "no_input_scaling": (lambda: UnscaledInputsRule(**_COMPLETE), {}),
    "no_relative_rate": (lambda: _rule(use_relative_lr=False), {}),
    "no_log_objective": (lambda: _rule(), {"use_log_objective": False}),
    "short_unrolls": (lambda: _rule(), {"curriculum": _SHORT_UNROLLS}),
    "two_levels": (lambda: _rule(level_sizes=(10, 20)), {}),
    "one_level": (lambda: _rule(level_sizes=(10,)), {}),
    "no_bound": (lambda: _rule(max_log_lr=33.0), {}),
    "no_step_unit": (lambda: _rule(step_unit=None), {}),
    "no_rest": (lambda: _rule(rest_without_gradient=False), {}),
    "lower_bound": (lambda: _rule(min_log_lr=-5.5), {}),
}


# An update of theirs takes a fifth of the inner steps of the others'.
_MORE_UPDATES = {"short_unrolls": 5}
_ONE_TRAINING = (
    "Each variant was meta-trained once: the intervals are over seeds of the "
    "tests alone, and do not tell how another meta-training would have ended."
)


@dataclasses.dataclass(frozen=True)
class Settings(comparison.Settings):
    """How much meta-training and testing.

    Attributes:
        variants: keys of `VARIANTS`.
        train_problems: as for `problems.corpus.select`.
        meta_updates: of each variant.
        training_seed: of the meta-training.
    """

    variants: tuple
    train_problems: tuple
    meta_updates: int
    training_seed: int = 0


PRESETS = {
    "quick": Settings(
        variants=tuple(VARIANTS),
        train_problems=comparison.SMALL,
        meta_updates=200,
        problems=("mlp_test.0", "fully_connected.0", "rescale_problems.6"),
        steps=300,
        seeds=4,
        tuning_seeds=2,
        baselines=("adam",),
    ),
    "full": Settings(
        variants=tuple(VARIANTS),
        train_problems=("default",),
        meta_updates=20_000,
        problems=("mlp_test", "fully_connected", "convolutional", "residual"),
        steps=1000,
        seeds=10,
        tuning_seeds=5,
        baselines=("adam",),
    ),
}


def run(folder, settings):
    """Meta-trains and tests all variants; returns an `Outcome`."""
    unknown = [name for name in settings.variants if name not in VARIANTS]
    if unknown or not settings.variants:
        raise ValueError(
            f"Unknown variants: {', '.join(unknown) or 'none given'}. Known: "
            f"{', '.join(VARIANTS)}."
        )
    problems = corpus.select(settings.problems, folder.data_dir)
    trained, trainings = {}, []
    for name in settings.variants:
        make_rule, changes = VARIANTS[name]
        options = training.options(
            settings.meta_updates * _MORE_UPDATES.get(name, 1),
            seed=settings.training_seed,
            meta_learning_rate=5e-4,
            **changes,
        )
        rule = make_rule()
        trained[name] = training.train(
            folder, name, rule, options, settings.train_problems
        )
        trainings.append(training.progress_made(folder, name, rule, options))
    found, tuned = comparison.compare(folder, problems, trained, settings)
    outcome = results.comparison_outcome(found, tuned, "Ablations")
    # A line for each variant, not for each problem.
    turned = [
        {**row, "problem": row["optimizer"], "optimizer": row["problem"]}
        for row in outcome.tables[1].rows
        if row["optimizer"] != "adam"
    ]
    outcome.plots[0].draw = lambda path: plots.plot_speedups(path, turned)
    outcome.plots[0].note += f" {_ONE_TRAINING}"
    for table in outcome.tables[:2]:
        table.note += f" {_ONE_TRAINING}"
    outcome.tables.append(
        report.Table(
            "meta_training",
            "Meta-training",
            trainings,
            f"Of {settings.meta_updates} meta-updates; short_unrolls, whose "
            "updates are of 20 inner steps instead of 100 on average, of "
            "five times as many. Fewer: it blew up.",
        )
    )
    return outcome
