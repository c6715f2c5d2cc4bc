"""Steps that are skipped: counted, and said when there are too many."""

import contextvars
import warnings
import zlib

import keras
from keras import ops

from lopt_tf.optimizers import backends

# Steps skipped in a row.
_TOO_MANY = 100
_SKIPPING = (
    f"The last {_TOO_MANY} steps were skipped: their gradients, or the "
    "parameters after them, were not finite. The model no longer trains; look "
    "for NaN in its data, loss or weights."
)
_ZEROED = (
    "All variables of the optimizer were set to zero, its trained weights "
    "among them: it takes no step. Use optimizer.reset(), which keeps them, "
    "and set its learning rate again."
)


# Of each thread: replicas are threads of one optimizer.
_averages_later = contextvars.ContextVar("averages_later", default=False)


class SkippedSteps:
    """The part of `LearnedOptimizer` that counts the steps it skips."""

    # Whether it has said so since `fit` began.
    _has_warned = False

    @property
    def use_ema(self):
        """Whether parameters are averaged; Keras' attribute."""
        return self._uses_ema and not _averages_later.get()

    @use_ema.setter
    def use_ema(self, value):
        self._uses_ema = value

    @property
    def skipped_steps(self):
        """How many steps were skipped for NaN or infinite numbers."""
        if not self.built:
            return 0
        return int(ops.convert_to_numpy(self._skipped_steps))

    def _is_zeroed(self):
        """Whether all variables, the trained weights too, were set to zero."""
        return not int(ops.convert_to_numpy(self._shapes_digest))

    def _count(self, counters, taken):
        """Counts a step that was taken (1) or skipped (0)."""
        skipped = 1 - taken
        counters["skipped_steps"].assign(counters["skipped_steps"] + skipped)
        in_a_row = (counters["skipped_in_a_row"] + 1) * skipped
        counters["skipped_in_a_row"].assign(in_a_row)
        # The first step after all variables, this one too, were set to zero.
        is_zeroed = ops.logical_and(
            counters["shapes_digest"] == 0, in_a_row == 1
        )
        backends.warn_if(
            ops.logical_or(is_zeroed, in_a_row == _TOO_MANY),
            self._warning,
            is_zeroed,
        )
        # `apply` counts the iteration; a skipped step takes it back.
        iterations = counters["iterations"]
        back = skipped * (self.gradient_accumulation_steps or 1)
        iterations.assign(iterations - ops.cast(back, iterations.dtype))

    def _warning(self, zeroed):
        self._has_warned = True
        return _ZEROED if zeroed else _SKIPPING

    def _backend_apply_gradients(self, grads, trainable_variables):
        # Keras would average after a skipped step, too, and look at the
        # iteration that was taken back.
        token = _averages_later.set(True)
        try:
            super()._backend_apply_gradients(grads, trainable_variables)
        finally:
            _averages_later.reset(token)
        if self.use_ema:
            self._average_parameters()

    def _average_parameters(self):
        """Moves the parameters' averages, unless the step was skipped."""
        params = self._trainable_variables
        averages = [
            average
            for average in self._model_variables_moving_average
            if average is not None
        ]
        before = [backends.copied(backends.value(a)) for a in averages]
        taken = ops.equal(backends.value(self._skipped_in_a_row), 0)
        self._update_model_variables_moving_average(params)
        for average, old in zip(averages, before):
            new = backends.value(average)
            average.assign(ops.where(taken, new, old))
        if not self.ema_overwrite_frequency:
            return
        ends = (self.iterations + 1) % self.ema_overwrite_frequency == 0
        overwrites = ops.logical_and(taken, ends)
        if keras.backend.backend() == "jax":
            # Nothing but a choice of values can depend on an array.
            for param, average in zip(params, averages):
                values = map(backends.value, (average, param))
                param.assign(ops.where(overwrites, *values))
            return
        ops.cond(
            overwrites,
            lambda: self._overwrite_model_variables_with_average_value(params),
            lambda: None,
        )

    def finalize_variable_values(self, var_list):
        """At the end of fit: says if it has not trained at all lately."""
        in_a_row = int(ops.convert_to_numpy(self._skipped_in_a_row))
        is_zeroed = bool(in_a_row and self._is_zeroed())
        if (is_zeroed or in_a_row >= _TOO_MANY) and not self._has_warned:
            warnings.warn(self._warning(is_zeroed), stacklevel=2)
        self._has_warned = False
        # Before the first step that was taken, averages are zeros.
        if int(ops.convert_to_numpy(self.iterations)):
            super().finalize_variable_values(var_list)


def shapes_digest(variables):
    """A positive integer that tells shapes from others: exact as float32."""
    shapes = str([tuple(v.shape) for v in variables])
    return zlib.crc32(shapes.encode()) % (2**24 - 1) + 1
