"""Keras networks on the digits, through fit, with accuracy on a test set."""

import dataclasses
import warnings

import keras
import numpy as np
import sklearn.datasets
import sklearn.model_selection

from lopt_tf.evaluation import curves, keras_training, results, tuning
from lopt_tf.optimizers import registry
from lopt_tf.reporting import report

TITLE = "Networks on scikit-learn's digits, through fit"
QUESTION = (
    "The learned optimizer as a user meets it: in `model.compile`, beside "
    "tuned Adam and RMSProp and what it was before meta-training."
)
LEARNED = "required"
# Tuning must not see the runs of the comparison.
_TUNING_SEED = 1000
_BASELINES = ("adam", "rmsprop")
BATCH_SIZE = 32


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


def load_digits():
    """scikit-learn's 1,797 digits, split 3:1 into training and test data.

    Returns:
        (images [n, 8, 8, 1] in 0..1, labels [n]) of each; the training data
        are whole minibatches.
    """
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    train, test, train_labels, test_labels = (
        sklearn.model_selection.train_test_split(
            images, labels, test_size=0.25, random_state=0, stratify=labels
        )
    )
    kept = len(train) // BATCH_SIZE * BATCH_SIZE
    return ((train[:kept], train_labels[:kept]), (test, test_labels))


def mlp():
    """A fully connected net with one hidden layer of 64, 4,810 parameters."""
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def convnet():
    """Two convolutions and a linear layer, 9,930 parameters."""
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(
                32, 3, strides=2, padding="same", activation="relu"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


NETWORKS = {"digits_mlp": mlp, "digits_convnet": convnet}


def run(folder, settings):
    """Trains every network with every optimizer; returns an `Outcome`."""
    comparison = _Comparison(folder, settings)
    found, tuned = [], []
    grid = len(tuning.START) * len(_BASELINES) * settings.tuning_seeds
    folder.progress.plan(grid * len(NETWORKS))
    tuning_seeds = range(_TUNING_SEED, _TUNING_SEED + settings.tuning_seeds)
    folder.facts.update(
        seed_numbers_of_tuning=list(tuning_seeds),
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

    Runs that never reach Adam's final loss count as infinite in
    steps_to_adam.

    Args:
        found: list of `Curve`, Adam's among them.
    """
    finals = {
        (c.problem, c.seed): c.final_loss
        for c in found
        if c.optimizer == "adam"
    }

    def steps_to_adam(curve):
        steps = curve.steps_to(finals[curve.problem, curve.seed])
        return np.inf if steps is None else steps

    def columns(members):
        losses = [c.final_loss for c in members]
        is_finite = np.all(np.isfinite(losses))
        row = {
            "final_loss": float(np.mean(losses)),
            "final_loss_std": float(np.std(losses)) if is_finite else np.inf,
            "diverged": curves.share_diverged(members),
            "steps_to_adam": float(
                np.median(list(map(steps_to_adam, members)))
            ),
        }
        metrics = {
            name: float(np.mean([c.metrics[name] for c in members]))
            for name in members[0].metrics
        }
        return row | metrics

    return curves.summary(found, columns)


class _Comparison:
    """Runs of Keras optimizers, each remembered."""

    def __init__(self, folder, settings):
        self._folder = folder
        self._settings = settings
        self._train_data, self._test_data = load_digits()

    def tune(self, network):
        """{baseline: Choice}."""
        seeds, grid = self._settings.tuning_seeds, len(tuning.START)
        tried = dict.fromkeys(_BASELINES, 0)

        def final_losses(name, rate):
            return [
                self._run(network, name, rate, _TUNING_SEED + seed).final_loss
                for seed in range(seeds)
            ]

        def run(rates):
            for name, chosen in rates.items():
                tried[name] += len(chosen)
                if tried[name] > grid:
                    self._folder.progress.plan(len(chosen) * seeds)
            return {
                name: {rate: final_losses(name, rate) for rate in chosen}
                for name, chosen in rates.items()
            }

        return tuning.search(run, list(_BASELINES))

    def curves(self, network, choices):
        """The comparison's runs."""
        rates = {"learned": 1.0}
        if self._settings.untrained:
            rates["untrained"] = 1.0
        rates.update({n: c.learning_rate for n, c in choices.items()})
        self._folder.progress.plan(len(rates) * self._settings.seeds)
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
                batch_size=BATCH_SIZE,
            )

    def _optimizer(self, name, rate):
        learned = self._folder.learned
        if name == "untrained":
            make = registry.optimizer_class(learned.rule.name)
            return make(**learned.rule.get_config())
        if name == "learned":
            name = learned.name or learned.path
        return keras_training.optimizer_by_name(name, rate)
