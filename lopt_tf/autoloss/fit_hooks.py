"""What an `AlternatingModel` does around the epochs of `fit`."""

import contextlib
import warnings

import keras
import numpy as np
import tensorflow as tf

# What looks at *the* optimizer of a model.
_OF_ONE_OPTIMIZER = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.SwapEMAWeights,
)


class Hooks(keras.callbacks.Callback):
    """What `fit` does around epochs; it comes before all other callbacks.

    Args:
        ends_on_nan: whether to end with an objective's loss that is not
            finite, as `keras.callbacks.TerminateOnNaN` does with *the* loss.
            Defaults to `False`.
    """

    def __init__(self, ends_on_nan=False):
        super().__init__()
        self._ends_on_nan = ends_on_nan

    def on_train_begin(self, logs=None):
        self._is_first = True

    def on_epoch_begin(self, epoch, logs=None):
        state, data = self.model.schedule_state, self.model._streams
        if self._is_first:
            self._is_first = False
            # A backup that was restored has the total of an earlier `fit`, and
            # Keras begins an epoch that it was made in anew.
            left = (self.params["epochs"] - epoch) * data.steps
            state.total.assign(state.step.value + left)
        if data.restarts:
            state.taken.assign(tf.zeros_like(state.taken.value))
        data.begin_epoch(state.taken.numpy())

    def on_train_batch_end(self, batch, logs=None):
        if not self._ends_on_nan:
            return
        logs = logs or {}
        for name in self.model.objectives:
            # Where it was not chosen there is no loss.
            chosen = logs.get(f"share/{name}", 0) > 0
            if chosen and not np.isfinite(logs[name]):
                print(f"Batch {batch}: the loss of {name} is not finite.")
                self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get(f"val_{next(iter(self.model.objectives))}")
        if loss is not None and np.isfinite(loss):
            self.model.schedule_state.validate(loss)

    def on_train_end(self, logs=None):
        if self.model.optimizer is None:
            self.model._optimizers.finalize()


def added_to(callbacks, optimizer):
    """The callbacks of `fit`, `Hooks` first, then those that `acts_first`.

    Args:
        callbacks: as `fit` takes them.
        optimizer: the model's for all objectives, or None.

    Raises:
        ValueError: for one that needs an optimizer for all objectives.
    """
    # `fit` makes a new list, which has what a given one added by itself.
    given = getattr(callbacks, "callbacks", callbacks)
    given = keras.tree.flatten(given or [])
    for each in given:
        if optimizer is None and _needs_one_optimizer(each):
            raise ValueError(
                f"{type(each).__name__} needs one optimizer for all "
                "objectives: compile(optimizer), not {objective: optimizer}."
            )
    given.sort(key=lambda each: not getattr(each, "acts_first", False))
    nan = keras.callbacks.TerminateOnNaN
    for each in given:
        if hasattr(each, "_is_improvement"):
            _pass_over_nan(each)
    return [Hooks(any(isinstance(each, nan) for each in given)), *given]


def _pass_over_nan(callback):
    """Has a callback that monitors a loss leave out epochs without one."""
    if getattr(callback, "_passes_over_nan", False):
        # Of an earlier `fit`.
        return
    callback._passes_over_nan = True
    is_improvement, on_epoch_end = (
        callback._is_improvement,
        callback.on_epoch_end,
    )

    def guarded(value, reference):
        # To Keras the first value is the best one, even if it is NaN.
        return not _is_nan(value) and is_improvement(value, reference)

    def at_end(epoch, logs=None):
        # An epoch that says nothing is not one without improvement.
        if not _is_nan((logs or {}).get(callback.monitor)):
            on_epoch_end(epoch, logs)
        elif isinstance(callback, keras.callbacks.ReduceLROnPlateau):
            # What it tells of any epoch.
            rate = callback.model.optimizer.learning_rate
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))

    callback._is_improvement = guarded
    if hasattr(callback, "wait"):
        callback.on_epoch_end = at_end


def _is_nan(value):
    return value is not None and bool(np.isnan(value))


def _needs_one_optimizer(callback):
    if isinstance(callback, keras.callbacks.TensorBoard):
        return callback.write_steps_per_second
    return isinstance(callback, _OF_ONE_OPTIMIZER)


def needs_of(callbacks):
    """{who: names of the metadata that a callback looks at}."""
    needs = [getattr(each, "needs", None) for each in callbacks]
    return dict(pair for each in needs if each for pair in each.items())


@contextlib.contextmanager
def without_hints():
    """Keras' hints about the data are about our ticks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        yield
