"""Initial learning rates over six orders of magnitude."""

import dataclasses
import functools
import itertools
import operator

import numpy as np

from lopt_tf.evaluation import baselines, comparison, curves, plots, results
from lopt_tf.evaluation.runs import ParallelRuns, repeated
from lopt_tf.reporting import report
from problems import corpus

TITLE = "Robust to the initial learning rate"
QUESTION = (
    "The paper: the learned optimizer ends at about the same loss whatever "
    "learning rate it begins with, over several orders of magnitude; Adam and "
    "RMSProp do not."
)
LEARNED = "required"
_SEED = 3
# A rate counts as good if it gets this share of the way to the best loss.
_GOOD = 0.9


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which problems and learning rates.

    Attributes:
        problems: as for `corpus.select`.
        rates: initial learning rates, ascending.
        steps: of each run.
        seeds: runs of each learning rate.
        baselines: keys of `baselines.BASELINES`. Defaults to Adam, at a
            constant rate and with cosine decay, and RMSProp.
    """

    problems: tuple
    rates: tuple
    steps: int
    seeds: int
    baselines: tuple = ("adam", "adam_cosine", "rmsprop")


def _rates(per_decade):
    """From 1e-6 to 1."""
    exponents = np.linspace(-6, 0, 6 * per_decade + 1)
    return tuple(float(f"{10**e:.4g}") for e in exponents)


PRESETS = {
    "quick": Settings(
        ("fully_connected.0", "softmax_2_class_problems.0"),
        _rates(2),
        steps=400,
        seeds=3,
    ),
    "full": Settings(
        (
            "fully_connected",
            "convolutional.0",
            "residual",
            "recurrent",
            "softmax_2_class_problems.0",
            "fully_connected_random_2_class_problems.0",
        ),
        _rates(4),
        steps=2000,
        seeds=5,
    ),
}


def run(folder, settings):
    """Runs all optimizers from all learning rates; returns an `Outcome`."""
    rule = folder.learned.rule
    if "init_lr_range" not in rule.get_config():
        raise ValueError(
            f"The optimizer {rule.name!r} does not begin with learning rates "
            "of its own: there is nothing to vary."
        )
    problems = corpus.select(settings.problems, folder.data_dir)
    optimizers = 1 + len(settings.baselines)
    count = len(settings.rates) * settings.seeds * optimizers
    folder.progress.plan(len(problems) * count)
    folder.facts.update(
        problems=list(problems),
        seed_numbers=comparison.seeds_text(_SEED, settings.seeds),
    )
    found = []
    contenders = _contenders(folder.learned, settings)
    for problem, contender in itertools.product(problems.items(), contenders):
        found += _curves(folder, *problem, settings, *contender)
    rows = _rows(found)
    return results.Outcome(
        tables=[
            report.Table(
                "robustness",
                "How wide is the range of good learning rates?",
                _robustness(rows),
                "Good rates get at least 90 % of the way from the first loss "
                "to the problem's best loss of any optimizer here. "
                f"{_bound(rule)}",
                {
                    "good_decades": "Orders of magnitude that the longest "
                    "range of good rates covers, each rate standing for its "
                    "step of the grid.",
                    "diverged": results.SUMMARY_COLUMNS["diverged"],
                },
            ),
            report.Table(
                "summary",
                "Final losses",
                rows,
                "Means over seeds of the last 20 steps.",
            ),
        ],
        plots=[
            report.Plot(
                "learning_rates",
                "Final loss over initial learning rate",
                functools.partial(plots.plot_rates, rows=rows),
                "Shaded: from the least to the greatest over seeds. Lines "
                "end where runs blow up.",
            )
        ],
        curves=found,
    )


def _bound(rule):
    """What an upper bound of learning rates means for the question."""
    config = rule.get_config()
    most = float(np.exp(config.get("max_log_lr", np.inf)))
    if most >= 1e6:
        return ""
    has_unit = config.get("step_unit") or config.get("use_parameter_scale")
    unit = " of a tensor's unit" * bool(has_unit)
    return (
        f"This optimizer steps with learning rates of at most {most:.2g}{unit} "
        "whatever it begins with: above, its robustness is that bound's."
    )


def _contenders(learned, settings):
    """The learned rule and the baselines as one, each with its cases.

    The cases are {(optimizer, learning rate): (weights of the runs, the rule
    that draws the starting learning rates, if it is another)}.
    """
    weights = repeated(learned.weights, settings.seeds)
    cases = {
        ("learned", rate): (
            weights,
            dataclasses.replace(learned.rule, init_lr_range=(rate, rate)),
        )
        for rate in settings.rates
    }
    baseline = baselines.SideBySide(settings.steps, settings.baselines)
    choices = {
        choice: (baseline.weights([choice] * settings.seeds), None)
        for choice in itertools.product(settings.baselines, settings.rates)
    }
    return (learned.rule, cases), (baseline, choices)


def _curves(folder, name, problem, settings, rule, cases):
    """Curves of a rule on a problem: all learning rates share a program."""
    steps, seeds = settings.steps, settings.seeds
    parallel, found = None, []
    for (optimizer, rate), (weights, start_rule) in cases.items():
        piece = f"{name}/{optimizer}/{rate:g}"
        if not folder.has(piece):
            parallel = parallel or ParallelRuns(problem, rule, seeds)
            losses = parallel.run(
                weights, list(range(seeds)), (_SEED,), steps, start_rule
            )
            folder.keep(piece, {"losses": losses})
        losses = folder.load(piece, seeds, seeds * steps)["losses"]
        found += [
            curves.Curve(name, optimizer, rate, seed, column)
            for seed, column in enumerate(losses.T)
        ]
    return found


def _rows(found):
    names = ("problem", "optimizer", "learning_rate")
    return [
        {
            **dict(zip(names, key)),
            **curves.means(members, first_loss=lambda c: c.losses[0]),
            **curves.means(members, "final_loss"),
            "least": min(c.final_loss for c in members),
            "greatest": max(c.final_loss for c in members),
            **curves.means(members, "diverged"),
        }
        for key, members in curves.grouped(
            found, operator.attrgetter(*names)
        ).items()
    ]


def _robustness(rows):
    summary = []
    pairs = curves.grouped(rows, operator.itemgetter("problem", "optimizer"))
    for (problem, optimizer), own in pairs.items():
        finals = [r["final_loss"] for r in own]
        least = min(r["final_loss"] for r in rows if r["problem"] == problem)
        first = own[0]["first_loss"]
        level = first - _GOOD * (first - least)
        good = [final <= level for final in finals]
        summary.append(
            {
                "problem": problem,
                "optimizer": optimizer,
                "best_rate": own[np.argmin(finals)]["learning_rate"],
                "best_loss": min(finals),
                "worst_loss": max(finals),
                "good_rates": f"{sum(good)} of {len(own)}",
                "good_decades": _decades(own, good),
                "diverged": float(np.mean([r["diverged"] for r in own])),
            }
        )
    return summary


def _decades(rows, good):
    """The width of the longest range of good rates without a bad one."""
    longest = max(sum(group) for _, group in itertools.groupby(good))
    rates = [row["learning_rate"] for row in rows]
    spacing = np.log10(rates[-1] / rates[0]) / max(len(rates) - 1, 1)
    return float(longest * spacing)
