"""A small DCGAN as matrix products: a generator and a discriminator.

A strided convolution is slow under XLA on CPUs, above all its gradient. For
small images the matrix that a kernel stands for is small: it is the product of
a constant, which tells the pixels that each of the kernel's places joins, and
the kernel.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

_KERNEL, NORM_EPSILON = 4, 1e-5
# Of the discriminator's hidden layers; the first is published.
ACTIVATIONS = {
    "leaky_relu": functools.partial(tf.nn.leaky_relu, alpha=0.2),
    "relu": tf.nn.relu,
    "elu": tf.nn.elu,
    "tanh": tf.tanh,
}


@dataclasses.dataclass(frozen=True)
class Nets:
    """Two networks for square images of one channel, after DCGAN.

    The generator has a dense layer and two transposed convolutions (relu, tanh
    at the end), the discriminator two convolutions and a dense
    layer; kernels are 4x4, strides 2. Initial weights are He's: with
    DCGAN's (deviation 0.02) networks this small do not learn.

    The parameters of a network are one vector, so that an optimizer takes few
    operations.

    Args:
        size: height and width of the images, a multiple of 4.
        z_dim: numbers that the generator makes an image of.
        width: channels of the discriminator's first layer; twice as many in
            its second. The generator mirrors it.
        batch_norm: whether the generator's hidden layers are normalised by
            the batch, always by that at hand.
        activation: of the discriminator's hidden layers, see `ACTIVATIONS`.
            Defaults to "leaky_relu".
    """

    size: int
    z_dim: int
    width: int
    batch_norm: bool
    activation: str = "leaky_relu"

    @property
    def generator_shapes(self):
        """Shapes of the generator's arrays, in their order."""
        places, norm = (self.size // 4) ** 2, self.batch_norm
        inner, outer = 2 * self.width, self.width
        return [
            *((self.z_dim, places * inner), (inner,)),
            *(((inner,),) if norm else ()),
            *((_KERNEL**2, inner, outer), (outer,)),
            *(((outer,),) if norm else ()),
            *((_KERNEL**2, outer, 1), (1,)),
        ]

    @property
    def discriminator_shapes(self):
        """Shapes of the discriminator's arrays, in their order."""
        outer, inner = self.width, 2 * self.width
        return [
            *((_KERNEL**2, 1, outer), (outer,)),
            *((_KERNEL**2, outer, inner), (inner,)),
            *(((self.size // 4) ** 2 * inner, 1), (1,)),
        ]

    def initial(self, seed):
        """Vectors of a generator and a discriminator, from a seed."""
        rng = np.random.default_rng(seed)
        # Of the kernel's places, strides 2 let a quarter meet in each pixel.
        generator = _initial(rng, self.generator_shapes, 4)
        return generator, _initial(rng, self.discriminator_shapes, 16)

    def generate(self, vector, z):
        """Images [batch, pixels] in -1..1 of z [batch, z_dim]."""
        arrays = iter(_split(vector, self.generator_shapes))
        values = z @ next(arrays)
        values = self._hidden(values, 2 * self.width, arrays)
        small, large = self.size // 4, self.size // 2
        values = values @ _matrix(_joins(small), next(arrays))
        values = self._hidden(values, self.width, arrays)
        values = values @ _matrix(_joins(large), next(arrays))
        return tf.tanh(values + next(arrays))

    def _hidden(self, values, channels, arrays):
        """Bias, normalisation, relu of a layer [batch, places * channels]."""
        shape = tf.shape(values)
        values = tf.reshape(values, [shape[0], -1, channels])
        bias = next(arrays)
        if self.batch_norm:
            mean, variance = tf.nn.moments(values, [0, 1])
            scale = next(arrays) * tf.math.rsqrt(variance + NORM_EPSILON)
            values = (values - mean) * scale
        return tf.reshape(tf.nn.relu(values + bias), shape)

    def discriminate(self, vector, images):
        """Logits [batch] of whether images [batch, pixels] are real."""
        arrays = iter(_split(vector, self.discriminator_shapes))
        values = images
        for size in (self.size // 2, self.size // 4):
            joins = np.swapaxes(_joins(size), 0, 1)
            kernel, bias = next(arrays), next(arrays)
            values = values @ _matrix(joins, kernel)
            values = values + tf.tile(bias, [size**2])
            values = ACTIVATIONS[self.activation](values)
        return (values @ next(arrays) + next(arrays))[:, 0]


def length(shapes):
    """How many numbers arrays of these shapes have."""
    return sum(math.prod(shape) for shape in shapes)


def _initial(rng, shapes, places):
    parts = []
    for shape in shapes:
        if len(shape) == 3:
            # A kernel [places, in, out].
            scale = math.sqrt(2 / (places * shape[1]))
            parts.append(scale * rng.normal(size=shape))
        elif len(shape) == 2:
            parts.append(math.sqrt(2 / shape[0]) * rng.normal(size=shape))
        else:
            parts.append(np.zeros(shape))
    # Of two vectors in a row the second scales a normalised layer.
    for i in range(1, len(shapes)):
        if len(shapes[i]) == len(shapes[i - 1]) == 1:
            parts[i] = np.ones(shapes[i])
    return np.concatenate([p.ravel() for p in parts]).astype("float32")


def _split(vector, shapes):
    parts = tf.split(vector, [math.prod(shape) for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]


@functools.cache
def _joins(size):
    """What a 4x4 kernel with stride 2 joins: zeros and ones.

    Returns:
        [size^2, (2 size)^2, 16]: pixel of the small image, of the large one,
        place in the kernel.
    """
    line = np.zeros([size, 2 * size, _KERNEL], "float32")
    for small in range(size):
        for place in range(_KERNEL):
            large = 2 * small - 1 + place
            if 0 <= large < 2 * size:
                line[small, large, place] = 1
    joins = np.einsum("abk,cdl->acbdkl", line, line)
    return joins.reshape(size**2, (2 * size) ** 2, _KERNEL**2)


def _matrix(joins, kernel):
    """The matrix [pixels * in, pixels * out] of a kernel [16, in, out]."""
    inputs, outputs, places = joins.shape
    _, one, two = kernel.shape
    flat = joins.reshape(-1, places) @ tf.reshape(kernel, [places, one * two])
    whole = tf.reshape(flat, [inputs, outputs, one, two])
    whole = tf.transpose(whole, [0, 2, 1, 3])
    return tf.reshape(whole, [inputs * one, outputs * two])
