"""How good weights are on problems that they are not trained on."""

import dataclasses

import numpy as np
import tensorflow as tf

from lopt_tf import checks, compilation
from lopt_tf.metatraining import objective as objective_lib
from lopt_tf.metatraining import replicas as replicas_lib
from lopt_tf.metatraining import unroll

_BOUNDS = {
    "instances": (1, 65_536),
    "steps": (1, 10**6),
    "segment_length": (1, 10**5),
    "seed": (0, checks.LARGEST_SEED),
}
# What blows up counts as this multiple of its start, as with "pes".
_MULTIPLIER = 1e6


@dataclasses.dataclass(eq=False)
class Validation:
    """Mean meta-objectives on held-out problems, always on the same runs.

    Args:
        problems: {name: Problem}.
        instances: inner runs on each problem.
        steps: their length, rounded up to whole segments.
        segment_length: inner steps in one compiled call.
        objective: the `MetaObjective`; the default one if None.
        seed: draws the instances.

    Raises:
        ValueError: without problems, or if the objective takes logarithms
            of something that can be negative.
    """

    problems: dict
    instances: int = 8
    steps: int = 200
    segment_length: int = 20
    objective: objective_lib.MetaObjective | None = None
    seed: int = 0

    def __post_init__(self):
        checks.all_in_range(self, _BOUNDS)
        if not self.problems:
            raise ValueError("There are no problems to validate on.")
        self.objective = self.objective or objective_lib.MetaObjective()
        if self.objective.use_log:
            objective_lib.check_nonnegative(self.problems)
        self._prepared = {}

    def settings(self):
        """What its results depend on, JSON-ready."""
        found = {name: getattr(self, name) for name in _BOUNDS}
        found["objective"] = repr(self.objective)
        # A problem's place is part of its seed.
        for i, (name, problem) in enumerate(self.problems.items()):
            found[f"problem {i}"] = f"{name}: {problem!r}"
        return found

    def __call__(self, rule, weights):
        """Meta-objectives, {problem name: float}.

        Args:
            rule: the `UpdateRule`.
            weights: its meta-parameters, {name: array [out, in]}.
        """
        weights = {name: tf.constant(array) for name, array in weights.items()}
        return {name: self._loss(name, rule, weights) for name in self.problems}

    def num_compilations(self):
        """Programs compiled so far."""
        unrollers = [prepared[0] for prepared in self._prepared.values()]
        return sum(unroller.num_compilations() for unroller in unrollers)

    def _loss(self, name, rule, weights):
        unroller, constants, drawn, segments = self._inputs(name, rule)
        carry = unroller.begin(weights, constants, drawn)
        carry, values = unroller.run(weights, constants, carry, segments)
        objectives = objective_lib.capped(values, carry.initial, _MULTIPLIER)
        negative = objective_lib.negative(objectives, carry.initial)
        if self.objective.use_log and tf.reduce_any(negative):
            raise ValueError(objective_lib.NEGATIVE.format(name))
        losses = self.objective(objectives, carry.initial)
        return float(tf.reduce_mean(losses))

    def _inputs(self, name, rule):
        # A compiled unroll belongs to one rule.
        if (name, rule) not in self._prepared:
            compilation.check_room()
            unroller = unroll.Unroller(
                self.problems[name],
                rule,
                self.instances,
                self.segment_length,
                replicas=replicas_lib.Replicas(count=1),
            )
            seed = (self.seed, 9, list(self.problems).index(name))
            segments = [
                unroller.segment_inputs(seed, first)
                for first in range(0, self.steps, self.segment_length)
            ]
            start = unroller.constants(seed), unroller.draw_start(seed)
            self._prepared[name, rule] = unroller, *start, segments
        return self._prepared[name, rule]


class BestWeights:
    """Validates now and then, and keeps the weights that did best.

    Args:
        validate: a `Validation`, or a function like it; None never validates.
        every: meta-updates between validations; 0 never validates.
        given: whether the training starts from weights that may be the best:
            they are validated, too.

    Attributes:
        loss: the best mean loss.
        weights: the weights with it, {name: array}; None before.
        validated: the meta-update after which the last validation was; None
            before.
    """

    def __init__(self, validate=None, every=0, given=False):
        checks.in_range("eval_every", every, 0, 10**9)
        if every and validate is None:
            raise ValueError("`eval_every` needs `validate`, a `Validation`.")
        self._validate = validate
        self._every = every
        self._given = given
        self.loss = np.inf
        self.weights = self.validated = None

    def is_due(self, update):
        """Whether to validate after that meta-update."""
        if not self._every or update % self._every:
            return False
        return bool(update or self._given) and self.validated != update

    def measure(self, rule, weights):
        """Validates weights: (scalars, mean loss, whether it is the best)."""
        losses = self._validate(rule, weights)
        mean = float(np.mean(list(losses.values())))
        is_best = mean < self.loss
        if is_best:
            self.weights, self.loss = weights, mean
        scalars = {f"validation/{name}": x for name, x in losses.items()}
        return {**scalars, "validation/all": mean}, mean, is_best

    def settings(self):
        """The validation's, by which weights are compared, where it tells."""
        told = getattr(self._validate, "settings", dict)
        return told() if self._every else {}

    def num_compilations(self):
        """Programs that the validation has compiled so far."""
        return getattr(self._validate, "num_compilations", int)()

    def state(self):
        """What `restore` takes but for the weights, JSON-ready."""
        return {
            "loss": None if np.isinf(self.loss) else self.loss,
            "validated": self.validated,
        }

    def restore(self, state, weights):
        """The inverse of `state`.

        Args:
            state: what it returned.
            weights: {name: array}; empty in checkpoints of earlier versions,
                beside which they have a file of their own.
        """
        self.loss = np.inf if state["loss"] is None else state["loss"]
        self.validated = state["validated"]
        self.weights = weights or None
