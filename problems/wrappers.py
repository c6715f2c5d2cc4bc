"""Problems made of problems: scaled, summed, logarithmic, sparse."""

import tensorflow as tf

from problems.problem import Problem, fold
from problems.specification import specified

_EPSILON = 1e-6


@specified
class _Wrapper(Problem):
    """A problem around one member; the member's own start, data and noise."""

    problem: Problem

    @property
    def batch_size(self):
        return self.problem.batch_size

    @property
    def num_examples(self):
        return self.problem.num_examples

    @property
    def nonnegative(self):
        return self.problem.nonnegative

    @property
    def shapes(self):
        return self.problem.shapes

    @property
    def is_noisy(self):
        return self.problem.is_noisy

    def constants(self, seed, instances):
        members = self.problem.constants(seed, instances)
        return {f"problem.{name}": value for name, value in members.items()}

    def init(self, seed, instances):
        return self.problem.init(seed, instances)

    def loss(self, params, constants, batch=None):
        inner = _select(constants, "problem.")
        return self.problem.loss(params, inner, batch)

    def perturb(self, gradients, seed):
        return self.problem.perturb(gradients, seed)


@specified
class Rescale(_Wrapper):
    """The member at theta / scale, started at scale times its start."""

    scale: float

    def init(self, seed, instances):
        return [self.scale * p for p in super().init(seed, instances)]

    def loss(self, params, constants, batch=None):
        return super().loss([p / self.scale for p in params], constants, batch)


@specified
class LogObjective(_Wrapper):
    """log(objective + eps) - log(eps), eps = 1e-6."""

    def __post_init__(self):
        if not self.problem.nonnegative:
            raise ValueError(
                "LogObjective needs an objective that is never negative. "
                f"Received: {self.problem!r}"
            )

    def loss(self, params, constants, batch=None):
        value = super().loss(params, constants, batch)
        return tf.math.log(value + _EPSILON) - tf.math.log(_EPSILON)


@specified
class SparseProblem(_Wrapper):
    """Each gradient element of the member is zeroed with a probability."""

    zero_probability: float = 0.99

    @property
    def is_noisy(self):
        return True

    def perturb(self, gradients, seed):
        gradients = self.problem.perturb(gradients, fold(seed, 0))
        seed = fold(seed, 1)
        sparse = []
        for i, gradient in enumerate(gradients):
            uniform = tf.random.stateless_uniform(gradient.shape, fold(seed, i))
            keep = uniform >= self.zero_probability
            sparse.append(tf.where(keep, gradient, tf.zeros_like(gradient)))
        return sparse


@specified
class SumTask(Problem):
    """The sum of several problems without data, each with its parameters."""

    problems: tuple

    def __post_init__(self):
        for problem in self.problems:
            if problem.batch_size is not None:
                raise ValueError(
                    "SumTask takes problems without data. "
                    f"Received: {problem!r}"
                )

    @property
    def nonnegative(self):
        return all(p.nonnegative for p in self.problems)

    @property
    def shapes(self):
        return [shape for p in self.problems for shape in p.shapes]

    @property
    def is_noisy(self):
        return any(p.is_noisy for p in self.problems)

    def constants(self, seed, instances):
        return {
            f"problems.{i}.{name}": value
            for i, p in enumerate(self.problems)
            for name, value in p.constants(fold(seed, i), instances).items()
        }

    def init(self, seed, instances):
        starts = [
            p.init(fold(seed, i), instances)
            for i, p in enumerate(self.problems)
        ]
        return [tensor for start in starts for tensor in start]

    def loss(self, params, constants, batch=None):
        parts = self._split(params)
        return tf.add_n(
            [
                p.loss(part, _select(constants, f"problems.{i}."))
                for i, (p, part) in enumerate(zip(self.problems, parts))
            ]
        )

    def perturb(self, gradients, seed):
        noisy = []
        parts = self._split(gradients)
        for i, (p, part) in enumerate(zip(self.problems, parts)):
            noisy += p.perturb(part, fold(seed, i))
        return noisy

    def _split(self, tensors):
        parts, start = [], 0
        for p in self.problems:
            count = len(p.shapes)
            parts.append(tensors[start : start + count])
            start += count
        return parts


def _select(constants, prefix):
    return {
        name.removeprefix(prefix): value
        for name, value in constants.items()
        if name.startswith(prefix)
    }
