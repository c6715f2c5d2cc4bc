"""Problems: many instances at once, noise, data, names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lopt_tf.metatraining import unroll
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus, datasets
from problems.classifiers import FullyConnected
from problems.keras_model import KerasModelProblem
from problems.problem import fold, stateless_seed, value_and_gradients
from problems.quadratic import Bowl, Quadratic
from problems.test_functions import Ackley, Branin, Rosenbrock
from problems.wrappers import LogObjective, Rescale, SparseProblem, SumTask

ALL = corpus.select(corpus.sets())


def _one(constants, k):
    return {
        name: value[k : k + 1] if value.shape[0] > 1 else value
        for name, value in constants.items()
    }


@pytest.mark.parametrize("name", [name for name in ALL if "large" not in name])
def test_instances_are_independent(name):
    problem = ALL[name]
    constants = problem.constants(stateless_seed(1), 3)
    params = problem.init(stateless_seed(2), 3)
    assert [tuple(p.shape) for p in params] == [(3, *s) for s in problem.shapes]
    batch = None
    if problem.batch_size:
        batch = tf.constant(
            datasets.minibatches(
                (0,), 0, 1, 3, problem.num_examples, problem.batch_size
            )[0]
        )
    loss, grads = value_and_gradients(problem, params, constants, batch)
    assert loss.shape == (3,)
    assert np.all(np.isfinite(loss)) and np.all(loss >= 0)
    for k in range(3):
        single, single_grads = value_and_gradients(
            problem,
            [p[k : k + 1] for p in params],
            _one(constants, k),
            None if batch is None else batch[k : k + 1],
        )
        np.testing.assert_allclose(loss[k], single[0], rtol=1e-4)
        for g, s in zip(grads, single_grads):
            size = max(np.max(np.abs(s)), 1e-6)
            np.testing.assert_allclose(g[k], s[0], rtol=0, atol=1e-4 * size)


def test_draws_follow_the_seed():
    problem = ALL["fully_connected_random_2_class_problems.0"]
    first = problem.constants(stateless_seed(1), 2)["data"]
    np.testing.assert_array_equal(
        first, problem.constants(stateless_seed(1), 2)["data"]
    )
    assert np.any(first != problem.constants(stateless_seed(2), 2)["data"])
    # Each instance has data of its own, unless the set fixes the seed.
    assert np.any(first[0] != first[1])
    shared = ALL["softmax_2_class_problems.0"]
    assert shared.constants(stateless_seed(1), 2)["data"].shape[0] == 1


def test_large_single_quadratic_agrees_with_many():
    problem = Quadratic(30)
    constants = problem.constants(stateless_seed(1), 2)
    params = problem.init(stateless_seed(2), 2)
    loss, grads = value_and_gradients(problem, params, constants)
    w, y, x = constants["w"][0], constants["y"][0], params[0][0]
    residual = w.numpy() @ x.numpy() - y.numpy()
    np.testing.assert_allclose(loss[0], 0.5 * np.sum(residual**2), rtol=1e-5)
    alone, alone_grads = value_and_gradients(
        problem, [params[0][:1]], _one(constants, 0)
    )
    np.testing.assert_allclose(alone[0], loss[0], rtol=1e-5)
    np.testing.assert_allclose(
        alone_grads[0][0], w.numpy().T @ residual, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(grads[0][0], alone_grads[0][0], rtol=1e-4)


@pytest.mark.parametrize(
    "problem, point, value",
    [
        (Rosenbrock(), (1, 1), 0),
        (Ackley(), (0, 0), 0),
        (Branin(), (np.pi, 2.275), 0.397887),
    ],
)
def test_known_minima(problem, point, value):
    params = [tf.constant([point], "float32")]
    loss, grads = value_and_gradients(problem, params, {})
    np.testing.assert_allclose(loss[0], value, atol=1e-4)
    np.testing.assert_allclose(grads[0][0], 0, atol=1e-3)


# Noise.


def _perturbed_zero(problem, draws=2000):
    zeros = [tf.zeros((draws, *shape)) for shape in problem.shapes]
    return [g.numpy() for g in problem.perturb(zeros, stateless_seed(3))]


def test_noise_has_its_size():
    (noise,) = _perturbed_zero(Quadratic(20, 0.5))
    assert np.std(noise) == pytest.approx(0.5, rel=0.05)
    assert not Quadratic(20).is_noisy


def test_members_of_a_sum_keep_their_noise():
    problem = SumTask([Quadratic(5, 0.1), Quadratic(4), Bowl(1.0, 0.0, 0.5)])
    spreads = [np.std(noise) for noise in _perturbed_zero(problem)]
    assert spreads == pytest.approx([0.1, 0.0, 0.5], rel=0.05)
    assert problem.is_noisy


def test_sparse_gradients():
    problem = SparseProblem(Quadratic(20))
    ones = [tf.ones((2000, 20, 1))]
    (sparse,) = problem.perturb(ones, stateless_seed(3))
    assert np.mean(sparse.numpy() == 0) == pytest.approx(0.99, abs=0.002)
    assert set(np.unique(sparse)) == {0, 1}


def test_noise_follows_the_seed():
    problem = Quadratic(3, 1.0)
    zeros = [tf.zeros((1, 3, 1))]
    seed = stateless_seed(1)
    first = problem.perturb(zeros, fold(seed, 1))[0]
    np.testing.assert_array_equal(
        first, problem.perturb(zeros, fold(seed, 1))[0]
    )
    assert np.any(first != problem.perturb(zeros, fold(seed, 2))[0])


# Wrappers.


def test_wrappers_start_as_their_members():
    seed = stateless_seed(7)
    (start,) = Rosenbrock().init(seed, 4)
    for wrapper in (LogObjective, SparseProblem):
        np.testing.assert_array_equal(
            wrapper(Rosenbrock()).init(seed, 4)[0], start
        )
    (scaled,) = Rescale(Rosenbrock(), 50.0).init(seed, 4)
    np.testing.assert_allclose(scaled, 50 * start.numpy(), rtol=1e-6)


def test_log_objective():
    problem, wrapped = Quadratic(3), LogObjective(Quadratic(3))
    constants = problem.constants(stateless_seed(1), 2)
    renamed = {f"problem.{name}": c for name, c in constants.items()}
    params = problem.init(stateless_seed(2), 2)
    expected = np.log(problem.loss(params, constants) + 1e-6) - np.log(1e-6)
    ours = wrapped.loss(params, renamed)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_sums_take_no_data():
    with pytest.raises(ValueError, match="without data"):
        SumTask([ALL["softmax_2_class_problems.0"]])


# Data.


def test_minibatches_go_through_epochs():
    batches = datasets.minibatches((1, 2), 0, 8, 3, 10, 3)
    assert batches.shape == (8, 3, 3)
    for k in range(3):
        for epoch in (0, 3):
            rows = batches[epoch : epoch + 3, k].ravel()
            assert len(set(rows)) == 9
    assert np.any(batches[:, 0] != batches[:, 1])
    later = datasets.minibatches((1, 2), 5, 3, 3, 10, 3)
    np.testing.assert_array_equal(later, batches[5:])


def test_batch_never_exceeds_the_data():
    data = datasets.Dataset(datasets.random_mlp, 4, 10)
    assert FullyConnected(4, 2, data, 23).batch_size == 10


# Names.


def test_selection():
    chosen = corpus.select(["bowl_problems", "quadratic_problems.2"])
    assert list(chosen) == [
        "bowl_problems.0",
        "bowl_problems.1",
        "bowl_problems.2",
        "bowl_problems.3",
        "quadratic_problems.2",
    ]
    default = corpus.select(["default"])
    assert "quadratic_problems.0" not in default
    assert "sum_problems_noisy.1" in default


@pytest.mark.parametrize(
    "name, message",
    [
        ("bowls", "Known sets: .*bowl_problems"),
        ("bowl_problem", "Did you mean 'bowl_problems'"),
        ("bowl_problems.9", "bowl_problems.0 to bowl_problems.3"),
        ("bowl_problems.x", "bowl_problems.0 to bowl_problems.3"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        corpus.select([name])


def test_unknown_activation_and_classes():
    data = datasets.Dataset(datasets.random_mlp, 4, 10)
    with pytest.raises(ValueError, match="Known: relu, sigmoid, tanh"):
        FullyConnected(4, 2, data, 5, activation="step")
    with pytest.raises(ValueError, match="two classes"):
        FullyConnected(4, 3, data, 5)


# Keras models.


def _keras_problem():
    def build():
        return keras.Sequential(
            [
                keras.layers.Input((4,)),
                keras.layers.Dense(3, activation="relu"),
                keras.layers.Dense(2),
            ]
        )

    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, 4))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = (data[:, 0] > 0).astype("int32")
    return KerasModelProblem(build, data, labels, loss, 5)


def test_keras_model_is_a_problem():
    problem = _keras_problem()
    params = problem.init(stateless_seed(1), 3)
    assert np.any(params[0][0] != params[0][1])
    again = problem.init(stateless_seed(1), 3)
    np.testing.assert_array_equal(params[0], again[0])
    constants = problem.constants(stateless_seed(1), 3)
    loss, grads = value_and_gradients(problem, params, constants)
    model = problem.build_model()
    for k in range(3):
        model.set_weights([p[k].numpy() for p in params])
        with tf.GradientTape() as tape:
            outputs = model(problem.data)
            expected = problem.loss_function(problem.labels, outputs)
        np.testing.assert_allclose(loss[k], expected, rtol=1e-5)
        single = tape.gradient(expected, model.trainable_variables)
        for g, s in zip(grads, single):
            np.testing.assert_allclose(g[k], s, rtol=1e-4, atol=1e-6)


def test_keras_model_is_trained_by_a_rule():
    problem = _keras_problem()
    rule = HierarchicalRNNRule(init_lr_range=(1e-2, 1e-2))
    unroller = unroll.Unroller(problem, rule, 2, 10)
    weights = {n: tf.constant(w) for n, w in rule.init_weights(0).items()}
    constants = unroller.constants((1,))
    run = unroller.new_run(weights, constants, (2,))
    run, objectives = unroller.advance(weights, constants, run)
    assert objectives.shape == (10, 2)
    assert np.all(np.isfinite(objectives))
    assert np.all(objectives[-1] != run.initial)


def test_keras_model_must_be_built():
    with pytest.raises(ValueError, match="built model"):
        KerasModelProblem(
            lambda: keras.Sequential([keras.layers.Dense(2)]),
            np.zeros((4, 2)),
            np.zeros(4),
            "mse",
            2,
        )
