"""A train step with the learned optimizer over one with Adam."""

import statistics
import warnings

import keras

import lopt_tf
from lopt_tf.evaluation.step_time import step_times
from train_scripts.suites.rows import row

BATCH_SIZES = (8, 32, 128, 512)


def measure(repetitions):
    """Train steps of a 784-256-128-10 MLP, learned over Adam, alternating."""
    warnings.filterwarnings("ignore", ".*has no trained weights.*")
    for batch in BATCH_SIZES:
        optimizers = {
            "hierarchical_rnn": lopt_tf.HierarchicalRNN(),
            "adam": keras.optimizers.Adam(),
        }
        seconds = step_times(
            optimizers, (256, 128), batch, repetitions, steps=10
        )
        medians = {n: statistics.median(s.tolist()) for n, s in seconds.items()}
        yield row(
            f"update/mlp_235146/batch={batch}/hierarchical_rnn_over_adam",
            medians["hierarchical_rnn"] / medians["adam"],
            "ratio",
            False,
            milliseconds={n: 1e3 * m for n, m in medians.items()},
        )
