"""The meta-training corpus: the release's sets of problems, as data."""

import difflib
import math

from problems import datasets
from problems.classifiers import FullyConnected, SoftmaxRegression
from problems.convnet import ConvNet
from problems.matmul import MatMulAlgorithm
from problems.quadratic import Bowl, Norm, Quadratic
from problems.sparse_softmax import (
    OneHotSparseSoftmaxRegression,
    SparseSoftmaxRegression,
)
from problems.test_functions import (
    Ackley,
    Beale,
    Booth,
    Branin,
    LogSumExp,
    Matyas,
    Michalewicz,
    Rosenbrock,
    Saddle,
    StyblinskiTang,
)
from problems.tfds_images import TfdsImages
from problems.vector_functions import (
    DependencyChain,
    MinMaxWell,
    OutwardSnake,
    ProjectionQuadratic,
    SumOfQuadratics,
)
from problems.wrappers import LogObjective, Rescale, SparseProblem, SumTask

_TEST_FUNCTIONS = (
    Ackley,
    Beale,
    Booth,
    Branin,
    LogSumExp,
    Matyas,
    Michalewicz,
    Rosenbrock,
    StyblinskiTang,
)
_SUMMED_FUNCTIONS = (
    Rosenbrock,
    LogSumExp,
    Ackley,
    Beale,
    Booth,
    StyblinskiTang,
    Matyas,
    Branin,
    Michalewicz,
)
_SUMMED_SIZES = (11, 3, 9, 7, 5, 13, 12)

# (features, hidden sizes, batch size); 1000 rows each.
_NETS = (
    (8, (8, 5), 10),
    (12, (8, 5, 3), 200),
    (5, (4, 4, 4, 4), 100),
    (11, (4, 5, 6), 64),
    (9, (8,), 128),
    (7, (8, 5), 16),
    (8, (32, 64), 10),
    (12, (16, 8, 3), 200),
    (5, (8, 8, 8, 8), 100),
    (11, (10, 12, 12), 64),
    (9, (32,), 128),
    (7, (32, 64), 16),
)
# (features, batch size, class separation, noise of the noisy variant).
_REGRESSIONS = (
    (10, 100, 2.0, 0.5),
    (100, 50, 1.0, 0.1),
    (200, 20, 1.5, 0.1),
    (256, 100, 1.5, 0.5),
)
# Beyond the release: classifiers of the size and shape of everyday ones, as
# (features, hidden sizes, classes, activation, batch size, separation).
_WIDE_NETS = (
    (20, (32,), 10, "relu", 32, 1.5),
    (32, (64, 32), 10, "relu", 32, 2.0),
    (48, (32,), 10, "tanh", 64, 1.0),
    (16, (32, 32, 32), 5, "relu", 16, 1.5),
    (40, (48, 24), 10, "sigmoid", 32, 2.0),
    (64, (64,), 8, "relu", 128, 1.0),
    (24, (24, 24, 24, 24), 6, "tanh", 32, 1.5),
    (12, (100,), 10, "sigmoid", 20, 2.0),
    (24, (48, 48, 48), 10, "relu", 64, 2.0),
    (10, (20, 20), 4, "relu", 16, 1.0),
    (36, (72,), 12, "relu", 16, 1.0),
    (20, (16, 16, 16, 16, 16), 5, "relu", 32, 2.0),
)
# The same for validation: other sizes, other data.
_WIDE_NETS_HELD_OUT = (
    (56, (40,), 10, "relu", 32, 1.5),
    (28, (56, 56), 10, "relu", 64, 1.5),
    (36, (30, 20), 7, "sigmoid", 24, 1.5),
    (18, (80,), 12, "tanh", 16, 2.0),
)
_MATMULS = (*((2, k) for k in range(5, 9)), *((3, k) for k in range(19, 25)))
# (size, rows of binary data, rows of symmetric data, batch size).
_VECTORS = (
    (20, 1000, 1000, 100),
    (12, 200, 100, 10),
    (56, 5000, 5000, 100),
    (64, 1000, 1000, 50),
    (13, 10000, 10000, 50),
    (20, 1000, 1000, 128),
    (12, 300, 100, 16),
    (56, 5000, 5000, 128),
    (64, 1000, 1000, 64),
    (13, 10000, 10000, 32),
)
_BOWLS = ((0.1, 0.0), (1.0, 0.0), (5.0, 0.0), (5.0, math.pi / 4))


def _net(features, hidden, batch):
    data = datasets.Dataset(datasets.random_mlp, features, 1000)
    return FullyConnected(features, 2, data, batch, hidden)


def _wide_net(features, hidden, classes, activation, batch, sep):
    data = datasets.Dataset(
        datasets.random, features, 1000, n_classes=classes, sep=sep
    )
    return FullyConnected(
        features, classes, data, batch, hidden, activation, num_scored=200
    )


def _regression(features, batch, sep, noise):
    data = datasets.Dataset(
        datasets.random, features, 1000, random_seed=123, sep=sep
    )
    return SoftmaxRegression(features, 2, data, batch, noise)


def _sparse_regression(make):
    data = datasets.Dataset(datasets.noisy_parity, 5, 1000, random_seed=123)
    return make(5, 2, data, 23)


def _on_binary(make):
    return [
        make(n, datasets.Dataset(datasets.random_binary, n, rows), batch)
        for n, rows, _, batch in _VECTORS
    ]


def _on_symmetric(make):
    return [
        make(n, datasets.Dataset(datasets.random_symmetric, n, rows), batch)
        for n, _, rows, batch in _VECTORS
    ]


def _quadratics(sizes, noise=0.0):
    return [Quadratic(n, noise) for n in sizes]


def _functions(classes=_SUMMED_FUNCTIONS):
    return [function() for function in classes]


_SETS = {
    "sparse_softmax_2_class_sparse_problems": lambda: [
        _sparse_regression(SparseSoftmaxRegression)
    ],
    "one_hot_sparse_softmax_2_class_sparse_problems": lambda: [
        _sparse_regression(OneHotSparseSoftmaxRegression)
    ],
    "quadratic_problems": lambda: _quadratics((20, 25, 50, 100)),
    "quadratic_problems_noisy": lambda: [
        Quadratic(n, noise)
        for n, noise in ((20, 0.5), (25, 0.0), (50, 1.0), (100, 2.0))
    ],
    "quadratic_problems_large": lambda: _quadratics((784, 1024, 2048)),
    "bowl_problems": lambda: [Bowl(c, angle) for c, angle in _BOWLS],
    "bowl_problems_noisy": lambda: [Bowl(c, a, 0.1) for c, a in _BOWLS],
    "softmax_2_class_problems": lambda: [
        _regression(f, b, sep, 0.0) for f, b, sep, _ in _REGRESSIONS
    ],
    "softmax_2_class_problems_noisy": lambda: [
        _regression(*row) for row in _REGRESSIONS
    ],
    "optimization_test_problems": lambda: _functions(_TEST_FUNCTIONS),
    "optimization_test_problems_noisy": lambda: [
        function(1.0) for function in _TEST_FUNCTIONS
    ],
    "fully_connected_random_2_class_problems": lambda: [
        _net(*row) for row in _NETS
    ],
    "matmul_problems": lambda: [MatMulAlgorithm(n, k) for n, k in _MATMULS],
    "log_objective_problems": lambda: [
        LogObjective(p)
        for p in (*_quadratics((20, 50, 100)), Bowl(0.1), Bowl(1.0), Bowl(5.0))
    ],
    "rescale_problems": lambda: [
        *(
            Rescale(Norm(18, p), scale)
            for p, scale in (
                (2.5, 0.123),
                (1.5, 8),
                (2.0, 50),
                (3.0, 200),
                (1.0, 1000),
            )
        ),
        *(
            Rescale(Quadratic(n), scale)
            for n, scale in ((20, 0.1), (25, 10), (50, 350), (100, 132))
        ),
    ],
    "norm_problems": lambda: [
        Norm(n, p) for n, p in ((27, 1.0), (25, 2.0), (22, 3.0))
    ],
    "norm_problems_noisy": lambda: [
        Norm(n, p, 0.1) for n, p in ((19, 1.0), (26, 2.0), (23, 3.0))
    ],
    "sum_problems": lambda: [
        SumTask(_quadratics(_SUMMED_SIZES)),
        SumTask([Norm(18, 3.0), Quadratic(25), Rosenbrock()]),
        SumTask(_functions()),
        SumTask([*_functions(), *_quadratics((5, 13))]),
        SumTask(_quadratics((11, 3))),
        SumTask([Rosenbrock(), LogSumExp(), Ackley()]),
    ],
    "sum_problems_noisy": lambda: [
        SumTask(_quadratics(_SUMMED_SIZES, 0.1)),
        SumTask([*_functions(), Quadratic(5), Quadratic(13, 0.5)]),
    ],
    "sparse_gradient_problems": lambda: [
        SparseProblem(p)
        for p in (*_quadratics((20, 50, 100)), Bowl(0.1), Bowl(1.0), Bowl(5.0))
    ],
    "sparse_gradient_problems_mlp": lambda: [
        SparseProblem(_net(*row)) for row in _NETS[:3]
    ],
    "min_max_well_problems": lambda: [
        MinMaxWell(n) for n in (20, 12, 56, 64, 13)
    ],
    "sum_of_quadratics_problems": lambda: _on_symmetric(SumOfQuadratics),
    "projection_quadratic_problems": lambda: _on_symmetric(ProjectionQuadratic),
    "outward_snake_problems": lambda: _on_binary(OutwardSnake),
    "dependency_chain_problems": lambda: _on_binary(DependencyChain),
}
# Sets that the release does not have.
_ADDED_SETS = {
    "wide_classifier_problems": lambda: [_wide_net(*row) for row in _WIDE_NETS],
    "wide_classifier_validation_problems": lambda: [
        _wide_net(*row) for row in _WIDE_NETS_HELD_OUT
    ],
}
_OFF_BY_DEFAULT = (
    "sparse_softmax_2_class_sparse_problems",
    "one_hot_sparse_softmax_2_class_sparse_problems",
    "quadratic_problems",
    "min_max_well_problems",
    "sum_of_quadratics_problems",
    "projection_quadratic_problems",
    "outward_snake_problems",
    "dependency_chain_problems",
)


# The objective at every step looks at so many of MNIST's 60000 images.
_SCORED_IMAGES = 512


def _mnist_nets(data_dir):
    data = TfdsImages("mnist", data_dir)
    return [
        FullyConnected(
            784, 10, data, 64, (64,), activation, num_scored=_SCORED_IMAGES
        )
        for activation in ("sigmoid", "relu")
    ]


def _mnist_convnets(data_dir):
    data = TfdsImages("mnist", data_dir)
    filters = ((3, 3, 8), (5, 5, 8))
    return [
        ConvNet(
            (28, 28, 1),
            10,
            data,
            64,
            filters,
            activation,
            num_scored=_SCORED_IMAGES,
        )
        for activation in ("sigmoid", "relu")
    ]


def _test_net(features, classes):
    data = datasets.Dataset(datasets.random, features, 1000, n_classes=classes)
    return FullyConnected(
        features, classes, data, 64, (32, 64), use_softmax=True
    )


# Functions of the folder of prepared data.
_TEST_SETS = {
    "mnist_fully_connected": _mnist_nets,
    "mnist_convnet": _mnist_convnets,
    "mlp_test": lambda _: [_test_net(10, 2), _test_net(20, 10)],
    "saddle": lambda _: [Saddle()],
}


def sets():
    """Returns every set of the release: {set name: list of problems}."""
    return {name: make() for name, make in _SETS.items()}


def set_names():
    """Names of all sets of the release."""
    return tuple(_SETS)


def added_sets():
    """Names of the sets for meta-training that the release does not have."""
    return tuple(_ADDED_SETS)


def default_sets():
    """The names of the sets that the release trains on by default."""
    return [name for name in _SETS if name not in _OFF_BY_DEFAULT]


def test_sets():
    """Names of the test problems' sets, which nothing trains on by default.

    They are no part of `sets`; `select` knows them.
    """
    return tuple(_TEST_SETS)


def select(names, data_dir=None):
    """Problems by name: {name: problem}, in the given order.

    Args:
        names: an iterable of set names ("bowl_problems"), single problems
            ("bowl_problems.2"), or "default". The names of `added_sets` and
            `test_sets` will do as well.
        data_dir: where TensorFlow Datasets are prepared, for the test
            problems on MNIST; None means its default folder.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    chosen = {}
    for name in names:
        if name == "default":
            chosen.update(select(default_sets()))
            continue
        set_name, _, index = name.partition(".")
        members = _members(set_name, data_dir)
        if index and not (index.isdigit() and int(index) < len(members)):
            raise ValueError(
                f"Unknown problem {name!r}: {set_name} holds "
                f"{set_name}.0 to {set_name}.{len(members) - 1}."
            )
        wanted = [int(index)] if index else range(len(members))
        chosen.update({f"{set_name}.{i}": members[i] for i in wanted})
    if not chosen:
        raise ValueError(f"No problem was named. {_known()}")
    return chosen


def _members(set_name, data_dir):
    """The problems of one set; an unknown name lists the known ones."""
    drawn = {**_SETS, **_ADDED_SETS}
    if set_name in drawn:
        return drawn[set_name]()
    if set_name in _TEST_SETS:
        return _TEST_SETS[set_name](data_dir)
    close = difflib.get_close_matches(set_name, [*drawn, *_TEST_SETS], 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown problem set {set_name!r}.{hint} {_known()} One problem of "
        "a set: SET.INDEX."
    )


def _known():
    return (
        f"Known sets: default, {', '.join([*_SETS, *_ADDED_SETS])}. "
        f"Test sets: {', '.join(_TEST_SETS)}."
    )
