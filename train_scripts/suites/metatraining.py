"""Inner steps per second of the gradient estimators."""

import statistics
import time

from train_scripts.suites.rows import row

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
    from problems import corpus

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
    from lopt_tf import metatraining
    from lopt_tf.metatraining import estimators, replicas
    from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

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
    # The unmoved copy of "es" only leads on to the next truncation.
    share = min(2 / estimator.copies, 1)

    def unroll(run):
        estimate, run = estimator.step(
            vector, weights, constants, run, segments
        )
        estimate.gradient.numpy()
        return share * estimate.inner_steps, run

    return estimator, unroll


def _inner_steps(name, problem, kind, instances, repetitions):
    """Inner steps a second over 100-step unrolls, segments of 20."""
    from lopt_tf.metatraining import estimators

    estimator, unroll = _unrolls(problem, kind, instances, UNROLL_STEPS)
    seconds = []
    for number in range(repetitions + 1):
        began = time.perf_counter()
        steps, _ = unroll(estimators.Run((2, number)))
        seconds.append(time.perf_counter() - began)
    first_call, *measured = seconds
    return row(
        f"metatraining/{kind}/{name}/instances={instances}",
        steps / statistics.median(measured),
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
    from lopt_tf.metatraining import estimators

    _, unroll = _unrolls(problem, "pes", 8, 20)
    _, run = unroll(estimators.Run((2,)))
    measured = []
    for _ in range(10 * repetitions):
        began = time.process_time()
        steps, run = unroll(run)
        measured.append(time.process_time() - began)
    return row(
        f"metatraining/pes_per_cpu_second/{name}/instances=8",
        steps / statistics.median(measured),
        "inner steps/CPU s",
        True,
        unroll=20,
    )


def _matrix_vector_floor(n, instances, repetitions):
    """Steps a second if a step were only its two products with W [n, n].

    A step needs Wx and W'r at least; backpropagation needs the same again
    for the trajectory, and twice for the second derivatives.
    """
    import tensorflow as tf

    from lopt_tf import compilation

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
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        products(w, x).numpy()
        seconds.append((time.perf_counter() - began) / 20)
    return row(
        f"metatraining/matrix_vector_floor/quadratic_{n}/instances={instances}",
        instances / (2 * statistics.median(seconds)),
        "inner steps/s",
        True,
        products_a_step=2,
    )
