"""Networks as users build them, with usual starts, norms and weight decay.

All work on many instances at once, and have derivatives of any order: Keras
models as problems run one instance after the other, and XLA does not compile
the second derivatives of Keras' recurrent layers. The batch statistics of a
norm are those of the rows at hand.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import tensorflow as tf

from lopt_tf.optimizers.layers import ROLES
from problems.classifiers import Classifier
from problems.convnet import convolve, halved
from problems.problem import Problem
from problems.specification import specified

_VARIANCE_EPSILON = 1e-3
_EMBEDDING_STDEV = 0.02


class Tensor(NamedTuple):
    """A parameter tensor: its shape, and "weights" or how else it starts.

    Attributes:
        shape: tuple.
        kind: "weights", "attention" (weights of it), "embedding", "zeros" or
            "ones".
    """

    shape: tuple
    kind: str = "weights"


class Network(Classifier):
    """A classifier that says of each of its tensors how it starts.

    Subclasses have `tensors`, a list of `Tensor`; their `logits` take the
    parameters in that order. Labels may be one for each row, or for each
    place of a row.

    Args:
        num_classes, dataset, batch_size, num_scored: as in `Classifier`.
        start: standard deviation of the starting weights, as a number or as
            a rule: "glorot" (2 / (fan in + fan out)) or "he" (2 / fan in) of
            the variance. Biases start at 0, gains at 1, embeddings from
            N(0, 0.02^2). Defaults to "glorot".
        weight_decay: the L2 term is so much times the sum of squares of
            weights and embeddings. Defaults to 0.
    """

    use_softmax = True
    start = "glorot"
    weight_decay = 0.0

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.start, str) and self.start not in ("glorot", "he"):
            raise ValueError(
                'A start is a standard deviation, "glorot" or "he". '
                f"Received: start={self.start!r}"
            )

    @property
    def tensors(self):
        raise NotImplementedError

    @property
    def shapes(self):
        return [tensor.shape for tensor in self.tensors]

    @property
    def layers(self):
        """See `Problem.layers`: norms are layers, too, as Keras has them."""
        begins = (len(t.shape) > 1 or t.kind == "ones" for t in self.tensors)
        return tuple(itertools.accumulate(map(int, begins)))

    @property
    def roles(self):
        kinds = (tensor.kind for tensor in self.tensors)
        return tuple(kind if kind in ROLES else "" for kind in kinds)

    def init(self, seed, instances):
        normal = Problem.init(self, seed, instances)
        return [self._started(*pair) for pair in zip(self.tensors, normal)]

    def _started(self, tensor, normal):
        if tensor.kind == "zeros":
            return tf.zeros_like(normal)
        if tensor.kind == "ones":
            return tf.ones_like(normal)
        if tensor.kind == "embedding":
            return _EMBEDDING_STDEV * normal
        return self._stdev(tensor.shape) * normal

    def _stdev(self, shape):
        """Standard deviation of weights [..., in, out] at the start."""
        if not isinstance(self.start, str):
            return self.start
        *places, fan_in, fan_out = shape
        fans = fan_in if self.start == "he" else fan_in + fan_out
        return (2 / (fans * math.prod(places))) ** 0.5

    def decay(self, params):
        decayed = [
            tf.reduce_sum(tf.square(p), axis=list(range(1, p.shape.rank)))
            for tensor, p in zip(self.tensors, params)
            if tensor.kind in ("weights", "attention", "embedding")
        ]
        return self.weight_decay * tf.add_n(decayed)


@specified
class PlainNet(Network):
    """Fully connected layers, each with batch normalisation if wanted.

    Args:
        num_features: input size.
        num_classes, dataset, batch_size, start, weight_decay, num_scored: as
            in `Network`.
        hidden_sizes: sizes of the hidden layers.
        activation: "sigmoid", "relu" or "tanh". Defaults to "relu".
        use_batch_norm: before each activation. Defaults to `False`.
    """

    num_features: int
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    hidden_sizes: tuple = dataclasses.field()
    activation: str = "relu"
    start: str | float = "glorot"
    weight_decay: float = 0.0
    use_batch_norm: bool = False
    num_scored: int | None = None

    @property
    def tensors(self):
        tensors, size = [], self.num_features
        for width in self.hidden_sizes:
            tensors += _layer((size, width), self.use_batch_norm)
            size = width
        return [*tensors, *_layer((size, self.num_classes))]

    def logits(self, params, data):
        params, hidden = iter(params), data
        for _ in self.hidden_sizes:
            hidden = product(hidden, next(params))
            if self.use_batch_norm:
                hidden = batch_normed(hidden, next(params))
            hidden = self.activate(add(hidden, next(params)))
        return add(product(hidden, next(params)), next(params))


@specified
class ResidualMLP(Network):
    """A layer, blocks that add to their input what two layers make of it, one.

    A block is x + W2 relu(W1 x + b1) + b2, of its normed input if wanted.

    Args:
        num_features: input size.
        num_classes, dataset, batch_size, start, weight_decay, num_scored: as
            in `Network`.
        size: of all hidden layers.
        blocks: how many.
        use_layer_norm: at the beginning of each block. Defaults to `False`.
    """

    num_features: int
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    size: int = dataclasses.field()
    blocks: int = dataclasses.field()
    start: str | float = "glorot"
    weight_decay: float = 0.0
    use_layer_norm: bool = False
    num_scored: int | None = None

    @property
    def tensors(self):
        square = (self.size, self.size)
        norm = _norm(self.size) if self.use_layer_norm else []
        return [
            *_layer((self.num_features, self.size)),
            *([*norm, *_layer(square), *_layer(square)] * self.blocks),
            *_layer((self.size, self.num_classes)),
        ]

    def logits(self, params, data):
        params = iter(params)

        def dense(values):
            return add(product(values, next(params)), next(params))

        values = dense(data)
        for _ in range(self.blocks):
            branch = values
            if self.use_layer_norm:
                branch = add(layer_normed(values, next(params)), next(params))
            values += dense(tf.nn.relu(dense(branch)))
        return dense(values)


@specified
class PooledConvNet(Network):
    """3x3 convolutions, each followed by 2x2 means, and a linear layer.

    Args:
        image_shape: (height, width, channels), the first two divisible by 2
            for each convolution; rows of data are flat images.
        num_classes, dataset, batch_size, start, weight_decay, num_scored: as
            in `Network`.
        channels: of each convolution.
        activation: as in `PlainNet`. Defaults to "relu".
        use_batch_norm: before each activation. Defaults to `False`.
    """

    image_shape: tuple
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    channels: tuple = dataclasses.field()
    activation: str = "relu"
    start: str | float = "glorot"
    weight_decay: float = 0.0
    use_batch_norm: bool = False
    num_scored: int | None = None

    @property
    def tensors(self):
        height, width, size = self.image_shape
        tensors = []
        for channels in self.channels:
            tensors += _layer((3, 3, size, channels), self.use_batch_norm)
            size, height, width = channels, height // 2, width // 2
        flat = height * width * size
        return [*tensors, *_layer((flat, self.num_classes))]

    def logits(self, params, data):
        params = iter(params)
        images = tf.reshape(data, (*data.shape[:2], *self.image_shape))
        for _ in self.channels:
            images = convolve(images, next(params))
            if self.use_batch_norm:
                images = batch_normed(images, next(params))
            images = halved(self.activate(add(images, next(params))))
        hidden = tf.reshape(images, (*images.shape[:2], -1))
        return add(product(hidden, next(params)), next(params))


@specified
class RecurrentNet(Network):
    """A GRU over tokens that predicts the class of each place.

    Args:
        num_classes: as in `Network`, and how many tokens there are; rows of
            data hold their numbers.
        dataset, batch_size, start, weight_decay, num_scored: as in `Network`.
        embedding_size: of each token.
        units: of the GRU.
    """

    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    embedding_size: int = dataclasses.field()
    units: int = dataclasses.field()
    start: str | float = "glorot"
    weight_decay: float = 0.0
    num_scored: int | None = None

    @property
    def tensors(self):
        return [
            Tensor((self.num_classes, self.embedding_size), "embedding"),
            *_layer((self.embedding_size, 3 * self.units)),
            Tensor((self.units, 3 * self.units)),
            *_layer((self.units, self.num_classes)),
        ]

    def logits(self, params, data):
        embedding, inputs, bias, recurrent, *last = params
        given = add(product(self._embedded(embedding, data), inputs), bias)
        outputs = []
        hidden = tf.zeros((*given.shape[:2], self.units))
        for place in range(data.shape[2]):
            # The reset gate acts after the product, as in Keras' GRU.
            parts = tf.split(given[:, :, place], 3, axis=-1)
            back = tf.split(product(hidden, recurrent), 3, axis=-1)
            update = tf.sigmoid(parts[0] + back[0])
            reset = tf.sigmoid(parts[1] + back[1])
            candidate = tf.tanh(parts[2] + reset * back[2])
            hidden = update * hidden + (1 - update) * candidate
            outputs.append(hidden)
        return add(product(tf.stack(outputs, axis=2), last[0]), last[1])

    def _embedded(self, embedding, data):
        """Vectors [K, rows, places, size] of tokens [K or 1, rows, places]."""
        one_hot = tf.one_hot(tf.cast(data, "int32"), self.num_classes)
        return product(one_hot, embedding)


@specified
class AttentionNet(Network):
    """One causal attention block that predicts the class of each place.

    Norm, attention, norm, two layers (of four times the size between them),
    each pair added to its input; then a norm and a linear layer.

    Args:
        num_places: length of the rows of data.
        num_classes: as in `Network`, and how many tokens there are; rows of
            data hold their numbers.
        dataset, batch_size, start, weight_decay, num_scored: as in `Network`.
        size: of the vector of each place.
        heads: of the attention; a divisor of `size`.
    """

    num_places: int
    num_classes: int
    dataset: object
    batch_size: int = dataclasses.field()
    size: int = dataclasses.field()
    heads: int = dataclasses.field()
    start: str | float = "glorot"
    weight_decay: float = 0.0
    num_scored: int | None = None

    @property
    def tensors(self):
        size = self.size
        norm = _norm(size)
        return [
            Tensor((self.num_classes, size), "embedding"),
            Tensor((self.num_places, size), "embedding"),
            *norm,
            *_layer((size, 3 * size), kind="attention"),
            *_layer((size, size), kind="attention"),
            *norm,
            *_layer((size, 4 * size)),
            *_layer((4 * size, size)),
            *norm,
            *_layer((size, self.num_classes)),
        ]

    def logits(self, params, data):
        params = iter(params)

        def dense(values):
            return add(product(values, next(params)), next(params))

        def norm(values):
            return add(layer_normed(values, next(params)), next(params))

        one_hot = tf.one_hot(tf.cast(data, "int32"), self.num_classes)
        values = product(one_hot, next(params)) + next(params)[:, None]
        values += dense(self._attended(dense(norm(values))))
        values += dense(tf.nn.relu(dense(norm(values))))
        return dense(norm(values))

    def _attended(self, values):
        """Causal attention of queries, keys and values [K, rows, T, 3 size]."""
        *outer, places, _ = values.shape
        depth = self.size // self.heads
        split = tf.reshape(values, (*outer, places, 3, self.heads, depth))
        query, key, value = tf.unstack(split, axis=3)
        scores = tf.einsum("krihd,krjhd->krhij", query, key) / depth**0.5
        is_past = tf.linalg.band_part(tf.ones((places, places), "bool"), -1, 0)
        shares = tf.nn.softmax(tf.where(is_past, scores, -1e9))
        mixed = tf.einsum("krhij,krjhd->krihd", shares, value)
        return tf.reshape(mixed, (*outer, places, self.size))


# Layers, on values [K or 1, rows, ..., size] with parameters [K, ...].


def product(values, matrix):
    """Values times a matrix [K, size, new size]."""
    *middle, size = values.shape[1:]
    flat = tf.reshape(values, (values.shape[0], -1, size))
    new = tf.matmul(flat, matrix)
    return tf.reshape(new, (new.shape[0], *middle, new.shape[-1]))


def add(values, bias):
    """Values plus a bias [K, size]."""
    return values + _for_all_places(bias, values)


def batch_normed(values, gain):
    """Values, normed over everything but instances and features."""
    return normed(values, range(1, values.shape.rank - 1), gain)


def layer_normed(values, gain):
    """Values, normed over their features."""
    return normed(values, (-1,), gain)


def normed(values, axes, gain):
    """Values with mean 0 and variance 1 over some axes, times a gain."""
    # Not `tf.nn.moments`: its second derivatives leave the mean out.
    axes = list(axes)
    centred = values - tf.reduce_mean(values, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
    scale = tf.math.rsqrt(variance + _VARIANCE_EPSILON)
    return centred * scale * _for_all_places(gain, values)


def _for_all_places(vector, values):
    """A vector [K, size] with as many axes as values have."""
    ones = (1,) * (values.shape.rank - 2)
    return tf.reshape(vector, (vector.shape[0], *ones, vector.shape[-1]))


def _layer(shape, is_normed=False, kind="weights"):
    """The tensors of a layer: weights, perhaps a gain, a bias."""
    width = shape[-1:]
    gain = [Tensor(width, "ones")] if is_normed else []
    return [Tensor(shape, kind), *gain, Tensor(width, "zeros")]


def _norm(size):
    """The tensors of a layer's norm: a gain, a bias."""
    return [Tensor((size,), "ones"), Tensor((size,), "zeros")]
