"""The update-rule interface, and the layouts that pack many tensors flat.

An update rule is pure: weights (the meta-parameters), state, parameters and
gradients are plain structures of arrays. All arrays may carry the same
leading axes, for instance one axis of K independent inner problems with K
sets of weights.
"""

import functools
import inspect
import math

import numpy as np
from keras import ops

# Up to this many multiplications for a product with the [tensors, elements]
# membership matrix, one flat array is faster than blocks.
_FLAT_LIMIT = 1_000_000
_BLOCK_SIZES = (4096, 2048, 1024, 512, 256, 128)
_PADDING_LIMIT = 0.25


class UpdateRule:
    """How a learned optimizer turns gradients into steps.

    Subclasses implement `init_weights`, `init_state`, `updates` and
    `get_config`. `step` is the one update function of the package:
    meta-training, the Keras optimizer and the evaluation all call it.

    Attributes:
        name: identifies the rule in files and on command lines.
        before_training: what updates are like before meta-training.
        adjustable: settings that trained weights may also be used with.
        attends: whether gradients are taken at a point of the rule's choice
            (then the state holds the true parameters, see `step`).
    """

    name = None
    adjustable = ()
    attends = False
    before_training = "its updates are random"

    def init_weights(self, seed):
        """Returns meta-parameters before meta-training: {name: array}."""
        raise NotImplementedError

    def init_state(self, weights, params, log_learning_rates):
        """Returns the optimizer state at the start of an inner run.

        Args:
            weights: dict of meta-parameters, each with the same leading axes
                (usually none) before its own two.
            params: list of tensors, each with those leading axes.
            log_learning_rates: list of tensors shaped like `params`: the
                natural logarithm of each element's starting learning rate.
        """
        raise NotImplementedError

    def updates(self, weights, state, layout, gradients):
        """Returns `(steps, attended_steps, state)` for one inner step.

        All are packed by `layout`. `steps` are to be subtracted from the
        parameters; `attended_steps` is None, or what to subtract for the
        point where the next gradient is taken.
        """
        raise NotImplementedError

    def get_config(self):
        """Returns the JSON-ready constructor arguments."""
        raise NotImplementedError

    @classmethod
    def default_config(cls):
        """The constructor's defaults: {name: default}."""
        return {
            name: argument.default
            for name, argument in inspect.signature(cls).parameters.items()
            if argument.default is not argument.empty
        }

    def draw_log_learning_rates(self, uniforms, tensor_uniforms):
        """Turns uniform draws in [0, 1) into starting log learning rates.

        A rule without learning rates of its own leaves it at zeros.

        Args:
            uniforms: list of arrays, shaped like the parameters.
            tensor_uniforms: list of arrays that broadcast against them, one
                draw for each tensor.
        """
        return [0.0 * u for u in uniforms]

    def step(self, weights, state, params, grads, learning_rate=1.0):
        """One inner step: `(params, state)` after it.

        Args:
            weights: dict of meta-parameters.
            state: what `init_state` or the last `step` returned.
            params: list of tensors: the point where `grads` were taken.
            grads: list of tensors shaped like `params`.
            learning_rate: multiplies the learned step.
        """
        layout = choose_layout(params, batch_rank(weights))
        steps, attended_steps, state = self.updates(
            weights, state, layout, layout.pack(grads)
        )
        if attended_steps is None:
            steps = layout.unpack(steps)
            moved = [p - learning_rate * s for p, s in zip(params, steps)]
            return moved, state
        true = state["true_parameters"]
        attended = layout.unpack(true - learning_rate * attended_steps)
        moved = true - learning_rate * steps
        return attended, {**state, "true_parameters": moved}

    def has_started(self, state):
        """Whether a step was taken since `init_state`: a boolean tensor.

        Rules that attend implement it.
        """
        raise NotImplementedError

    def true_parameters(self, weights, state, params):
        """The parameters to evaluate: `params`, unless attention moved them."""
        if not self.attends:
            return params
        layout = choose_layout(params, batch_rank(weights))
        return layout.unpack(state["true_parameters"])


def checked_range(init_lr_range):
    """The bounds of starting learning rates as floats, or a ValueError."""
    bounds = tuple(float(bound) for bound in init_lr_range)
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ValueError(
            "Argument `init_lr_range` must be (min, max) with "
            f"0 < min <= max. Received: init_lr_range={bounds}"
        )
    return bounds


def batch_rank(weights):
    """The number of leading axes that all arrays carry."""
    return len(next(iter(weights.values())).shape) - 2


def choose_layout(tensors, batch_dims=0):
    """Returns the layout for tensors with `batch_dims` leading axes."""
    shapes = tuple(tuple(t.shape[batch_dims:]) for t in tensors)
    return _layout_for_shapes(shapes)


@functools.cache
def _layout_for_shapes(shapes):
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(sizes)
    if total * len(sizes) <= _FLAT_LIMIT:
        return FlatLayout(shapes)
    for block_size in _BLOCK_SIZES:
        padded = sum(-(-size // block_size) * block_size for size in sizes)
        if padded <= (1 + _PADDING_LIMIT) * total:
            break
    return BlockLayout(shapes, block_size)


class FlatLayout:
    """All elements side by side: arrays [..., features, N].

    Per-tensor means and their spreading back to elements are small matrix
    products. `shapes` are the tensors' shapes without leading axes.
    """

    def __init__(self, shapes):
        self.shapes = shapes
        self.sizes = [math.prod(shape) for shape in shapes]
        self.num_elements = sum(self.sizes)
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

    def map(self, function, elements, per_tensor):
        """Applies an element-wise function and averages one of its results.

        Args:
            function: maps (dict of element arrays, the per-tensor array seen
                from every element) to (dict of element arrays, one element
                array to average over each tensor).
            elements: dict of element arrays [..., features, N].
            per_tensor: array [..., features, T].

        Returns:
            (dict of element arrays, per-tensor means [..., features, T]).
        """
        new, averaged = function(elements, self.spread(per_tensor))
        return new, self.mean(averaged)

    def map_elements(self, function, elements):
        """Applies an element-wise function that needs no tensor's means.

        Args:
            function: maps a dict of element arrays to another one.
            elements: dict of element arrays [..., features, N].
        """
        return function(elements)


class BlockLayout:
    """Every tensor in blocks of one size: arrays [C, ..., features, B].

    A block belongs to one tensor and its end is padded. `map` goes through
    the blocks one after the other, so that a block's many intermediate
    results stay in the processor's cache.
    """

    def __init__(self, shapes, block_size):
        self.shapes = shapes
        self.sizes = [math.prod(shape) for shape in shapes]
        self.block_size = block_size
        self.blocks = [-(-size // block_size) for size in self.sizes]
        self.num_blocks = sum(self.blocks)
        self.owner = np.repeat(np.arange(len(shapes)), self.blocks)
        mask = np.zeros((self.num_blocks, block_size), "float32")
        membership = np.zeros((len(shapes), self.num_blocks), "float32")
        membership[self.owner, np.arange(self.num_blocks)] = 1
        first = 0
        for size, count in zip(self.sizes, self.blocks):
            mask[first : first + count].reshape(-1)[:size] = 1
            first += count
        self.mask = mask
        counts = np.maximum(np.array(self.sizes, "float32"), 1)
        self.averaging = (membership / counts[:, None]).T.copy()

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

    def mean(self, elements):
        """Per-tensor means [..., features, T]."""
        mask = self._broadcast_mask(elements)
        return self._combine(ops.sum(elements * mask, -1, keepdims=True))

    def spread(self, values):
        """Per-tensor values [..., features, T], as [C, ..., features, 1]."""
        values = ops.take(values, self.owner, axis=-1)
        return ops.expand_dims(ops.moveaxis(values, -1, 0), -1)

    def map(self, function, elements, per_tensor):
        """As `FlatLayout.map`, block by block."""

        def block(inputs):
            block_elements, values, mask = inputs
            new, averaged = function(block_elements, values)
            return new, ops.sum(averaged * mask, -1, keepdims=True)

        mask = _constant(self.mask, per_tensor)
        new, sums = ops.map(block, (elements, self.spread(per_tensor), mask))
        return new, self._combine(sums)

    def map_elements(self, function, elements):
        """As `FlatLayout.map_elements`, block by block."""
        return ops.map(function, elements)

    def _broadcast_mask(self, elements):
        ones = (1,) * (len(elements.shape) - 2)
        shape = (self.num_blocks, *ones, self.block_size)
        return _constant(self.mask.reshape(shape), elements)

    def _combine(self, sums):
        """Block sums [C, ..., features, 1] -> tensor means."""
        sums = ops.moveaxis(ops.squeeze(sums, -1), 0, -1)
        return ops.matmul(sums, _constant(self.averaging, sums))


def _batch_shape(tensor, shape):
    return tuple(tensor.shape[: len(tensor.shape) - len(shape)])


def _constant(array, like):
    return ops.convert_to_tensor(array, dtype=like.dtype)
