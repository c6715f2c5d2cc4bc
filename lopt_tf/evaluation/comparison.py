"""Learned optimizers and tuned baselines on problems, seed by seed."""

import dataclasses
import itertools

import numpy as np

from lopt_tf.evaluation import baselines, curves, runs, speedup, tuning

# Tuning must not see the runs of the comparison.
_TUNING_SEED, _COMPARISON_SEED = 1, 2
# Small problems of the meta-training.
SMALL = (
    "fully_connected_random_2_class_problems.0",
    "quadratic_problems_noisy.0",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to compare on, and how much of it.

    Attributes:
        problems: names, as for `corpus.select`.
        steps: T, of each optimizer; Adam runs four times as long.
        seeds: runs of each optimizer in the comparison.
        tuning_seeds: runs of each learning rate in the tuning.
        baselines: keys of `baselines.BASELINES`. Defaults to the usual ones.
    """

    problems: tuple | None
    steps: int
    seeds: int
    tuning_seeds: int
    _: dataclasses.KW_ONLY
    baselines: tuple = baselines.USUAL


def compare(folder, problems, learned, settings, adam_factor=speedup.LIMIT):
    """Runs learned optimizers and tuned baselines on problems.

    Args:
        folder: the `ExperimentFolder` that remembers what was done.
        problems: {name: Problem}.
        learned: {label: TrainedRule}.
        settings: `Settings`; its `problems` are not looked at.
        adam_factor: Adam runs so many times `settings.steps`, for the
            speed-up. Defaults to 4.

    Returns:
        (curves of the comparison, rows about every learning rate tried).
    """
    count = len(settings.baselines)
    grid = count * len(tuning.START) * settings.tuning_seeds
    runs_of_each = grid + settings.seeds * (len(learned) + count)
    folder.progress.plan(len(problems) * runs_of_each)
    folder.facts.update(
        problems=list(problems),
        seed_numbers_of_tuning=seeds_text(_TUNING_SEED, settings.tuning_seeds),
        seed_numbers_of_comparison=seeds_text(_COMPARISON_SEED, settings.seeds),
        **tuning.facts(),
    )
    results, tuned = [], []
    for name, problem in problems.items():
        comparison = _ProblemComparison(
            folder, name, problem, settings, adam_factor
        )
        choices = comparison.tune()
        tuned += tuning.rows(name, choices)
        for label, trained in learned.items():
            results += comparison.learned(label, trained)
        results += comparison.baselines(choices)
    return results, tuned


def seeds_text(seed, count):
    """The seeds of so many runs, for a report."""
    return ", ".join(f"({seed}, {run})" for run in range(count))


class _ProblemComparison:
    """One problem with all its optimizers."""

    def __init__(self, folder, name, problem, settings, adam_factor):
        self._folder = folder
        self._name = name
        self._problem = problem
        self._settings = settings
        self._adam_factor = adam_factor
        # Tuning and comparison are equally long: a rule serves both.
        self._rules = [
            baselines.SideBySide(settings.steps, names)
            for names in _groups(settings.baselines)
        ]
        self._runs = {}
        # Learning rates of each baseline that tuning runs side by side.
        self._rates_at_once = max(1, settings.seeds // settings.tuning_seeds)

    def tune(self):
        """{baseline: Choice}."""
        rounds, seeds = itertools.count(), self._settings.tuning_seeds
        return tuning.search(
            lambda rates: self._tuning_round(next(rounds), rates),
            self._settings.baselines,
            chunk=self._rates_at_once,
            plan=lambda rates: self._folder.progress.plan(rates * seeds),
        )

    def _tuning_round(self, number, rates):
        seeds, steps = self._settings.tuning_seeds, self._settings.steps
        choices = [(n, rate) for n in rates for rate in rates[n]]
        count = len(choices) * seeds
        piece = f"{self._name}/tuning-{number}"
        if not self._folder.has(piece):
            wanted = dict.fromkeys(rates, steps)
            losses = self._losses(choices, seeds, _TUNING_SEED, wanted)
            finals = [
                [curves.final_loss(column) for column in losses[choice].T]
                for choice in choices
            ]
            self._folder.keep(piece, {"final_losses": finals})
        arrays = self._folder.load(piece, count, count * steps)
        found = {name: {} for name in rates}
        for (name, rate), finals in zip(choices, arrays["final_losses"]):
            found[name][rate] = finals
        return found

    def baselines(self, choices):
        """Curves of the baselines at their best learning rates."""
        seeds = self._settings.seeds
        steps = {name: self._settings.steps for name in choices}
        if "adam" in steps:
            steps["adam"] *= self._adam_factor
        piece = f"{self._name}/baselines"
        if not self._folder.has(piece):
            rates = [(name, c.learning_rate) for name, c in choices.items()]
            losses = self._losses(rates, seeds, _COMPARISON_SEED, steps)
            self._folder.keep(piece, {n: x for (n, _), x in losses.items()})
        arrays = self._folder.load(
            piece, seeds * len(choices), seeds * sum(steps.values())
        )
        return [
            curve
            for name, choice in choices.items()
            for curve in self._curves(name, choice, arrays[name])
        ]

    def learned(self, label, trained):
        """Curves of a learned optimizer."""
        seeds, steps = self._settings.seeds, self._settings.steps
        piece = f"{self._name}/{label}"
        if not self._folder.has(piece):
            losses = runs.ParallelRuns(self._problem, trained.rule, seeds).run(
                runs.repeated(trained.weights, seeds),
                list(range(seeds)),
                (_COMPARISON_SEED,),
                steps,
            )
            self._folder.keep(piece, {"losses": losses})
        arrays = self._folder.load(piece, seeds, seeds * steps)
        return self._curves(label, tuning.UNTUNED, arrays["losses"])

    def _losses(self, choices, seeds, seed, steps):
        """Losses of baselines: {choice: array [its steps, seeds]}.

        Args:
            choices: list of (baseline, learning rate).
            seeds: how many runs of each choice, which are successive.
            seed: of their starts.
            steps: {baseline: steps to return}.
        """
        found = {}
        for rule in self._rules:
            own = [choice for choice in choices if choice[0] in rule.names]
            if own:
                most = max(steps[name] for name, _ in own)
                losses = self._run(rule, own, seeds, seed, most)
                found.update(zip(own, np.split(losses, len(own), axis=1)))
        return {c: found[c][: steps[c[0]]] for c in choices}

    def _run(self, rule, choices, seeds, seed, steps):
        """Losses [steps, choices * seeds] of one rule's baselines."""
        if rule not in self._runs:
            per_baseline = max(
                self._settings.seeds,
                self._rates_at_once * self._settings.tuning_seeds,
            )
            self._runs[rule] = runs.ParallelRuns(
                self._problem, rule, len(rule.names) * per_baseline
            )
        parallel = self._runs[rule]
        each = [choice for choice in choices for _ in range(seeds)]
        sources = list(range(seeds)) * len(choices)
        # Places that are left over run the first one again, and are dropped.
        idle = parallel.count - len(each)
        losses = parallel.run(
            rule.weights(each + each[:1] * idle),
            sources + sources[:1] * idle,
            (seed,),
            steps,
        )
        return losses[:, : len(each)]

    def _curves(self, optimizer, choice, losses):
        steps = self._settings.steps
        return [
            curves.Curve(
                self._name,
                optimizer,
                choice.learning_rate,
                seed,
                column[:steps],
                extension=column[steps:],
                at_edge=choice.at_edge,
            )
            for seed, column in enumerate(losses.T)
        ]


def _groups(names):
    """Which baselines share a rule: all but the costly ones, as tuples.

    Every run of a rule pays for the arithmetic of all its baselines.
    """
    apart = [n for n in names if baselines.BASELINES[n].is_costly]
    together = tuple(n for n in names if n not in apart)
    return [group for group in (together, *((n,) for n in apart)) if group]
