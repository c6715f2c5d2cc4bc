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
    # Nothing is known before the first step.
    bound = ops.where(now > 0, min_log_lr - fall, SMALLEST_LOG_LR)
    return first, ops.maximum(bound, SMALLEST_LOG_LR)
