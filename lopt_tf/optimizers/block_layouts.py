"""Layouts in blocks: of many instances, and of large models.

See `layouts`, which chooses one.
"""

import numpy as np
from keras import ops

from lopt_tf.optimizers import backends
from lopt_tf.optimizers.flat_layout import (
    Layout,
    at_once,
    batch_shape,
    constant,
)

# While a step runs, each core has one shard beside those that are stored. More
# shards are less memory, but each takes a while to be traced and loaded.
_MOST_SHARDS = 64
_SMALLEST_SHARD = 16


class BlockLayout(Layout):
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

    def pack(self, tensors):
        """Tensors -> elements [C, ..., 1, B]."""
        parts = []
        for tensor, shape, size, blocks in zip(
            tensors, self.shapes, self.sizes, self.blocks
        ):
            batch = batch_shape(tensor, shape)
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
        filled = constant(self.filled, next(iter(elements.values())))
        seen = at_once(self.spread, per_tensor)
        new, sums = ops.map(
            lambda block: _block_step(function, shared, *block),
            (elements, seen, filled),
        )
        return new, at_once(self._combine, sums)

    def _combine(self, sums):
        """Block sums [C, ..., features, 1] -> tensor means."""
        sums = ops.moveaxis(ops.squeeze(sums, -1), 0, -1)
        # Made anew in each step: as a constant it would be megabytes of a large
        # model's graph, of which TensorFlow holds many copies.
        owners = constant(self.owner[:, None], sums)
        tensors = constant(np.arange(len(self.sizes)), sums)
        membership = ops.cast(ops.equal(owners, tensors), sums.dtype)
        counts = constant(np.maximum(self.sizes, 1), sums)
        return ops.matmul(sums, membership) / counts


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
        spread = at_once(super().spread, per_tensor)
        spread = {n: self._split(values) for n, values in spread.items()}
        seen = [
            {n: values[i] for n, values in spread.items()}
            for i in range(self.num_shards)
        ]
        filled = self.filled.reshape(self.num_shards, self.shard_size, 1, 1)
        like = elements[names[0]][0]
        filled = [constant(part, like) for part in filled]
        results = backends.map_shards(
            shard_step, function, shared, list(zip(shards, seen, filled))
        )
        new = {n: tuple(r[0][n] for r in results) for n in results[0][0]}
        sums = {
            n: ops.concatenate([r[1][n] for r in results])
            for n in results[0][1]
        }
        return new, at_once(self._combine, sums)


def shard_step(function, shared, shard):
    """`_block_step` of a shard's blocks; on CPUs one after the other.

    A block's intermediate results then stay in a core's cache. Accelerators
    are fast with all at once.
    """
    if backends.has_accelerator():
        return _block_step(function, shared, *shard)
    elements, seen, filled = shard
    filled = ops.reshape(filled, (-1,))
    return backends.map_blocks(
        lambda *block: _block_step(function, shared, *block),
        elements,
        (seen, filled),
        ops.sum(ops.cast(filled > 0, "int32")),
    )


def _block_step(function, shared, elements, seen, filled):
    """(new elements, block sums [..., features, 1]) of one or more blocks."""
    new, averaged = function(shared, elements, seen)
    # One by one: arrays side by side would be computed without vectors.
    return new, {name: _sums(rows, filled) for name, rows in averaged.items()}


def _sums(elements, filled):
    """Sums [..., features, 1] over the elements that blocks really hold."""
    places = np.arange(elements.shape[-1], dtype="float32")
    is_real = constant(places, elements) < filled
    if backends.has_accelerator():
        zeros = ops.zeros_like(elements)
        return ops.sum(ops.where(is_real, elements, zeros), -1, keepdims=True)
    # XLA adds up a row one number after the other on a CPU, but not in a
    # product. (Accelerators may round the factors of a product.)
    return ops.matmul(elements, ops.cast(is_real, elements.dtype)[:, None])
