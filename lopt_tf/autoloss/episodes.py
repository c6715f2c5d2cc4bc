"""Episodes of a task under a schedule, side by side and compiled."""

import typing

import numpy as np
import tensorflow as tf

# Steps in one compiled call.
SEGMENT = 500


class Records(typing.NamedTuple):
    """What happened in T steps of E episodes.

    Attributes:
        features: what the policy saw [T, E, features].
        weights: the choices [T, E, actions].
        log_prob: of the choices, when they were made [T, E].
        reward: step rewards [T, E].
        alive: whether the episode had not finished before the step [T, E].
        following: what the policy would see after the last step [E, features].
        finished: whether the episode has finished after the last step [E].
    """

    features: tf.Tensor
    weights: tf.Tensor
    log_prob: tf.Tensor
    reward: tf.Tensor
    alive: tf.Tensor
    following: tf.Tensor
    finished: tf.Tensor

    @property
    def actions(self):
        """The actions as integers [T, E]."""
        return tf.argmax(self.weights, axis=-1, output_type=tf.int32)


class Episodes:
    """Runs whole episodes in compiled segments.

    Between two segments the caller may look, stop, or change a policy.

    Args:
        task: an `AlternatingTask`.
        schedule: a function of (metadata, step, seed), see `schedules`.
        segment_length: steps in one compiled call.
        step_reward: a function from metadata to rewards [E], or None.
    """

    def __init__(
        self, task, schedule, segment_length=SEGMENT, step_reward=None
    ):
        self.task = task
        self.schedule = schedule
        self.segment_length = segment_length
        self._step_reward = step_reward or (
            lambda metadata: tf.zeros_like(metadata["progress"])
        )
        self._advance = tf.function(
            self._segment, jit_compile=True, autograph=False
        )

    def begin(self, seeds, draw=0):
        """Begins episodes.

        Args:
            seeds: E integers: the episodes' initial models.
            draw: an integer: the actions' random numbers.

        Returns:
            A position, for `advance`.
        """
        state, metadata = self.task.reset(seeds)
        return tf.constant(0), tf.constant(draw), state, metadata

    def advance(self, position):
        """Runs one segment: (next position, `Records`)."""
        *position, records = self._advance(*position)
        return tuple(position), Records(*records)

    def finished(self, position):
        """Whether all episodes have finished."""
        return bool(tf.reduce_all(position[3]["finished"]))

    def _segment(self, step, draw, state, metadata):
        length = self.segment_length
        arrays = [
            tf.TensorArray(dtype, length, element_shape=shape)
            for dtype, shape in self._shapes(step, draw, state, metadata)
        ]

        def body(i, state, metadata, arrays):
            alive = ~metadata["finished"]
            seed = tf.stack([draw, step + i])
            choice = self.schedule(metadata, step + i, seed)
            state, metadata = self.task.step(state, choice.weights)
            reward = self._step_reward(metadata)
            record = (
                choice.features,
                choice.weights,
                choice.log_prob,
                tf.where(alive, reward, 0.0),
                alive,
            )
            arrays = [a.write(i, x) for a, x in zip(arrays, record)]
            return i + 1, state, metadata, arrays

        done, state, metadata, arrays = tf.while_loop(
            lambda i, s, metadata, a: ~tf.reduce_all(metadata["finished"]),
            body,
            (0, state, metadata, arrays),
            maximum_iterations=length,
        )
        following = self.schedule(metadata, step, tf.stack([draw, step]))
        records = [array.stack() for array in arrays]
        return (
            step + done,
            draw,
            state,
            metadata,
            (*records, following.features, metadata["finished"]),
        )

    def _shapes(self, step, draw, state, metadata):
        seed = tf.stack([draw, step])
        choice = self.schedule(metadata, step, seed)
        count = choice.weights.shape[0]
        chosen = (choice.features, choice.weights, choice.log_prob)
        shapes = [(x.dtype, x.shape) for x in chosen]
        return [*shapes, (tf.float32, [count]), (tf.bool, [count])]


def play(episodes, seeds, draw=0):
    """Runs episodes to their end.

    Args:
        episodes: `Episodes`.
        seeds: E integers: the initial models.
        draw: an integer: the actions' random numbers, which also depend on
            an episode's place among the others.

    Returns:
        state: the task's final state.
        shares: how often each action was taken while an episode had not
            finished, [segments, E, actions]; NaN where it had.
    """
    position, shares = episodes.begin(seeds, draw), []
    while not episodes.finished(position):
        position, records = episodes.advance(position)
        shares.append(action_shares(records))
    return position[2], np.stack(shares)


def action_shares(records):
    """The mean weights of the actions [E, actions]; NaN after the end."""
    alive = records.alive.numpy()
    total = (records.weights.numpy() * alive[..., None]).sum(0)
    count = alive.sum(0)[:, None]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
