"""Problems to optimise: small, diverse, many instances at a time."""

import importlib

_HOMES = {
    "Problem": "problems.problem",
    "Quadratic": "problems.quadratic",
    "Bowl": "problems.quadratic",
    "Norm": "problems.quadratic",
    "Rosenbrock": "problems.test_functions",
    "LogSumExp": "problems.test_functions",
    "Ackley": "problems.test_functions",
    "Beale": "problems.test_functions",
    "Booth": "problems.test_functions",
    "StyblinskiTang": "problems.test_functions",
    "Matyas": "problems.test_functions",
    "Branin": "problems.test_functions",
    "Michalewicz": "problems.test_functions",
    "Saddle": "problems.test_functions",
    "MatMulAlgorithm": "problems.matmul",
    "MinMaxWell": "problems.vector_functions",
    "DependencyChain": "problems.vector_functions",
    "OutwardSnake": "problems.vector_functions",
    "ProjectionQuadratic": "problems.vector_functions",
    "SumOfQuadratics": "problems.vector_functions",
    "DataProblem": "problems.data_problem",
    "Classifier": "problems.classifiers",
    "FullyConnected": "problems.classifiers",
    "SoftmaxRegression": "problems.classifiers",
    "SparseSoftmaxRegression": "problems.sparse_softmax",
    "OneHotSparseSoftmaxRegression": "problems.sparse_softmax",
    "ConvNet": "problems.convnet",
    "ResidualNet": "problems.residual",
    "Rescale": "problems.wrappers",
    "SumTask": "problems.wrappers",
    "LogObjective": "problems.wrappers",
    "SparseProblem": "problems.wrappers",
    "KerasModelProblem": "problems.keras_model",
}
_MODULES = ("alternating", "corpus", "datasets")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"problems.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'problems' has no attribute {name!r}")
