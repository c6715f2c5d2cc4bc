"""Gradients in units of their running root mean square.

Section 3.2.3 of *Learned Optimizers that Scale and Generalize*.
"""

from keras import ops

# What counts as no gradient, as a square: the release's, and what goes with it
# in mean squares.
SCALE_EPSILON = 1e-16
_IN_MEAN_SQUARES = 1e4
# Elements with gradients so much smaller than the problem's root mean square
# have none, where the epsilon is relative.
_RELATIVE_EPSILON = 1e-16
_SMALLEST_EPSILON = 1e-36
_FORGETTING = 0.9
# The series' error is below 1e-7 of the value up to the square of 0.2.
_NEAR_ZERO = 0.04
_LARGEST = 1e18
# Squares beyond this would overflow and poison the running means for ever.
LARGEST_SQUARE = 1e36


def mean_squares(old, decay, values, epsilon=SCALE_EPSILON):
    """decay * old + (1 - decay) * values^2; the first one counts fully."""
    # The release tests whether the whole tensor is zero. After any step no
    # element is, before the first one all are: each can tell alone.
    decay = ops.where(old == 0, ops.zeros_like(old), decay)
    squares = ops.square(values) + _IN_MEAN_SQUARES * epsilon
    squares = ops.minimum(squares, LARGEST_SQUARE)
    return (1 - decay) * squares + decay * old


def scaled(values, mean_squares, epsilon=SCALE_EPSILON):
    """asinh(values / sqrt(mean squares)): linear, then logarithmic."""
    return arcsinh(values * ops.rsqrt(mean_squares + epsilon))


def arcsinh(values):
    """The inverse hyperbolic sine; beyond 1e18 it stays what it is there.

    XLA's own takes six times as long on a CPU.
    """
    size = ops.minimum(ops.abs(values), _LARGEST)
    squares = ops.square(size)
    # Bounded, so that its derivative is finite where it is not chosen.
    small = ops.minimum(squares, _NEAR_ZERO)
    series = 1 - small * (1 / 6 - small * (3 / 40 - small * (15 / 336)))
    logarithm = ops.log(size + ops.sqrt(squares + 1))
    return ops.where(
        squares < _NEAR_ZERO, values * series, ops.sign(values) * logarithm
    )


def problem_square(unit, old, layout, squares):
    """The problem's mean square gradient: now, or of some steps ago if larger.

    Args:
        unit: the gradients' unit, [..., 1, T].
        old: that of the last step, [..., 1, 1].
        layout: the tensors' layout.
        squares: mean square gradients without the unit, [..., 1, T].
    """
    squares = ops.minimum(squares * ops.square(unit), LARGEST_SQUARE)
    now = ops.stop_gradient(layout.problem_mean(squares))
    return ops.maximum(now, _FORGETTING * old)


def relative_epsilon(problem_square):
    """What counts as no gradient beside that mean square, as a square."""
    return ops.maximum(_RELATIVE_EPSILON * problem_square, _SMALLEST_EPSILON)
