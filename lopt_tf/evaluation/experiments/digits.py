"""Keras networks on the digits, through fit, with accuracy on a test set."""

import dataclasses
import warnings

import lopt_tf
from lopt_tf.evaluation import curves, results, tuning
from lopt_tf.evaluation import digits as networks
from lopt_tf.optimizers import registry

TITLE = "Networks on scikit-learn's digits, through fit"
QUESTION = (
    "The learned optimizer as a user meets it: in `model.compile`, beside "
    "tuned Adam and RMSProp and what it was before meta-training."
)
LEARNED = "required"
# Tuning must not see the runs of the comparison.
_TUNING_SEED = 1000


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much to train.

    Attributes:
        epochs: of each run.
        seeds: runs in the comparison.
        tuning_seeds: runs of each learning rate.
        untrained: also the optimizer as it was before meta-training.
    """

    epochs: int
    seeds: int
    tuning_seeds: int
    untrained: bool = True


PRESETS = {
    "quick": Settings(epochs=10, seeds=3, tuning_seeds=1),
    "full": Settings(epochs=30, seeds=10, tuning_seeds=5),
}


def run(study, settings):
    """Trains every network with every optimizer; returns an `Outcome`."""
    comparison = _Comparison(study, settings)
    found, tuned = [], []
    grid = len(tuning.START) * len(networks.BASELINES) * settings.tuning_seeds
    study.progress.plan(grid * len(networks.NETWORKS))
    study.facts.update(_facts(settings))
    for network in networks.NETWORKS:
        choices = comparison.tune(network)
        tuned += tuning.rows(network, choices)
        found += comparison.curves(network, choices)
    return results.Outcome(
        tables=[
            results.Table(
                "summary",
                "What they ended with",
                curves.summary(found),
                "Means over seeds. steps_to_adam: the median number of steps "
                "to the loss with which Adam ended on the same seed.",
            ),
            results.Table(
                "tuning",
                "Learning rates tried",
                tuned,
                "On other seeds than the comparison; the grid grows until its "
                "best is not at an edge.",
            ),
        ],
        plots=results.curve_plots(found, "Digits: training loss"),
        curves=found,
    )


def _facts(settings):
    first = _TUNING_SEED
    return {
        "seed_numbers_of_tuning": list(
            range(first, first + settings.tuning_seeds)
        ),
        "seed_numbers_of_comparison": list(range(settings.seeds)),
        **tuning.facts(),
    }


class _Comparison:
    """Runs of Keras optimizers, each remembered."""

    def __init__(self, study, settings):
        self._study = study
        self._settings = settings
        self._data = networks.Digits.load()

    def tune(self, network):
        """{baseline: Choice}."""
        settings, grid = self._settings, len(tuning.START)
        tried = dict.fromkeys(networks.BASELINES, 0)

        def run(rates):
            found = {}
            for name, chosen in rates.items():
                tried[name] += len(chosen)
                if tried[name] > grid:
                    more = len(chosen) * settings.tuning_seeds
                    self._study.progress.plan(more)
                found[name] = {
                    rate: [
                        self._run(
                            network, name, rate, _TUNING_SEED + seed
                        ).final_loss
                        for seed in range(settings.tuning_seeds)
                    ]
                    for rate in chosen
                }
            return found

        return tuning.search(run, list(networks.BASELINES))

    def curves(self, network, choices):
        """The comparison's runs."""
        rates = {"learned": 1.0}
        if self._settings.untrained:
            rates["untrained"] = 1.0
        rates.update({n: c.learning_rate for n, c in choices.items()})
        self._study.progress.plan(len(rates) * self._settings.seeds)
        found = [
            self._run(network, name, rate, seed)
            for name, rate in rates.items()
            for seed in range(self._settings.seeds)
        ]
        for curve in found:
            choice = choices.get(curve.optimizer)
            curve.at_edge = choice is not None and choice.at_edge
        return found

    def _run(self, network, name, rate, seed):
        epochs = self._settings.epochs

        def make():
            with warnings.catch_warnings():
                # That it has no trained weights is the point.
                warnings.filterwarnings("ignore", ".*no trained weights.*")
                curve = networks.train(
                    network,
                    name,
                    lambda: self._optimizer(name, rate),
                    self._data,
                    seed,
                    epochs,
                )
            return {"losses": curve.losses, **curve.metrics}

        arrays = self._study.piece(
            f"{network}/{name}/{rate:g}/{seed}",
            f"{network}, {name}, rate {rate:g}",
            make,
            1,
            epochs * self._data.steps_per_epoch,
        )
        losses = arrays.pop("losses")
        metrics = {column: float(value) for column, value in arrays.items()}
        return curves.Curve(network, name, rate, seed, losses, metrics)

    def _optimizer(self, name, rate):
        if name in networks.BASELINES:
            return networks.BASELINES[name](rate)
        learned = self._study.learned
        if name == "learned":
            return lopt_tf.LearnedOptimizer.from_pretrained(learned.source)
        make = registry.optimizer_class(learned.rule.name)
        return make(**learned.rule.get_config())
