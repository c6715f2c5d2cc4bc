"""What all layouts share, and the one of small models.

See `layouts`, which chooses one.
"""

import functools
import math

import numpy as np
from keras import ops


class Layout:
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


class FlatLayout(Layout):
    """All elements side by side: arrays [..., features, N].

    Per-tensor means and their spreading back to elements are small matrix
    products.
    """

    def __init__(self, shapes, present=None):
        super().__init__(shapes, present)
        self.membership, self.averaging = _matrices(tuple(self.sizes))

    def pack(self, tensors):
        """Tensors -> elements [..., 1, N]."""
        batch = batch_shape(tensors[0], self.shapes[0])
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
        return ops.matmul(elements, constant(self.averaging, elements))

    def spread(self, values):
        """Per-tensor values [..., features, T] at every element."""
        return ops.matmul(values, constant(self.membership, values))

    def map(self, function, shared, elements, per_tensor):
        seen = at_once(self.spread, per_tensor)
        new, averaged = function(shared, elements, seen)
        return new, at_once(self.mean, averaged)


@functools.lru_cache(16)
def _matrices(sizes):
    """(which tensor an element is of [T, N], its share of the mean [N, T]).

    They are the same whichever tensors count.
    """
    membership = np.repeat(np.eye(len(sizes), dtype="float32"), sizes, axis=1)
    counts = np.maximum(np.array(sizes, "float32"), 1)
    return membership, (membership / counts[:, None]).T.copy()


def _weighted_mean(values, weights):
    shares = constant(weights / max(weights.sum(), 1), values)
    return ops.sum(values * shares, axis=-1, keepdims=True)


def at_once(function, arrays):
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


def batch_shape(tensor, shape):
    return tuple(tensor.shape[: len(tensor.shape) - len(shape)])


def constant(array, like):
    return ops.convert_to_tensor(array, dtype=like.dtype)
