"""Any Keras model and data set as a problem."""

import functools
import hashlib
import numbers
import random
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras.src.losses.losses import LossFunctionWrapper

from lopt_tf.optimizers import layers as layers_lib
from problems.problem import Problem
from problems.specification import describe

# Losses of Keras that can be negative.
_ONE_ARRAY = (
    "`{}` must be one array [rows, ...]: several inputs, sample weights and "
    "tf.data.Dataset are not possible. Received: {}"
)
_SIGNED = ("cosine_similarity", "CosineSimilarity", "poisson", "Poisson")


class KerasModelProblem(Problem):
    """Trains a Keras model's trainable variables on a data set.

    Fresh starts are drawn by building the model anew, with Keras' default
    seeds derived from the problem's seed. Variables that are not trained
    (say moving averages of batch normalisation) keep their first values, and
    the model runs in training mode throughout: what dropout leaves out follows
    from the batch (and from whether XLA compiles it, as meta-training does).
    Losses of regularizers and `add_loss` are added.

    XLA does not compile second derivatives of Keras' recurrent layers and
    attention, nor most preprocessing: meta-train on such models by PES, or
    without second derivatives.

    Args:
        build_model: function without arguments that returns a new, built
            model at each call.
        data: array [rows, ...], the model's inputs, one array.
        labels: array [rows, ...].
        loss: Keras loss, its name, or a function of (labels, outputs),
            averaged over examples as in `fit`.
        batch_size: examples in a minibatch.
        noise_stdev: standard deviation of the gradient noise. Defaults to 0.
        num_scored: the objective without a batch is of that many first rows.
            Defaults to `None`: all rows.
        nonnegative: whether the objective can never be negative, as the
            logarithmic meta-objective needs it. Defaults to `None`: true but
            for Keras' losses of which it is not.

    Raises:
        ValueError: for what cannot be trained on.
    """

    def __init__(
        self,
        build_model,
        data,
        labels,
        loss,
        batch_size,
        noise_stdev=0.0,
        num_scored=None,
        nonnegative=None,
    ):
        _check_arrays(data, labels)
        if len(data) != len(labels):
            raise ValueError(
                "There must be a label for every row of data. "
                f"Received: {len(data)} rows, {len(labels)} labels"
            )
        if loss is None:
            raise ValueError("A problem needs a loss. Received: loss=None")
        _check_count("batch_size", batch_size)
        if num_scored is not None:
            _check_count("num_scored", num_scored)
        self.build_model = build_model
        # What is not trained is the same in every process.
        self.model = self._built([0])
        if not self.model.built or not self.model.trainable_variables:
            raise ValueError(
                "`build_model` must return a built model with trainable "
                "variables (give it an Input layer)."
            )
        # Numbers of words, say, are not rounded.
        self.data = np.asarray(data)
        if self.data.dtype.kind not in "iu":
            self.data = self.data.astype("float32")
        self.labels = np.asarray(labels)
        self.loss_function = keras.losses.get(loss)
        self._loss = self.loss_function
        if not isinstance(self._loss, keras.losses.Loss):
            # As `compile` does: shapes are aligned, what is masked left out.
            self._loss = LossFunctionWrapper(self._loss)
        if nonnegative is None:
            nonnegative = _name(self.loss_function) not in _SIGNED
        self.nonnegative = nonnegative
        self.num_examples = len(data)
        self.batch_size = min(batch_size, self.num_examples)
        self.noise_stdev = noise_stdev
        self.num_scored = num_scored
        # Once: data can be large.
        self._settings = {
            "model": _architecture(self.model),
            "untrained": _digest(self.model.non_trainable_weights),
            "data": describe(self.data),
            "labels": describe(self.labels),
            "loss": _describe_loss(self.loss_function),
        }

    def settings(self):
        return self._settings | {
            "batch_size": self.batch_size,
            "noise_stdev": self.noise_stdev,
            "num_scored": self.num_scored,
        }

    @property
    def shapes(self):
        return [tuple(v.shape) for v in self.model.trainable_variables]

    @property
    def layers(self):
        return self.structure.numbers

    @property
    def roles(self):
        return self.structure.roles

    @property
    def structure(self):
        # As a Keras optimizer tells it: by paths.
        return layers_lib.of_paths(
            [v.path for v in self.model.trainable_variables]
        )

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
        variables = self._built(seed).trainable_variables
        known = {*map(id, self.model.trainable_variables)}
        if known.intersection(map(id, variables)):
            raise ValueError(
                "`build_model` must return a new model at each call, with "
                "weights of its own: all runs would begin alike."
            )
        return [np.asarray(v, "float32") for v in variables]

    def _built(self, seed):
        """A new model; Keras draws default seeds from Python's generator."""
        before = random.getstate()
        random.seed(repr(seed))
        try:
            return self.build_model()
        finally:
            random.setstate(before)

    def loss(self, params, constants, batch=None):
        data, labels = constants["data"][0], constants["labels"][0]

        def one(arguments):
            tensors, rows = arguments
            inputs = data[: self.num_scored]
            wanted = labels[: self.num_scored]
            if batch is not None:
                inputs, wanted = tf.gather(data, rows), tf.gather(labels, rows)
            outputs, added = self._call(tensors, self._fixed(rows), inputs)
            loss = tf.cast(self._loss(wanted, outputs), "float32")
            # Of regularizers, and `add_loss`.
            added = [tf.reduce_sum(tf.cast(x, "float32")) for x in added]
            return tf.add_n([tf.reduce_mean(loss), *added])

        instances = params[0].shape[0]
        rows = tf.zeros((instances, 0), "int32") if batch is None else batch
        return tf.map_fn(
            one, (list(params), rows), fn_output_signature=tf.float32
        )

    def _call(self, trained, fixed, inputs):
        """(outputs, added losses) of the model with these values, as in `fit`.

        Not `stateless_call`, which calls the model without what Keras does
        around a call: layers within would not know that it trains.
        """
        model = self.model
        mapping = [
            *zip(model.trainable_variables, trained),
            *zip(model.non_trainable_variables, fixed),
        ]
        kwargs = {"training": True} if model._call_has_training_arg else {}
        with keras.StatelessScope(mapping, collect_losses=True):
            outputs = model(inputs, **kwargs)
            return outputs, model.losses

    def _fixed(self, rows):
        """Values of what is not trained; dropout's seeds follow the batch.

        So a loss is a function of its arguments, in whatever process.
        """
        rows = tf.cast(rows, "int32")
        odd = 2 * tf.range(tf.size(rows)) + 1
        draw = tf.reduce_sum((rows + 1) * odd) % 2**30
        return [
            tf.cast(tf.stack([draw, number]), v.dtype)
            if v.path.endswith("seed_generator_state")
            else v.value
            for number, v in enumerate(self.model.non_trainable_variables)
        ]


class KerasNetwork(KerasModelProblem):
    """A Keras model as a problem, differentiated one run after the other.

    So the runs need the memory of one, and its backward pass is compiled
    once, whatever the number of runs.
    """

    def value_and_gradients(self, params, constants, batch=None):
        if batch is None:
            return super().value_and_gradients(params, constants)

        def one(arguments):
            tensors, rows = arguments
            single = [tensor[None] for tensor in tensors]
            loss, gradients = KerasModelProblem.value_and_gradients(
                self, single, constants, rows[None]
            )
            return loss[0], [gradient[0] for gradient in gradients]

        signature = (tf.float32, [tf.float32] * len(params))
        return tf.map_fn(
            one, (list(params), batch), fn_output_signature=signature
        )


def _name(loss):
    return getattr(loss, "__name__", type(loss).__name__)


def _architecture(model):
    """The model's class, and a digest of its layers' and weights' settings."""
    with warnings.catch_warnings(action="ignore"):
        try:
            config = model.get_config()
        except NotImplementedError:
            # A subclass of keras.Model need not have one.
            config = {}
    text = describe([config, [(w.shape, w.dtype) for w in model.weights]])
    for i, name in enumerate(dict.fromkeys(_layer_names(config))):
        text = text.replace(f"'{name}'", f"layer {i}")
    return f"{type(model).__name__}:{_digest(text)}"


def _layer_names(config):
    """The names that Keras gives to layers, which depend on earlier layers."""
    if isinstance(config, dict):
        # The name of a data type stands alone.
        if "name" in config and len(config) > 1:
            yield config["name"]
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _layer_names(part)


def _describe_loss(loss):
    if hasattr(loss, "__qualname__") or isinstance(loss, functools.partial):
        return describe(loss)
    settings = dict(vars(loss))
    if not type(loss).__module__.startswith("keras."):
        # Keras numbers the names of a user's own.
        settings.pop("name", None)
    return f"{describe(type(loss))}:{_digest(settings)}"


def _check_count(name, value):
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )


def _check_arrays(data, labels):
    """Raises ValueError for what are no arrays, and for none without rows."""
    for name, given in (("data", data), ("labels", labels)):
        if given is None or isinstance(given, (dict, tf.data.Dataset)):
            raise ValueError(_ONE_ARRAY.format(name, type(given).__name__))
        if not len(given):
            raise ValueError(f"`{name}` must have rows. Received: none")
    is_list = isinstance(data, (list, tuple)) and len(data) != len(labels)
    if is_list and all(np.shape(x)[:1] == (len(labels),) for x in data):
        raise ValueError(_ONE_ARRAY.format("data", type(data).__name__))


def _digest(value):
    return hashlib.sha256(describe(value).encode()).hexdigest()[:12]
