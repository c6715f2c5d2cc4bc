"""Problems to optimise: small, diverse, many instances at a time."""

from problems import alternating, corpus, datasets
from problems.classifiers import Classifier, FullyConnected, SoftmaxRegression
from problems.convnet import ConvNet
from problems.data_problem import DataProblem
from problems.everyday_networks import (
    AttentionNet,
    PlainNet,
    PooledConvNet,
    RecurrentNet,
    ResidualMLP,
)
from problems.keras_model import KerasModelProblem
from problems.matmul import MatMulAlgorithm
from problems.problem import Problem
from problems.quadratic import Bowl, Norm, Quadratic
from problems.residual import ResidualNet
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

__all__ = ["alternating", "corpus", "datasets"]
__all__ += ["Problem", "DataProblem", "KerasModelProblem"]
__all__ += ["Quadratic", "Bowl", "Norm", "MatMulAlgorithm"]
__all__ += ["Rosenbrock", "LogSumExp", "Ackley", "Beale", "Booth", "Branin"]
__all__ += ["StyblinskiTang", "Matyas", "Michalewicz", "Saddle"]
__all__ += ["MinMaxWell", "DependencyChain", "OutwardSnake"]
__all__ += ["ProjectionQuadratic", "SumOfQuadratics"]
__all__ += ["Classifier", "FullyConnected", "SoftmaxRegression"]
__all__ += ["SparseSoftmaxRegression", "OneHotSparseSoftmaxRegression"]
__all__ += ["ConvNet", "ResidualNet"]
__all__ += ["PlainNet", "PooledConvNet", "RecurrentNet", "AttentionNet"]
__all__ += ["ResidualMLP"]
__all__ += ["Rescale", "SumTask", "LogObjective", "SparseProblem"]
__all__ += ["Reparameterized"]
