"""DCGANs as Keras models: a generator and a discriminator of any size."""

import math

import keras
import numpy as np
import tensorflow as tf

from problems.alternating import gan_nets
from problems.alternating.gan_update import DECAY

# Deviation of the initial weights of DCGAN (published).
_DEVIATION = 0.02
INITIAL = ("normal", "he")
# A generator begins with images of at most so many pixels a side.
_SMALLEST = 7


def depth(size):
    """How often images of this size are halved: twice or more, to 7 or less.

    28x28 twice, 32x32 thrice (both published), 64x64 four times.

    Raises:
        ValueError: if the size is not divisible by so many twos.
    """
    times = max(2, math.ceil(math.log2(size / _SMALLEST)))
    if size % 2**times:
        raise ValueError(
            f"Images of {size} pixels a side cannot be halved {times} times. "
            "Resize them: a folder of images by image_size=..., to 28, 32 or "
            "64 for instance."
        )
    return times


def generator(shape, z_dim, width, kernel, batch_norm):
    """From z [batch, z_dim] to images [batch, size, size, channels] in -1..1.

    A dense layer, then transposed convolutions of stride 2: relu, at the end
    tanh. Channels begin with width * 2^(depth - 1) and are halved each time.

    Args:
        shape: size, size and channels of an image.
        z_dim: numbers that an image is made of.
        width: channels before the last layer.
        kernel: height and width of the kernels.
        batch_norm: whether hidden layers are normalised by the batch at hand.
    """
    layers, times = keras.layers, depth(shape[0])
    small, channels = shape[0] // 2**times, width * 2 ** (times - 1)
    options = {"strides": 2, "padding": "same"}

    def hidden():
        norm = [BatchScale()] if batch_norm else []
        return [*norm, layers.ReLU()]

    biased = {"use_bias": not batch_norm}
    stack = [
        keras.Input([z_dim]),
        layers.Dense(small**2 * channels, **biased),
        layers.Reshape([small, small, channels]),
        *hidden(),
    ]
    for _ in range(times - 1):
        channels //= 2
        stack += [
            layers.Conv2DTranspose(channels, kernel, **options, **biased),
            *hidden(),
        ]
    last = layers.Conv2DTranspose(
        shape[2], kernel, activation="tanh", **options
    )
    return keras.Sequential([*stack, last], name="generator")


def discriminator(shape, width, kernel, activation):
    """From images [batch, size, size, channels] to logits [batch, 1].

    Convolutions of stride 2, with width, 2 width, ... channels, and a dense
    layer. Arguments as for `generator`.

    Args:
        activation: of the hidden layers: of `gan_nets.ACTIVATIONS`.
    """
    layers = keras.layers
    function = gan_nets.ACTIVATIONS[activation]
    stack = [keras.Input(shape)]
    for number in range(depth(shape[0])):
        stack.append(
            layers.Conv2D(
                width * 2**number,
                kernel,
                strides=2,
                padding="same",
                activation=function,
            )
        )
    stack += [layers.Flatten(), layers.Dense(1)]
    return keras.Sequential(stack, name="discriminator")


def begin(model, seed, initial):
    """Gives a network its first weights.

    Args:
        model: what `generator` or `discriminator` has made.
        seed: integers, as NumPy takes them.
        initial: "normal" (deviation 0.02, published) or "he": networks that
            are much smaller than the published ones learn nothing from those.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.trainable_variables:
            if len(variable.shape) == 1:
                value = 1.0 if variable.name == "scale" else 0.0
                variable.assign(tf.fill(variable.shape, value))
                continue
            deviation = _DEVIATION
            if initial == "he":
                deviation = math.sqrt(2 / _inputs(layer))
            draw = rng.standard_normal(variable.shape, "float32")
            variable.assign(np.float32(deviation) * draw)


def _inputs(layer):
    """How many numbers each of a layer's outputs is a sum of."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        height, width, _, channels = layer.kernel.shape
        # Of the kernel's places, strides 2 let a quarter meet in each pixel.
        return height * width * channels / 4
    return math.prod(layer.kernel.shape[:-1])


class BatchScale(keras.layers.Layer):
    """Batch normalisation, always by the batch at hand: nothing is averaged."""

    def build(self, shape):
        self.scale = self.add_weight(
            shape=shape[-1:], initializer="ones", name="scale"
        )
        self.offset = self.add_weight(
            shape=shape[-1:], initializer="zeros", name="offset"
        )

    def call(self, inputs):
        axes = list(range(len(inputs.shape) - 1))
        mean, variance = tf.nn.moments(inputs, axes)
        scale = self.scale * tf.math.rsqrt(variance + gan_nets.NORM_EPSILON)
        return (inputs - mean) * scale + self.offset


class Averages(keras.layers.Layer):
    """Moving averages of losses, as variables of a model.

    As in `gan_update`: of the generator's loss and of the discriminator's of
    generated and of real images. They start at the first value; an update of
    the generator has no loss of real images.
    """

    def __init__(self, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.values = self.add_weight(
            shape=[3], initializer="zeros", trainable=False, name="values"
        )
        # 0 before the first value.
        self.known = self.add_weight(
            shape=[3], initializer="zeros", trainable=False, name="known"
        )
        self.built = True

    def take(self, found, of_generator):
        """Takes the losses [3] of an update."""
        mask = tf.constant([1.0, 1.0, 0.0 if of_generator else 1.0])
        decay = tf.where(self.known.value > 0, DECAY, 0.0)
        after = decay * self.values.value + (1 - decay) * found
        after = tf.where(mask > 0, after, self.values.value)
        self.values.assign(after)
        self.known.assign(tf.maximum(self.known.value, mask))
