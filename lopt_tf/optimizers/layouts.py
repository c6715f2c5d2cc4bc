"""Layouts: how the elements of many tensors lie side by side.

A rule computes with packed elements, arrays [..., features, n], and with values
of tensors, [..., features, T]. Only its layout knows how elements are stored;
of a large model they are a tuple of arrays, which `each` and `map` go through.
"""

import functools
import math

from lopt_tf.optimizers.block_layouts import BlockLayout, ShardedLayout
from lopt_tf.optimizers.flat_layout import FlatLayout

# Up to this many multiplications for a product with the [tensors, elements]
# membership matrix, one flat array is faster than blocks.
_FLAT_LIMIT = 1_000_000
_BLOCK_SIZES = (4096, 2048, 1024, 512, 256, 128)
_PADDING_LIMIT = 0.25


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


@functools.lru_cache(256)
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
