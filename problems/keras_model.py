"""Any Keras model and data set as a problem."""

import random

import keras
import numpy as np
import tensorflow as tf

from problems.problem import Problem


class KerasModelProblem(Problem):
    """Trains a Keras model's trainable variables on a data set.

    Fresh starts are drawn by building the model anew, with Keras' default
    seeds derived from the problem's seed. Variables that are not trained
    (say moving averages of batch normalisation) keep their first values, and
    the model runs in training mode throughout.

    Args:
        build_model: function without arguments that returns a new, built
            model.
        data: array [rows, ...], the model's inputs.
        labels: array [rows, ...].
        loss: Keras loss, or its name; of (labels, outputs), averaged over
            examples.
        batch_size: examples in a minibatch.
        noise_stdev: standard deviation of the gradient noise.
    """

    def __init__(
        self, build_model, data, labels, loss, batch_size, noise_stdev=0.0
    ):
        if len(data) != len(labels):
            raise ValueError(
                "There must be a label for every row of data. "
                f"Received: {len(data)} rows, {len(labels)} labels"
            )
        self.build_model = build_model
        self.model = build_model()
        if not self.model.built or not self.model.trainable_variables:
            raise ValueError(
                "`build_model` must return a built model with trainable "
                "variables (give it an Input layer)."
            )
        self.data = np.asarray(data, "float32")
        self.labels = np.asarray(labels)
        self.loss_function = keras.losses.get(loss)
        self.num_examples = len(data)
        self.batch_size = min(batch_size, self.num_examples)
        self.noise_stdev = noise_stdev

    @property
    def shapes(self):
        return [tuple(v.shape) for v in self.model.trainable_variables]

    def constants(self, seed, instances):
        return {
            "data": tf.constant(self.data[None]),
            "labels": tf.constant(self.labels[None]),
        }

    def init(self, seed, instances):
        starts = [
            self._fresh_weights([*map(int, seed.numpy()), i])
            for i in range(instances)
        ]
        return [tf.constant(np.stack(tensors)) for tensors in zip(*starts)]

    def _fresh_weights(self, seed):
        # Keras draws default seeds from Python's generator.
        before = random.getstate()
        random.seed(repr(seed))
        try:
            variables = self.build_model().trainable_variables
        finally:
            random.setstate(before)
        return [np.asarray(v, "float32") for v in variables]

    def loss(self, params, constants, batch=None):
        data, labels = constants["data"][0], constants["labels"][0]

        def one(arguments):
            tensors, rows = arguments
            inputs, wanted = data, labels
            if batch is not None:
                inputs, wanted = tf.gather(data, rows), tf.gather(labels, rows)
            fixed = [v.value for v in self.model.non_trainable_variables]
            outputs, _ = self.model.stateless_call(
                tensors, fixed, inputs, training=True
            )
            return tf.reduce_mean(self.loss_function(wanted, outputs))

        instances = params[0].shape[0]
        rows = tf.zeros((instances, 0), "int32") if batch is None else batch
        return tf.map_fn(
            one, (list(params), rows), fn_output_signature=tf.float32
        )

    def __repr__(self):
        return (
            f"KerasModelProblem({self.model.name}, "
            f"{self.model.count_params()} parameters, batch={self.batch_size})"
        )
