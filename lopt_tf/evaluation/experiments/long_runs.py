"""Ten thousand steps and more: does it keep improving, does it diverge?"""

import dataclasses

import numpy as np

from lopt_tf.evaluation import comparison, plots, results, speedup
from problems import corpus

TITLE = "Over long runs"
QUESTION = (
    "The paper: unlike earlier learned optimizers this one keeps improving "
    "for thousands of steps beyond the horizon it was trained for, and is "
    "stable; tuned baselines overtake it after 10 to 20 thousand steps on "
    "large models."
)
LEARNED = "required"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which problems, and how long.

    Attributes:
        problems: as for `corpus.select`.
        steps: of each optimizer.
        seeds: runs in the comparison.
        tuning_seeds: runs of each learning rate, as long.
    """

    problems: tuple
    steps: int
    seeds: int
    tuning_seeds: int


PRESETS = {
    "quick": Settings(
        (
            "fully_connected.0",
            "fully_connected_random_2_class_problems.0",
            "quadratic_problems_noisy.0",
        ),
        steps=10_000,
        seeds=2,
        tuning_seeds=2,
    ),
    "full": Settings(
        (
            "fully_connected",
            "convolutional",
            "residual",
            "recurrent",
            "fully_connected_random_2_class_problems.0",
            "quadratic_problems_noisy.0",
        ),
        steps=20_000,
        seeds=5,
        tuning_seeds=2,
    ),
}


def run(study, settings):
    """Runs everything for long; returns an `Outcome`."""
    found, tuned = comparison.compare(
        study,
        corpus.select(settings.problems, study.data_dir),
        {"learned": study.learned},
        comparison.Plan(
            settings.steps,
            settings.seeds,
            settings.tuning_seeds,
            # Who is ahead after so many steps is the question here.
            adam_factor=1,
        ),
    )
    return results.Outcome(
        tables=[
            results.Table(
                "summary",
                "What became of them",
                _rows(found, settings.steps),
                "loss_at: the running minimum of 20-step means; final_loss: "
                "the last of these means. "
                "improves_in_last_half: the share of runs whose running "
                "minimum fell by at least 1 % in the last half of all steps. "
                "ever_diverged: the share of runs that at any time were "
                "not finite, or with a 20-step mean of twice the first loss.",
            ),
            results.Table(
                "tuning",
                "Learning rates tried",
                tuned,
                "Each for as many steps, on other seeds.",
            ),
        ],
        plots=[
            results.Plot(
                "long_runs",
                "Curves",
                lambda path: plots.plot_curves(
                    path,
                    found,
                    f"{settings.steps:,} steps",
                    log_steps=True,
                    window=min(100, settings.steps),
                ),
                "Medians over seeds of 100-step means; shaded: from the "
                "least to the greatest.",
            )
        ],
        curves=found,
    )


def _rows(found, steps):
    marks = [n for n in (100, 1000, 10_000, 100_000) if n < steps]
    rows = []
    for (problem, optimizer), members in results.grouped(found).items():
        minima = [speedup.running_minimum(c.losses) for c in members]
        window = len(members[0].losses) - len(minima[0]) + 1
        row = {
            "problem": problem,
            "optimizer": optimizer,
            "learning_rate": members[0].learning_rate,
            "at_edge": members[0].at_edge,
            "seeds": len(members),
        }
        for mark in (*marks, steps):
            place = max(mark - window, 0)
            values = [minimum[place] for minimum in minima]
            row[f"loss_at_{mark}"] = float(np.mean(values))
        row["final_loss"] = float(np.mean([c.final_loss for c in members]))
        row["improves_in_last_half"] = float(
            np.mean([_improves(minimum) for minimum in minima])
        )
        row["ever_diverged"] = float(
            np.mean([_ever_diverged(c.losses) for c in members])
        )
        rows.append(row)
    return rows


def _improves(minimum):
    half, last = minimum[len(minimum) // 2], minimum[-1]
    return bool(half - last > 0.01 * abs(half))


def _ever_diverged(losses):
    """Whether any loss was not finite, or a 20-step mean twice the first."""
    start = float(losses[0])
    highest = np.max(speedup.window_means(losses))
    # What is not finite is no matter of the start, which may be so itself.
    return bool(not np.isfinite(highest) or highest > start + abs(start))
