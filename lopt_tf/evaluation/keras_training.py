"""Keras models trained through `compile` and `fit`, as loss curves."""

import functools

import keras
import numpy as np
from keras import layers

import lopt_tf
from lopt_tf.evaluation import curves
from lopt_tf.optimizers import pretrained

BATCH_SIZE = 32
_REPORTED_EPOCHS = (1, 3, 10)
# Optimizers of Keras by name: functions of Keras' arguments.
KERAS = {
    "adam": keras.optimizers.Adam,
    "momentum": functools.partial(keras.optimizers.SGD, momentum=0.9),
    "rmsprop": keras.optimizers.RMSprop,
}


def optimizer_by_name(
    name, learning_rate=None, num_steps=None, decay_share=None
):
    """A Keras optimizer.

    Args:
        name: "adam", "momentum", "rmsprop"; one of these with "_cosine", whose
            learning rate falls to 0 by half a cosine; or a file of trained
            weights, the folder of a meta-training, or the name of shipped
            weights.
        learning_rate: defaults to the optimizer's own (1.0, which multiplies
            the step, if it is a trained one).
        num_steps: of the whole training, for "_cosine" and `decay_share`.
            Defaults to `None`.
        decay_share: of the steps, the last ones, in which the learning rate
            falls as `lopt_tf.LateDecay`. Defaults to `None`: none.

    Raises:
        ValueError: for an unknown name, a damaged file, or two decays.
    """
    base = str(name).removesuffix("_cosine")
    if decay_share:
        if base in KERAS and base != name:
            raise ValueError(f"`decay_share` has no effect with {name}.")
        if learning_rate is None:
            # A learned one is not made for that: it would draw a seed.
            learning_rate = _own_rate(KERAS[base]()) if base in KERAS else 1.0
        learning_rate = lopt_tf.LateDecay(num_steps, learning_rate, decay_share)
    given = {} if learning_rate is None else {"learning_rate": learning_rate}
    if base not in KERAS:
        try:
            return lopt_tf.LearnedOptimizer.from_pretrained(name, **given)
        except pretrained.UnknownNameError as error:
            raise ValueError(
                f"{error} Usual optimizers: {', '.join(KERAS)}, and each with "
                "_cosine."
            ) from error
    optimizer = KERAS[base](**given)
    if base == name:
        return optimizer
    if num_steps is None:
        raise ValueError(f"{name!r} needs the number of steps.")
    schedule = keras.optimizers.schedules.CosineDecay(
        _own_rate(optimizer), num_steps
    )
    return KERAS[base](learning_rate=schedule)


def _own_rate(optimizer):
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def fully_connected(input_shape, hidden, classes):
    """A Keras model of relu layers that returns logits."""
    sizes = [layers.Dense(size, activation="relu") for size in hidden]
    inputs = [layers.Input(input_shape), layers.Flatten()]
    return keras.Sequential([*inputs, *sizes, layers.Dense(classes)])


def train(model, optimizer, train_data, test_data, *, names, seed, epochs):
    """Trains a classifier: a `Curve` of minibatch losses.

    Its metrics are the loss and the accuracy on the test data after 1, 3 and
    10 epochs, and after the last.

    Args:
        model: a Keras model that returns logits.
        optimizer: a Keras optimizer.
        train_data, test_data: (inputs, labels), arrays.
        names: (what the problem, what the optimizer is called).
        seed: what the weights were drawn with, for the curve; the data order
            follows Keras' random state.
        epochs: number of epochs.
    """
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    recorder = _Recorder(test_data)
    rate = _own_rate(optimizer)
    model.fit(
        *train_data,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[lopt_tf.callbacks.TrueParameters(), recorder],
    )
    return curves.Curve(
        *names, rate, seed, np.array(recorder.losses), recorder.metrics
    )


class _Recorder(keras.callbacks.Callback):
    """Each minibatch's loss, and test results after some epochs.

    With `steps_per_execution` above 1 a loss is the mean over the steps of
    one execution: Keras tells callbacks no more.
    """

    def __init__(self, test_data):
        super().__init__()
        self._test_data = test_data
        self.losses = []
        self.metrics = {}

    def on_train_batch_begin(self, batch, logs=None):
        # Otherwise Keras reports the mean since the epoch began.
        for metric in self.model.metrics:
            if metric.name == "loss":
                metric.reset_state()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        is_last = epoch + 1 == self.params["epochs"]
        if not (is_last or epoch + 1 in _REPORTED_EPOCHS):
            return
        loss, accuracy = self.model.evaluate(
            *self._test_data, batch_size=512, verbose=0
        )
        self.metrics[f"test_loss_{epoch + 1}"] = loss
        self.metrics[f"accuracy_{epoch + 1}"] = accuracy
