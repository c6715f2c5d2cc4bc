"""Measures speed; writes a JSON list of rows.

    python -m train_scripts.benchmark --suite=metatraining --output=FILE.json

metatraining: inner steps per second of both gradient estimators. update: a
train step with the learned optimizer over one with Adam. Repetitions of what
is compared alternate, and medians are taken.
"""

import json
import pathlib
import statistics
import sys
import time

from absl import flags

from train_scripts import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "suite",
    "metatraining",
    ["metatraining", "update"],
    "What to measure.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output", None, "The JSON file to write.", flag_values=FLAGS
)
flags.DEFINE_list(
    "problems",
    [
        "quadratic_20",
        "quadratic_100",
        "quadratic_2048",
        "fully_connected_8_8_5",
        "fully_connected_12_16_8_3",
    ],
    "With --suite=metatraining: which problems.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "instances", ["1", "32"], "Instances side by side.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "repetitions", 5, "Of each measurement.", lower_bound=1, flag_values=FLAGS
)
command_line.define_threads(FLAGS)

_UNROLL_STEPS = 100
_BATCH_SIZES = (8, 32, 128, 512)


def _row(name, value, unit, higher_is_better, **settings):
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "settings": settings,
    }


def _problem(name):
    from problems import corpus
    from problems.quadratic import Quadratic

    nets = "fully_connected_random_2_class_problems"
    known = {
        "quadratic_20": lambda: Quadratic(20),
        "quadratic_100": lambda: Quadratic(100),
        "quadratic_2048": lambda: Quadratic(2048),
        "fully_connected_8_8_5": lambda: corpus.sets()[nets][0],
        "fully_connected_12_16_8_3": lambda: corpus.sets()[nets][7],
    }
    if name not in known:
        raise ValueError(
            f"Unknown problem {name!r}. Known: {', '.join(known)}."
        )
    return known[name]()


def _metatraining():
    rows = []
    for name in FLAGS.problems:
        problem = _problem(name)
        for instances in map(int, FLAGS.instances):
            for estimator in ("bptt", "pes", "es"):
                rows.append(_inner_steps(name, problem, estimator, instances))
                command_line.say(json.dumps(rows[-1]))
            if name == "quadratic_2048":
                rows.append(_matrix_vector_floor(problem.n, instances))
                command_line.say(json.dumps(rows[-1]))
    return rows


def _inner_steps(name, problem, kind, instances):
    """Inner steps a second over 100-step unrolls, segments of 20."""
    from lopt_tf import distribution, metatraining
    from lopt_tf.metatraining import estimators
    from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

    rule = HierarchicalRNNRule()
    weights = rule.init_weights(0)
    vector = estimators.WeightVector(weights)
    weights = vector.flatten(weights)
    options = metatraining.TrainingOptions(
        estimator=kind, instances=instances, segment_length=20
    )
    estimator = options.new_estimator(problem, rule, distribution.Replicas())
    unroller = estimator.unroller
    constants = unroller.constants((1,))
    segments = _UNROLL_STEPS // unroller.segment_length

    def one_unroll(seed):
        run = estimators.Run((2, seed))
        began = time.perf_counter()
        estimate, _ = estimator.step(vector, weights, constants, run, segments)
        estimate.gradient.numpy()
        seconds = time.perf_counter() - began
        # The unmoved copy of "es" only leads on to the next truncation.
        share = min(2 / unroller.copies, 1)
        return share * estimate.inner_steps, seconds

    _, first_call = one_unroll(0)
    measured = [one_unroll(1 + i) for i in range(FLAGS.repetitions)]
    steps = measured[0][0]
    seconds = statistics.median(seconds for _, seconds in measured)
    return _row(
        f"metatraining/{kind}/{name}/instances={instances}",
        steps / seconds,
        "inner steps/s",
        True,
        unroll=_UNROLL_STEPS,
        segment=unroller.segment_length,
        second_derivatives=kind == "bptt",
        first_call_s=round(first_call, 2),
        compilations=unroller.num_compilations(),
    )


def _matrix_vector_floor(n, instances):
    """Steps a second if a step were only its two products with W [n, n].

    A step needs Wx and W'r at least; backpropagation needs the same again
    for the trajectory, and twice for the second derivatives.
    """
    import tensorflow as tf

    from lopt_tf import distribution

    w = tf.random.stateless_normal((instances, n, n), (0, 1)) / n**0.5
    x = tf.random.stateless_normal((instances, n, 1), (0, 2))

    @distribution.compiled
    def products(w, x):
        def body(i, x):
            if instances == 1:
                return i + 1, tf.reduce_sum(w * x, axis=1)[..., None]
            return i + 1, tf.matmul(w, x)

        return tf.while_loop(
            lambda i, _: i < 20, body, (0, x), maximum_iterations=20
        )[1]

    products(w, x)
    seconds = []
    for _ in range(FLAGS.repetitions):
        began = time.perf_counter()
        products(w, x).numpy()
        seconds.append((time.perf_counter() - began) / 20)
    return _row(
        f"metatraining/matrix_vector_floor/quadratic_{n}/instances={instances}",
        instances / (2 * statistics.median(seconds)),
        "inner steps/s",
        True,
        products_a_step=2,
    )


def _update():
    """Train steps of a 784-256-128-10 MLP, learned over Adam, alternating."""
    import warnings

    import keras
    import numpy as np

    import lopt_tf

    warnings.filterwarnings("ignore", ".*has no trained weights.*")
    rows = []
    rng = np.random.default_rng(0)
    for batch in _BATCH_SIZES:
        images = rng.random((batch, 784), "float32")
        labels = rng.integers(10, size=batch)
        models = {
            "hierarchical_rnn": _mlp(lopt_tf.HierarchicalRNN()),
            "adam": _mlp(keras.optimizers.Adam()),
        }
        seconds = {name: [] for name in models}
        for repetition in range(FLAGS.repetitions + 1):
            for name, model in models.items():
                began = time.perf_counter()
                for _ in range(10):
                    model.train_on_batch(images, labels)
                if repetition:
                    elapsed = time.perf_counter() - began
                    seconds[name].append(elapsed / 10)
        medians = {n: statistics.median(s) for n, s in seconds.items()}
        rows.append(
            _row(
                f"update/mlp_235146/batch={batch}/hierarchical_rnn_over_adam",
                medians["hierarchical_rnn"] / medians["adam"],
                "ratio",
                False,
                milliseconds={n: 1e3 * m for n, m in medians.items()},
            )
        )
        command_line.say(json.dumps(rows[-1]))
    return rows


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


def _program():
    if not FLAGS.output:
        raise flags.Error("--output must be given.")
    command_line.set_threads(FLAGS.threads)
    rows = {"metatraining": _metatraining, "update": _update}[FLAGS.suite]()
    path = pathlib.Path(FLAGS.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    command_line.say(f"{len(rows)} rows in {path}")


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
