"""Schedules: from metadata to the choice of what to optimise next.

A schedule is called inside of (compiled) episodes with (metadata, step, seed)
and returns a `Choice`. `alone` is the schedule of one episode, for those that
run one after the other; `needs` are as in `metadata.Features`.
"""

import typing

import tensorflow as tf

from lopt_tf.autoloss import metadata as metadata_lib

# 2^32 over the golden ratio.
_GOLDEN = 2_654_435_769
_BELOW_ONE = 1 - 2.0**-24


class Choice(typing.NamedTuple):
    """What a schedule decides for E episodes.

    Attributes:
        features: what a policy saw [E, features]; none with fixed schedules.
        weights: of the actions [E, actions].
        log_prob: logarithm of the probability of what a policy chose [E].
    """

    features: tf.Tensor
    weights: tf.Tensor
    log_prob: tf.Tensor


class Schedule:
    """A schedule that nothing trains; a whole grid of them runs as one batch.

    Args:
        settings: array [E] or [E, ...], one for each episode.
    """

    needs = {}

    def __init__(self, settings):
        self.settings = tf.convert_to_tensor(settings, tf.float32)

    def arguments(self):
        """The constructor's other arguments, ready for JSON."""
        return {}

    def alone(self, episode):
        """The schedule of one of the episodes, an integer or a tensor."""
        return type(self)(
            tf.gather(self.settings, [episode]), **self.arguments()
        )

    def __call__(self, metadata, step, seed):
        weights = self.weights(metadata, step, seed)
        none = tf.zeros_like(weights[:, 0])
        return Choice(none[:, None][:, :0], weights, none)

    def weights(self, metadata, step, seed):
        """Weights of the actions [E, actions]."""
        raise NotImplementedError


class Constant(Schedule):
    """The same weights of the losses always; settings [E, actions]."""

    def weights(self, metadata, step, seed):
        return self.settings


class Ratio(Schedule):
    """a steps of the first action, b of the second, ...; [E, actions]."""

    def weights(self, metadata, step, seed):
        # In integers: floats cannot count beyond 2^24.
        period = tf.cast(tf.reduce_sum(self.settings, axis=1), tf.int32)
        place = tf.cast(step, tf.int32) % tf.maximum(period, 1)
        return interval(tf.cast(place, tf.float32), self.settings)


class Coin(Schedule):
    """Actions drawn with fixed probabilities; settings [E, actions]."""

    def weights(self, metadata, step, seed):
        draw = tf.random.stateless_uniform(self.settings.shape[:1], seed)
        return interval(draw, self.settings)


class Curriculum(Schedule):
    """The last action first, the first one last, each for its share.

    Settings [E, actions]: shares of an episode, which sum to 1.
    """

    needs = {"a curriculum": ("progress",)}

    def weights(self, metadata, step, seed):
        shares = self.settings[:, ::-1]
        # Of progress, a little too much is enough: steps are counted in floats.
        return interval(metadata["progress"] + 1e-6, shares)[:, ::-1]


class WatchOverfitting(Schedule):
    """Two actions: the second while the validation loss lags behind.

    Settings [E]: how much higher than the training loss the validation loss
    may be, in training losses.
    """

    needs = {"the rule that watches overfitting": metadata_lib.GAP_NEEDS}

    def weights(self, metadata, step, seed):
        behind = metadata_lib.gap(metadata) > self.settings
        return tf.one_hot(tf.cast(behind, tf.int32), 2)


class Feedback(Schedule):
    """Two actions: the first with the chance sigmoid(-slope (value - level)).

    Args:
        settings: slopes and levels [E, 2].
        value: the name of the metadata that the rule looks at: numbers [E], or
            [E, 2], one for each action.
        action: the place of the action whose number it is, 0 or 1, if there is
            one for each. Defaults to `None`.
    """

    def __init__(self, settings, value, action=None):
        super().__init__(settings)
        if action not in (None, 0, 1):
            raise ValueError(
                f"`action` must be None, 0 or 1. Received: {action=}"
            )
        self.value, self.action = value, action
        self.needs = {"the feedback rule": (value,)}

    def arguments(self):
        return {"value": self.value, "action": self.action}

    def weights(self, metadata, step, seed):
        slope, level = tf.unstack(self.settings, axis=1)
        chance = tf.sigmoid(-slope * (self._seen(metadata[self.value]) - level))
        draw = tf.random.stateless_uniform(self.settings.shape[:1], seed)
        return interval(draw, tf.stack([chance, 1 - chance], 1))

    def _seen(self, value):
        if self.action is not None and value.shape.rank == 2:
            return value[:, self.action]
        if self.action is None and value.shape.rank == 1:
            return value
        raise ValueError(
            f"A feedback rule looks at one number, or with action=0 or 1 at "
            f"that of an action. {self.value!r} has the shape {value.shape}; "
            f"action={self.action}."
        )


def spread_draws(count, seed):
    """Draws [count], each spread evenly over the steps of an episode.

    Of N steps in a row, each interval of [0, 1) gets its share of N, to within
    a few steps, where independent draws miss it by the root of N: multiples
    of the golden ratio modulo 1, from a place of the episode's own.

    Args:
        count: how many episodes there are.
        seed: a pair of integers, the second of which is the step.
    """
    draw, step = tf.unstack(tf.cast(seed, tf.int64))
    first = tf.random.stateless_uniform([count], tf.stack([draw, -1]))
    # In integers, modulo 2^32: floats would be too coarse after many steps.
    passed = tf.cast(step * _GOLDEN % 2**32, tf.float32) / 2.0**32
    return tf.minimum(tf.math.floormod(first + passed, 1.0), _BELOW_ONE)


def interval(places, widths):
    """One-hot: in which interval, of widths [E, actions], a place [E] is."""
    ends = tf.cumsum(widths, axis=1)[:, :-1]
    passed = tf.cast(places[:, None] >= ends, tf.int32)
    return tf.one_hot(tf.reduce_sum(passed, axis=1), widths.shape[1])


class PolicySchedule:
    """Actions drawn from a `Policy` that looks at `metadata.Features`.

    Args:
        policy: a `Policy`.
        features: `metadata.Features`.
        actions: names of the policy's actions, in its order; None for those of
            whatever it schedules. Defaults to `None`.
        even_draws: whether the draws of an episode are spread evenly (see
            `spread_draws`), not independent of each other. Defaults to False.
    """

    def __init__(self, policy, features, actions=None, even_draws=False):
        self.policy = policy
        self.features = features
        self.actions = actions
        self.even_draws = even_draws
        self.needs = features.needs
        self.pairwise = features.pairwise
        # A variable: it changes between calls of the compiled episodes.
        self.epsilon = tf.Variable(0.0, trainable=False)

    def alone(self, episode):
        """The same for every episode."""
        return self

    def __call__(self, metadata, step, seed):
        features = self.features(metadata)
        distribution = self.policy.distribution(features, self.epsilon)
        if self.even_draws:
            draws = spread_draws(tf.shape(features)[0], seed)
            weights = interval(draws, distribution.probs_parameter())
            action = tf.argmax(weights, 1, tf.int32)
        else:
            action = distribution.sample(seed=seed)
            weights = tf.one_hot(action, self.policy.num_actions)
        return Choice(features, weights, distribution.log_prob(action))
