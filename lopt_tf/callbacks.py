"""Keras callbacks for learned optimizers."""

import keras

from lopt_tf.optimizers.learned_optimizer import LearnedOptimizer


class TrueParameters(keras.callbacks.Callback):
    """Shows a model's true parameters to validation and checkpoints.

    An optimizer with attention keeps, during training, the point where it
    takes the next gradient in the model's variables. Put this callback
    *first* in fit's list: validation, and callbacks at the end of an epoch
    such as `ModelCheckpoint`, then see the true parameters, and a second
    fit() resumes exactly. For other optimizers it does nothing.
    """

    def on_train_begin(self, logs=None):
        for optimizer in self._learned_optimizers():
            optimizer.validates_true_parameters = True
            optimizer.hold_attended_parameters()

    def on_epoch_begin(self, epoch, logs=None):
        for optimizer in self._learned_optimizers():
            optimizer.hold_attended_parameters()

    def on_epoch_end(self, epoch, logs=None):
        self.on_test_begin()

    def on_train_end(self, logs=None):
        self.on_test_begin()

    def on_test_begin(self, logs=None):
        for optimizer in self._learned_optimizers():
            optimizer.hold_true_parameters()

    def _learned_optimizers(self):
        """The learned ones of the model's optimizers, each once: a list."""
        # An AlternatingModel has one for each objective.
        usual = [
            getattr(self.model, name, None)
            for name in ("optimizer", "optimizers")
        ]
        # Models with a `train_step` of their own keep them as they like.
        for places in (usual, [*vars(self.model).values()]):
            found = {
                id(each): each for place in places for each in _learned(place)
            }
            if found:
                break
        return list(found.values())


def _learned(value):
    """Yields the learned optimizers that a value is, holds or wraps."""
    if isinstance(value, LearnedOptimizer):
        yield value
    elif isinstance(value, keras.optimizers.Optimizer):
        yield from _learned(getattr(value, "inner_optimizer", None))
        yield from _learned(getattr(value, "optimizers", None))
    elif isinstance(value, dict):
        yield from _learned([*value.values()])
    elif isinstance(value, (list, tuple)):
        for each in value:
            if isinstance(each, keras.optimizers.Optimizer):
                yield from _learned(each)
