"""RMSProp, Adam and AdamW for the meta-parameters, as pure functions.

`(slots, weights, gradient) -> (slots, weights)` on plain tensors: Keras
optimizers do not run everywhere that meta-training does.
"""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """The published meta-optimizer: decay 0.9, epsilon 1e-20."""

    learning_rate: float
    decay: float = 0.9
    epsilon: float = 1e-20

    def init(self, weights):
        """Slots for weights of this shape."""
        # As in TensorFlow's RMSProp, the mean square starts at 1.
        return {"mean_square": tf.ones_like(weights)}

    def apply(self, slots, weights, gradient):
        """One update."""
        mean_square = (
            self.decay * slots["mean_square"] + (1 - self.decay) * gradient**2
        )
        step = gradient / tf.sqrt(mean_square + self.epsilon)
        slots = {"mean_square": mean_square}
        return slots, weights - self.learning_rate * step


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015)."""

    learning_rate: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def init(self, weights):
        """Slots for weights of this shape."""
        zeros = tf.zeros_like(weights)
        return {"first": zeros, "second": zeros, "step": tf.constant(0.0)}

    def apply(self, slots, weights, gradient):
        """One update."""
        step = slots["step"] + 1
        first = self.beta_1 * slots["first"] + (1 - self.beta_1) * gradient
        second = self.beta_2 * slots["second"] + (1 - self.beta_2) * gradient**2
        direction = (first / (1 - self.beta_1**step)) / (
            tf.sqrt(second / (1 - self.beta_2**step)) + self.epsilon
        )
        slots = {"first": first, "second": second, "step": step}
        return slots, weights - self.learning_rate * direction


@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
    """Adam with a weight decay beside its step (Loshchilov and Hutter, 2019).

    The decay is towards the weights that training begins with, not towards
    zero: those that were given are worth more than zeros, and those that are
    not trained stay where they are.
    """

    weight_decay: float = 0.0

    def init(self, weights):
        """Slots for weights of this shape, which begin with these."""
        return {**super().init(weights), "origin": weights}

    def apply(self, slots, weights, gradient):
        """One update."""
        origin = slots["origin"]
        moved, stepped = super().apply(slots, weights, gradient)
        decay = self.learning_rate * self.weight_decay * (weights - origin)
        return {**moved, "origin": origin}, stepped - decay


OPTIMIZERS = {"rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}


def make(name, learning_rate, weight_decay):
    """A meta-optimizer by name; a weight decay of 0 is none."""
    more = {"weight_decay": weight_decay} if weight_decay else {}
    return OPTIMIZERS[name](learning_rate, **more)


def clean(gradient, clip):
    """Sets non-finite elements to zero and clips the rest."""
    gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
    return tf.clip_by_value(gradient, -clip, clip)
