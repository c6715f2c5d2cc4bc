"""Many runs of one update rule on one problem, side by side, compiled."""

import numpy as np
import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.metatraining import unroll

_SEGMENT = 50


class Lanes:
    """Runs side by side: each has its own weights and one of several starts.

    A loss is that of the step's own minibatch, or the objective where there
    is no data, at the true parameters before the step.

    Args:
        problem: a `problems.Problem`.
        rule: an `UpdateRule`.
        count: how many runs; one compiled program serves any choice of
            weights and starts for them.
    """

    def __init__(self, problem, rule, count):
        compilation.check_room()
        self.problem = problem
        self.rule = rule
        self.count = count
        self._unroller = _Recording(problem, rule, count, _SEGMENT)

    def run(self, weights, sources, seed, steps, start_rule=None):
        """Losses [steps, count], float32.

        Args:
            weights: {name: array [count, out, in]}.
            sources: for each run the number of its start, data order and
                learning rates' draws.
            seed: sequence of integers; draws the starts and the noise.
            steps: number of steps.
            start_rule: draws the starting learning rates; the rule itself if
                None. Only its settings of that draw may differ.
        """
        # One start is drawn as two, so that shapes tell what is shared.
        drawn = max(2, max(sources) + 1)
        source = unroll.Unroller(
            self.problem, start_rule or self.rule, drawn, _SEGMENT
        )

        def chosen(array, axis=0):
            return tf.gather(array, sources, axis=axis)

        constants = {
            name: chosen(array) if array.shape[0] == drawn else array
            for name, array in source.constants((*seed, 1)).items()
        }
        seed = (*seed, 2)
        start = tf.nest.map_structure(chosen, source.draw_start(seed))
        weights = {n: tf.constant(w, "float32") for n, w in weights.items()}
        carry = self._unroller.begin(weights, constants, start)
        losses = []
        for first in range(0, steps, _SEGMENT):
            inputs = (
                unroll.run_seed(seed),
                tf.constant(first, "int32"),
                chosen(source.batches(seed, first), axis=1),
                tf.constant(0),
            )
            carry, values, _ = self._unroller.advance(
                weights, constants, carry, inputs
            )
            losses.append(values)
        # Waiting once, at the end, keeps the processor busy meanwhile.
        return np.concatenate([values.numpy() for values in losses])[:steps]


class _Recording(unroll.Unroller):
    """An unroller that records minibatch losses, not whole objectives."""

    def _forward(self, weights, constants, params, state, inputs):
        def body(t, params, state, values):
            moved, new_state, loss, _ = self._step(
                weights, constants, params, state, inputs, t
            )
            if "true_parameters" in state:
                # The step's own loss is that of the attended point.
                true = self.rule.true_parameters(weights, state, params)
                batched = self.problem.batch_size is not None
                batch = inputs[2][t] if batched else None
                loss = self.problem.loss(true, constants, batch)
            return t + 1, moved, new_state, values.write(t, loss)

        values = self._recorded(tf.zeros(self.size))
        params, state, values = self._loop(body, params, state, values)
        return params, state, values.stack(), ()


def repeated(weights, count):
    """One set of weights for each of `count` runs."""
    return {
        name: np.repeat(np.asarray(array, "float32")[None], count, axis=0)
        for name, array in weights.items()
    }
