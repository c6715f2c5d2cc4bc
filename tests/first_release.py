"""Files that the first release wrote, and what it computed from them.

tests/data/first_release holds, for each rule, weights (`NAME.npz`), and in
`steps.npz` the parameters after each of a few steps with them; `model.keras`
was saved in the middle of a training, which `resumed.npz` has the end of.

The files were written once, by running this module as a program with the
first release's code; newer code must read them and compute the same.
"""

import pathlib

import keras
import numpy as np

import lopt_tf

FOLDER = pathlib.Path(__file__).parent / "data" / "first_release"
NUM_STEPS = 5
OPTIMIZERS = {
    "hierarchical_rnn": (
        "HierarchicalRNN",
        {"level_sizes": (4, 5, 6), "init_lr_range": (1e-3, 1e-1)},
    ),
    "attention": (
        "HierarchicalRNN",
        {
            "level_sizes": (4, 5, 6),
            "use_attention": True,
            "use_parameter_scale": True,
            "use_lr_shortcut": True,
            "use_extreme_indicator": True,
            "init_lr_range": (1e-3, 1e-1),
            "min_log_lr": -5.5,
            "max_log_lr": -1.0,
        },
    ),
    "one_level": (
        "HierarchicalRNN",
        {
            "level_sizes": (4,),
            "use_relative_lr": False,
            "dynamic_output_scale": False,
            "learnable_decay": False,
        },
    ),
    "coordinatewise_rnn": ("CoordinatewiseRNN", {"cell_sizes": (4, 3)}),
    "coordinatewise_gru": (
        "CoordinatewiseRNN",
        {"cell_sizes": (4,), "cell": "gru"},
    ),
    "learned_adam": ("LearnedAdam", {"initial_learning_rate": 0.1}),
    "global_learning_rate": (
        "GlobalLearningRate",
        {"initial_learning_rate": 0.1},
    ),
    "learning_rate_schedule": (
        "LearningRateSchedule",
        {"initial_learning_rate": 0.1, "num_steps": 5},
    ),
}


def load(name):
    """The optimizer of one weights file."""
    return lopt_tf.LearnedOptimizer.from_pretrained(
        FOLDER / f"{name}.npz", seed=1, weight_decay=1e-3
    )


def steps(optimizer):
    """{"step/tensor": parameters after each of `NUM_STEPS` steps}."""
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (5,), ()]
    variables = [
        keras.Variable(3 * rng.normal(size=s).astype("float32")) for s in shapes
    ]
    found = {}
    for step in range(NUM_STEPS):
        gradients = [rng.normal(size=s).astype("float32") for s in shapes]
        optimizer.apply(
            [keras.ops.convert_to_tensor(g) for g in gradients], variables
        )
        for i, variable in enumerate(variables):
            found[f"{step}/{i}"] = np.array(variable)
        for i, true in enumerate(optimizer.true_parameters()):
            found[f"{step}/true/{i}"] = np.array(true)
    return found


def fit(model):
    """Trains for two epochs: {"losses": ..., "weights/i": ...}."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 6)).astype("float32")
    labels = (images[:, 0] > 0).astype("int32")
    history = model.fit(
        images,
        labels,
        epochs=2,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[lopt_tf.callbacks.TrueParameters()],
    )
    weights = enumerate(model.get_weights())
    return {
        "losses": np.array(history.history["loss"]),
        **{f"weights/{i}": array for i, array in weights},
    }


def resumed():
    """What becomes of the saved model in two more epochs."""
    return fit(keras.models.load_model(FOLDER / "model.keras"))


def _write():
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (kind, config) in OPTIMIZERS.items():
        # Away from the zeros and constants before meta-training.
        optimizer = getattr(lopt_tf, kind)(seed=1, **config)
        rng = np.random.default_rng(2)
        optimizer._take_weights(
            {
                key: (array + rng.normal(0, 0.1, array.shape)).astype("float32")
                for key, array in optimizer.rule_weights().items()
            }
        )
        optimizer.save_pretrained(FOLDER / f"{name}.npz")
        computed = steps(load(name))
        found.update({f"{name}/{key}": a for key, a in computed.items()})
    np.savez_compressed(FOLDER / "steps.npz", **found)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((6,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=load("attention"), loss=loss)
    fit(model)
    model.save(FOLDER / "model.keras")
    np.savez_compressed(FOLDER / "resumed.npz", **resumed())


if __name__ == "__main__":
    _write()
