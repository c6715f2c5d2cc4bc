"""How good weights are on problems that they are not trained on."""

import numpy as np
import tensorflow as tf

from lopt_tf.metatraining import objective as objective_lib
from lopt_tf.metatraining import unroll

# What blows up counts as this multiple of its start, as with "pes".
_LIMIT = 1e6


class Validation:
    """Mean meta-objectives on held-out problems, always on the same runs.

    Args:
        problems: {name: Problem}.
        instances: inner runs on each problem.
        steps: their length, rounded up to whole segments.
        segment_length: inner steps in one compiled call.
        use_log_objective: as for the training.
        seed: draws the instances.
    """

    def __init__(
        self,
        problems,
        instances=8,
        steps=200,
        segment_length=20,
        use_log_objective=True,
        seed=0,
    ):
        if not problems:
            raise ValueError("There are no problems to validate on.")
        self.problems = dict(problems)
        self.instances = instances
        self.segments = -(-steps // segment_length)
        self.segment_length = segment_length
        self.objective = objective_lib.MetaObjective(use_log_objective)
        self.seed = seed
        self._prepared = {}

    def __call__(self, rule, weights):
        """Meta-objectives, {problem name: float}.

        Args:
            rule: the `UpdateRule`.
            weights: its meta-parameters, {name: array [out, in]}.
        """
        weights = {name: tf.constant(array) for name, array in weights.items()}
        return {name: self._loss(name, rule, weights) for name in self.problems}

    def _loss(self, name, rule, weights):
        unroller, constants, drawn, segments = self._inputs(name, rule)
        carry = unroller.begin(weights, constants, drawn)
        values = []
        for segment in segments:
            carry, objectives, _ = unroller.advance(
                weights, constants, carry, segment
            )
            values.append(objectives)
        initial = carry["initial"]
        limit = _LIMIT * (initial + 1e-6)
        values = tf.concat(values, axis=0)
        values = tf.where(tf.math.is_finite(values), values, limit)
        losses = self.objective(tf.minimum(values, limit), initial)
        return float(tf.reduce_mean(losses))

    def _inputs(self, name, rule):
        if name not in self._prepared:
            unroller = unroll.Unroller(
                self.problems[name], rule, self.instances, self.segment_length
            )
            place = list(self.problems).index(name)
            seed = (self.seed, 9, place)
            segments = [
                unroller.segment_inputs(seed, i * self.segment_length)
                for i in range(self.segments)
            ]
            self._prepared[name] = (
                unroller,
                unroller.constants(seed),
                unroller.draw_start(seed),
                segments,
            )
        return self._prepared[name]


class Best:
    """The best validation so far, which a resumed training remembers."""

    def __init__(self):
        self.loss = np.inf
        self.update = None

    def improves(self, loss, update):
        """Whether `loss` is the best one; then it is remembered."""
        if not loss < self.loss:
            return False
        self.loss, self.update = loss, update
        return True

    def state(self):
        """JSON-ready."""
        return None if self.update is None else [self.loss, self.update]

    def restore(self, state):
        """The inverse of `state`."""
        if state is not None:
            self.loss, self.update = state
