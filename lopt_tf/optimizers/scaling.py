"""Gradients in units of their running root mean square.

Section 3.2.3 of *Learned Optimizers that Scale and Generalize*.
"""

from keras import ops

_MEAN_SQUARE_EPSILON = 1e-12
SCALE_EPSILON = 1e-16
# Squares beyond this would overflow and poison the running means for ever.
LARGEST_SQUARE = 1e36


def mean_squares(old, decay, values):
    """decay * old + (1 - decay) * values^2; the first one counts fully."""
    # The release tests whether the whole tensor is zero. After any step no
    # element is, before the first one all are: each can tell alone.
    decay = ops.where(old == 0, ops.zeros_like(old), decay)
    squares = ops.square(values) + _MEAN_SQUARE_EPSILON
    squares = ops.minimum(squares, LARGEST_SQUARE)
    return (1 - decay) * squares + decay * old


def scaled(values, mean_squares):
    """asinh(values / sqrt(mean squares)): linear, then logarithmic."""
    return ops.arcsinh(values / ops.sqrt(mean_squares + SCALE_EPSILON))
