"""Problems: many instances at once, noise, data, names."""

import dataclasses
import functools
import itertools
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import problems
from lopt_tf.metatraining import unroll
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from lopt_tf.optimizers.update_rule import UpdateRule
from problems import corpus, datasets, everyday_data, networks, text
from problems.classifiers import FullyConnected
from problems.convnet import ConvNet
from problems.everyday_networks import PlainNet, ResidualMLP
from problems.keras_model import KerasModelProblem, KerasNetwork
from problems.matmul import MatMulAlgorithm
from problems.problem import fold, stateless_seed
from problems.quadratic import Bowl, Quadratic
from problems.residual import ResidualNet
from problems.sparse_softmax import (
    OneHotSparseSoftmaxRegression,
    SparseSoftmaxRegression,
)
from problems.test_functions import Ackley, Branin, Rosenbrock, Saddle
from problems.vector_functions import (
    DependencyChain,
    MinMaxWell,
    OutwardSnake,
    ProjectionQuadratic,
    SumOfQuadratics,
)
from problems.wrappers import (
    LogObjective,
    Reparameterized,
    Rescale,
    SparseProblem,
    SumTask,
)

ALL = corpus.select([*corpus.sets(), *corpus.added_sets()])


def _one(constants, k):
    return {
        name: value[k : k + 1] if value.shape[0] > 1 else value
        for name, value in constants.items()
    }


def _batch(problem, instances):
    if problem.batch_size is None:
        return None
    return tf.constant(
        datasets.minibatches(
            (0,), 0, 1, instances, problem.num_examples, problem.batch_size
        )[0]
    )


@pytest.mark.parametrize("name", [name for name in ALL if "large" not in name])
def test_instances_are_independent(name):
    problem = ALL[name]
    constants = problem.constants(stateless_seed(1), 3)
    params = problem.init(stateless_seed(2), 3)
    assert [tuple(p.shape) for p in params] == [(3, *s) for s in problem.shapes]
    batch = _batch(problem, 3)
    loss, grads = problem.value_and_gradients(params, constants, batch)
    assert loss.shape == (3,)
    assert np.all(np.isfinite(loss))
    assert np.all(loss >= 0) or not problem.nonnegative
    for k in range(3):
        single, single_grads = problem.value_and_gradients(
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
    loss, grads = problem.value_and_gradients(params, constants)
    w, y, x = constants["w"][0], constants["y"][0], params[0][0]
    residual = w.numpy() @ x.numpy() - y.numpy()
    np.testing.assert_allclose(loss[0], 0.5 * np.sum(residual**2), rtol=1e-5)
    alone, alone_grads = problem.value_and_gradients(
        [params[0][:1]], _one(constants, 0)
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
    loss, grads = problem.value_and_gradients(params, {})
    np.testing.assert_allclose(loss[0], value, atol=1e-4)
    np.testing.assert_allclose(grads[0][0], 0, atol=1e-3)


# Second opinions and derivatives, in float64.


def _data(draw=datasets.random_symmetric, features=4, rows=12, **kw):
    return datasets.Dataset(draw, features, rows, **kw)


def _matmul(a, b, constants):
    products = (constants["a"] @ a) * (constants["b"] @ b)
    readout = np.linalg.lstsq(products, constants["c"], rcond=None)[0]
    return np.sum((products @ readout - constants["c"]) ** 2)


def _chain(x, constants):
    quotients = [x[i] ** 2 / (x[i - 1] ** 2 + 1e-6) for i in range(1, len(x))]
    return sum(x[0] ** 2 + q for q in quotients)


def _well(x, constants):
    return np.max(x**2) + 1 / np.min(x**2) - 2 + 1e-12


def _snake(x, constants):
    radius, path = np.sqrt(np.sum(x**2)) + 1e-6, x[1:] - np.pi * np.cos(x[:-1])
    return sum(
        row[0] / radius + np.sum((path * row[1:]) ** 2)
        for row in constants["data"]
    )


def _projection(x, constants):
    return sum(np.sum((x[0] * row) ** 2) for row in constants["data"])


def _sum_of_quadratics(x, constants):
    rows = constants["data"]
    return sum(np.sum((x[0] - r) ** 2) - np.sum(r**2) for r in rows) + 1e-12


def _sparse(embeddings, weights, bias, constants):
    losses = []
    for ids, label in zip(constants["data"].astype(int), constants["labels"]):
        logit = (sum(embeddings[i] for i in ids) @ weights + bias)[0]
        losses.append(np.log1p(np.exp(logit)) - label * logit)
    squares = [np.sum(p**2) for p in (embeddings, weights, bias)]
    return np.mean(losses) + 1e-3 / 3 * sum(squares)


_PARITY = {"draw": datasets.noisy_parity, "features": 5}
_BINARY = {"draw": datasets.random_binary}
SECOND_OPINIONS = [
    (MatMulAlgorithm(2, 5), _matmul),
    (MatMulAlgorithm(3, 20), _matmul),
    (DependencyChain(4, _data(**_BINARY), 5), _chain),
    (MinMaxWell(4), _well),
    (OutwardSnake(4, _data(**_BINARY), 5), _snake),
    (ProjectionQuadratic(4, _data(), 5), _projection),
    (SumOfQuadratics(4, _data(), 5), _sum_of_quadratics),
    (SparseSoftmaxRegression(6, 2, _data(**_PARITY), 5), _sparse),
    (OneHotSparseSoftmaxRegression(6, 2, _data(**_PARITY), 5), _sparse),
]


def _in_double(problem, instances):
    """Constants and a start of that many instances, in float64."""
    constants = problem.constants(stateless_seed(1), instances)
    constants = {
        name: tf.cast(value, "float64") if value.dtype == "float32" else value
        for name, value in constants.items()
    }
    params = problem.init(stateless_seed(2), instances)
    return constants, [tf.cast(p, "float64") for p in params]


@pytest.mark.parametrize(
    "problem, reference",
    SECOND_OPINIONS,
    # A function's repr holds its address, which differs between processes.
    ids=lambda value: getattr(value, "__name__", repr(value)[:40]),
)
@pytest.mark.parametrize("batched", [False, True])
def test_second_opinion(problem, reference, batched):
    constants, params = _in_double(problem, 2)
    batch = _batch(problem, 2) if batched else None
    losses = problem.loss(params, constants, batch)
    for k in range(2):
        own = {n: c[0].numpy() for n, c in _one(constants, k).items()}
        if batch is not None:
            rows = batch[k].numpy()
            own = {name: c[rows] for name, c in own.items()}
        expected = reference(*[p[k].numpy() for p in params], own)
        np.testing.assert_allclose(losses[k], expected, rtol=1e-9)


def _small_convnet(**kw):
    data = _data(datasets.random, 6 * 5 * 2, n_classes=3)
    kw = {"filters": ((3, 3, 2), (2, 4, 3)), "activation": "sigmoid", **kw}
    return ConvNet((6, 5, 2), 3, data, 5, **kw)


DIFFERENTIATED = [
    *(problem for problem, _ in SECOND_OPINIONS),
    Saddle(),
    _small_convnet(),
    FullyConnected(4, 3, _data(datasets.random, n_classes=3), 5, (6,)),
    PlainNet(
        *(4, 3, _data(datasets.random, n_classes=3), 5, (6,), "tanh"),
        use_batch_norm=True,
    ),
    ResidualMLP(
        *(4, 3, _data(datasets.random, n_classes=3), 5, 6, 2),
        use_layer_norm=True,
    ),
]


def _derivatives(problem, params, constants, batch, directions):
    """Objective, gradients, and the Hessian times a direction."""
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss, grads = problem.value_and_gradients(params, constants, batch)
        along = tf.add_n(
            [tf.reduce_sum(g * d) for g, d in zip(grads, directions)]
        )
    curvature = tape.gradient(along, params, unconnected_gradients="zero")
    return loss, grads, curvature


@pytest.mark.parametrize("problem", DIFFERENTIATED, ids=repr)
def test_derivatives_agree_with_differences(problem):
    constants, params = _in_double(problem, 2)
    batch = _batch(problem, 2)
    rng = np.random.default_rng(0)
    directions = [tf.constant(rng.normal(size=p.shape)) for p in params]

    def at(step):
        moved = [p + step * d for p, d in zip(params, directions)]
        return problem.value_and_gradients(moved, constants, batch)

    loss, grads, curvature = _derivatives(
        problem, params, constants, batch, directions
    )
    step = 1e-5
    (above, grads_above), (below, grads_below) = at(step), at(-step)
    slope = sum(np.sum(g * d) for g, d in zip(grads, directions))
    np.testing.assert_allclose(
        np.sum(above - below) / (2 * step), slope, rtol=1e-5
    )
    for ours, high, low in zip(curvature, grads_above, grads_below):
        expected = (high - low) / (2 * step)
        largest = np.max(np.abs(expected))
        np.testing.assert_allclose(ours, expected, atol=1e-5 * largest)


COMPILED = [
    *(name for name in ALL if name.endswith(".0") and "large" not in name),
    *(f"everyday_network_problems.{i}" for i in (8, 13, 14, 15, 18, 19)),
    "mlp_test.1",
    "saddle.0",
]


@pytest.mark.parametrize("name", [*COMPILED, "convnet"])
def test_second_derivatives_compile(name):
    problem = (
        _small_convnet(activation="relu")
        if name == "convnet"
        else corpus.select([name])[name]
    )
    constants = problem.constants(stateless_seed(1), 2)
    params = problem.init(stateless_seed(2), 2)
    directions = problem.init(stateless_seed(3), 2)
    arguments = (params, constants, _batch(problem, 2), directions)
    compiled = tf.function(
        lambda *inputs: _derivatives(problem, *inputs), jit_compile=True
    )
    eager = tf.nest.flatten(_derivatives(problem, *arguments))
    for ours, expected in zip(tf.nest.flatten(compiled(*arguments)), eager):
        largest = np.max(np.abs(expected))
        assert np.isfinite(largest)
        np.testing.assert_allclose(ours, expected, atol=1e-3 * largest)


# Matrix products.

# Strassen's seven products: of these forms of A and of B, row by row.
_STRASSEN = (
    np.float32(
        [
            [1, 0, 1, 0, 1, -1, 0],
            [0, 0, 0, 0, 1, 0, 1],
            [0, 1, 0, 0, 0, 1, 0],
            [1, 1, 0, 1, 0, 0, -1],
        ]
    ),
    np.float32(
        [
            [1, 1, 0, -1, 0, 1, 0],
            [0, 0, 1, 0, 0, 1, 0],
            [0, 0, 0, 1, 0, 0, 1],
            [1, 0, -1, 0, 1, 0, 1],
        ]
    ),
)


def _matmul_loss(forms):
    params = [tf.constant(form[None]) for form in forms]
    problem = MatMulAlgorithm(2, forms[0].shape[1])
    return problem.loss(params, problem.constants(None, 1))[0].numpy()


def test_strassen_multiplies_matrices():
    assert _matmul_loss(_STRASSEN) < 1e-9
    # So it does with each product scaled, though not with one missing.
    scales = np.float32([1e3, 1e-3, 1, 5, -1, 30, 1e-2])
    assert _matmul_loss([form * scales for form in _STRASSEN]) < 1e-9
    assert _matmul_loss([form[:, 1:] for form in _STRASSEN]) > 0.5


def test_equal_products_are_no_trouble():
    doubled = [np.concatenate([f, f[:, :1]], axis=1) for f in _STRASSEN]
    assert _matmul_loss(doubled) < 1e-6
    problem = MatMulAlgorithm(2, 8)
    function = tf.function(problem.value_and_gradients, jit_compile=True)
    loss, grads = function(
        [tf.constant(form[None, :, [0] * 8]) for form in _STRASSEN],
        problem.constants(None, 1),
    )
    one = _matmul_loss([form[:, :1] for form in _STRASSEN])
    np.testing.assert_allclose(loss[0], one, rtol=1e-4)
    assert all(np.all(np.isfinite(gradient)) for gradient in grads)


def test_matrix_products_start_with_unit_columns():
    for start in MatMulAlgorithm(3, 19).init(stateless_seed(1), 2):
        np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1, rtol=1e-5)


# Signs.


def test_well_has_no_negative_bottom():
    near = np.float32(1 + np.arange(-50, 51) * 6e-8)
    params = [tf.constant(np.stack([near, near], axis=1))]
    loss = MinMaxWell(2).loss(params, {}).numpy()
    assert np.all(loss > 0) and loss[50] == np.float32(1e-12)


def test_what_can_be_negative():
    saddle = Saddle().loss([tf.constant([[0.0, 2.0]])], {})
    np.testing.assert_allclose(saddle, [-4])
    problem = SumOfQuadratics(4, _data(), 5)
    constants = problem.constants(stateless_seed(1), 1)
    batch = _batch(problem, 1)
    mean = np.mean(constants["data"].numpy()[0][batch[0].numpy()], axis=0)
    params = [tf.constant(mean[None, None])]
    assert problem.loss(params, constants, batch)[0] < 0
    names = [name for name, p in ALL.items() if not p.nonnegative]
    assert {name.split(".")[0] for name in names} == {
        "sum_of_quadratics_problems",
        "outward_snake_problems",
    }
    for negative in (Saddle(), problem):
        with pytest.raises(ValueError, match="never negative"):
            LogObjective(negative)


# Classifiers.


def test_lookup_and_one_hot_are_one_objective():
    data = _data(datasets.noisy_parity, 5, 30, n_classes=4)
    lookup = SparseSoftmaxRegression(6, 4, data, 5)
    one_hot = OneHotSparseSoftmaxRegression(6, 4, data, 5)
    constants = lookup.constants(stateless_seed(1), 2)
    params = lookup.init(stateless_seed(2), 2)
    loss, grads = lookup.value_and_gradients(params, constants)
    other, other_grads = one_hot.value_and_gradients(params, constants)
    np.testing.assert_allclose(loss, other, rtol=1e-5)
    for gradient, expected in zip(grads, other_grads):
        np.testing.assert_allclose(gradient, expected, atol=1e-5)
    # What does not occur learns nothing, but for the L2 term.
    constants["data"] = tf.minimum(constants["data"], 2.0)
    _, grads = lookup.value_and_gradients(params, constants)
    decay = 2e-3 / 3 * params[0][:, 3]
    np.testing.assert_allclose(grads[0][:, 3], decay, rtol=1e-5)


def test_parity_has_enough_rows():
    problem = ALL["sparse_softmax_2_class_sparse_problems.0"]
    assert (problem.num_examples, problem.batch_size) == (1000, 23)
    ids, labels = datasets.noisy_parity(5, 2000, random_seed=1)
    noisy = ids.sum(axis=1) % 2 != labels
    assert np.mean(noisy) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("classes", [2, 5])
def test_softmax_cross_entropy(classes):
    data = _data(datasets.random, 6, 40, n_classes=classes)
    problem = FullyConnected(6, classes, data, 5, (4,), use_softmax=True)
    constants = problem.constants(stateless_seed(1), 1)
    params = problem.init(stateless_seed(2), 1)
    logits = problem.logits(params, constants["data"])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(True)
    expected = cross_entropy(constants["labels"][0], logits[0])
    expected += 1e-3 / 4 * sum(np.sum(np.square(p)) for p in params)
    loss = problem.loss(params, constants)
    np.testing.assert_allclose(loss[0], expected, rtol=1e-5)
    assert set(np.unique(constants["labels"])) == set(range(classes))
    if classes == 2:
        sigmoid = FullyConnected(6, 2, data, 5, (4,))
        assert abs(sigmoid.loss(params, constants)[0] - loss[0]) > 1e-3


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_convnet_agrees_with_conv2d(activation):
    problem = _small_convnet(activation=activation)
    constants = problem.constants(stateless_seed(1), 3)
    params = [100 * p for p in problem.init(stateless_seed(2), 3)]
    batch = _batch(problem, 3)
    data, _ = problem.rows(constants, batch)
    logits = problem.logits(params, data)
    for k in range(3):
        *filters, weights, bias = (p[k] for p in params)
        images = tf.reshape(data[k], (-1, 6, 5, 2))
        for kernel in filters:
            images = tf.nn.conv2d(images, kernel, 1, "SAME")
            images = keras.activations.get(activation)(images)
        expected = tf.reshape(images, (len(images), -1)) @ weights + bias
        np.testing.assert_allclose(logits[k], expected, rtol=1e-4, atol=1e-3)


def test_convnet_starts_small():
    starts = _small_convnet().init(stateless_seed(1), 500)
    for start in starts:
        assert np.std(start) == pytest.approx(0.01, rel=0.1)


def test_only_some_rows_are_scored():
    data = _data(datasets.random, 6, 40)
    some = FullyConnected(6, 2, data, 5, num_scored=7)
    every = FullyConnected(6, 2, data, 5)
    constants = every.constants(stateless_seed(1), 2)
    params = every.init(stateless_seed(2), 2)
    first = {name: c[:, :7] for name, c in constants.items()}
    scored = some.loss(params, constants)
    np.testing.assert_array_equal(scored, every.loss(params, first))
    assert np.all(scored != every.loss(params, constants))
    batch = tf.constant([[39, 8], [20, 9]])
    np.testing.assert_array_equal(
        some.loss(params, constants, batch),
        every.loss(params, constants, batch),
    )


# The paper's test problems.


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A folder where MNIST is prepared, with 60 images."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (60, 28, 28, 1), dtype="uint8")
    labels = np.arange(60) % 10
    # Each digit is one bright row.
    images[np.arange(60), 5 + labels] = 255
    images[:, 0, 0, 0] = labels
    examples = tf.data.Dataset.from_tensor_slices(
        {"image": images, "label": labels}
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={"train": examples},
        data_dir=folder,
    )
    return folder, images


def _contents(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths}


def test_mnist_is_read(mnist):
    folder, images = mnist
    before = _contents(folder)
    chosen = corpus.select(["mnist_fully_connected", "mnist_convnet"], folder)
    assert _contents(folder) == before
    assert [p.activation for p in chosen.values()] == ["sigmoid", "relu"] * 2
    problem = chosen["mnist_fully_connected.0"]
    constants = problem.constants(stateless_seed(1), 2)
    data, labels = constants["data"][0].numpy(), constants["labels"][0].numpy()
    # Each image shows its label in a corner.
    np.testing.assert_allclose(data[:, 0] * 255, labels, atol=1e-4)
    expected = np.sort(images.reshape(60, 784) / 255, axis=0)
    np.testing.assert_allclose(np.sort(data, axis=0), expected, atol=1e-6)
    shapes = [(784, 64), (64,), (64, 10), (10,)]
    assert [tuple(shape) for shape in problem.shapes] == shapes
    filters = [(3, 3, 1, 8), (5, 5, 8, 8)]
    shapes = [*filters, (28 * 28 * 8, 10), (10,)]
    assert chosen["mnist_convnet.1"].shapes == shapes


@pytest.mark.parametrize("name", ["mnist_fully_connected.1", "mnist_convnet.1"])
def test_mnist_problems_learn(mnist, name):
    problem = corpus.select([name], mnist[0])[name]
    constants = problem.constants(stateless_seed(1), 2)
    params = problem.init(stateless_seed(2), 2)
    function = tf.function(
        lambda params: problem.value_and_gradients(
            params, constants, _batch(problem, 2)
        ),
        jit_compile=True,
    )
    before = problem.loss(params, constants)
    for _ in range(30):
        _, grads = function(params)
        # By signs: the nets' gradients are of very different sizes.
        params = [p - 3e-3 * tf.sign(g) for p, g in zip(params, grads)]
    after = problem.loss(params, constants)
    assert np.all(after < 0.9 * before), (before, after)


def test_missing_mnist_tells_how_to_get_it(tmp_path):
    message = "not prepared in .*tfds build mnist.*TFDS_DATA_DIR"
    for data_dir in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=message):
            corpus.select(["mnist_convnet"], data_dir)
    assert not list(tmp_path.iterdir())


def test_test_problems_are_apart():
    assert corpus.test_sets() == (
        "mnist_fully_connected",
        "mnist_convnet",
        "mlp_test",
        "saddle",
    )
    assert not set(corpus.test_sets()) & set(corpus.sets())
    chosen = corpus.select(["mlp_test", "saddle"])
    sizes = [(10, 32, 64, 2), (20, 32, 64, 10)]
    nets = [chosen["mlp_test.0"], chosen["mlp_test.1"]]
    assert [net.layer_sizes for net in nets] == sizes
    assert all(net.use_softmax for net in nets)
    labels = nets[1].constants(stateless_seed(1), 1)["labels"]
    assert set(np.unique(labels)) == set(range(10))


def test_wide_classifiers_are_no_part_of_the_release():
    names = corpus.added_sets()
    assert names == (
        "wide_classifier_problems",
        "wide_classifier_validation_problems",
        "everyday_network_problems",
        "everyday_validation_problems",
    )
    assert not set(names) & {*corpus.set_names(), *corpus.test_sets()}
    trained, held_out = (corpus.select([n]).values() for n in names[:2])
    # Validation sees no shape that was trained on.
    shapes = {problem.layer_sizes for problem in trained}
    assert not shapes & {problem.layer_sizes for problem in held_out}
    for problem in (*trained, *held_out):
        classes = problem.layer_sizes[-1]
        labels = problem.constants(stateless_seed(1), 1)["labels"]
        assert set(np.unique(labels)) == set(range(classes))


# Everyday networks.

EVERYDAY = list(corpus.select(["everyday_network_problems"]).values())
HELD_OUT = list(corpus.select(["everyday_validation_problems"]).values())


def test_everyday_networks_are_as_promised():
    plain = [p for p in EVERYDAY if isinstance(p, PlainNet)]
    assert [p.hidden_sizes for p in plain[12:]] == [(256, 256), (512, 512)]
    assert {len(p.hidden_sizes) for p in plain} == {1, 2, 3, 4}
    widths = {width for p in plain for width in p.hidden_sizes}
    assert (min(widths), max(widths)) == (32, 512)
    batches = {p.batch_size for p in EVERYDAY}
    assert (min(batches), max(batches)) == (8, 256)
    assert {p.start for p in EVERYDAY} == {0.02, "glorot", "he"}
    assert len(set(EVERYDAY)) == len(EVERYDAY) == 22
    # No data that a learned optimizer is tested on, and every class occurs (of
    # characters: most).
    for problem in EVERYDAY:
        assert problem.dataset.num_features != 64
        data = problem.constants(stateless_seed(1), 2)
        classes = set(np.unique(data["labels"]))
        assert classes <= set(range(problem.num_classes))
        is_text = problem.num_classes == len(text.VOCABULARY)
        assert len(classes) >= (0.8 if is_text else 1) * problem.num_classes
        assert np.all(np.isfinite(data["data"]))


def test_validation_sees_no_everyday_network_that_was_trained_on():
    shapes = {tuple(p.shapes) for p in EVERYDAY}
    assert not shapes & {tuple(p.shapes) for p in HELD_OUT}
    assert not {p.dataset for p in EVERYDAY} & {p.dataset for p in HELD_OUT}
    assert {type(p).__name__ for p in HELD_OUT} == {
        "PlainNet",
        "RecurrentNet",
        "AttentionNet",
        "ResidualMLP",
    }


def test_everyday_networks_are_no_test_networks():
    tested = {
        tuple(shape for shape in problem.shapes if shape)
        for problem in corpus.select([*networks.SETS, "mlp_test"]).values()
    }
    assert len(tested) > 10
    assert not tested & {tuple(p.shapes) for p in (*EVERYDAY, *HELD_OUT)}


def _modules(problems):
    """Those whose text the problems see."""
    drawn = [p.dataset for p in problems if "modules" in p.dataset.kw]
    assert len(drawn) == 2
    return {name for data in drawn for name in data.kw["modules"]}


def test_text_is_for_one_purpose():
    trained, held_out = _modules(EVERYDAY), _modules(HELD_OUT)
    tested = {*text.TEST_MODULES}
    assert not trained & held_out and not tested & (trained | held_out)


def test_source_is_pieces_of_modules():
    module = ("pickle",)
    pieces, following = everyday_data.source(9, 40, module, random_seed=1)
    np.testing.assert_array_equal(pieces[:, 1:], following[:, :-1])
    whole = "".join(text.VOCABULARY[i] for i in text.standard_library(module))
    assert "Create portable serialized representations" in whole
    for piece, last in zip(pieces, following[:, -1]):
        read = "".join(text.VOCABULARY[i] for i in (*piece, last))
        assert read in whole
    others, _ = everyday_data.source(9, 40, module, random_seed=2)
    assert np.any(others != pieces)


@pytest.mark.parametrize("index", range(22 + 8))
def test_everyday_networks_start_as_they_say(index):
    problem = [*EVERYDAY, *HELD_OUT][index]
    params = problem.init(stateless_seed(1), 8)
    for tensor, values in zip(problem.tensors, params):
        expected = {"zeros": 0.0, "ones": 0.0, "embedding": 0.02}.get(
            tensor.kind, problem.start
        )
        if isinstance(expected, str):
            size = np.prod(tensor.shape[:-2])
            fan_in, fan_out = size * np.array(tensor.shape[-2:])
            fans = fan_in if expected == "he" else fan_in + fan_out
            expected = np.sqrt(2 / fans)
        assert np.std(values) == pytest.approx(expected, rel=0.15)
        mean = np.mean(values)
        assert abs(mean - (tensor.kind == "ones")) <= 0.15 * expected
    # Nothing is learned yet: about the entropy of equal classes.
    loss = problem.loss(params, problem.constants(stateless_seed(2), 8))
    assert 0.9 < np.mean(loss) / np.log(problem.num_classes) < 4


def _keras_loss(layers, problem, params, order=None):
    """Mean cross entropy of a Keras model with one instance's weights."""
    constants = problem.constants(stateless_seed(2), 2)
    data, labels = constants["data"][1], constants["labels"][1]
    data = data[: problem.num_scored]
    model = keras.Sequential(layers)
    outputs = model(data, training=True)
    weights = [p[1].numpy() for p in params]
    for variable, i in zip(
        model.trainable_variables, order or range(len(weights)), strict=True
    ):
        variable.assign(np.reshape(weights[i], variable.shape))
    outputs = model(data, training=True)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return entropy(labels[: problem.num_scored], outputs).numpy()


def _moved(problem):
    """Parameters away from the zeros and ones of the start."""
    params = problem.init(stateless_seed(1), 2)
    return [
        p + 0.1 * tf.random.stateless_normal(p.shape, (3, i))
        for i, p in enumerate(params)
    ]


def test_plain_and_convolutional_nets_agree_with_keras():
    layers = keras.layers
    plain = PlainNet(
        5,
        3,
        _data(datasets.random, 5, n_classes=3),
        4,
        (6,),
        "tanh",
        use_batch_norm=True,
    )
    image = dataclasses.replace(
        EVERYDAY[12], channels=(3, 2), use_batch_norm=True
    )
    stacks = {
        plain: [
            layers.Dense(6, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Dense(3),
        ],
        image: [layers.Reshape(image.image_shape)],
    }
    for channels in image.channels:
        stacks[image] += [
            layers.Conv2D(channels, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.AveragePooling2D(2),
        ]
    stacks[image] += [layers.Flatten(), layers.Dense(10)]
    for problem, stack in stacks.items():
        params = _moved(problem)
        ours = problem.loss(params, problem.constants(stateless_seed(2), 2))[1]
        expected = _keras_loss(stack, problem, params)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_recurrent_net_agrees_with_keras():
    problem = EVERYDAY[14]
    params = _moved(problem)
    # Keras has two biases; the second one is 0 here.
    params[2] = tf.stack([params[2], 0 * params[2]], axis=1)
    layers = keras.layers
    stack = [
        layers.Embedding(16, 8),
        layers.GRU(32, return_sequences=True),
        layers.Dense(16),
    ]
    expected = _keras_loss(stack, problem, params, (0, 1, 3, 2, 4, 5))
    params[2] = params[2][:, 0]
    ours = problem.loss(params, problem.constants(stateless_seed(2), 2))[1]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("index", [18, 19])
def test_residual_mlp_is_its_formula(index):
    """In NumPy, of one instance; a norm is over the features of a row."""
    problem = EVERYDAY[index]
    params = _moved(problem)
    constants = problem.constants(stateless_seed(2), 2)
    given = iter([p[1].numpy().astype("float64") for p in params])
    values = constants["data"][1].numpy() @ next(given) + next(given)
    for _ in range(problem.blocks):
        branch = values
        if problem.use_layer_norm:
            centred = values - values.mean(axis=1, keepdims=True)
            deviation = np.sqrt(values.var(axis=1, keepdims=True) + 1e-3)
            branch = centred / deviation * next(given) + next(given)
        hidden = np.maximum(branch @ next(given) + next(given), 0)
        values = values + hidden @ next(given) + next(given)
    expected = values @ next(given) + next(given)
    assert not list(given)
    ours = problem.logits(params, constants["data"])[1]
    largest = np.max(np.abs(expected))
    np.testing.assert_allclose(ours, expected, atol=1e-5 * largest)


class _Block(keras.layers.Layer):
    """The attention block in Keras' layers, with these weights in order."""

    def __init__(self, problem, weights):
        super().__init__()
        self.problem, self.given = problem, weights

    def call(self, data):
        layers, given = keras.layers, iter(self.given)

        def norm(values):
            layer = layers.LayerNormalization(epsilon=1e-3)
            layer.build(values.shape)
            layer.set_weights([next(given), next(given)])
            return layer(values)

        def dense(values, activation=None):
            kernel = next(given)
            layer = layers.Dense(kernel.shape[1], activation=activation)
            layer.build(values.shape)
            layer.set_weights([kernel, next(given)])
            return layer(values)

        size, heads = self.problem.size, self.problem.heads
        depth = size // heads
        values = tf.gather(next(given), tf.cast(data, "int32")) + next(given)
        attention = layers.MultiHeadAttention(heads, depth)
        attention.build(values.shape, values.shape)
        normed = norm(values)
        kernels = np.split(next(given), 3, axis=1)
        biases = np.split(next(given), 3)
        weights = []
        for kernel, bias in zip(kernels, biases):
            weights += [kernel.reshape(size, heads, depth)]
            weights += [bias.reshape(heads, depth)]
        weights += [next(given).reshape(heads, depth, size), next(given)]
        attention.set_weights(weights)
        values += attention(normed, normed, use_causal_mask=True)
        values += dense(dense(norm(values), "relu"))
        return dense(norm(values))


def test_attention_net_agrees_with_keras():
    problem = EVERYDAY[15]
    params = _moved(problem)
    constants = problem.constants(stateless_seed(2), 2)
    block = _Block(problem, [p[1].numpy() for p in params])
    expected = block(constants["data"][1])
    ours = problem.logits(params, constants["data"])[1]
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_weight_decay_is_of_weights_alone():
    plain = PlainNet(4, 2, _data(datasets.random), 5, (3,))
    decayed = dataclasses.replace(plain, weight_decay=0.5)
    params = _moved(plain)
    constants = plain.constants(stateless_seed(2), 2)
    added = decayed.loss(params, constants) - plain.loss(params, constants)
    squares = [np.sum(np.square(params[i]), axis=(1, 2)) for i in (0, 2)]
    np.testing.assert_allclose(added, 0.5 * np.sum(squares, axis=0), rtol=1e-4)


def test_everyday_networks_need_a_known_start():
    with pytest.raises(ValueError, match="start='orthogonal'"):
        PlainNet(4, 2, _data(datasets.random), 5, (3,), start="orthogonal")
    with pytest.raises(ValueError, match="wine has 178 rows and 13 columns"):
        everyday_data.packaged(4, 150, "wine")


def test_tokens_follow_from_the_two_before():
    rows, following = everyday_data.tokens(12, 2000, 3, random_seed=1)
    np.testing.assert_array_equal(rows[:, 1:], following[:, :-1])
    before, now, then = rows[:, :-1], rows[:, 1:], following[:, 1:]
    counts = np.zeros((3, 3, 3))
    np.add.at(counts, (before, now, then), 1)
    shares = counts / counts.sum(axis=-1, keepdims=True)
    # Twice as certain as a guess, and not so from one token alone.
    assert shares.max(axis=-1).mean() > 0.6
    alone = counts.sum(axis=0) / counts.sum(axis=(0, 2))[:, None]
    assert alone.max(axis=-1).mean() < shares.max(axis=-1).mean() - 0.05


def test_imports_are_light():
    code = (
        "import sys, problems, problems.corpus; "
        "sys.exit('tensorflow_datasets' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def _reparameterized(problem, bounds=(1e-3, 1e3)):
    """The wrapped problem, its constants for 50 instances, its scales."""
    wrapped = Reparameterized(problem, bounds)
    constants = wrapped.constants(stateless_seed(1), 50)
    return wrapped, constants, constants["alpha"].numpy()


def test_scales_are_log_uniform():
    wrapped = Reparameterized(Quadratic(3))
    alpha = wrapped.constants(stateless_seed(1), 4000)["alpha"].numpy()
    logs = np.log10(alpha)
    assert -3 <= logs.min() < -2.9 and 2.9 < logs.max() <= 3.001
    assert np.mean(logs) == pytest.approx(0, abs=0.1)
    assert np.std(logs) == pytest.approx(6 / np.sqrt(12), rel=0.05)
    again = wrapped.constants(stateless_seed(1), 4000)["alpha"]
    np.testing.assert_array_equal(again, alpha)
    other = wrapped.constants(stateless_seed(2), 4000)["alpha"]
    assert np.all(other != alpha)


def test_reparameterized_problem_is_the_member_at_another_point():
    wrapped, constants, alpha = _reparameterized(
        ALL["wide_classifier_problems.0"]
    )
    member = wrapped.problem
    own = {n.removeprefix("problem."): c for n, c in constants.items()}
    params = member.init(stateless_seed(2), 50)
    batch = _batch(member, 50)
    factors = [alpha.reshape((-1,) + (1,) * (len(p.shape) - 1)) for p in params]
    trained = [p / f for p, f in zip(params, factors)]
    loss, grads = wrapped.value_and_gradients(trained, constants, batch)
    expected, own_grads = member.value_and_gradients(params, own, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for g, own_g, factor in zip(grads, own_grads, factors):
        np.testing.assert_allclose(g / factor, own_g, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("copies", [1, 2])
def test_every_start_has_the_scale_of_its_constants(copies):
    member = ALL["wide_classifier_problems.0"]
    rule = HierarchicalRNNRule(level_sizes=(3,))
    weights = {n: tf.constant(w) for n, w in rule.init_weights(0).items()}
    ours, theirs = (
        unroll.Unroller(problem, rule, 3, 5, copies=copies)
        for problem in (Reparameterized(member), member)
    )
    constants = ours.constants((1,))
    alpha = constants["alpha"].numpy()
    assert len(set(alpha[:3])) == 3 and alpha.shape == (3 * copies,)
    own = {n.removeprefix("problem."): c for n, c in constants.items()}
    # Two fresh starts on the same constants.
    for seed in ((2,), (3,)):
        carry = ours.begin(weights, constants, ours.draw_start(seed))
        expected = theirs.begin(weights, own, theirs.draw_start(seed))
        np.testing.assert_allclose(carry.initial, expected.initial, rtol=1e-4)
        for p, own_p in zip(carry.params, expected.params):
            factors = alpha.reshape((-1,) + (1,) * (len(p.shape) - 1))
            np.testing.assert_allclose(p * factors, own_p, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class _Relative(UpdateRule):
    """Gradient steps in units of the parameters' size."""

    name = "relative"

    def init_weights(self, seed):
        return {"unused": np.zeros((1, 1), "float32")}

    def init_state(self, weights, params, log_learning_rates):
        return {}

    def step(self, weights, state, params, grads, learning_rate=1.0):
        pairs = zip(params, grads)
        return [p - 0.01 * p**2 * g for p, g in pairs], state


@pytest.mark.parametrize(
    "member", [Bowl(5.0, 0.0, 0.1), SparseProblem(Quadratic(4), 0.5)], ids=repr
)
def test_an_equivariant_rule_sees_no_scale(member):
    """Gradient noise, too, has the problem's own unit."""

    def objectives(problem, constants):
        unroller = unroll.Unroller(problem, _Relative(), 3, 10)
        carry = unroller.begin({}, constants, unroller.draw_start((2,)))
        inputs = unroller.segment_inputs((2,), 0)
        return unroller.advance({}, constants, carry, inputs)[1]

    wrapped = Reparameterized(member)
    constants = wrapped.constants(stateless_seed(1), 3)
    own = {n.removeprefix("problem."): c for n, c in constants.items()}
    ours, expected = objectives(wrapped, constants), objectives(member, own)
    assert np.all(np.isfinite(expected)) and np.all(expected[-1] != expected[0])
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_reparameterized_is_the_outermost_wrapper():
    inner = Reparameterized(Quadratic(3))
    for wrap in (
        LogObjective,
        SparseProblem,
        Reparameterized,
        lambda problem: Rescale(problem, 2.0),
        lambda problem: SumTask([problem]),
    ):
        with pytest.raises(ValueError, match="the outermost wrapper"):
            wrap(inner)
    for bounds in ((0.0, 1.0), (2.0, 1.0), (1.0, np.inf)):
        with pytest.raises(ValueError, match="two positive numbers"):
            Reparameterized(Quadratic(3), bounds)


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


def test_data_that_a_classifier_cannot_have():
    """A label beyond the classes would cost nothing, or less than nothing."""

    def draw(num_features, num_examples, most=2, short=0, random_seed=None):
        rows = num_examples - short
        return np.zeros((rows, num_features)), np.arange(rows) % most

    for classes, changes, message in (
        (2, {"most": 3}, "must be 0 to 1.*0 to 2"),
        (3, {"most": 4}, "must be 0 to 2.*0 to 3"),
        (2, {"short": 1}, "has 7 rows and 7 labels, 8 are needed"),
    ):
        data = datasets.Dataset(draw, 4, 8, **changes)
        problem = FullyConnected(4, classes, data, 2)
        with pytest.raises(ValueError, match=message):
            problem.constants(tf.constant([0, 1]), 2)
    for wrong in ({"batch_size": 0}, {"batch_size": 2, "num_scored": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            FullyConnected(4, 2, _data(datasets.random), **wrong)


def test_batch_never_exceeds_the_data():
    data = datasets.Dataset(datasets.random_mlp, 4, 10)
    assert FullyConnected(4, 2, data, 23).batch_size == 10


# Settings.


def _shifted(num_features, num_examples, random_seed=None):
    data, labels = datasets.random_mlp(num_features, num_examples, random_seed)
    return data + 1, labels


_NET = FullyConnected(4, 2, _data(datasets.random_mlp), 5)
_IMAGES = _small_convnet()
_PLAIN = PlainNet(4, 2, _data(datasets.random), 5, (3,))
_VECTOR = SumOfQuadratics(4, _data(), 5)
_DIGITS = ResidualNet((8, 8, 1), 2, _data(features=64), 5)
CHANGES = [
    (_NET, "num_features", 5),
    (_NET, "num_classes", 3),
    (_NET, "dataset", _data(datasets.random_mlp, 5)),
    (_NET, "dataset", _data(datasets.random_mlp, rows=13)),
    (_NET, "dataset", _data(datasets.random_mlp, random_seed=1)),
    (_NET, "dataset", _data(datasets.random, sep=2.0)),
    (_NET, "dataset", _data(_shifted)),
    (_NET, "batch_size", 6),
    (_NET, "hidden_sizes", (3,)),
    (_NET, "activation", "relu"),
    (_NET, "noise_stdev", 0.1),
    (_NET, "use_softmax", True),
    (_NET, "num_scored", 5),
    (_IMAGES, "image_shape", (5, 6, 2)),
    (_IMAGES, "filters", ((3, 3, 2),)),
    (_IMAGES, "dataset", _data(datasets.random, 60, n_classes=3, sep=2.0)),
    (_IMAGES, "num_scored", 5),
    (_VECTOR, "dataset", _data(rows=14)),
    (_VECTOR, "noise_stdev", 0.1),
    (_DIGITS, "num_scored", 5),
    (MatMulAlgorithm(2, 5), "k", 6),
    (Bowl(0.1), "angle", 1e-9),
    (Rescale(Quadratic(4), 2.0), "scale", 2.0000001),
    (Rescale(Quadratic(4), 2.0), "problem", Quadratic(4, 0.1)),
    (SumTask([Quadratic(4)]), "problems", [Quadratic(4), Quadratic(4)]),
    (SparseProblem(Quadratic(4)), "zero_probability", 0.5),
    (Reparameterized(Quadratic(4)), "bounds", (1e-2, 1e2)),
    (_PLAIN, "hidden_sizes", (4,)),
    (_PLAIN, "start", "he"),
    (_PLAIN, "start", 0.02),
    (_PLAIN, "weight_decay", 1e-4),
    (_PLAIN, "use_batch_norm", True),
    (EVERYDAY[12], "channels", (4,)),
    (EVERYDAY[14], "units", 33),
    (EVERYDAY[15], "heads", 4),
]


def _with(problem, changes):
    """A problem anew, with other settings."""
    if "num_classes" in changes:
        changes = {**changes, "use_softmax": None}
    return dataclasses.replace(problem, **changes)


@pytest.mark.parametrize(
    "problem, name, value",
    CHANGES,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_any_setting_makes_another_problem(problem, name, value):
    other = _with(problem, {name: value})
    assert other != problem and repr(other) != repr(problem)
    same = _with(problem, {})
    assert same == problem and repr(same) == repr(problem)
    assert hash(same) == hash(problem) and same is not problem
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(problem, name, value)


def test_type_makes_another_problem():
    data = _data(datasets.noisy_parity, 5)
    lookup = SparseSoftmaxRegression(6, 2, data, 5)
    assert lookup != OneHotSparseSoftmaxRegression(6, 2, data, 5)
    assert Rosenbrock() != Ackley() and Rosenbrock() == Rosenbrock(0)


def test_functions_made_by_functions_are_told_apart():
    def scaled(factor):
        return lambda *sizes, random_seed: factor

    assert _data(scaled(1)) == _data(scaled(1))
    assert _data(scaled(1)) != _data(scaled(2))
    draws = [
        lambda *sizes: 1,
        functools.partial(_shifted, 4),
        functools.partial(_shifted, 5),
    ]
    assert len({_data(draw) for draw in draws}) == 3


def test_keras_settings_make_other_problems():
    problem = _keras_problem()
    keras.layers.Dense(1)  # Keras counts the names of layers up.
    again = _keras_problem()
    assert again == problem and repr(again) == repr(problem)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=1)
    others = [
        _keras_problem(kind=KerasNetwork),
        _keras_problem(loss="sparse_categorical_crossentropy"),
        _keras_problem(loss=loss),
        _keras_problem(loss="mse"),
        _keras_problem(loss="mae"),
        _keras_problem(lambda: _build(hidden=4)),
        _keras_problem(lambda: _build(activation="tanh")),
        _keras_problem(lambda: _build(dtype="mixed_float16")),
        _keras_problem(lambda: _build(frozen=1.0)),
        _keras_problem(lambda: _build(frozen=0.0)),
        _keras_problem(scale=2.0),
        _keras_problem(above=0.5),
        _keras_problem(batch_size=6),
        _keras_problem(noise_stdev=0.1),
        _keras_problem(num_scored=10),
    ]
    assert len({problem, *others}) == 1 + len(others)


def test_settings_read_the_same_in_another_process():
    names = ["wide_classifier_problems.0", "batch_norm.0", "transformer"]
    names += ["everyday_network_problems"]
    code = (
        "import sys; from problems import corpus; "
        "print(corpus.select(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *names]
    other = subprocess.run(command, check=True, capture_output=True, text=True)
    assert other.stdout.strip() == repr(corpus.select(names))


# Names.


def test_public_names_are_listed():
    assert set(problems.__all__) <= set(dir(problems))
    assert all(getattr(problems, name) for name in problems.__all__)


def test_networks_are_chosen_like_all_problems(tmp_path):
    chosen = corpus.select(["deeper", "bowl_problems.1", "wider.1"])
    names = ["deeper.0", "deeper.1", "bowl_problems.1", "wider.1"]
    assert list(chosen) == names
    assert chosen["wider.1"].hidden_sizes == (512,)
    assert {*networks.SETS} < {*corpus.network_sets()}
    with pytest.raises(ValueError, match="tfds build mnist"):
        corpus.network_sets(tmp_path)
    with pytest.raises(ValueError, match="No problem was named"):
        corpus.select([])


def test_wide_nets_start_as_keras_does():
    for problem, width in zip(
        corpus.select(["wide"]).values(), (128, 512, 1024)
    ):
        sizes = (64, width, width, 10)
        pairs = list(itertools.pairwise(sizes))
        assert problem.shapes == [s for a, b in pairs for s in ((a, b), (b,))]
        assert problem.batch_size == 64
        start = problem.init(stateless_seed(1), 2)
        for (fan_in, fan_out), kernel in zip(pairs, start[::2]):
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.98 * bound < np.max(np.abs(kernel)) <= bound
        assert all(not np.any(bias) for bias in start[1::2])


def test_transformer_from_a_small_start():
    (usual,), (small,) = (
        corpus.select([name]).values()
        for name in ("transformer", "transformer_small_init")
    )
    assert usual != small and usual.shapes == small.shapes
    names = [v.name for v in small.model.trainable_variables]
    drawn = {}
    for name, tensor in zip(names, small.init(stateless_seed(1), 1)):
        if name in ("kernel", "embeddings", "positions"):
            assert np.std(tensor) == pytest.approx(0.02, rel=0.1)
            # None is a copy of another.
            drawn[float(np.ravel(tensor)[0])] = name
        else:
            assert np.all(tensor == (1.0 if name == "gamma" else 0.0))
    assert len(drawn) == 9
    # The usual one's kernels are larger.
    assert np.std(usual.init(stateless_seed(1), 1)[-2]) > 0.1


def test_regression_stored_smaller():
    """Ten times smaller weights, the same function of them."""
    chosen = corpus.select(["regression_stored_smaller"]).values()
    plain, smaller = chosen
    assert plain.num_examples == smaller.num_examples == 2000
    assert smaller.batch_size == 64 and smaller.nonnegative
    starts, losses, gradients = [], [], []
    batch = np.arange(64)[None]
    for problem in chosen:
        start = problem.init(stateless_seed(1), 1)
        constants = problem.constants(stateless_seed(2), 1)
        found = problem.value_and_gradients(start, constants, batch)
        starts.append(start)
        losses.append(found[0])
        gradients.append(found[1])
    for large, small in zip(*starts):
        np.testing.assert_allclose(large, 10 * small, rtol=1e-5)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for of_large, of_small in zip(*gradients):
        np.testing.assert_allclose(10 * of_large, of_small, 1e-3, 1e-5)


def test_selection():
    chosen = corpus.select(["bowl_problems", "quadratic_problems.2"])
    assert list(chosen) == [
        "bowl_problems.0",
        "bowl_problems.1",
        "bowl_problems.2",
        "bowl_problems.3",
        "quadratic_problems.2",
    ]
    assert len(corpus.select(corpus.sets())) == 152
    default = corpus.select(["default"])
    assert len(default) == 101
    assert "quadratic_problems.0" not in default
    assert "sum_problems_noisy.1" in default


@pytest.mark.parametrize(
    "name, message",
    [
        ("bowls", "Known sets: .*bowl_problems"),
        ("bowls", "Test sets: .*mnist_convnet"),
        ("bowls", "Networks: .*transformer"),
        ("transformers", "Did you mean 'transformer'"),
        ("wider.7", "wider.0 to wider.1"),
        ("mnist_convnets", "Did you mean 'mnist_convnet'"),
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
    with pytest.raises(ValueError, match="Known: relu, sigmoid, tanh"):
        ConvNet((2, 2, 1), 2, data, 5, activation="step")
    for arguments in ({"num_classes": 1}, {"num_classes": 3}):
        with pytest.raises(ValueError, match="at least two classes"):
            FullyConnected(
                4, dataset=data, batch_size=5, use_softmax=False, **arguments
            )


def test_symmetric_data_come_in_pairs():
    with pytest.raises(ValueError, match="num_examples=7"):
        datasets.random_symmetric(3, 7)


# Keras models.


def _build(hidden=3, activation="relu", dtype="float32", frozen=None):
    layers = [
        keras.layers.Input((4,)),
        keras.layers.Dense(hidden, activation=activation, dtype=dtype),
        keras.layers.Dense(2),
    ]
    if frozen is not None:
        layers.append(keras.layers.Dense(2, trainable=False))
    model = keras.Sequential(layers)
    if frozen is not None:
        layers[-1].kernel.assign(np.full((2, 2), frozen))
    return model


def _keras_problem(
    build=_build, scale=1.0, above=0, kind=KerasModelProblem, **changes
):
    data = scale * np.random.default_rng(0).normal(size=(20, 4))
    labels = (data[:, 0] > above).astype("int32")
    settings = {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "batch_size": 5,
        **changes,
    }
    return kind(build, data, labels, **settings)


def _ten_steps(problem):
    """The carry after ten steps of two runs, and their objectives."""
    rule = HierarchicalRNNRule(init_lr_range=(1e-2, 1e-2))
    unroller = unroll.Unroller(problem, rule, 2, 10)
    weights = {n: tf.constant(w) for n, w in rule.init_weights(0).items()}
    constants = unroller.constants((1,))
    carry = unroller.begin(weights, constants, unroller.draw_start((2,)))
    inputs = unroller.segment_inputs((2,), 0)
    end, objectives, _ = unroller.advance(weights, constants, carry, inputs)
    return end, objectives


def test_keras_model_is_a_problem():
    problem = _keras_problem()
    params = problem.init(stateless_seed(1), 3)
    assert np.any(params[0][0] != params[0][1])
    again = problem.init(stateless_seed(1), 3)
    np.testing.assert_array_equal(params[0], again[0])
    constants = problem.constants(stateless_seed(1), 3)
    loss, grads = problem.value_and_gradients(params, constants)
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


def test_regularizers_are_part_of_a_keras_models_loss():
    def build():
        regularizer = keras.regularizers.L2(10)
        layers = [
            keras.layers.Input((4,)),
            keras.layers.Dense(3, kernel_regularizer=regularizer),
            keras.layers.ActivityRegularization(l1=0.5),
            keras.layers.Dense(2),
        ]
        return keras.Sequential(layers)

    for kind in (KerasModelProblem, KerasNetwork):
        problem = _keras_problem(build, kind=kind, batch_size=20)
        params = problem.init(stateless_seed(1), 2)
        constants = problem.constants(stateless_seed(1), 2)
        batch = tf.tile(tf.range(20)[None], [2, 1])
        loss, _ = problem.value_and_gradients(params, constants, batch)
        model = problem.build_model()
        model.compile(loss=problem.loss_function)
        for k in range(2):
            model.set_weights([p[k].numpy() for p in params])
            expected = model.evaluate(
                problem.data, problem.labels, 20, verbose=0
            )
            np.testing.assert_allclose(loss[k], expected, rtol=1e-5)


def test_dropout_of_a_keras_model_follows_the_batch():
    """And nothing else, so that equal problems have equal losses."""

    def build():
        layers = [
            keras.layers.Input((4,)),
            keras.layers.Dense(30, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
        return keras.Sequential(layers)

    def losses(problem, first):
        batch = first + tf.tile(tf.range(5)[None], [2, 1])
        return problem.loss(params, constants, batch).numpy()

    problem, other = _keras_problem(build), _keras_problem(build)
    assert problem == other
    params = problem.init(stateless_seed(1), 1)
    params = [tf.repeat(p, 2, 0) for p in params]
    constants = problem.constants(stateless_seed(1), 2)
    first = losses(problem, 0)
    assert first[0] == first[1]
    np.testing.assert_array_equal(first, losses(problem, 0))
    np.testing.assert_array_equal(first, losses(other, 0))
    # Not one mask for all: the same examples in another order differ.
    turned = problem.loss(
        params, constants, tf.constant([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]])
    )
    assert turned[0] != turned[1] == first[1]
    _, objectives = _ten_steps(problem)
    assert np.all(np.isfinite(objectives))


def test_keras_model_is_trained_by_a_rule():
    end, objectives = _ten_steps(_keras_problem())
    assert objectives.shape == (10, 2)
    assert np.all(np.isfinite(objectives))
    assert np.all(objectives[-1] != end.initial)


def test_keras_model_must_be_built():
    with pytest.raises(ValueError, match="built model"):
        KerasModelProblem(
            lambda: keras.Sequential([keras.layers.Dense(2)]),
            np.zeros((4, 2)),
            np.zeros(4),
            "mse",
            2,
        )


class Siamese(keras.Model):
    """Without `training`; a layer that is used twice and adds losses."""

    def __init__(self):
        super().__init__()
        self.embed = keras.layers.Embedding(7, 4, mask_zero=True)
        self.body = keras.layers.Dense(4, activity_regularizer="l2")
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.5, seed=1)
        self.head = keras.layers.Dense(1)
        self(np.zeros((1, 3)))

    def call(self, x):
        embedded = self.embed(x)
        hidden = self.body(embedded) + self.body(2 * embedded)
        return self.head(self.drop(self.norm(hidden)))


@pytest.mark.parametrize("loss", ["poisson", "mse", "binary_crossentropy"])
def test_a_keras_problem_has_the_loss_of_fit(loss):
    data = np.random.default_rng(0).integers(0, 7, (6, 3)).astype("float32")
    labels = np.ones((6, 3), "float32")

    def build():
        model = Siamese()
        # What is dropped is drawn otherwise in `fit`.
        model.drop.rate = 0.0
        return model

    problem = KerasModelProblem(build, data, labels, loss, 6)
    params = problem.init(tf.constant([1, 2]), 2)
    found = problem.loss(params, problem.constants(None, 2))
    for place in range(2):
        model = build()
        for v, value in zip(model.trainable_variables, params):
            v.assign(value[place])
        model.compile("sgd", loss)
        expected = model.fit(data, labels, batch_size=6, verbose=0)
        (expected,) = expected.history["loss"]
        np.testing.assert_allclose(found[place], expected, rtol=1e-5)


def test_a_keras_problem_is_the_same_in_every_process():
    def build():
        random.random()
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, trainable=False),
                keras.layers.Dense(1),
            ]
        )

    data = np.ones((4, 3)), np.ones((4, 1))
    first, second = (KerasModelProblem(build, *data, "mse", 2) for _ in "ab")
    assert first.settings() == second.settings()
    fixed = [p.model.layers[0].kernel for p in (first, second)]
    np.testing.assert_array_equal(*fixed)


def test_layers_are_those_that_keras_has():
    plain = PlainNet(4, 2, _data(datasets.random), 5, (3,))
    normed = dataclasses.replace(plain, use_batch_norm=True)
    assert [t.kind for t in normed.tensors[:3]] == ["weights", "ones", "zeros"]
    assert normed.layers == (1, 2, 2, 3, 3)
    assert plain.layers == (1, 1, 2, 2)
    assert plain.roles == ("",) * 4
    both = SumTask((Rosenbrock(), Quadratic(2), Rosenbrock()))
    assert len(both.roles) == len(both.shapes)
    assert len({*both.layers}) >= 3
    assert len(both.layers) == len(both.shapes)
    for bad in (
        lambda: SumTask(()),
        lambda: Rescale(Quadratic(2), 0.0),
        lambda: SparseProblem(Quadratic(2), 2.0),
    ):
        with pytest.raises(ValueError, match="Received"):
            bad()


def test_what_a_keras_problem_cannot_be():
    def build():
        layers = [keras.Input((3,)), keras.layers.Dense(1)]
        return keras.Sequential(layers)

    x, y = np.ones((4, 3)), np.ones((4, 1))
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    for changed, message in (
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"batch_size": 2.0}, "`batch_size` must be a positive integer"),
        ({"num_scored": 0}, "`num_scored` must be a positive integer"),
        ({"num_scored": -3}, "`num_scored` must be a positive integer"),
        ({"loss": None}, "needs a loss"),
        ({"labels": None}, "`labels` must be one array.*NoneType"),
        ({"data": [x, x]}, "`data` must be one array.*several inputs"),
        ({"data": {"a": x}}, "`data` must be one array.*dict"),
        ({"data": rows}, "`data` must be one array.*Dataset"),
        ({"data": x[:0], "labels": y[:0]}, "`data` must have rows"),
        ({"data": x[:2]}, "a label for every row"),
    ):
        given = {"data": x, "labels": y, "loss": "mse", "batch_size": 2}
        with pytest.raises(ValueError, match=message):
            KerasModelProblem(build, **{**given, **changed})
    # A list of rows is an array.
    images = [np.ones((2, 3))] * 4
    net = [keras.Input((2, 3)), keras.layers.Dense(1)]
    problem = KerasModelProblem(
        lambda: keras.Sequential(net), images, [1.0] * 4, "mse", 2
    )
    assert problem.data.shape == (4, 2, 3)
    model = build()
    problem = KerasModelProblem(lambda: model, x, y, "mse", 2)
    with pytest.raises(ValueError, match="a new model at each call"):
        problem.init(tf.constant([0, 1]), 2)


def test_losses_of_ones_own_are_told_apart():
    class Own(keras.losses.Loss):
        def call(self, wanted, outputs):
            return tf.square(wanted - outputs)[:, 0]

    def power(wanted, outputs, p):
        return tf.abs(wanted - outputs) ** p

    def described(loss):
        layers = [keras.Input((3,)), keras.layers.Dense(1)]
        return KerasModelProblem(
            lambda: keras.Sequential(layers),
            *(np.ones((4, 3)), np.ones((4, 1)), loss, 2),
        )

    # Keras calls the second one "own_1".
    assert described(Own()) == described(Own())
    assert described(Own()) != described(Own(reduction="sum"))
    twice, fourth = (functools.partial(power, p=p) for p in (2, 4))
    assert described(twice) == described(functools.partial(power, p=2))
    assert described(twice) != described(fourth)


def test_keras_problems_that_can_be_negative():
    def made(loss, **kwargs):
        net = [keras.Input((3,)), keras.layers.Dense(2)]
        data = np.ones((4, 3)), np.ones((4, 2))
        return KerasModelProblem(
            lambda: keras.Sequential(net), *data, loss, 2, **kwargs
        )

    assert not made("cosine_similarity").nonnegative
    assert not made(keras.losses.Poisson()).nonnegative
    assert made("mse").nonnegative
    assert not made("mse", nonnegative=False).nonnegative
