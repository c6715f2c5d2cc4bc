"""The meta-objective: how good a list of inner objectives is."""

import dataclasses

import tensorflow as tf

_EPSILON = 1e-6
NEGATIVE = (
    "The objective of {} became negative, and the logarithmic meta-objective "
    "needs it not to be. Set use_log_objective=False, or leave the problem "
    "out; a problem whose objective can be negative says so "
    "(`nonnegative = False`)."
)


@dataclasses.dataclass(frozen=True, eq=False)
class MetaObjective:
    """Scores the objectives of a partial unroll (paper, section 4.2).

    The mean over the recorded values l of log(l / (l0 + 1e-6) + epsilon), or
    without `use_log` the sum of weights * l / (|l0| + 1e-6). A pure function
    of (objectives, starting objective).

    Args:
        use_log: average logarithms.
        use_numerator_epsilon: log((l + 1e-6) / (l0 + 1e-6)) instead.
        weights: without `use_log`, one weight for each of the last recorded
            values; 1 / number of values if None.
        epsilon: where the logarithm levels off, as a share of the start (of
            1, with `use_numerator_epsilon`); 1e-6 in the paper.
    """

    use_log: bool = True
    use_numerator_epsilon: bool = False
    weights: list | None = None
    epsilon: float = _EPSILON

    def terms(self, objectives, initial):
        """The value of each recorded objective [..., K] on its own."""
        if not self.use_log:
            # Of an objective that begins below zero less is better, too.
            return objectives / (tf.abs(initial) + _EPSILON)
        # Rounding may take what is never negative below zero.
        objectives = tf.maximum(objectives, 0.0)
        scale = tf.maximum(initial, 0.0) + _EPSILON
        if self.use_numerator_epsilon:
            return tf.math.log((objectives + self.epsilon) / scale)
        return tf.math.log(objectives / scale + self.epsilon)

    def __call__(self, objectives, initial, alive=None):
        """The meta-objective of each instance, [K].

        Args:
            objectives: recorded objectives, [n, K].
            initial: the objectives at the start of the run, [K].
            alive: bool [n, K]; values of instances that had blown up are
                left out. None counts everything.
        """
        if alive is None:
            alive = tf.ones(objectives.shape, "bool")
        # Values that do not count must not reach the logarithm: 0 * nan is
        # nan in its gradient.
        safe = tf.where(alive, objectives, tf.ones_like(objectives))
        finite = tf.math.is_finite(initial)
        terms = self.terms(safe, tf.where(finite, initial, 1.0))
        counted = tf.cast(alive, terms.dtype)
        if self.use_log or self.weights is None:
            number = tf.maximum(tf.reduce_sum(counted, axis=0), 1)
            return tf.reduce_sum(counted * terms, axis=0) / number
        weights = tf.reshape(tf.cast(self.weights, terms.dtype), (-1, 1))
        last = -weights.shape[0]
        return tf.reduce_sum((weights * counted[last:]) * terms[last:], axis=0)


def limit(initial, multiplier):
    """The objectives beyond which a run has blown up, [K]."""
    return multiplier * (tf.abs(initial) + _EPSILON)


def capped(objectives, initial, multiplier):
    """Objectives at most `limit`; that, too, for what is not finite."""
    most = limit(initial, multiplier)
    finite = tf.math.is_finite(objectives)
    return tf.minimum(tf.where(finite, objectives, most), most)


def survivors(objectives, initial, alive, max_multiplier):
    """Which instances have not blown up: bool [n, K].

    An instance is lost from the first step on at which its objective is not
    finite, or exceeds `max_multiplier` times its start (if positive).

    Args:
        objectives, initial: as for `MetaObjective`.
        alive: bool [K], whether an instance was alive before.
        max_multiplier: `obj_train_max_multiplier`; 0 or less for no limit.
    """
    is_bounded = tf.math.is_finite(objectives)
    if max_multiplier > 0:
        is_bounded &= objectives <= limit(initial, max_multiplier)
    lost = tf.cumsum(tf.cast(~is_bounded, "int32"), axis=0)
    return (lost == 0) & alive


def negative(objectives, initial, multiplier=1e6):
    """Which runs have objectives below zero by more than rounding: bool [K].

    Runs that blow up may do so in either direction.

    Args:
        objectives, initial: as for `MetaObjective`.
        multiplier: of the start, where a run has blown up. Defaults to 1e6.
    """
    alive = survivors(
        tf.abs(objectives), initial, tf.math.is_finite(initial), multiplier
    )
    below = objectives < -1e-3 * tf.abs(initial) - _EPSILON
    return tf.reduce_any(below & alive, axis=0) | (initial < -_EPSILON)


def check_nonnegative(problems):
    """Refuses objectives that a logarithm cannot take.

    Args:
        problems: {name: Problem}.

    Raises:
        ValueError: if an objective can be negative.
    """
    for name, problem in problems.items():
        if not problem.nonnegative:
            raise ValueError(
                f"The objective of {name} ({problem!r}) can be negative, and "
                "the logarithmic meta-objective needs it not to be. Set "
                "use_log_objective=False, or leave the problem out."
            )
