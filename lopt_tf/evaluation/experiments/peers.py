"""Every optimizer at hand on networks of many widths and lengths of run."""

import dataclasses

import numpy as np

from lopt_tf.evaluation import comparison, results, speedup
from lopt_tf.optimizers import pretrained
from lopt_tf.reporting import report
from problems import corpus

TITLE = "Beside its peers"
QUESTION = (
    "Which optimizer to take when: the learned one without tuning, the weights "
    "that shipped before it, and optimizers of Keras whose learning rate was "
    "tuned on each problem and for each length of run."
)
LEARNED = "required"
BASELINES = ("adam", "adam_cosine", "momentum", "adamw", "lion", "muon")
_SMALL = (
    "fully_connected.0",
    "convolutional.0",
    "batch_norm.0",
    "residual.0",
)
_MIDDLE = (*_SMALL, "deeper.0", "recurrent.0", "transformer.0", "wide.0")
_ALL = (
    *_MIDDLE,
    "batch_size.0",
    "batch_size.1",
    "batch_norm.1",
    "deeper.1",
    "wide.1",
    "wide.2",
    "transformer_small_init.0",
    "regression_stored_smaller.0",
    "regression_stored_smaller.1",
)
# A loss of zero has an infinite logarithm.
_LEAST = 1e-12


@dataclasses.dataclass(frozen=True)
class Settings(comparison.Settings):
    """What to compare on, and how much of it.

    Attributes:
        problems: names, for runs of `steps` steps only; None for the usual
            networks, and `longer`.
        longer: ((steps, names), ...), further lengths of run.
    """

    _: dataclasses.KW_ONLY
    baselines: tuple = BASELINES
    longer: tuple = ()

    def lengths(self):
        """[(steps, names)], the shortest first."""
        if self.problems is not None:
            return [(self.steps, self.problems)]
        found = {self.steps: list(_ALL)}
        for steps, names in self.longer:
            # `steps` may be one of these, too.
            found.setdefault(steps, []).extend(names)
        return [(s, list(dict.fromkeys(n))) for s, n in sorted(found.items())]


PRESETS = {
    "quick": Settings(
        ("fully_connected.0", "wide.0", "recurrent.0"),
        steps=150,
        seeds=2,
        tuning_seeds=1,
    ),
    "full": Settings(
        None,
        steps=600,
        seeds=3,
        tuning_seeds=2,
        longer=((2000, _MIDDLE), (10_000, _SMALL)),
    ),
}
COLUMNS = {
    **results.SUMMARY_COLUMNS,
    "decades": "The mean over all steps of the logarithm, to the base 10, of "
    "the first loss over a 20-step mean: the area under the curve. More is "
    "better.",
    "spikes": "The mean number, for each run, of 20-step means above ten "
    "times the least one before.",
}


def run(folder, settings):
    """Compares at every length; returns an `Outcome`."""
    learned = {"learned": folder.learned, **_older(folder.learned)}
    found, tuned, rows, every = [], [], [], []
    for steps, names in settings.lengths():
        problems = {
            f"{name}, {steps} steps": problem
            for name, problem in corpus.select(names, folder.data_dir).items()
        }
        plan = dataclasses.replace(settings, steps=steps)
        more, tried = comparison.compare(folder, problems, learned, plan)
        found += more
        tuned += tried
        every += problems
        folder.facts["problems"] = [*every]
        overall = results.overall(more, _MEASURES)
        rows += [{"steps": steps, **row} for row in overall]
    first = report.Table(
        "overall", "All problems, by length of run", rows, columns=COLUMNS
    )
    return results.comparison_outcome(
        found, tuned, "Peers: minibatch loss", _MEASURES, first
    )


def _older(learned):
    """{name: TrainedRule} of shipped weights other than these."""
    return {
        name: pretrained.load_rule(name)
        for name in pretrained.names(learned.rule.name)
        if name != learned.name
    }


def decades(curve):
    """The area under a run's curve; see `COLUMNS`."""
    means = np.maximum(speedup.window_means(curve.losses), _LEAST)
    first = max(float(curve.losses[0]), _LEAST)
    # What is not finite counts as a loss that is a million times the first.
    return float(np.mean(np.log10(first / np.minimum(means, 1e6 * first))))


def spikes(curve):
    """How many successive 20-step means are far above the least before."""
    means = speedup.window_means(curve.losses)[:: speedup.WINDOW]
    least = np.minimum.accumulate(np.maximum(means, _LEAST))
    return int(np.sum(means[1:] > 10 * least[:-1]))


_MEASURES = {"decades": decades, "spikes": spikes}
