"""Problems made of problems: rescaled, summed, logarithmic, sparse."""

import itertools
import math
import operator

import tensorflow as tf

from problems.problem import Problem, fold, scaled
from problems.specification import specified

_EPSILON = 1e-6


@specified
class _Wrapper(Problem):
    """A problem around one member; the member's own start, data and noise."""

    problem: Problem

    def __post_init__(self):
        _check_member(self.problem)

    batch_size = property(operator.attrgetter("problem.batch_size"))
    num_examples = property(operator.attrgetter("problem.num_examples"))
    nonnegative = property(operator.attrgetter("problem.nonnegative"))
    shapes = property(operator.attrgetter("problem.shapes"))
    layers = property(operator.attrgetter("problem.layers"))
    roles = property(operator.attrgetter("problem.roles"))
    is_noisy = property(operator.attrgetter("problem.is_noisy"))

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

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.scale < math.inf:
            raise ValueError(
                f"`scale` must be positive. Received: scale={self.scale!r}"
            )

    def init(self, seed, instances):
        return [self.scale * p for p in super().init(seed, instances)]

    def loss(self, params, constants, batch=None):
        return super().loss([p / self.scale for p in params], constants, batch)


@specified
class Reparameterized(_Wrapper):
    """The member f(w) as f(alpha v), with an alpha of each instance's own.

    A run starts from v = w / alpha, so that its objectives are those of the
    member, and its gradients alpha times those; gradient noise too. An alpha
    is log-uniform between two bounds, one for all parameters of a run, and the
    same for all starts on the same constants. Meta-training on it teaches a
    rule that the parameters' unit tells nothing. Not in the paper.

    For a rule that is equivariant to such a change of unit it changes nothing:
    the wrapper is for all others.

    `init` draws w: the unrolls of meta-training divide it by alpha, which
    only the constants tell. So a training that takes `init` for the start
    itself starts elsewhere.

    Args:
        problem: the member, no `Reparameterized` itself.
        bounds: of alpha. Defaults to `(1e-3, 1e3)`.
    """

    bounds: tuple = (1e-3, 1e3)

    def __post_init__(self):
        super().__post_init__()
        low, high = self.bounds
        if not 0 < low <= high < math.inf:
            raise ValueError(
                "The bounds of the parameters' scale are two positive "
                f"numbers, the smaller one first. Received: {self.bounds}"
            )

    def constants(self, seed, instances):
        low, high = map(math.log, self.bounds)
        uniform = tf.random.stateless_uniform((instances,), fold(seed, 1))
        members = super().constants(fold(seed, 0), instances)
        return {"alpha": tf.exp(low + (high - low) * uniform), **members}

    def parameter_scale(self, constants):
        return constants["alpha"]

    def loss(self, params, constants, batch=None):
        own = scaled(params, constants["alpha"])
        return super().loss(own, constants, batch)


@specified
class LogObjective(_Wrapper):
    """log(objective + eps) - log(eps), eps = 1e-6."""

    def __post_init__(self):
        super().__post_init__()
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

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.zero_probability <= 1:
            raise ValueError(
                "`zero_probability` must be in 0..1. Received: "
                f"zero_probability={self.zero_probability!r}"
            )

    is_noisy = True

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
        if not self.problems:
            raise ValueError("SumTask needs problems. Received: none")
        for problem in self.problems:
            _check_member(problem)
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
    def layers(self):
        found = [
            (place, layer)
            for place, p in enumerate(self.problems)
            for layer in p.layers
        ]
        numbers = {own: i for i, own in enumerate(dict.fromkeys(found))}
        return tuple(numbers[own] for own in found)

    @property
    def roles(self):
        return tuple(role for p in self.problems for role in p.roles)

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
        start = []
        for i, p in enumerate(self.problems):
            start += p.init(fold(seed, i), instances)
        return start

    def loss(self, params, constants, batch=None):
        terms = []
        for i, (p, part) in enumerate(self._split(params)):
            terms.append(p.loss(part, _select(constants, f"problems.{i}.")))
        return tf.add_n(terms)

    def perturb(self, gradients, seed):
        noisy = []
        for i, (p, part) in enumerate(self._split(gradients)):
            noisy += p.perturb(part, fold(seed, i))
        return noisy

    def _split(self, tensors):
        """Yields each problem and its tensors."""
        remaining = iter(tensors)
        for p in self.problems:
            yield p, list(itertools.islice(remaining, len(p.shapes)))


def _check_member(problem):
    """Refuses a member whose scale the wrapper around it would hide."""
    if isinstance(problem, Reparameterized):
        raise ValueError(
            "Reparameterized must be the outermost wrapper: put the others "
            f"inside. Received: {problem!r}"
        )


def _select(constants, prefix):
    return {
        name.removeprefix(prefix): value
        for name, value in constants.items()
        if name.startswith(prefix)
    }
