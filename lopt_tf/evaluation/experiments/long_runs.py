"""Ten thousand steps and more: does it keep improving, does it diverge?"""

import functools

import numpy as np

from lopt_tf.evaluation import comparison, curves, plots, results, speedup
from lopt_tf.reporting import report
from problems import corpus

TITLE = "Over long runs"
QUESTION = (
    "The paper: unlike earlier learned optimizers this one keeps improving "
    "for thousands of steps beyond the horizon it was trained for, and is "
    "stable; tuned baselines overtake it after 10 to 20 thousand steps on "
    "large models. Beyond the paper: Adam whose tuned learning rate falls to 0 "
    "by half a cosine over the run, the strongest baseline for so many steps."
)
LEARNED = "required"
_NETS = ("fully_connected", "convolutional", "residual", "recurrent")
PRESETS = {
    "quick": comparison.Settings(
        ("fully_connected.0", *comparison.SMALL),
        steps=10_000,
        seeds=2,
        tuning_seeds=2,
    ),
    "full": comparison.Settings(
        (*_NETS, *comparison.SMALL), steps=20_000, seeds=5, tuning_seeds=2
    ),
}


def run(folder, settings):
    """Runs everything for long; returns an `Outcome`."""
    found, tuned = comparison.compare(
        folder,
        corpus.select(settings.problems, folder.data_dir),
        {"learned": folder.learned},
        settings,
        # The question here is who is ahead after so many steps.
        adam_factor=1,
    )
    return results.Outcome(
        tables=[
            report.Table(
                "summary",
                "What became of them",
                _rows(found, settings.steps),
                "loss_at: the running minimum of 20-step means.",
                {
                    "final_loss": "The last of the 20-step means.",
                    "improves_in_last_half": "The share of runs whose running "
                    "minimum fell by at least 1 % in the last half of all "
                    "steps.",
                    "ever_diverged": "The share of runs that at any time were "
                    "not finite, or with a 20-step mean of twice the first "
                    "loss.",
                },
            ),
            results.tuning_table(tuned),
        ],
        plots=[
            report.Plot(
                "long_runs",
                "Curves",
                functools.partial(
                    plots.plot_curves,
                    results=found,
                    title=f"{settings.steps:,} steps",
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

    def loss_at(mark):
        return lambda c: speedup.reached(c.losses[:mark])

    return curves.summary(
        found,
        lambda members: curves.means(
            members,
            **{f"loss_at_{mark}": loss_at(mark) for mark in (*marks, steps)},
            final_loss=lambda c: c.final_loss,
            improves_in_last_half=lambda c: _improves(c.losses),
            ever_diverged=lambda c: _ever_diverged(c.losses),
        ),
    )


def _improves(losses):
    minimum = speedup.running_minimum(losses)
    half, last = minimum[len(minimum) // 2], minimum[-1]
    return bool(half - last > 0.01 * abs(half))


def _ever_diverged(losses):
    """Whether any loss was not finite, or a 20-step mean twice the first."""
    start = float(losses[0])
    highest = np.max(speedup.window_means(losses))
    # What is not finite is no matter of the start, which may be so itself.
    return bool(not np.isfinite(highest) or highest > start + abs(start))
