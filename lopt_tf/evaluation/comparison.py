"""Learned optimizers and tuned baselines on problems, seed by seed."""

import dataclasses
import itertools

import numpy as np

from lopt_tf.evaluation import baselines, curves, runs, speedup, tuning

# Tuning must not see the runs of the comparison.
_TUNING_SEED, _COMPARISON_SEED = 1, 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much to run.

    Attributes:
        steps: T, of each optimizer.
        seeds: runs of each optimizer in the comparison.
        tuning_seeds: runs of each learning rate in the tuning.
        adam_factor: Adam runs so many times T, for the speed-up.
    """

    steps: int
    seeds: int
    tuning_seeds: int = 1
    adam_factor: int = speedup.LIMIT


@dataclasses.dataclass(frozen=True)
class Contender:
    """A learned optimizer with its weights.

    Attributes:
        rule: the `UpdateRule`.
        weights: {name: array [out, in]}.
        source: the file or the name that they were read from, if any.
    """

    rule: object
    weights: dict
    source: object = None


def compare(study, problems, learned, plan, names=tuple(baselines.BASELINES)):
    """Runs learned optimizers and tuned baselines on problems.

    Args:
        study: the `Study` that remembers what was done.
        problems: {name: Problem}.
        learned: {label: Contender}.
        plan: `Plan`.
        names: the baselines.

    Returns:
        (curves of the comparison, rows about every learning rate tried).
    """
    pairs = [
        _Pair(study, name, problem, plan, names)
        for name, problem in problems.items()
    ]
    for pair in pairs:
        study.progress.plan(pair.expected(len(learned)))
    study.facts.update(_facts(problems, plan))
    results, tuned = [], []
    for pair in pairs:
        choices = pair.tune()
        tuned += tuning.rows(pair.name, choices)
        for label, contender in learned.items():
            results += pair.learned(label, contender)
        results += pair.baselines(choices)
    return results, tuned


def _facts(problems, plan):
    def numbers(seed, count):
        return ", ".join(f"({seed}, {run})" for run in range(count))

    return {
        "problems": list(problems),
        "seed_numbers_of_tuning": numbers(_TUNING_SEED, plan.tuning_seeds),
        "seed_numbers_of_comparison": numbers(_COMPARISON_SEED, plan.seeds),
        **tuning.facts(),
    }


class _Pair:
    """One problem with all its optimizers."""

    def __init__(self, study, name, problem, plan, names):
        self.name = name
        self._names = list(names)
        self._study = study
        self._problem = problem
        self._plan = plan
        self._rule = baselines.SideBySide(names)
        self._lanes = None

    def expected(self, num_learned):
        """Runs to come, if no grid grows."""
        plan, count = self._plan, len(self._names)
        grid = len(tuning.START) * plan.tuning_seeds
        return grid * count + plan.seeds * (num_learned + count)

    @property
    def _rates_at_once(self):
        """Learning rates of each baseline that tuning runs side by side."""
        return max(1, self._plan.seeds // self._plan.tuning_seeds)

    def tune(self):
        """{baseline: Choice}."""
        rounds = itertools.count()
        return tuning.search(
            lambda rates: self._tuning_round(next(rounds), rates),
            self._names,
            chunk=self._rates_at_once,
        )

    def _tuning_round(self, number, rates):
        seeds = self._plan.tuning_seeds
        choices = [(n, rate) for n in rates for rate in rates[n]]
        if number * self._rates_at_once >= len(tuning.START):
            # The grid has grown.
            self._study.progress.plan(len(choices) * seeds)

        def make():
            losses = self._run(
                [choice for choice in choices for _ in range(seeds)],
                list(range(seeds)) * len(choices),
                _TUNING_SEED,
                self._plan.steps,
            )
            finals = [curves.final_loss(column) for column in losses.T]
            shape = (len(choices), seeds)
            return {"final_losses": np.reshape(finals, shape)}

        arrays = self._study.piece(
            f"{self.name}/tuning-{number}",
            f"{self.name}, tuning",
            make,
            len(choices) * seeds,
            len(choices) * seeds * self._plan.steps,
        )
        found = {name: {} for name in rates}
        for (name, rate), finals in zip(choices, arrays["final_losses"]):
            found[name][rate] = finals
        return found

    def baselines(self, choices):
        """Curves of the baselines at their best learning rates."""
        plan, seeds = self._plan, self._plan.seeds
        steps = {
            name: plan.steps * (plan.adam_factor if name == "adam" else 1)
            for name in choices
        }

        def make():
            losses = self._run(
                [
                    (name, choice.learning_rate)
                    for name, choice in choices.items()
                    for _ in range(seeds)
                ],
                list(range(seeds)) * len(choices),
                _COMPARISON_SEED,
                max(steps.values()),
            )
            columns = np.split(losses, len(choices), axis=1)
            return {
                name: column[: steps[name]]
                for name, column in zip(choices, columns)
            }

        arrays = self._study.piece(
            f"{self.name}/baselines",
            f"{self.name}, baselines",
            make,
            seeds * len(choices),
            seeds * sum(steps.values()),
        )
        return [
            curve
            for name, choice in choices.items()
            for curve in self._curves(
                name, choice.learning_rate, arrays[name], choice.at_edge
            )
        ]

    def learned(self, label, contender):
        """Curves of a learned optimizer."""
        plan = self._plan

        def make():
            lanes = runs.Lanes(self._problem, contender.rule, plan.seeds)
            losses = lanes.run(
                runs.repeated(contender.weights, plan.seeds),
                list(range(plan.seeds)),
                (_COMPARISON_SEED,),
                plan.steps,
            )
            return {"losses": losses}

        arrays = self._study.piece(
            f"{self.name}/{label}",
            f"{self.name}, {label}",
            make,
            plan.seeds,
            plan.seeds * plan.steps,
        )
        return self._curves(label, 1.0, arrays["losses"], False)

    def _run(self, choices, sources, seed, steps):
        """Losses [steps, choices] of baselines at learning rates."""
        if self._lanes is None:
            per_baseline = max(
                self._plan.seeds,
                self._rates_at_once * self._plan.tuning_seeds,
            )
            self._lanes = runs.Lanes(
                self._problem, self._rule, len(self._names) * per_baseline
            )
        # What is left over runs again, and is dropped.
        idle = self._lanes.count - len(choices)
        losses = self._lanes.run(
            self._rule.weights(choices + choices[:1] * idle),
            sources + sources[:1] * idle,
            (seed,),
            steps,
        )
        return losses[:, : len(choices)]

    def _curves(self, optimizer, rate, losses, at_edge):
        steps = self._plan.steps
        return [
            curves.Curve(
                self.name,
                optimizer,
                rate,
                seed,
                column[:steps],
                extension=column[steps:],
                at_edge=at_edge,
            )
            for seed, column in enumerate(losses.T)
        ]
