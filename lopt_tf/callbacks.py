"""Keras callbacks for learned optimizers."""

import keras


class TrueParameters(keras.callbacks.Callback):
    """Shows a model's true parameters to validation and checkpoints.

    An optimizer with attention keeps, during training, the point where it
    takes the next gradient in the model's variables. Put this callback
    *first* in fit's list: validation, and callbacks at the end of an epoch
    such as `ModelCheckpoint`, then see the true parameters, and a second
    fit() goes on exactly. For other optimizers it does nothing.
    """

    def on_train_begin(self, logs=None):
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer._validates_true_parameters = True
        self._attend()

    def on_epoch_begin(self, epoch, logs=None):
        self._attend()

    def on_epoch_end(self, epoch, logs=None):
        self._evaluate()

    def on_test_begin(self, logs=None):
        self._evaluate()

    def on_test_end(self, logs=None):
        # Within fit, the epoch ends next, and swaps again if need be.
        pass

    def _optimizer(self):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        known = hasattr(optimizer, "hold_true_parameters")
        return optimizer if known else None

    def _attend(self):
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer.hold_attended_parameters()

    def _evaluate(self):
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer.hold_true_parameters()
