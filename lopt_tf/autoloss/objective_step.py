"""Updates of one objective: gradient, optimizer, what is measured."""

import typing

import tensorflow as tf


class Measurement(typing.NamedTuple):
    """What an update tells, scalars.

    Attributes:
        loss: before the update.
        magnitude: of its gradient, norm / sqrt(size); 0 if nobody asks.
    """

    loss: tf.Tensor
    magnitude: tf.Tensor

    @classmethod
    def none(cls):
        """Zeros, where nothing was measured."""
        return cls(tf.zeros([]), tf.zeros([]))


class ObjectiveStep:
    """Computes and applies the gradient of one objective.

    Args:
        model: the `AlternatingModel`.
        name: of the objective.
        loss: see `Objective`.
        variables: the list that it updates.
        optimizer: the Keras optimizer.
    """

    def __init__(self, model, name, loss, variables, optimizer):
        self.model = model
        self.name = name
        self.loss = loss
        self.variables = tuple(variables)
        self.optimizer = optimizer

    def update(self, batch, with_magnitude):
        """One update on one replica's batch: a `Measurement`."""
        gradients, found = self._gradients(batch, with_magnitude, True)
        self.optimizer.apply(gradients, list(self.variables))
        return found

    def measure(self, batch, with_magnitude):
        """The `Measurement` without an update."""
        if with_magnitude:
            return self._gradients(batch, True, False)[1]
        return Measurement(self.value(batch, False), tf.zeros([]))

    def value(self, batch, training):
        """The loss of a batch, a scalar; ValueError if it is none."""
        loss = self.loss(self.model, batch, training)
        must = (
            f"The loss of the objective {self.name!r} must be a scalar, such "
            "as keras.ops.mean(...). Received"
        )
        if loss is None or isinstance(loss, (tuple, list, dict)):
            raise ValueError(f"{must}: {loss!r}")
        loss = tf.convert_to_tensor(loss)
        if loss.shape.rank != 0 or not loss.dtype.is_floating:
            raise ValueError(
                f"{must} a tensor of shape {tuple(loss.shape)} and type "
                f"{loss.dtype.name}."
            )
        return tf.cast(loss, tf.float32)

    def _gradients(self, batch, with_magnitude, training):
        values = [variable.value for variable in self.variables]
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = self.value(batch, training)
            # Optimizers sum over replicas.
            scaled = self.optimizer.scale_loss(loss / replicas)
        gradients = tape.gradient(scaled, values)
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                f"The loss of the objective {self.name!r} does not depend on "
                "the variables that it updates."
            )
        magnitude = tf.zeros([])
        if with_magnitude:
            factor = self.optimizer.scale_loss(tf.ones([]))
            magnitude = _magnitude(gradients, values, context) / factor
        return gradients, Measurement(loss, magnitude)


def _magnitude(gradients, values, context):
    """The norm of a gradient, over the square root of its size."""
    found = [
        tf.cast(tf.convert_to_tensor(gradient), tf.float32)
        for gradient in gradients
        if gradient is not None
    ]
    if context.num_replicas_in_sync > 1:
        found = context.all_reduce("sum", found)
    size = sum(value.shape.num_elements() for value in values)
    return tf.linalg.global_norm(found) / size**0.5
