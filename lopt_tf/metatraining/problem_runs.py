"""Problems under way in a meta-training: drawn, started, saved, loaded."""

import contextlib
import dataclasses
import math

import numpy as np
import tensorflow as tf

from lopt_tf import checks, compilation
from lopt_tf.metatraining import curriculum as curriculum_lib
from lopt_tf.metatraining import estimators
from lopt_tf.reporting import tables

# What TensorFlow raises for what XLA does not know.
_NOT_COMPILED = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
_SAVED = ("number", "name", "start", "plan")


@dataclasses.dataclass
class ProblemRun:
    """A problem under way.

    Attributes:
        number: counts the problems drawn; seeds what belongs to this one.
        name: the problem's name.
        start: which fresh start on the problem this is.
        plan: segment counts of the meta-updates still to come.
        run: the inner runs.
        constants: the problem's constants (drawn again on resuming).
    """

    number: int
    name: str
    start: int
    plan: list
    run: estimators.Run
    constants: dict


class ProblemRuns:
    """Makes `ProblemRun`s and the estimators that they need.

    The arguments are those of `Trainer`.
    """

    def __init__(self, problems, rule, options, replicas):
        self._problems = {n: options.scaled(p) for n, p in problems.items()}
        self._rule = rule
        self._options = options
        self._replicas = replicas
        self._estimators = {}

    def draw(self, number, is_first=False):
        """The `number`-th problem of the training, at its first start.

        Args:
            number: counts from 0.
            is_first: whether it is the first of its place, which ends early
                with `staggered_starts`. Defaults to `False`.
        """
        seed = self._options.seed
        name = curriculum_lib.draw_problem(list(self._problems), seed, number)
        it = self._started(number, name, 0, self._constants(number, name))
        if is_first and self._options.staggered_starts:
            rng = np.random.default_rng([seed, 5, number])
            it.plan = it.plan[: rng.integers(1, len(it.plan), endpoint=True)]
        return it

    def next_start(self, it):
        """The next fresh start on the problem of a run; None after the last."""
        if it.start + 1 >= self._options.curriculum.starts:
            return None
        return self._started(it.number, it.name, it.start + 1, it.constants)

    def _started(self, number, name, start, constants):
        seed = self._options.seed
        plan = self._options.plan(
            np.random.default_rng([seed, 2, number, start])
        )
        run = estimators.Run((seed, 4, number, start))
        return ProblemRun(number, name, start, plan, run, constants)

    def _constants(self, number, name):
        unroller = self.estimator(name).unroller
        return unroller.constants((self._options.seed, 3, number))

    def estimator(self, name):
        """The estimator of a problem, with its compiled functions."""
        if name not in self._estimators:
            self._estimators[name] = estimators.make(
                self._options, self._problems[name], self._rule, self._replicas
            )
        return self._estimators[name]

    @contextlib.contextmanager
    def about_to_step(self, name):
        """A context of a step with a problem's estimator; the first compiles.

        Raises:
            NoRoomError: if there is no room for that.
            ValueError: if XLA cannot do it.
        """
        estimator = self.estimator(name)
        is_first = not estimator.unroller.num_compilations()
        if is_first:
            compilation.check_room()
        try:
            yield estimator
        except _NOT_COMPILED as error:
            if not is_first:
                raise
            first, *_ = error.message.strip().partition("\n")
            raise ValueError(
                f"Steps of {name} cannot be computed. If it has layers whose "
                "second derivatives XLA does not compile, as Keras' recurrent "
                "ones and attention: use_second_derivatives=False, or the "
                "estimator pes. Or leave it out. TensorFlow says: "
                f"{first[:300]}"
            ) from error

    def num_compilations(self):
        """Programs compiled so far."""
        return sum(
            estimator.unroller.num_compilations()
            for estimator in self._estimators.values()
        )

    def save(self, it):
        """A `ProblemRun` as (arrays, JSON-ready description)."""
        arrays, run = self.estimator(it.name).save(it.run)
        description = {name: getattr(it, name) for name in _SAVED}
        return arrays, {**description, "run": run}

    def load(self, arrays, description):
        """The inverse of `save`."""
        number, name, start, plan = (description[name] for name in _SAVED)
        run = self.estimator(name).load(arrays, description["run"])
        constants = self._constants(number, name)
        return ProblemRun(number, name, start, list(plan), run, constants)


def check_size(problems, rule, options, workers=1):
    """Raises ValueError if what one segment takes does not fit into memory.

    Args:
        problems: {name: Problem}.
        rule: an `UpdateRule`.
        options: `TrainingOptions`.
        workers: that share the instances, each with memory of its own.
    """
    kind, state = estimators.ESTIMATORS[options.estimator], _state_size(rule)
    # Parameters and state, and gradients beside them; backpropagation keeps
    # those of each step of a segment.
    each = kind.copies * (state + 2)
    segment = ""
    if kind.copies == 1:
        each += options.segment_length * (state + 1)
        segment = f" (segments of {options.segment_length} steps)"
    for name, problem in problems.items():
        checks.fits_memory(
            f"{options.instances:,} instances of {name}{segment}",
            each * options.instances * _size(problem) // workers,
        )


def _state_size(rule):
    """Numbers of a rule's state for each parameter, about."""
    count = 1000
    rates = rule.draw_log_learning_rates(
        [np.full([count], 0.5, "float32")], [np.full([1], 0.5, "float32")]
    )
    params = [np.zeros([count], "float32")]
    state = rule.init_state(rule.init_weights(0), params, rates)
    sizes = [math.prod(x.shape) for x in tf.nest.flatten(state)]
    return sum(sizes) // count


def write_shares(path, problems, inner_steps_of, inner_steps):
    """Writes which problems the inner steps were spent on, as a CSV file.

    Args:
        path: the file.
        problems: {name: Problem}.
        inner_steps_of: `collections.Counter` of their inner steps by name.
        inner_steps: of all of them.
    """
    rows = [
        {
            "problem": name,
            "parameters": _size(problems[name]),
            "inner_steps": count,
            "share": count / inner_steps,
        }
        for name, count in inner_steps_of.most_common()
        if name in problems
    ]
    tables.write_csv(path, rows)


def _size(problem):
    """The number of parameters of one instance."""
    return sum(math.prod(shape) for shape in problem.shapes)
