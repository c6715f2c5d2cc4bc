"""Unrolls, gradient estimators and meta-optimizers against simple oracles."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from lopt_tf import checks, compilation, metatraining
from lopt_tf.metatraining import (
    curriculum,
    estimators,
    meta_optimizers,
    objective,
    problem_runs,
    unroll,
)
from lopt_tf.metatraining import estimator as estimator_lib
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import datasets
from problems.classifiers import FullyConnected
from problems.problem import fold, scaled
from problems.quadratic import Quadratic
from problems.wrappers import Reparameterized

SMALL = {"level_sizes": (3, 4, 5), "init_lr_range": (0.02, 0.2)}


def _net(noise=0.0):
    data = datasets.Dataset(datasets.random_mlp, 4, 30)
    return FullyConnected(4, 2, data, 7, (3,), noise_stdev=noise)


def _setting(problem, config, instances=3, length=4, **kwargs):
    rule = HierarchicalRNNRule(**{**SMALL, **config})
    kwargs.setdefault("keeps_trail", kwargs.get("copies", 1) == 1)
    unroller = unroll.Unroller(problem, rule, instances, length, **kwargs)
    rng = np.random.default_rng(1)
    weights = {
        # Away from the zeros before meta-training.
        name: tf.constant(array + rng.normal(0, 0.1, array.shape), "float32")
        for name, array in sorted(rule.init_weights(1).items())
    }
    vector = estimators.WeightVector(weights)
    return rule, unroller, vector, vector.flatten(weights)


def _oracle(rule, unroller, vector, flat, constants, seed, segments):
    """Meta-objective and gradient by one tape over a plain Python loop."""
    problem = unroller.problem
    params, log_lrs = unroller.draw_start(seed)
    scale = problem.parameter_scale(constants)
    unit = tf.ones(1) if scale is None else scale
    params = scaled(params, 1 / unit)
    initial = problem.loss(params, constants)
    length = unroller.segment_length
    with tf.GradientTape() as tape:
        tape.watch(flat)
        weights = {
            name: tf.repeat(w[None], unroller.instances, axis=0)
            for name, w in vector.unflatten(flat).items()
        }
        state = rule.init_state(weights, params, log_lrs)
        values = []
        for step in range(segments * length):
            batch = None
            if problem.batch_size:
                rows = unroller.batches(seed, step // length * length)
                batch = rows[step % length]
            _, grads = problem.value_and_gradients(params, constants, batch)
            # Compiled and eager code draw different random numbers.
            noise = compilation.compiled(
                lambda g, s: problem.perturb(
                    [tf.zeros_like(x) for x in g],
                    fold(fold(unroll.run_seed(seed), 2), s),
                )
            )(grads, tf.constant(step))
            grads = [g + n for g, n in zip(grads, scaled(noise, unit))]
            if not unroller.use_second_derivatives:
                grads = [tf.stop_gradient(g) for g in grads]
            params, state = rule.step(weights, state, params, grads)
            true = rule.true_parameters(weights, state, params)
            values.append(problem.loss(true, constants))
        values = tf.stack(values)
        losses = objective.MetaObjective()(values, initial)
        total = tf.reduce_mean(losses)
    return total, tape.gradient(total, flat), values


@pytest.mark.parametrize("use_numerator_epsilon", [False, True])
def test_epsilon_is_where_the_logarithm_levels_off(use_numerator_epsilon):
    values, initial = np.array([[1e-3], [1e-8], [0.0]]), np.array([2.0])
    values, initial = values.astype("float32"), initial.astype("float32")
    for epsilon in (1e-6, 1e-12):
        score = objective.MetaObjective(
            use_numerator_epsilon=use_numerator_epsilon, epsilon=epsilon
        )
        before, after = (
            (epsilon, 0.0) if use_numerator_epsilon else (0.0, epsilon)
        )
        logs = np.log((values + before) / (initial + 1e-6) + after)
        expected = np.mean(logs, axis=0)
        np.testing.assert_allclose(score(values, initial), expected, rtol=1e-5)


def test_epsilon_of_the_options():
    options = metatraining.TrainingOptions(objective_epsilon=1e-9)
    assert options.objective().epsilon == 1e-9
    with pytest.raises(ValueError, match="objective_epsilon"):
        metatraining.TrainingOptions(objective_epsilon=0.0)


@pytest.mark.parametrize(
    "problem, config, kwargs",
    [
        (Quadratic(3), {}, {}),
        pytest.param(
            *(Quadratic(3, 0.5), {"use_attention": True}, {}),
            marks=pytest.mark.slow,
        ),
        (_net(), {"level_sizes": (3, 4)}, {}),
        pytest.param(
            *(_net(0.1), {"use_attention": True}, {}), marks=pytest.mark.slow
        ),
        (_net(), {}, {"use_second_derivatives": False}),
        pytest.param(
            Reparameterized(_net(0.1), (0.3, 3.0)),
            *({"use_parameter_scale": True}, {}),
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "quadratic",
        "noise_attention",
        "net",
        "net_attention",
        "first_order",
        "units",
    ],
)
def test_backpropagation_agrees_with_one_tape(problem, config, kwargs):
    rule, unroller, vector, flat = _setting(problem, config, **kwargs)
    constants = unroller.constants((5,))
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )
    run = estimators.Run((6,))
    estimate, run = estimator.step(vector, flat, constants, run, 2)
    total, gradient, values = _oracle(
        rule, unroller, vector, flat, constants, (6,), 2
    )
    np.testing.assert_allclose(estimate.objectives, values, rtol=1e-4)
    np.testing.assert_allclose(estimate.meta_loss, total, rtol=1e-4, atol=1e-6)
    largest = np.max(np.abs(gradient))
    np.testing.assert_allclose(
        estimate.gradient, gradient, rtol=1e-3, atol=1e-5 * largest
    )
    assert run.step == 8
    assert estimate.inner_steps == 8 * 3


@pytest.mark.slow
def test_trails_that_do_not_fit_are_made_anew():
    _, unroller, vector, flat = _setting(_net(0.1), {})
    constants = unroller.constants((5,))
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )

    def gradient():
        run = estimators.Run((6,))
        return estimator.step(vector, flat, constants, run, 4)[0].gradient

    expected = gradient()
    estimator.trail_bytes = 1
    np.testing.assert_array_equal(gradient(), expected)
    # forward, backward, start, start_backward: once each.
    assert unroller.num_compilations() == 4


def test_gradient_is_cut_between_partial_unrolls():
    _, unroller, vector, flat = _setting(Quadratic(3), {})
    constants = unroller.constants((5,))
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )
    run = estimators.Run((6,))
    _, run = estimator.step(vector, flat, constants, run, 1)
    second, _ = estimator.step(vector, flat, constants, run, 1)
    gradients = vector.unflatten(second.gradient)
    for name, gradient in gradients.items():
        starts = name.endswith("initial_state")
        assert bool(np.any(gradient != 0)) != starts, name


def test_one_compilation_for_all_unroll_lengths():
    _, unroller, vector, flat = _setting(Quadratic(3), {})
    constants = unroller.constants((5,))
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )
    for seed, plan in enumerate([(1, 3), (2, 5), (4,)]):
        run = estimators.Run((seed,))
        for segments in plan:
            _, run = estimator.step(vector, flat, constants, run, segments)
    # forward, backward, start, start_backward: once each.
    assert unroller.num_compilations() == 4


def test_what_rounding_takes_below_zero_counts_as_zero():
    values = tf.constant([[-1e-9, 0.0, 1.0]])
    initial = tf.constant([1.0, 1.0, 1.0])
    for more in ({}, {"use_numerator_epsilon": True}):
        score = objective.MetaObjective(epsilon=1e-12, **more)
        with tf.GradientTape() as tape:
            tape.watch(values)
            found = score(values, initial)
        assert np.isfinite(found).all() and found[0] == found[1]
        slopes = tape.gradient(found, values).numpy()[0]
        assert slopes[0] == 0 and slopes[2] > 0


def test_memory_is_counted_before_the_work(monkeypatch):
    monkeypatch.setattr(checks, "memory", lambda: 2**20)
    problems = {"net": _net()}
    rule = HierarchicalRNNRule(**SMALL)
    options = metatraining.TrainingOptions(instances=2)
    problem_runs.check_size(problems, rule, options)
    options = metatraining.TrainingOptions(
        instances=1000, estimator="bptt", segment_length=100
    )
    with pytest.raises(ValueError, match="1,000 instances of net .segments"):
        problem_runs.check_size(problems, rule, options)
    # Numbers of state for each parameter: 3 hidden, 4 scales, and others.
    assert 10 < problem_runs._state_size(rule) < 20
    with pytest.raises(ValueError, match="with attention"):
        metatraining.train(
            problems,
            HierarchicalRNNRule(**SMALL, use_attention=True),
            metatraining.TrainingOptions(use_minibatch_objective=True),
        )


def test_objectives_of_minibatches_are_what_steps_see():
    seed = (0, 0, 5)
    problem = _net()
    rule, unroller, vector, flat = _setting(
        problem, {}, copies=2, records_batches=True
    )
    weights = vector.unflatten(flat)
    constants = unroller.constants(seed)
    params, log_lrs = unroller.draw_start(seed)
    carry = unroller.begin(weights, constants, (params, log_lrs))
    inputs = [unroller.segment_inputs(seed, first) for first in (0, 4)]
    _, found = unroller.run(weights, constants, carry, inputs)
    each = {
        name: tf.repeat(w[None], unroller.size, axis=0)
        for name, w in weights.items()
    }
    state = rule.init_state(each, params, log_lrs)
    batches = np.concatenate(
        [np.tile(unroller.batches(seed, first), [1, 2, 1]) for first in (0, 4)]
    )
    for batch, values in zip(batches, found):
        loss, grads = problem.value_and_gradients(params, constants, batch)
        np.testing.assert_allclose(values, loss, rtol=1e-4)
        params, state = rule.step(each, state, params, grads)
    # Where there are none, the objectives stay what they were.
    both = []
    for records in (False, True):
        _, unroller, vector, flat = _setting(
            Quadratic(3), {}, copies=2, records_batches=records
        )
        weights = vector.unflatten(flat)
        constants = unroller.constants(seed)
        carry = unroller.begin(weights, constants, unroller.draw_start(seed))
        segments = [unroller.segment_inputs(seed, 0)]
        both.append(unroller.run(weights, constants, carry, segments)[1])
    np.testing.assert_array_equal(*both)
    with pytest.raises(ValueError, match="estimators es and pes"):
        metatraining.TrainingOptions(
            estimator="bptt", use_minibatch_objective=True
        )


def test_persistent_evolution_compiles_once():
    _, unroller, vector, flat = _setting(Quadratic(3), {}, copies=2)
    constants = unroller.constants((5,))
    estimator = estimators.PersistentEvolution(
        unroller, objective.MetaObjective()
    )
    for seed in range(2):
        run = estimators.Run((seed,))
        for segments in (1, 3):
            _, run = estimator.step(vector, flat, constants, run, segments)
    # forward and start, once each.
    assert unroller.num_compilations() == 2


def test_a_lost_instance_does_not_spoil_the_others():
    _, unroller, vector, flat = _setting(Quadratic(3), {}, instances=2)
    constants = unroller.constants((5,))
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )
    _, run = estimator.step(vector, flat, constants, estimators.Run((6,)), 1)
    fine, _ = estimator.step(vector, flat, constants, run, 2)
    # The second instance blows up at once.
    bad = tf.constant([[1.0], [np.inf]])[:, :, None]
    carry = run.carry._replace(params=[run.carry.params[0] * bad])
    run = dataclasses.replace(run, carry=carry)
    lost, after = estimator.step(vector, flat, constants, run, 2)
    assert lost.lost == 1 and lost.skipped == 1
    np.testing.assert_array_equal(after.carry.alive, [True, False])
    assert np.all(np.isfinite(lost.gradient))
    np.testing.assert_allclose(
        lost.objectives[:, 0], fine.objectives[:, 0], rtol=1e-6
    )
    assert np.isfinite(lost.meta_loss)
    assert np.any(lost.gradient != 0)


def test_all_instances_can_be_lost():
    _, unroller, vector, flat = _setting(Quadratic(3), {})
    constants = unroller.constants((5,))
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective(), max_multiplier=1e-6
    )
    run = estimators.Run((6,))
    estimate, _ = estimator.step(vector, flat, constants, run, 5)
    assert estimate.lost == estimate.size == 3


def test_an_instance_without_a_finite_meta_gradient_is_skipped():
    _, unroller, vector, _ = _setting(Quadratic(2), {}, instances=3)
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )
    gradients = tf.constant([[1.0, 2.0], [np.nan, 1.0], [3.0, 4.0]])
    alive = tf.constant([True, False, True])
    losses = tf.constant([1.0, 2.0, 6.0])
    found = estimator._summary(gradients, losses, alive, ~alive)
    np.testing.assert_allclose(found.gradient, [4 / 3, 2], rtol=1e-6)
    assert (found.lost, found.skipped) == (1, 1)
    assert (found.loss, found.counted) == (9, 3)


def test_what_counts_as_negative():
    objectives = np.array(
        [
            # Good, rounding, below, then lost; lost, then below; a start below.
            [0.5, -1e-5, -0.5, 1e30, -2.0],
            [0.1, 0.5, np.nan, -1e28, -3.0],
        ],
        "float32",
    )
    initial = tf.constant([1.0, 1.0, 1.0, 1.0, -1.0])
    found = objective.negative(tf.constant(objectives), initial)
    assert found.numpy().tolist() == [False, False, True, False, True]


def test_the_meta_loss_is_of_instances_whatever_replica_has_them():
    """Also where all of one replica's instances have blown up."""
    _, unroller, vector, _ = _setting(Quadratic(2), {}, instances=2)
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )
    losses = tf.constant([[1.0, 2.0], [6.0, np.nan], [np.nan, np.nan]])
    for parts, expected in (([0, 1], 3.0), ([0, 2], 1.5), ([2], np.nan)):
        found = [
            estimator._summary(
                *(tf.zeros((2, 1)), losses[i], is_one, ~is_one),
                counted=is_one,
            )
            for i in parts
            for is_one in [tf.math.is_finite(losses[i])]
        ]
        mean = tf.nest.map_structure(lambda *x: tf.add_n(x) / len(x), *found)
        outcome = estimator_lib.Outcome(mean, None, ())
        estimate, _ = estimator.estimate(estimators.Run((1,)), 1, outcome)
        np.testing.assert_allclose(estimate.meta_loss, expected)


def test_no_instance_outvotes_the_others():
    """Meta-gradients are clipped one by one; the short ones stay."""
    _, unroller, _, _ = _setting(Quadratic(2), {}, instances=4)
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective(), instance_clip=2.0
    )
    alive = tf.ones(4, "bool")
    for large in (1.0, 1e6, 1e30):
        rows = [[3 * large, 4 * large], [0, 0], [0.6, -0.8], [1e-30, 0]]
        found = estimator._summary(tf.constant(rows), tf.ones(4), alive, ~alive)
        expected = [1.8 / 4, 0.8 / 4]
        np.testing.assert_allclose(found.gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("truncations", [1, 3])
def test_persistent_evolution_is_unbiased(truncations):
    """Many pairs point where backpropagation through the whole run does."""
    config = {
        "level_sizes": (1,),
        "num_gradient_scales": 1,
        "learnable_decay": False,
        "use_gradient_shortcut": False,
        "use_log_means_squared": False,
        "use_relative_lr": False,
    }
    problem = Quadratic(2)
    _, exact_unroller, vector, flat = _setting(
        problem, config, instances=64000, length=4
    )
    constants = exact_unroller.constants((5,))
    exact = estimators.TruncatedBackpropagation(
        exact_unroller, objective.MetaObjective()
    )
    run = estimators.Run((6,))
    reference, _ = exact.step(vector, flat, constants, run, truncations)
    _, unroller, _, _ = _setting(
        problem, config, instances=64000, length=4, copies=2
    )
    pairs = estimators.PersistentEvolution(
        unroller, objective.MetaObjective(), stdev=0.01
    )
    constants = unroller.constants((5,))
    run = estimators.Run((6,))
    found = []
    for _ in range(truncations):
        estimate, run = pairs.step(vector, flat, constants, run, 1)
        found.append(estimate.gradient)
    assert estimate.inner_steps == 4 * 128000
    gradient = np.mean(found, axis=0)
    size = np.linalg.norm(reference.gradient)
    error = np.linalg.norm(gradient - reference.gradient) / size
    assert error < 0.6


def test_persistent_evolution_formula():
    _, unroller, vector, _ = _setting(
        Quadratic(2), {}, instances=2, length=2, copies=2
    )
    estimator = estimators.PersistentEvolution(
        unroller, objective.MetaObjective(use_log=False), stdev=0.1
    )
    accumulated = tf.constant([[1.0, 2.0], [3.0, -1.0]])
    values = tf.constant([[2.0, 3.0, 1.0, 5.0], [4.0, np.nan, 1.0, 5.0]])
    initial = tf.constant([1.0, 1.0, 1.0, 1.0])
    found, alive = estimator._slopes(accumulated, values, initial)
    rest = [found.loss, found.counted, found.lost, found.skipped]
    capped = (3.0 + 1e6) / 2
    np.testing.assert_allclose(rest, [9 + capped, 4, 1, 0], rtol=1e-5)
    differences = np.array([3 - 1, capped - 5]) / (2 * 0.1**2)
    expected = np.mean(accumulated * differences[:, None], axis=0)
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-5)
    np.testing.assert_array_equal(alive, [True, False, True, True])


def test_pairs_that_blew_up_have_nothing_to_say():
    _, unroller, _, _ = _setting(
        Quadratic(2), {}, instances=3, length=2, copies=2
    )
    estimator = estimators.PersistentEvolution(
        unroller, objective.MetaObjective(use_log=False), stdev=0.1
    )
    nan = np.nan
    # The first pair is fine, of the second one half, of the third nothing.
    values = tf.constant([[2.0, 1.0, nan, 1.0, nan, nan]] * 2)
    directions = tf.ones((3, 2))
    found, alive = estimator._slopes(directions, values, tf.ones(6))
    assert found.skipped == 1
    np.testing.assert_array_equal(alive, [1, 1, 0, 1, 0, 0])
    differences = np.array([1.0, 1.0 - 1e6, 0.0]) / (2 * 0.1**2)
    np.testing.assert_allclose(
        found.gradient[0], np.mean(differences), rtol=1e-4
    )


def test_limits_of_negative_objectives():
    initial = tf.constant([-2.0, 3.0])
    values = tf.constant([[-5.0, 2.0], [30.0, np.nan]])
    capped = objective.capped(values, initial, 10.0)
    np.testing.assert_allclose(capped, [[-5, 2], [20, 30]], rtol=1e-5)
    alive = objective.survivors(
        values, initial, tf.constant([True, True]), 10.0
    )
    np.testing.assert_array_equal(alive, [[True, True], [False, False]])


def test_pairs_share_noise_data_and_start():
    _, unroller, vector, flat = _setting(_net(0.3), {}, copies=2)
    constants = unroller.constants((5,))
    weights = vector.unflatten(flat)
    carry = unroller.begin(weights, constants, unroller.draw_start((6,)))
    inputs = unroller.segment_inputs((6,), 0)
    _, objectives, _ = unroller.advance(weights, constants, carry, inputs)
    first, second = np.split(objectives, 2, axis=1)
    np.testing.assert_array_equal(first, second)
    assert np.any(first[:, 0] != first[:, 1])


# The meta-objective.


def test_meta_objective():
    values = np.array([[2.0, 4.0], [1.0, 8.0], [0.5, 16.0]], "float32")
    initial = np.array([2.0, 4.0], "float32")
    ratios = values / (initial + 1e-6)
    log = objective.MetaObjective()(values, initial)
    np.testing.assert_allclose(log, np.log(ratios + 1e-6).mean(0), rtol=1e-5)
    inside = objective.MetaObjective(use_numerator_epsilon=True)
    expected = np.log((values + 1e-6) / (initial + 1e-6)).mean(0)
    np.testing.assert_allclose(inside(values, initial), expected, rtol=1e-5)
    plain = objective.MetaObjective(use_log=False)(values, initial)
    np.testing.assert_allclose(plain, ratios.mean(0), rtol=1e-5)
    weighted = objective.MetaObjective(False, weights=[3.0, 0.5])
    expected = 3 * ratios[1] + 0.5 * ratios[2]
    np.testing.assert_allclose(weighted(values, initial), expected, rtol=1e-5)


def test_meta_objective_leaves_out_what_blew_up():
    values = tf.constant([[1.0, 1.0], [2.0, np.inf], [4.0, np.nan]])
    initial = tf.constant([1.0, 1.0])
    alive = objective.survivors(values, initial, tf.constant([True, True]), 0)
    np.testing.assert_array_equal(alive[:, 1], [True, False, False])
    with tf.GradientTape() as tape:
        tape.watch(values)
        losses = objective.MetaObjective()(values, initial, alive)
    np.testing.assert_allclose(losses, [np.log(2), 0], atol=1e-5)
    assert np.all(np.isfinite(tape.gradient(losses, values)))
    alive = objective.survivors(
        values, initial, tf.constant([True, False]), 3.0
    )
    np.testing.assert_array_equal(alive[:, 0], [True, True, False])
    assert not np.any(alive[:, 1])


# Meta-optimizers.


def test_adam_is_adam():
    reference = keras.optimizers.Adam(0.01)
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    adam = meta_optimizers.Adam(0.01)
    weights = tf.constant([1.0, -2.0])
    slots = adam.init(weights)
    for step in range(5):
        gradient = tf.constant([0.3, -1.0]) * (step + 1)
        reference.apply([gradient], [variable])
        slots, weights = adam.apply(slots, weights, gradient)
    np.testing.assert_allclose(weights, np.array(variable), rtol=1e-5)


def test_adamw_is_keras_adamw_around_its_start():
    start = np.array([3.0, -2.0], "float32")
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    # Keras' decay is towards zero: there its variable begins.
    variable = keras.Variable(np.zeros(2, "float32"))
    adamw = meta_optimizers.make("adamw", 0.01, 0.5)
    weights = tf.constant(start)
    slots = adamw.init(weights)
    for step in range(50):
        gradient = tf.constant([0.3, -1.0]) * np.float32(np.cos(step / 9))
        reference.apply([gradient], [variable])
        slots, weights = adamw.apply(slots, weights, gradient)
    moved = np.array(variable)
    np.testing.assert_allclose(weights - start, moved, rtol=1e-4)
    # Without gradients only the decay is left, and at the start nothing.
    resting = adamw.init(weights)
    resting["origin"] = tf.constant(start)
    _, then = adamw.apply(resting, weights, tf.zeros(2))
    np.testing.assert_allclose(then - start, 0.995 * moved, rtol=1e-4)
    _, then = adamw.apply(adamw.init(weights), weights, tf.zeros(2))
    np.testing.assert_array_equal(then, weights)


def test_rmsprop():
    rmsprop = meta_optimizers.RMSProp(0.01)
    weights, mean_square = np.array([1.0, -2.0]), np.ones(2)
    ours = tf.constant(weights, "float32")
    slots = rmsprop.init(ours)
    for step in range(5):
        gradient = np.array([0.3, -1.0]) * (step + 1)
        slots, ours = rmsprop.apply(
            slots, ours, tf.constant(gradient, "float32")
        )
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        weights = weights - 0.01 * gradient / np.sqrt(mean_square)
    np.testing.assert_allclose(ours, weights, rtol=1e-5)


def test_gradients_are_cleaned():
    gradient = tf.constant([1.0, np.nan, -np.inf, 1e6, -1e6])
    cleaned = meta_optimizers.clean(gradient, 1e4)
    np.testing.assert_array_equal(cleaned, [1, 0, 0, 1e4, -1e4])


# The curriculum.


def test_plans_are_heavy_tailed():
    rng = np.random.default_rng(0)
    plans = [curriculum.Curriculum().plan(rng, 10) for _ in range(2000)]
    counts = [len(plan) for plan in plans]
    lengths = np.concatenate(plans) * 10
    assert min(counts) >= 1
    assert np.mean(counts) == pytest.approx(41, rel=0.1)
    assert lengths.min() >= 50
    assert lengths.mean() == pytest.approx(250, rel=0.05)
    assert lengths.max() > 1000


def test_plans_can_be_bounded_and_cut():
    rng = np.random.default_rng(0)
    bounded = curriculum.Curriculum(max_steps=300)
    for _ in range(50):
        assert 1 <= sum(bounded.plan(rng, 20)) <= 15
    assert curriculum.cut([5, 2], 2) == [2, 2, 1, 2]


def test_runs_can_be_log_uniform():
    bounds = {"min_steps": 100, "max_steps": 2000}
    log_uniform = curriculum.Curriculum(min_length=40, mean_length=60, **bounds)
    rng = np.random.default_rng(0)
    plans = [log_uniform.plan(rng, 20) for _ in range(4000)]
    steps = np.array([20 * sum(plan) for plan in plans])
    assert steps.min() == 100 and steps.max() == 2000
    # A third of the runs between the bounds' cube roots each.
    thirds = np.quantile(np.log(steps / 100) / np.log(20), [1 / 3, 2 / 3])
    np.testing.assert_allclose(thirds, [1 / 3, 2 / 3], atol=0.03)
    # All partial unrolls but the last are as long as ever.
    assert min(min(plan) for plan in plans) == 1
    lengths = [20 * n for plan in plans for n in plan[:-1]]
    assert min(lengths) == 40
    assert np.mean(lengths) == pytest.approx(100, rel=0.1)
    one = curriculum.Curriculum(min_steps=60, max_steps=60)
    assert sum(one.plan(rng, 20)) == 3


@pytest.mark.parametrize("bounds", [(20, 0), (20, 10), (-1, 10)])
def test_bounds_of_runs_are_in_order(bounds):
    low, high = bounds
    with pytest.raises(ValueError, match=f"min_steps={low}"):
        curriculum.Curriculum(min_steps=low, max_steps=high)


def test_problems_are_drawn_in_cycles():
    names = ["a", "b", "c"]
    drawn = [curriculum.draw_problem(names, 1, i) for i in range(30)]
    for begin in range(0, 30, 3):
        assert set(drawn[begin : begin + 3]) == set(names)
    assert drawn != names * 10
