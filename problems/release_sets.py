"""The release's sets of problems, as data (see `corpus` for the release)."""

import math

from problems import datasets, test_functions
from problems.classifiers import FullyConnected, SoftmaxRegression
from problems.matmul import MatMulAlgorithm
from problems.quadratic import Bowl, Norm, Quadratic
from problems.sparse_softmax import (
    OneHotSparseSoftmaxRegression,
    SparseSoftmaxRegression,
)
from problems.vector_functions import (
    DependencyChain,
    MinMaxWell,
    OutwardSnake,
    ProjectionQuadratic,
    SumOfQuadratics,
)
from problems.wrappers import LogObjective, Rescale, SparseProblem, SumTask

_SUMMED_FUNCTIONS = (
    test_functions.Rosenbrock,
    test_functions.LogSumExp,
    test_functions.Ackley,
    test_functions.Beale,
    test_functions.Booth,
    test_functions.StyblinskiTang,
    test_functions.Matyas,
    test_functions.Branin,
    test_functions.Michalewicz,
)
_TEST_FUNCTIONS = sorted(_SUMMED_FUNCTIONS, key=lambda made: made.__name__)
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
# (power or size, scale).
_SCALED_NORMS = ((2.5, 0.123), (1.5, 8), (2.0, 50), (3.0, 200), (1.0, 1000))
_SCALED_QUADRATICS = ((20, 0.1), (25, 10), (50, 350), (100, 132))
# (condition, angle).
_BOWLS = ((0.1, 0.0), (1.0, 0.0), (5.0, 0.0), (5.0, math.pi / 4))


def _net(features, hidden, batch):
    data = datasets.Dataset(datasets.random_mlp, features, 1000)
    return FullyConnected(features, 2, data, batch, hidden)


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


def _wrapped():
    return [*_quadratics((20, 50, 100)), Bowl(0.1), Bowl(1.0), Bowl(5.0)]


def _functions(classes=_SUMMED_FUNCTIONS):
    return [function() for function in classes]


SETS = {
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
    "log_objective_problems": lambda: [LogObjective(p) for p in _wrapped()],
    "rescale_problems": lambda: [
        *(Rescale(Norm(18, power), scale) for power, scale in _SCALED_NORMS),
        *(Rescale(Quadratic(n), scale) for n, scale in _SCALED_QUADRATICS),
    ],
    "norm_problems": lambda: [
        Norm(n, p) for n, p in ((27, 1.0), (25, 2.0), (22, 3.0))
    ],
    "norm_problems_noisy": lambda: [
        Norm(n, p, 0.1) for n, p in ((19, 1.0), (26, 2.0), (23, 3.0))
    ],
    "sum_problems": lambda: [
        SumTask(_quadratics(_SUMMED_SIZES)),
        SumTask([Norm(18, 3.0), Quadratic(25), test_functions.Rosenbrock()]),
        SumTask(_functions()),
        SumTask([*_functions(), *_quadratics((5, 13))]),
        SumTask(_quadratics((11, 3))),
        SumTask(_functions(_SUMMED_FUNCTIONS[:3])),
    ],
    "sum_problems_noisy": lambda: [
        SumTask(_quadratics(_SUMMED_SIZES, 0.1)),
        SumTask([*_functions(), Quadratic(5), Quadratic(13, 0.5)]),
    ],
    "sparse_gradient_problems": lambda: [SparseProblem(p) for p in _wrapped()],
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
OFF_BY_DEFAULT = (
    "sparse_softmax_2_class_sparse_problems",
    "one_hot_sparse_softmax_2_class_sparse_problems",
    "quadratic_problems",
    "min_max_well_problems",
    "sum_of_quadratics_problems",
    "projection_quadratic_problems",
    "outward_snake_problems",
    "dependency_chain_problems",
)
