"""A unit for the step of each tensor, measured where training starts.

Not in the paper. A rule that sees gradients in units of their own size steps
by learning rates that suit the networks of its meta-training. The unit makes
it step in proportion to what a tensor's elements began as, and less in wide
layers, where many elements add up (as in *Tensor Programs V*, arXiv
2203.03466).
"""

import math

import numpy as np
from keras import ops

# A kernel of 64 inputs has about this root mean square where training starts.
# It is the unit's unit: its value only says which rates meta-trained weights
# are used to.
_TYPICAL_SIZE = 0.2
# The inputs up to which a kernel's step is in proportion to its size alone.
_TYPICAL_INPUTS = 64
# In units of the mean of the kernels that have no role. Chosen on validation
# networks, which do as well with half and twice as much.
_EMBEDDINGS_SHARE = 2.0
_ATTENTION_SHARE = 0.4
_LARGEST = 1e15
_SMALLEST = 1e-30


def measure(params, batch_dims=0, layers=None, by_role=False):
    """The unit of each tensor: [..., 1, T].

    A kernel's (of two or more axes) is its root mean square over 0.2, times
    sqrt(64 / inputs) beyond 64 inputs. Vectors, and kernels whose values are
    all the same (zeros, ones), get the geometric mean of the kernels of their
    layer, or of the whole network where it has none. Where no tensor is a
    kernel, vectors count as one.

    By role, an embedding's is at least twice the geometric mean of the kernels
    that have no role: its rows are seldom moved, and start small. Those of
    attention are two fifths of that mean: what they make is multiplied with
    each other.

    Args:
        params: list of tensors, where training starts.
        batch_dims: the number of their leading axes. Defaults to `0`.
        layers: the tensors' `layers.Layers`; None if they are not known.
            Defaults to `None`.
        by_role: whether their roles count. Defaults to `False`.
    """
    sizes, spreads = [], []
    for tensor in params:
        size, spread = _size_and_spread(tensor, batch_dims)
        sizes.append(size)
        spreads.append(spread)
    sizes = ops.stack(sizes, axis=-1)[..., None, :]
    spreads = ops.stack(spreads, axis=-1)[..., None, :]
    shapes = [tuple(p.shape[batch_dims:]) for p in params]
    is_kernel = np.array([len(shape) > 1 for shape in shapes], "float32")
    factors = np.array([_of_inputs(shape) for shape in shapes], "float32")
    own = spreads * ops.convert_to_tensor(factors * is_kernel)
    if by_role and layers is not None:
        own = _of_roles(own, is_kernel, np.array(layers.roles))
    same = np.ones((len(params), len(params)), "float32")
    units = _filled(own, same)
    if layers is not None:
        numbers = np.asarray(layers.numbers)
        of_layer = (numbers[:, None] == numbers).astype("float32")
        of_layer = _filled(own, of_layer)
        units = ops.where(of_layer > 0, of_layer, units)
    for other in (spreads, sizes, ops.ones_like(sizes) * _TYPICAL_SIZE):
        units = ops.where(units > 0, units, _filled(other, same))
    return ops.stop_gradient(units / _TYPICAL_SIZE)


def _of_roles(own, is_kernel, roles):
    """Units of kernels, those with a role in proportion to the others'.

    Args:
        own: units of kernels, 0 where there is none, [..., 1, T].
        is_kernel: 0 or 1 for each tensor, [T].
        roles: as in `layers.Layers`, [T].
    """
    plain = is_kernel * (roles == "")
    everyone = np.ones((len(plain), len(plain)), "float32")
    others = _filled(own * ops.convert_to_tensor(plain), everyone)
    tables = ops.convert_to_tensor(is_kernel * (roles == "embedding"))
    asked = ops.convert_to_tensor(is_kernel * (roles == "attention"))
    own = ops.maximum(own, _EMBEDDINGS_SHARE * others * tables)
    known = asked * ops.cast(others > 0, own.dtype)
    return own + known * (_ATTENTION_SHARE * others - own)


def sizes(params, batch_dims=0):
    """Each tensor's root mean square, and at least 1: [..., 1, T]."""
    found = [_size_and_spread(tensor, batch_dims)[0] for tensor in params]
    found = ops.maximum(ops.stack(found, axis=-1), 1.0)[..., None, :]
    return ops.stop_gradient(found)


def _size_and_spread(tensor, batch_dims):
    """Root mean square, and the same or 0 if all elements are equal."""
    axes = tuple(range(batch_dims, len(tensor.shape)))
    if 0 in tuple(tensor.shape):
        nothing = ops.zeros(tuple(tensor.shape[:batch_dims]), "float32")
        return nothing, nothing
    values = ops.cast(tensor, "float32")
    # A tensor that overflows must not spoil the others' means.
    finite = ops.isfinite(values)
    values = ops.where(finite, values, ops.zeros_like(values))
    values = ops.clip(values, -_LARGEST, _LARGEST)
    if not axes:
        return ops.abs(values), ops.zeros_like(values)
    size = ops.sqrt(ops.mean(ops.square(values), axes))
    varies = ops.max(values, axes) > ops.min(values, axes)
    return size, ops.where(varies, size, ops.zeros_like(size))


def _of_inputs(shape):
    inputs = math.prod(shape[:-1])
    return math.sqrt(_TYPICAL_INPUTS / max(inputs, _TYPICAL_INPUTS))


def _filled(values, groups):
    """Each value, or if it is 0 the geometric mean of its group's others.

    Args:
        values: [..., 1, T].
        groups: [T, T], 1 where two tensors are of one group.
    """
    known = ops.cast(values > 0, "float32")
    logs = known * ops.log(ops.maximum(values, _SMALLEST))
    groups = ops.convert_to_tensor(groups)
    counts = ops.matmul(known, groups)
    means = ops.exp(ops.matmul(logs, groups) / ops.maximum(counts, 1.0))
    means = ops.where(counts > 0, means, ops.zeros_like(means))
    return ops.where(values > 0, values, means)
