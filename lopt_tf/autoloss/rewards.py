"""Rewards of steps: how good they were, and whether a policy collapsed."""

import numpy as np
import tensorflow as tf

# Bound of a step reward (published).
_STEP_LIMIT = 20.0
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
        return scale * tf.sign(change) * size

    reward.needs = {"a step reward (`step_scale` other than 0)": _NEEDS}
    return reward if scale else None


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
