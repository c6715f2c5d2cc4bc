"""Initial learning rates over six orders of magnitude."""

import dataclasses
import functools
import itertools

import numpy as np

from lopt_tf.evaluation import baselines, curves, plots, results, runs
from lopt_tf.optimizers import registry
from problems import corpus

TITLE = "Robust to the initial learning rate"
QUESTION = (
    "The paper: the learned optimizer ends at about the same loss whatever "
    "learning rate it begins with, over several orders of magnitude; Adam and "
    "RMSProp do not."
)
LEARNED = "required"
_SEED = 3
_BASELINES = ("adam", "rmsprop")
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
    """

    problems: tuple
    rates: tuple
    steps: int
    seeds: int


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


def run(study, settings):
    """Runs all optimizers from all learning rates; returns an `Outcome`."""
    rule = study.learned.rule
    if "init_lr_range" not in rule.get_config():
        raise ValueError(
            f"The optimizer {rule.name!r} does not begin with learning rates "
            "of its own: there is nothing to vary."
        )
    problems = corpus.select(settings.problems, study.data_dir)
    count = len(settings.rates) * settings.seeds * (1 + len(_BASELINES))
    study.progress.plan(len(problems) * count)
    numbers = ", ".join(f"({_SEED}, {run})" for run in range(settings.seeds))
    study.facts.update(problems=list(problems), seed_numbers=numbers)
    found = []
    for name, problem in problems.items():
        found += _learned(study, name, problem, settings)
        found += _baselines(study, name, problem, settings)
    rows = _rows(found)
    return results.Outcome(
        tables=[
            results.Table(
                "robustness",
                "How wide is the range of good learning rates?",
                _robustness(rows),
                "Good rates get at least 90 % of the way from the first loss "
                "to the problem's best loss of any optimizer here. "
                "good_decades: orders of magnitude that the longest range of "
                "good rates covers, each rate standing for its step of the "
                f"grid. {_bound(rule)}",
            ),
            results.Table(
                "summary",
                "Final losses",
                rows,
                "Means over seeds of the last 20 steps.",
            ),
        ],
        plots=[
            results.Plot(
                "learning_rates",
                "Final loss over initial learning rate",
                lambda path: plots.plot_rates(
                    path, rows, "Final loss over initial learning rate"
                ),
                "Shaded: from the least to the greatest over seeds. Lines "
                "end where runs blow up.",
            )
        ],
        curves=found,
    )


def _bound(rule):
    """What an upper bound of learning rates means for the question."""
    most = float(np.exp(rule.get_config().get("max_log_lr", np.inf)))
    if most >= 1e6:
        return ""
    unit = " of a tensor's scale"
    scaled = rule.get_config().get("use_parameter_scale", False)
    return (
        "This optimizer steps with learning rates of at most "
        f"{most:.2g}{unit if scaled else ''} "
        "whatever it begins with: above, its robustness is that bound's."
    )


def _learned(study, name, problem, settings):
    contender, seeds = study.learned, settings.seeds
    weights = runs.repeated(contender.weights, seeds)

    def arguments(rate):
        return weights, _starting_at(contender.rule, rate)

    return _Rates(study, name, problem, settings, contender.rule).curves(
        "learned", arguments
    )


def _starting_at(rule, rate):
    """The rule with every learning rate beginning at `rate`."""
    config = {**rule.get_config(), "init_lr_range": (rate, rate)}
    return registry.rule(rule.name, **config)


def _baselines(study, name, problem, settings):
    rule = baselines.SideBySide(_BASELINES)
    rates = _Rates(study, name, problem, settings, rule)
    found = []
    for baseline in _BASELINES:

        def arguments(rate, baseline=baseline):
            return rule.weights([(baseline, rate)] * settings.seeds), None

        found += rates.curves(baseline, arguments)
    return found


class _Rates:
    """Runs of a rule on a problem: all its learning rates share a program."""

    def __init__(self, study, name, problem, settings, rule):
        self._study = study
        self._name = name
        self._settings = settings
        # Made by the first run that is not there yet.
        self._lanes = functools.cache(
            lambda: runs.Lanes(problem, rule, settings.seeds)
        )

    def curves(self, optimizer, arguments):
        """Curves from all learning rates.

        Args:
            optimizer: what to call it.
            arguments: function of a rate that returns (weights of the runs,
                the rule that draws the starting learning rates or None).
        """
        return [
            curves.Curve(self._name, optimizer, rate, seed, column)
            for rate in self._settings.rates
            for seed, column in enumerate(
                self._losses(optimizer, rate, *arguments(rate)).T
            )
        ]

    def _losses(self, optimizer, rate, weights, start_rule):
        """Losses [steps, seeds], a piece of work of their own."""
        steps, seeds = self._settings.steps, self._settings.seeds

        def make():
            losses = self._lanes().run(
                weights, list(range(seeds)), (_SEED,), steps, start_rule
            )
            return {"losses": losses}

        return self._study.piece(
            f"{self._name}/{optimizer}/{rate:g}",
            f"{self._name}, {optimizer}",
            make,
            seeds,
            seeds * steps,
        )["losses"]


def _rows(found):
    groups = {}
    for curve in found:
        key = (curve.problem, curve.optimizer, curve.learning_rate)
        groups.setdefault(key, []).append(curve)
    rows = []
    for (problem, optimizer, rate), members in groups.items():
        finals = [c.final_loss for c in members]
        rows.append(
            {
                "problem": problem,
                "optimizer": optimizer,
                "learning_rate": rate,
                "first_loss": float(np.mean([c.losses[0] for c in members])),
                "final_loss": float(np.mean(finals)),
                "least": min(finals),
                "greatest": max(finals),
                "diverged": float(np.mean([c.diverged for c in members])),
            }
        )
    return rows


def _robustness(rows):
    summary = []
    pairs = dict.fromkeys((r["problem"], r["optimizer"]) for r in rows)
    for problem, optimizer in pairs:
        here = [r for r in rows if r["problem"] == problem]
        own = [r for r in here if r["optimizer"] == optimizer]
        least = min(r["final_loss"] for r in here)
        best = min(own, key=lambda r: r["final_loss"])
        first = own[0]["first_loss"]
        level = first - _GOOD * (first - least)
        good = [r["final_loss"] <= level for r in own]
        summary.append(
            {
                "problem": problem,
                "optimizer": optimizer,
                "best_rate": best["learning_rate"],
                "best_loss": best["final_loss"],
                "worst_loss": max(r["final_loss"] for r in own),
                "good_rates": f"{sum(good)} of {len(own)}",
                "good_decades": _decades(own, good),
                "diverged": float(np.mean([r["diverged"] for r in own])),
            }
        )
    return summary


def _decades(rows, good):
    """The width of the longest range of good rates without a bad one."""
    runs_of_good = [
        len(list(group))
        for is_good, group in itertools.groupby(good)
        if is_good
    ]
    rates = [row["learning_rate"] for row in rows]
    spacing = np.log10(rates[-1] / rates[0]) / max(len(rates) - 1, 1)
    return float(max(runs_of_good, default=0) * spacing)
