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
_LARGEST_MEAN_SQUARE = 1e30


def follow(
    min_log_lr, mean_squares, first, layout, epsilon=scaling.SCALE_EPSILON
):
    """The bound for this step: (first mean square, bound [..., 1, T]).

    Args:
        min_log_lr: the bound while gradients are as large as at the start.
        mean_squares: the gradients' running mean squares before this step,
            packed elements [..., S, n], of which the first row counts; zeros
            before the first step.
        first: the problem's first mean square, [..., 1, 1]; 0 if unknown.
        layout: the layout of `mean_squares`.
        epsilon: what is added to mean squares, a number or [..., 1, 1].
            Defaults to the release's, `1e-16`.
    """
    fastest = layout.each(
        lambda rows: ops.minimum(rows[..., :1, :], _LARGEST_MEAN_SQUARE),
        mean_squares,
    )
    now = layout.problem_mean(layout.mean(fastest))
    # Gradients of zero count as 1e-12: sparse ones that begin there keep the
    # bound until there are others, and do better with it.
    first = ops.where(first == 0, now, first)
    change = ops.log((now + epsilon) / (first + epsilon))
    fall = ops.maximum(-_FALL_IF_SMALLER * change, _FALL_IF_LARGER * change)
    # Nothing is known before the first step.
    bound = ops.where(now > 0, min_log_lr - fall, SMALLEST_LOG_LR)
    bound = ops.maximum(bound, SMALLEST_LOG_LR)
    shape = (*now.shape[:-1], len(layout.sizes))
    return first, ops.broadcast_to(bound, shape)
