"""Inner steps per second of the gradient estimators."""

import itertools
import statistics
import time

import tensorflow as tf

from lopt_tf import compilation, metatraining
from lopt_tf.metatraining import estimators, replicas
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus
from train_scripts.suites.rows import row, seconds

UNROLL_STEPS = 100
ESTIMATORS = ("bptt", "pes", "es")


_NETS = "fully_connected_random_2_class_problems"
# In the corpus, by name.
PROBLEMS = {
    "quadratic_20": "quadratic_problems.0",
    "quadratic_100": "quadratic_problems.3",
    "quadratic_2048": "quadratic_problems_large.2",
    "fully_connected_8_8_5": f"{_NETS}.0",
    "fully_connected_12_16_8_3": f"{_NETS}.7",
}


def _problem(name):
    if name not in PROBLEMS:
        raise ValueError(
            f"Unknown problem {name!r}. Known: {', '.join(PROBLEMS)}."
        )
    (problem,) = corpus.select([PROBLEMS[name]]).values()
    return problem


def measure(names, instance_counts, repetitions):
    """Rows for problems by name, each with several numbers of instances.

    The last row of a problem is PES in the setting that
    google/learned_optimization was measured in: 8 tasks, truncations of 20
    steps, inner steps per second of CPU time (of all threads).
    """
    for name in names:
        problem = _problem(name)
        for instances in instance_counts:
            for kind in ESTIMATORS:
                yield _inner_steps(name, problem, kind, instances, repetitions)
            if name == "quadratic_2048":
                yield _matrix_vector_floor(problem.n, instances, repetitions)
        yield _per_cpu_second(name, problem, repetitions)


def _unrolls(problem, kind, instances, steps):
    """(estimator, function of a run that takes it some steps further)."""
    rule = HierarchicalRNNRule()
    weights = rule.init_weights(0)
    vector = estimators.WeightVector(weights)
    weights = vector.flatten(weights)
    options = metatraining.TrainingOptions(
        estimator=kind, instances=instances, segment_length=20
    )
    estimator = estimators.make(options, problem, rule, replicas.Replicas())
    constants = estimator.unroller.constants((1,))
    segments = steps // options.segment_length

    def unroll(run):
        estimate, run = estimator.step(
            vector, weights, constants, run, segments
        )
        estimate.gradient.numpy()
        return run

    return estimator, unroll


def _inner_steps(name, problem, kind, instances, repetitions):
    """Inner steps a second over 100-step unrolls, segments of 20."""
    estimator, unroll = _unrolls(problem, kind, instances, UNROLL_STEPS)
    numbers = itertools.count()
    first_call, *taken = seconds(
        lambda: unroll(estimators.Run((2, next(numbers)))), repetitions + 1
    )
    # The unmoved copy of "es" only leads on to the next truncation.
    updates = min(estimator.copies, 2) * instances * UNROLL_STEPS
    return row(
        f"metatraining/{kind}/{name}/instances={instances}",
        updates / statistics.median(taken),
        "inner steps/s",
        True,
        unroll=UNROLL_STEPS,
        segment=estimator.unroller.segment_length,
        second_derivatives=kind == "bptt",
        first_call_s=round(first_call, 2),
        compilations=estimator.unroller.num_compilations(),
    )


def _per_cpu_second(name, problem, repetitions):
    """PES with 8 tasks and 20 steps: inner steps a CPU second."""
    _, unroll = _unrolls(problem, "pes", 8, 20)
    run = unroll(estimators.Run((2,)))
    taken = []
    for _ in range(10 * repetitions):
        began = time.process_time()
        run = unroll(run)
        taken.append(time.process_time() - began)
    return row(
        f"metatraining/pes_per_cpu_second/{name}/instances=8",
        2 * 8 * 20 / statistics.median(taken),
        "inner steps/CPU s",
        True,
        unroll=20,
    )


def _matrix_vector_floor(n, instances, repetitions):
    """Steps a second if a step were only its two products with W [n, n].

    A step needs Wx and W'r at least; backpropagation needs the same again
    for the trajectory, and twice for the second derivatives.
    """
    w = tf.random.stateless_normal((instances, n, n), (0, 1)) / n**0.5
    x = tf.random.stateless_normal((instances, n, 1), (0, 2))

    @compilation.compiled
    def products(w, x):
        def body(i, x):
            if instances == 1:
                return i + 1, tf.reduce_sum(w * x, axis=1)[..., None]
            return i + 1, tf.matmul(w, x)

        return tf.while_loop(
            lambda i, _: i < 20, body, (0, x), maximum_iterations=20
        )[1]

    products(w, x)
    taken = seconds(lambda: products(w, x).numpy(), repetitions)
    return row(
        f"metatraining/matrix_vector_floor/quadratic_{n}/instances={instances}",
        20 * instances / (2 * statistics.median(taken)),
        "inner steps/s",
        True,
        products_a_step=2,
    )
