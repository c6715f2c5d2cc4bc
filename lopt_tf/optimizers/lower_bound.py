"""A lower bound of log learning rates that follows the problem's gradients.

Not in the paper. Meta-training on short runs teaches learning rates to decay
too early for longer ones. The bound keeps them up: near its full value while
the problem's gradients are as large as at the start, lower when they shrink or
grow. Near a cusp, where gradients grow, long steps are out of place.
"""

from keras import ops

from lopt_tf.optimizers import scaling

# The paper's bound; it is never reached.
SMALLEST_LOG_LR = -33.0
# The bound falls by so much for each e-fold that the gradients' mean square is
# below, or above, its first value.
_FALL_IF_SMALLER = 0.25
_FALL_IF_LARGER = 1.5
# The least mean square grows by so much a step; a logarithm that mean squares
# of minibatches may differ by.
_FORGETTING = 1.002
_NOISE = 1.5
# Mean squares beyond could overflow in a sum.
LARGEST = 1e30


def follow(min_log_lr, now, first, epsilon=scaling.SCALE_EPSILON):
    """The bound for this step: (first mean square, bound), [..., 1, 1].

    Args:
        min_log_lr: the bound while gradients are as large as at the start.
        now: the problem's running mean square gradient before this step,
            [..., 1, 1]; 0 before the first step.
        first: the problem's first mean square, [..., 1, 1]; 0 if unknown.
        epsilon: what is added to mean squares, a number or [..., 1, 1].
            Defaults to the release's, `1e-16`.
    """
    # Gradients of zero count as 1e-12: sparse ones that begin there keep the
    # bound until there are others, and do better with it.
    first = ops.where(first == 0, now, first)
    change = ops.log((now + epsilon) / (first + epsilon))
    fall = ops.maximum(-_FALL_IF_SMALLER * change, _FALL_IF_LARGER * change)
    return first, _bound(min_log_lr - fall, now)


def follow_least(min_log_lr, now, first, least, epsilon):
    """As `follow`, with spikes: (first, least mean square, bound).

    The gradients count as small as they have been, and where they are larger
    again, beyond what noise does, the bound falls: it does not hold up the
    learning rates that a spike comes from.

    Args:
        min_log_lr, now, first, epsilon: as for `follow`.
        least: the least mean square so far, slowly forgotten, [..., 1, 1]; 0
            if unknown.
    """
    first = ops.where(first == 0, now, first)
    least = ops.where(least == 0, now, least * _FORGETTING)
    least = ops.minimum(least, now)
    shrunk = ops.log((first + epsilon) / (least + epsilon))
    grown = ops.log((now + epsilon) / (least + epsilon))
    fall = _FALL_IF_SMALLER * ops.maximum(shrunk, 0.0)
    fall = fall + _FALL_IF_LARGER * ops.maximum(grown - _NOISE, 0.0)
    return first, least, _bound(min_log_lr - fall, now)


def _bound(bound, now):
    # Nothing is known before the first step.
    bound = ops.where(now > 0, bound, SMALLEST_LOG_LR)
    return ops.maximum(bound, SMALLEST_LOG_LR)
