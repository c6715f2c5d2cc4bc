"""Episodes of a task under a schedule: what trainers and tests run."""

import typing

import numpy as np

from lopt_tf.autoloss import contract, metadata

# Steps between two looks at the episodes (chosen).
SEGMENT = 500


class Position(typing.NamedTuple):
    """Where E episodes are; only `Episodes` looks into it.

    Attributes:
        step: steps that were run.
        draw: an integer: the actions' random numbers.
        state: of the models and their training.
        metadata: {name: [E, ...]}, what the schedule looks at next.
    """

    step: typing.Any
    draw: typing.Any
    state: typing.Any
    metadata: dict


class Records(typing.NamedTuple):
    """What happened in T steps of E episodes, as NumPy arrays.

    Attributes:
        features: what the policy saw [T, E, features].
        weights: the weights of the actions [T, E, actions].
        log_prob: of the actions, when they were chosen [T, E].
        reward: step rewards [T, E]; 0 after the end.
        alive: whether the episode had not finished before the step [T, E].
        following: what the policy would see after the last step [E, features].
        finished: whether the episode has finished after the last step [E].
    """

    features: np.ndarray
    weights: np.ndarray
    log_prob: np.ndarray
    reward: np.ndarray
    alive: np.ndarray
    following: np.ndarray
    finished: np.ndarray

    @property
    def actions(self):
        """The actions as integers [T, E]."""
        return self.weights.argmax(-1).astype("int32")


class Episodes:
    """E episodes of a task, run in segments.

    Between two segments the caller may look, save, stop, or change a policy.
    Metadata are the task's own and those of `metadata.course`.

    A subclass runs one kind of task. The state may live in the position
    (compiled tasks) or in variables (models): a position is used once, the
    next one comes from `advance` or `load`.

    Args:
        task: a `problems.alternating.Task`.
        schedule: a function of (metadata, step, seed), see `schedules`.
        segment_length: the most steps of one `advance`.
        step_reward: a function from metadata to rewards [E], such as
            `rewards.step_reward` returns; None for no rewards.

    Raises:
        ValueError: if the task breaks its contract, or has not the metadata
            that the schedule or the rewards need.
    """

    def __init__(
        self, task, schedule, segment_length=SEGMENT, step_reward=None
    ):
        contract.check_task(task)
        supplied = self.supplied(task)
        for each in (schedule, step_reward):
            contract.check_needs(task, supplied, getattr(each, "needs", {}))
        count = len(task.actions)
        what = f"the task {task.name!r} has {count} actions"
        metadata.check_pairwise(schedule, count, what)
        self.task = task
        self.schedule = schedule
        self.segment_length = segment_length
        self.step_reward = step_reward

    @classmethod
    def supplied(cls, task):
        """Names of a task's metadata; ValueError if they break its contract."""
        raise NotImplementedError

    def begin(self, seeds, draw=0):
        """The first `Position` of new episodes.

        Args:
            seeds: E integers: the episodes' initial models.
            draw: an integer: the actions' random numbers, which also depend
                on an episode's place among the others.
        """
        raise NotImplementedError

    def advance(self, position):
        """Runs one segment: (next `Position`, `Records`)."""
        raise NotImplementedError

    def finished(self, position):
        """Whether all episodes have finished."""
        return bool(np.all(position.metadata["finished"]))

    def result(self, position, split):
        """Results of the episodes on "valid" or "test", an array [E]."""
        raise NotImplementedError

    def details(self, position, split=None):
        """What the task tells besides, {name: array [E]}: `Task.details`."""
        return {}

    def samples(self, position, count):
        """Images [E, count, height, width] of the episodes, or None."""
        return None

    def curves(self, position):
        """Results at the validations of each episode, or None if not kept.

        A list of pairs (updates before it, result) for each episode.
        """
        return None

    def save(self, position):
        """({name: array}, JSON-ready dictionary) to resume from exactly."""
        raise NotImplementedError

    def load(self, arrays, metadata):
        """The `Position` that `save` was given."""
        raise NotImplementedError


def play(episodes, seeds, draw=0, look=None):
    """Runs episodes to their end.

    Args:
        episodes: `Episodes`.
        seeds, draw: see `Episodes.begin`.
        look: a function of the episodes and their position, called after each
            segment. Defaults to `None`.

    Returns:
        position: the last `Position`, for `Episodes.result`.
        shares: how often each action was taken while an episode had not
            finished, [segments, E, actions]; NaN where it had.
    """
    position, shares = episodes.begin(seeds, draw), []
    while not episodes.finished(position):
        position, records = episodes.advance(position)
        total = (records.weights * records.alive[..., None]).sum(0)
        count = records.alive.sum(0)[:, None]
        share = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        shares.append(share)
        if look:
            look(episodes, position)
    return position, np.stack(shares)


def joined(records):
    """The `Records` of a list of segments, as if they were one."""
    whole = Records(*map(np.concatenate, zip(*records)))
    last = records[-1]
    return whole._replace(following=last.following, finished=last.finished)
