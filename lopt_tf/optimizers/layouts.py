"""Layouts: how the elements of many tensors lie side by side.

A rule computes with packed elements, arrays [..., features, n], and with values
of tensors, [..., features, T]. Only its layout knows how elements are stored;
of a large model they are a tuple of arrays, which `each` and `map` go through.
"""

import functools
import math

import numpy as np
from keras import ops

from lopt_tf.optimizers import backends

# Up to this many multiplications for a product with the [tensors, elements]
# membership matrix, one flat array is faster than blocks.
_FLAT_LIMIT = 1_000_000
_BLOCK_SIZES = (4096, 2048, 1024, 512, 256, 128)
_PADDING_LIMIT = 0.25
# While a step runs, each core has one shard beside those that are stored. More
# shards are less memory, but each takes a while to be traced and loaded.
_MOST_SHARDS = 64
_SMALLEST_SHARD = 8


def choose_layout(tensors, batch_dims=0, present=None):
    """Returns the layout for tensors with `batch_dims` leading axes.

    Args:
        tensors: list of tensors.
        batch_dims: the number of leading axes that all of them carry.
            Defaults to `0`.
        present: tuple of the indices of tensors that count in means over the
            problem; None for all. Defaults to `None`.
    """
    shapes = tuple(tuple(t.shape[batch_dims:]) for t in tensors)
    return _layout_for_shapes(shapes, batch_dims > 0, present)


def is_sharded(tensors):
    """Whether tensors without leading axes are a large model's."""
    return isinstance(choose_layout(tensors), ShardedLayout)


@functools.cache
def _layout_for_shapes(shapes, batched, present):
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(sizes)
    if total * len(sizes) <= _FLAT_LIMIT:
        return FlatLayout(shapes, present)
    for block_size in _BLOCK_SIZES:
        padded = sum(-(-size // block_size) * block_size for size in sizes)
        if padded <= (1 + _PADDING_LIMIT) * total:
            break
    kind = BlockLayout if batched else ShardedLayout
    return kind(shapes, block_size, present)


class _Layout:
    """What all layouts share. `shapes` are without leading axes."""

    def __init__(self, shapes, present):
        self.shapes = shapes
        self.sizes = [math.prod(shape) for shape in shapes]
        self.num_elements = sum(self.sizes)
        counted = range(len(shapes)) if present is None else present
        self.counts = np.zeros(len(shapes), "float32")
        self.counts[list(counted)] = 1

    def problem_mean(self, tensor_means):
        """Means over tensors [..., T] -> that over all elements, [..., 1]."""
        sizes = self.counts * np.array(self.sizes, "float32")
        return _weighted_mean(tensor_means, sizes)

    def tensor_mean(self, values):
        """Values of tensors [..., T] -> their plain mean, [..., 1]."""
        if self.counts.all():
            return ops.mean(values, axis=-1, keepdims=True)
        return _weighted_mean(values, self.counts)

    def each(self, function, *elements):
        """Applies an element-wise function to packed elements."""
        return function(*elements)

    def is_packed(self, array):
        """Whether an array of a state holds elements."""
        return array.shape[-1] == self.num_elements

    def map(self, function, shared, elements, per_tensor):
        """Applies an element-wise function, and averages some of its results.

        Args:
            function: a method of a rule: maps (shared, dict of element
                arrays, dict of what each element sees of its tensor) to (dict
                of element arrays, dict of element arrays to average over each
                tensor).
            shared: structure of arrays that all elements see.
            elements: dict of packed elements.
            per_tensor: dict of arrays [..., features, T] that the elements
                see.

        Returns:
            (dict of packed elements, dict of means [..., features, T]).
        """
        raise NotImplementedError


class FlatLayout(_Layout):
    """All elements side by side: arrays [..., features, N].

    Per-tensor means and their spreading back to elements are small matrix
    products.
    """

    def __init__(self, shapes, present=None):
        super().__init__(shapes, present)
        self.membership = np.repeat(
            np.eye(len(shapes), dtype="float32"), self.sizes, axis=1
        )
        counts = np.maximum(np.array(self.sizes, "float32"), 1)
        self.averaging = (self.membership / counts[:, None]).T.copy()

    def pack(self, tensors):
        """Tensors -> elements [..., 1, N]."""
        batch = _batch_shape(tensors[0], self.shapes[0])
        flat = [
            ops.reshape(t, (*batch, 1, size))
            for t, size in zip(tensors, self.sizes)
        ]
        return ops.concatenate(flat, axis=-1) if len(flat) > 1 else flat[0]

    def unpack(self, elements):
        """Elements [..., 1, N] -> tensors."""
        batch = tuple(elements.shape[:-2])
        tensors, start = [], 0
        for shape, size in zip(self.shapes, self.sizes):
            part = elements[..., start : start + size]
            tensors.append(ops.reshape(part, batch + shape))
            start += size
        return tensors

    def fill(self, column):
        """One column [..., features, 1] for every element."""
        batch = tuple(column.shape[:-1])
        return ops.broadcast_to(column, (*batch, self.num_elements))

    def mean(self, elements):
        """Per-tensor means [..., features, T]."""
        return ops.matmul(elements, _constant(self.averaging, elements))

    def spread(self, values):
        """Per-tensor values [..., features, T] at every element."""
        return ops.matmul(values, _constant(self.membership, values))

    def map(self, function, shared, elements, per_tensor):
        seen = _at_once(self.spread, per_tensor)
        new, averaged = function(shared, elements, seen)
        return new, _at_once(self.mean, averaged)


class BlockLayout(_Layout):
    """Every tensor in blocks of one size: arrays [C, ..., features, B].

    A block belongs to one tensor and its end is padded. `map` goes through
    the blocks one after the other, so that a block's many intermediate
    results stay in the processor's cache.
    """

    def __init__(self, shapes, block_size, present=None):
        super().__init__(shapes, present)
        self.block_size = block_size
        self.blocks = [-(-size // block_size) for size in self.sizes]
        self.num_blocks = sum(self.blocks)
        self.owner = np.repeat(np.arange(len(shapes)), self.blocks)
        # The elements that each block really holds.
        self.filled = np.full(self.num_blocks, block_size, "float32")
        ends = np.cumsum(self.blocks)
        for end, size, count in zip(ends, self.sizes, self.blocks):
            if count:
                self.filled[end - 1] = size - (count - 1) * block_size
        membership = self.owner == np.arange(len(shapes))[:, None]
        counts = np.maximum(np.array(self.sizes, "float32"), 1)
        self.averaging = (membership / counts[:, None]).T.astype("float32")

    def pack(self, tensors):
        """Tensors -> elements [C, ..., 1, B]."""
        parts = []
        for tensor, shape, size, blocks in zip(
            tensors, self.shapes, self.sizes, self.blocks
        ):
            batch = _batch_shape(tensor, shape)
            flat = ops.reshape(tensor, (*batch, size))
            padding = blocks * self.block_size - size
            if padding:
                widths = [(0, 0)] * len(batch) + [(0, padding)]
                flat = ops.pad(flat, widths)
            flat = ops.reshape(flat, (*batch, blocks, self.block_size))
            parts.append(ops.expand_dims(ops.moveaxis(flat, -2, 0), -2))
        return ops.concatenate(parts, axis=0)

    def unpack(self, elements):
        """Elements [C, ..., 1, B] -> tensors."""
        batch = tuple(elements.shape[1:-2])
        tensors, first = [], 0
        for shape, size, blocks in zip(self.shapes, self.sizes, self.blocks):
            part = ops.squeeze(elements[first : first + blocks], -2)
            flat = ops.reshape(ops.moveaxis(part, 0, -2), (*batch, -1))
            tensors.append(ops.reshape(flat[..., :size], batch + shape))
            first += blocks
        return tensors

    def fill(self, column):
        """One column [..., features, 1] for every element."""
        shape = (self.num_blocks, *column.shape[:-1], self.block_size)
        return ops.broadcast_to(column, shape)

    def spread(self, values):
        """Per-tensor values [..., features, T], as [C, ..., features, 1]."""
        values = ops.take(values, self.owner, axis=-1)
        return ops.expand_dims(ops.moveaxis(values, -1, 0), -1)

    def is_packed(self, array):
        return array.shape[0] == self.num_blocks and len(array.shape) > 2

    def map(self, function, shared, elements, per_tensor):
        filled = _constant(self.filled, next(iter(elements.values())))
        seen = _at_once(self.spread, per_tensor)
        new, sums = ops.map(
            lambda block: _block_step(function, shared, *block),
            (elements, seen, filled),
        )
        return new, _at_once(self._combine, sums)

    def _combine(self, sums):
        """Block sums [C, ..., features, 1] -> tensor means."""
        sums = ops.moveaxis(ops.squeeze(sums, -1), 0, -1)
        return ops.matmul(sums, _constant(self.averaging, sums))


class ShardedLayout(BlockLayout):
    """The blocks of a large model in shards: tuples of [S, features, B].

    All shards have one shape, whatever the model's: one program computes a
    shard, several shards run side by side, and beside what is stored there
    are only those. Tensors have no leading axes.
    """

    def __init__(self, shapes, block_size, present=None):
        super().__init__(shapes, block_size, present)
        size = _SMALLEST_SHARD
        while size * _MOST_SHARDS < self.num_blocks:
            size *= 2
        self.shard_size = size
        self.num_shards = -(-self.num_blocks // size)
        # Blocks that fill up the last shard belong to the last tensor.
        padding = self.num_shards * size - self.num_blocks
        self.owner = np.pad(self.owner, (0, padding), mode="edge")
        self.filled = np.pad(self.filled, (0, padding))
        self.averaging = np.pad(self.averaging, ((0, padding), (0, 0)))
        self._pieces = self._cut()

    def _cut(self):
        """For each shard its pieces: (tensor, first and last element)."""
        shard_elements = self.shard_size * self.block_size
        pieces = [[] for _ in range(self.num_shards)]
        place = 0
        for tensor, size in enumerate(self.sizes):
            first = 0
            while first < size:
                room = shard_elements - place % shard_elements
                last = min(size, first + room)
                pieces[place // shard_elements].append((tensor, first, last))
                # Whole blocks, so that the tensor's padding is counted.
                place += -(-(last - first) // self.block_size) * self.block_size
                first = last
        return pieces

    def pack(self, tensors):
        """Tensors -> elements, a tuple of [S, 1, B]."""
        flat = [ops.reshape(tensor, (-1,)) for tensor in tensors]
        return tuple(self._shard(flat, pieces) for pieces in self._pieces)

    def _shard(self, flat, pieces):
        parts, missing = [], self.shard_size * self.block_size
        for tensor, first, last in pieces:
            part = flat[tensor]
            if last - first < self.sizes[tensor]:
                part = part[first:last]
            padding = -(last - first) % self.block_size
            parts += [part] + [ops.zeros(padding, part.dtype)] * (padding > 0)
            missing -= last - first + padding
        if missing:
            parts.append(ops.zeros(missing, parts[0].dtype))
        shape = (self.shard_size, 1, self.block_size)
        return ops.reshape(ops.concatenate(parts), shape)

    def unpack(self, elements):
        """Elements, a tuple of [S, 1, B] -> tensors."""
        parts = [[] for _ in self.shapes]
        for shard, pieces in zip(elements, self._pieces):
            flat, place = ops.reshape(shard, (-1,)), 0
            for tensor, first, last in pieces:
                parts[tensor].append(flat[place : place + last - first])
                place += -(-(last - first) // self.block_size) * self.block_size
        none = [ops.zeros(0, elements[0].dtype)]
        return [
            ops.reshape(ops.concatenate(own or none), shape)
            for own, shape in zip(parts, self.shapes)
        ]

    def fill(self, column):
        """One column [features, 1] for every element."""
        shape = (self.shard_size, *column.shape[:-1], self.block_size)
        return tuple(
            ops.broadcast_to(column, shape) for _ in range(self.num_shards)
        )

    def spread(self, values):
        """Per-tensor values [features, T], as a tuple of [S, features, 1]."""
        return tuple(self._split(super().spread(values)))

    def _split(self, blocks):
        """Arrays of all blocks -> a list of those of each shard."""
        size = self.shard_size
        firsts = range(0, self.num_shards * size, size)
        return [blocks[first : first + size] for first in firsts]

    def each(self, function, *elements):
        return tuple(function(*shards) for shards in zip(*elements))

    def is_packed(self, array):
        return isinstance(array, (tuple, list))

    def map(self, function, shared, elements, per_tensor):
        names = list(elements)
        shards = [dict(zip(names, s)) for s in zip(*elements.values())]
        spread = _at_once(super().spread, per_tensor)
        spread = {n: self._split(values) for n, values in spread.items()}
        seen = [
            {n: values[i] for n, values in spread.items()}
            for i in range(self.num_shards)
        ]
        filled = self.filled.reshape(self.num_shards, self.shard_size, 1, 1)
        like = elements[names[0]][0]
        filled = [_constant(part, like) for part in filled]
        results = backends.map_shards(
            shard_step, function, shared, list(zip(shards, seen, filled))
        )
        new = {n: tuple(r[0][n] for r in results) for n in results[0][0]}
        sums = {
            n: ops.concatenate([r[1][n] for r in results])
            for n in results[0][1]
        }
        return new, _at_once(self._combine, sums)


def shard_step(function, shared, shard):
    """`_block_step` of a shard's blocks; on CPUs one after the other.

    A block's intermediate results then stay in a core's cache. Accelerators
    are fast with all at once.
    """
    if backends.has_accelerator():
        return _block_step(function, shared, *shard)
    elements, seen, filled = shard
    filled = ops.reshape(filled, (-1,))
    return ops.map(
        lambda block: _block_step(function, shared, *block),
        (elements, seen, filled),
    )


def _block_step(function, shared, elements, seen, filled):
    """(new elements, block sums [..., features, 1]) of one or more blocks."""
    new, averaged = function(shared, elements, seen)
    # One by one: arrays side by side would be computed without vectors.
    return new, {name: _sums(rows, filled) for name, rows in averaged.items()}


def _sums(elements, filled):
    """Sums [..., features, 1] over the elements that blocks really hold."""
    places = np.arange(elements.shape[-1], dtype="float32")
    is_real = _constant(places, elements) < filled
    if backends.has_accelerator():
        zeros = ops.zeros_like(elements)
        return ops.sum(ops.where(is_real, elements, zeros), -1, keepdims=True)
    # XLA adds up a row one number after the other on a CPU, but not in a
    # product. (Accelerators may round the factors of a product.)
    return ops.matmul(elements, ops.cast(is_real, elements.dtype)[:, None])


def _weighted_mean(values, weights):
    shares = _constant(weights / max(weights.sum(), 1), values)
    return ops.sum(values * shares, axis=-1, keepdims=True)


def _at_once(function, arrays):
    """Applies a function of rows [..., features, n] to a dict of arrays.

    One call on all rows together is faster than one for each array.
    """
    if not arrays:
        return {}
    rows = function(ops.concatenate(list(arrays.values()), axis=-2))
    results, first = {}, 0
    for name, array in arrays.items():
        last = first + array.shape[-2]
        results[name] = rows[..., first:last, :]
        first = last
    return results


def _batch_shape(tensor, shape):
    return tuple(tensor.shape[: len(tensor.shape) - len(shape)])


def _constant(array, like):
    return ops.convert_to_tensor(array, dtype=like.dtype)
