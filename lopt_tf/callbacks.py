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

    def on_test_begin(self, logs=None):
        for optimizer in self._learned_optimizers():
            optimizer.hold_true_parameters()

    def _learned_optimizers(self):
        """The learned ones of the model's optimizers, each once: a list."""
        # An AlternatingModel has one for each objective.
        several = getattr(self.model, "optimizers", None)
        optimizers = several.values() if several else [self.model.optimizer]
        found = {}
        for optimizer in optimizers:
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            if isinstance(optimizer, LearnedOptimizer):
                found[id(optimizer)] = optimizer
        return list(found.values())
