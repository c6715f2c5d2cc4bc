"""A train step with the learned optimizer over one with Adam."""

import statistics
import time

from train_scripts.suites.rows import row

BATCH_SIZES = (8, 32, 128, 512)


def measure(repetitions):
    """Train steps of a 784-256-128-10 MLP, learned over Adam, alternating."""
    import warnings

    import keras
    import numpy as np

    import lopt_tf

    warnings.filterwarnings("ignore", ".*has no trained weights.*")
    rng = np.random.default_rng(0)
    for batch in BATCH_SIZES:
        images = rng.random((batch, 784), "float32")
        labels = rng.integers(10, size=batch)
        models = {
            "hierarchical_rnn": _mlp(lopt_tf.HierarchicalRNN()),
            "adam": _mlp(keras.optimizers.Adam()),
        }
        seconds = {name: [] for name in models}
        for repetition in range(repetitions + 1):
            for name, model in models.items():
                began = time.perf_counter()
                for _ in range(10):
                    model.train_on_batch(images, labels)
                if repetition:
                    elapsed = time.perf_counter() - began
                    seconds[name].append(elapsed / 10)
        medians = {n: statistics.median(s) for n, s in seconds.items()}
        yield row(
            f"update/mlp_235146/batch={batch}/hierarchical_rnn_over_adam",
            medians["hierarchical_rnn"] / medians["adam"],
            "ratio",
            False,
            milliseconds={n: 1e3 * m for n, m in medians.items()},
        )


def _mlp(optimizer):
    import keras

    model = keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model
