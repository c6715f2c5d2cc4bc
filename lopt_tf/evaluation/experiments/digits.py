"""Keras networks on the digits, through fit, with accuracy on a test set."""

import dataclasses
import warnings

import keras
import numpy as np
from keras import layers

from lopt_tf import checks
from lopt_tf.evaluation import curves, keras_training, results, tuning
from lopt_tf.optimizers import registry
from lopt_tf.reporting import report
from problems import networks

TITLE = "Networks on scikit-learn's digits, through fit"
QUESTION = (
    "The learned optimizer as a user meets it: in `model.compile`, beside "
    "tuned Adam and RMSProp and what it was before meta-training."
)
LEARNED = "required"
# Tuning must not see the runs of the comparison.
_TUNING_SEED = 1000
_BASELINES = ("adam", "rmsprop")
BATCH_SIZE = keras_training.BATCH_SIZE


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much to train.

    Attributes:
        epochs: of each run.
        seeds, tuning_seeds: as in `comparison.Settings`.
        untrained: also the optimizer as it was before meta-training.
    """

    epochs: int
    seeds: int
    tuning_seeds: int
    untrained: bool = True

    def __post_init__(self):
        checks.in_range("seeds", self.seeds, 1, _TUNING_SEED)


PRESETS = {
    "quick": Settings(epochs=10, seeds=3, tuning_seeds=1),
    "full": Settings(epochs=30, seeds=10, tuning_seeds=5),
}


def load_digits():
    """scikit-learn's 1,797 digits, split 3:1 into training and test data.

    Returns:
        (images [n, 8, 8, 1] in 0..1, labels [n]) of each; the training data
        are whole minibatches.
    """
    (train, train_labels), test = networks.split_digits()
    kept = len(train) // BATCH_SIZE * BATCH_SIZE
    return (train[:kept], train_labels[:kept]), test


def mlp():
    """A fully connected net with one hidden layer of 64, 4,810 parameters."""
    return keras_training.fully_connected((8, 8, 1), (64,), 10)


def convnet():
    """Two convolutions and a linear layer, 9,930 parameters."""
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, 2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


NETWORKS = {"digits_mlp": mlp, "digits_convnet": convnet}


def run(folder, settings):
    """Trains every network with every optimizer; returns an `Outcome`."""
    comparison = _Comparison(folder, settings)
    found, tuned = [], []
    grid = len(tuning.START) * len(_BASELINES) * settings.tuning_seeds
    comparison_runs = (len(_BASELINES) + len(comparison.untuned())) * (
        settings.seeds
    )
    folder.progress.plan((grid + comparison_runs) * len(NETWORKS))
    folder.facts.update(
        seed_numbers_of_tuning=list(comparison.tuning_seeds),
        seed_numbers_of_comparison=list(range(settings.seeds)),
        **tuning.facts(),
    )
    for network in NETWORKS:
        choices = comparison.tune(network)
        tuned += tuning.rows(network, choices)
        found += comparison.curves(network, choices)
    return results.Outcome(
        tables=[
            report.Table(
                "summary",
                "What they ended with",
                summary(found),
                "Means over seeds.",
                {
                    "diverged": results.SUMMARY_COLUMNS["diverged"],
                    "steps_to_adam": "The median number of steps to the loss "
                    "with which Adam ended on the same seed.",
                },
            ),
            results.tuning_table(tuned),
        ],
        plots=results.curve_plots(found, "Digits: training loss"),
        curves=found,
    )


def summary(found):
    """One row for each network and optimizer: losses, steps, metrics.

    Runs that never reach Adam's final loss, or whose Adam diverged, count as
    infinite in steps_to_adam.
    """
    adam = curves.of_adam(found)

    def steps_to_adam(curve):
        goal = adam[curve.problem, curve.seed].final_loss
        steps = curve.steps_to(goal) if np.isfinite(goal) else None
        return np.inf if steps is None else steps

    def columns(members):
        losses = [c.final_loss for c in members]
        spread = np.std(losses) if np.all(np.isfinite(losses)) else np.inf
        steps = np.median([steps_to_adam(c) for c in members])
        return {
            **curves.means(members, "final_loss"),
            "final_loss_std": float(spread),
            **curves.means(members, "diverged"),
            "steps_to_adam": float(steps),
            **{
                name: float(np.mean([c.metrics[name] for c in members]))
                for name in members[0].metrics
            },
        }

    return curves.summary(found, columns)


class _Comparison:
    """Runs of Keras optimizers, each remembered."""

    def __init__(self, folder, settings):
        self._folder = folder
        self._settings = settings
        self._train_data, self._test_data = load_digits()
        past = _TUNING_SEED + settings.tuning_seeds
        self.tuning_seeds = range(_TUNING_SEED, past)

    def tune(self, network):
        """{baseline: Choice}."""

        def final_losses(name, rate):
            return [
                self._run(network, name, rate, seed).final_loss
                for seed in self.tuning_seeds
            ]

        def run(rates):
            return {
                name: {rate: final_losses(name, rate) for rate in chosen}
                for name, chosen in rates.items()
            }

        def plan(rates):
            self._folder.progress.plan(rates * len(self.tuning_seeds))

        return tuning.search(run, list(_BASELINES), plan=plan)

    def untuned(self):
        """Names of those that have no learning rate to tune."""
        return ["learned", "untrained"][: 1 + self._settings.untrained]

    def curves(self, network, choices):
        """The comparison's runs."""
        chosen = {**dict.fromkeys(self.untuned(), tuning.UNTUNED), **choices}
        return [
            dataclasses.replace(
                self._run(network, name, choice.learning_rate, seed),
                at_edge=choice.at_edge,
            )
            for name, choice in chosen.items()
            for seed in range(self._settings.seeds)
        ]

    def _run(self, network, name, rate, seed):
        piece = f"{network}/{name}/{rate:g}/{seed}"
        if not self._folder.has(piece):
            curve = self._train(network, name, rate, seed)
            kept = {"losses": curve.losses, **curve.metrics}
            self._folder.keep(piece, kept)
        steps = len(self._train_data[0]) // BATCH_SIZE
        metrics = self._folder.load(piece, 1, steps * self._settings.epochs)
        losses = metrics.pop("losses")
        metrics = {column: float(value) for column, value in metrics.items()}
        return curves.Curve(network, name, rate, seed, losses, metrics)

    def _train(self, network, name, rate, seed):
        keras.utils.set_random_seed(seed)
        model, optimizer = NETWORKS[network](), self._optimizer(name, rate)
        with warnings.catch_warnings():
            # That it has no trained weights is the point of "untrained".
            warnings.filterwarnings("ignore", ".*no trained weights.*")
            return keras_training.train(
                model,
                optimizer,
                self._train_data,
                self._test_data,
                names=(network, name),
                seed=seed,
                epochs=self._settings.epochs,
            )

    def _optimizer(self, name, rate):
        learned = self._folder.learned
        if name == "untrained":
            make = registry.optimizer_class(learned.rule.name)
            return make(**learned.rule.get_config())
        if name == "learned":
            # As it was when the evaluation began, whatever its file is now.
            make = registry.optimizer_class(learned.rule.name).from_rule
            return make(learned, learning_rate=rate)
        return keras_training.optimizer_by_name(name, rate)
