"""What an `AlternatingModel` does around the epochs of `fit`."""

import contextlib
import warnings

import keras
import numpy as np
import tensorflow as tf


class Hooks(keras.callbacks.Callback):
    """What `fit` does around epochs; it comes before all other callbacks."""

    def on_epoch_begin(self, epoch, logs=None):
        state, data = self.model.schedule_state, self.model._streams
        if data.restarts:
            state.taken.assign(tf.zeros_like(state.taken.value))
        data.begin_epoch(state.taken.numpy())

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get(f"val_{next(iter(self.model.objectives))}")
        if loss is not None and np.isfinite(loss):
            self.model.schedule_state.validate(loss)

    def on_train_end(self, logs=None):
        if self.model.optimizer is None:
            self.model._optimizers.finalize()


def added_to(callbacks):
    """The callbacks of `fit`, `Hooks` first, then those that `acts_first`."""
    # `fit` makes a new list, which has what a given one added by itself.
    given = getattr(callbacks, "callbacks", callbacks)
    given = keras.tree.flatten(given or [])
    given.sort(key=lambda each: not getattr(each, "acts_first", False))
    return [Hooks(), *given]


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
