"""Seconds of a train step of a fully connected net, optimizers in turn."""

import time

import keras
import numpy as np

from lopt_tf.evaluation import keras_training

INPUTS, CLASSES = 784, 10


def step_times(optimizers, hidden, batch, repetitions, steps, seed=0):
    """Seconds of a train step with each optimizer, forward and backward pass.

    The optimizers take turns, so that a busy machine slows all of them.

    Args:
        optimizers: {name: Keras optimizer}.
        hidden: sizes of the hidden layers, between 784 inputs and 10 classes.
        batch: examples in a minibatch.
        repetitions: timings of each optimizer.
        steps: in one timing.
        seed: of the data. Defaults to 0.

    Returns:
        {name: array [repetitions]}.
    """
    rng = np.random.default_rng(seed)
    images = rng.random((batch, INPUTS), "float32")
    labels = rng.integers(CLASSES, size=batch)
    models = {name: _model(hidden, o) for name, o in optimizers.items()}
    return alternating(models, images, labels, repetitions, steps)


def alternating(models, images, labels, repetitions, steps):
    """Seconds of a train step of compiled models in turn: {name: array}.

    Args:
        models: {name: compiled Keras model}.
        images, labels: one minibatch.
        repetitions: timings of each model.
        steps: in one timing.
    """
    seconds = {name: [] for name in models}
    for _ in range(repetitions + 1):
        for name, model in models.items():
            began = time.perf_counter()
            for _ in range(steps):
                model.train_on_batch(images, labels)
            seconds[name].append((time.perf_counter() - began) / steps)
    # The first time is compilation.
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def _model(hidden, optimizer):
    model = keras_training.fully_connected((INPUTS,), hidden, CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model
