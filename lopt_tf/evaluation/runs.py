"""Many runs of one update rule on one problem, side by side, compiled."""

import numpy as np
import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.metatraining import unroll
from lopt_tf.optimizers import update_rule
from problems.problem import fold, in_own_unit, scaled

_SEGMENT = 50


class ParallelRuns:
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
        self._start = compilation.compiled(self._started)
        self._advance = compilation.compiled(self._segment)

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
        # It draws the same starts and data as meta-training.
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
        params, log_lrs = tf.nest.map_structure(chosen, source.draw_start(seed))
        scale = self.problem.parameter_scale(constants)
        if scale is not None:
            params = scaled(params, 1 / scale)
        weights = {n: tf.constant(w, "float32") for n, w in weights.items()}
        state = self._start(weights, params, log_lrs)
        losses = []
        for first in range(0, steps, _SEGMENT):
            params, state, values = self._advance(
                weights,
                constants,
                params,
                state,
                unroll.run_seed(seed),
                tf.constant(first, "int32"),
                chosen(source.batches(seed, first), axis=1),
            )
            losses.append(values)
        # Waiting once, at the end, keeps the processor busy meanwhile.
        return np.concatenate([values.numpy() for values in losses])[:steps]

    def _started(self, weights, params, log_lrs):
        return update_rule.start_state(
            self.rule, weights, params, log_lrs, self.problem.structure
        )

    def _segment(
        self, weights, constants, params, state, seed, first_step, batches
    ):
        """Params and state after some steps, and losses [steps, count]."""
        problem, rule = self.problem, self.rule

        def body(t, params, state, losses):
            batch = None if problem.batch_size is None else batches[t]
            loss, gradients = problem.value_and_gradients(
                params, constants, batch
            )
            if rule.attends:
                # That was the loss at the attended point.
                true = rule.true_parameters(weights, state, params)
                loss = problem.loss(true, constants, batch)
            if problem.is_noisy:
                noise = fold(fold(seed, 2), first_step + t)
                gradients = in_own_unit(
                    lambda own, noise=noise: problem.perturb(own, noise),
                    *(gradients, problem.parameter_scale(constants)),
                )
            params, state = rule.step(weights, state, params, gradients)
            return t + 1, params, state, losses.write(t, loss)

        losses = tf.TensorArray("float32", _SEGMENT, element_shape=[self.count])
        _, params, state, losses = tf.while_loop(
            lambda t, *_: t < _SEGMENT,
            body,
            (0, params, state, losses),
            maximum_iterations=_SEGMENT,
        )
        return params, state, losses.stack()


def repeated(weights, count):
    """One set of weights for each of `count` runs."""
    return {
        name: np.repeat(np.asarray(array, "float32")[None], count, axis=0)
        for name, array in weights.items()
    }
