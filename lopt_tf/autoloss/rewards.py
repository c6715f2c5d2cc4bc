"""Rewards of steps: how good they were, and whether a policy collapsed."""

import numpy as np
import tensorflow as tf

# Bound of a step reward (published).
_STEP_LIMIT = 20.0
# Actions that a policy takes less often than this are not its own (chosen).
_HARDLY_EVER = 0.05
_NEEDS = ("improvement", "mean_improvement", "validated")


def step_reward(scale=1.0):
    """The reward of a step that ends in a validation.

    It is sign * sqrt(improvement / mean improvement), at most 20, times
    `scale`; steps between validations have none of their own (see `spread`).

    Returns:
        A function from a task's metadata to rewards [E]; None if `scale` is
        0, so that no task needs metadata for it.
    """

    def reward(metadata):
        change = metadata["improvement"]
        mean = metadata["mean_improvement"] + 1e-8
        size = tf.minimum(tf.sqrt(tf.abs(change) / mean), _STEP_LIMIT)
        size = tf.where(metadata["validated"], size, 0.0)
        return _known(scale * tf.sign(change) * size)

    reward.needs = {"a step reward (`step_scale` other than 0)": _NEEDS}
    return reward if scale else None


def drop_reward(value, floor, scale=1.0):
    """The drop of a loss, the more the nearer it is to its floor.

    It is (loss before - loss) / max(loss - floor, 0.01) at a validation, at
    most 20, times `scale`; the loss is the logarithm of a result (AutoLoss,
    section 5.4; the bounds are chosen).

    Args:
        value: the name of the result's metadata, such as a perplexity.
        floor: what the loss does not reach, such as nats.
        scale: see `step_reward`. Defaults to `1.0`.
    """

    def reward(metadata):
        loss = tf.math.log(metadata[value])
        before = tf.math.log(metadata[value] + metadata["improvement"])
        drop = (before - loss) / tf.maximum(loss - floor, 1e-2)
        drop = tf.clip_by_value(drop, -_STEP_LIMIT, _STEP_LIMIT)
        return _known(tf.where(metadata["validated"], scale * drop, 0.0))

    needs = ("improvement", "validated", value)
    reward.needs = {"a step reward with a floor (`step_floor`)": needs}
    return reward


def _known(rewards):
    """Rewards; 0 for the steps of episodes that diverged."""
    return tf.where(tf.math.is_finite(rewards), rewards, 0.0)


def spread(rewards, period):
    """Gives each step the reward of the validation that it led to.

    Args:
        rewards: of a whole round [T, E], 0 between validations. The last
            steps may be fewer than a period.
        period: steps between validations.
    """
    steps, count = rewards.shape
    padded = np.pad(rewards, [(0, -steps % period), (0, 0)])
    sums = padded.reshape(-1, period, count).sum(1, dtype=rewards.dtype)
    return np.repeat(sums, period, axis=0)[:steps]


def longest_runs(actions, alive):
    """The longest row of equal actions in each episode.

    Args:
        actions: integers [T, E].
        alive: booleans [T, E].
    """
    places = np.arange(len(actions))[:, None]
    begins = np.ones(actions.shape, bool)
    begins[1:] = actions[1:] != actions[:-1]
    last_begin = np.maximum.accumulate(np.where(begins, places, 0), axis=0)
    return np.where(alive, places - last_begin + 1, 0).max(axis=0)


def without_exploration(actions, log_prob, epsilon, count):
    """Actions [T, E], with the one before in place of what a policy avoids.

    Drawing some actions evenly would hide that a policy takes one alone.

    Args:
        actions: integers [T, E].
        log_prob: of the actions, when some were drawn evenly [T, E].
        epsilon: the share of those, a number or an array [T, 1].
        count: how many actions there are.
    """
    if not (0 < np.min(epsilon) and np.max(epsilon) < 1):
        return actions
    own = (np.exp(log_prob) - epsilon / count) / (1 - epsilon)
    places = np.arange(len(actions))[:, None]
    # The last step whose action the policy meant, or the first one.
    meant = np.where(own >= _HARDLY_EVER, places, 0)
    meant = np.maximum.accumulate(meant, axis=0)
    return np.take_along_axis(actions, meant, axis=0)
