"""Episodes of an `AlternatingTask`: side by side, compiled whole."""

import numpy as np
import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.autoloss import (
    contract,
    episodes,
    metadata,
    model_episodes,
    named_arrays,
)
from problems import alternating


class CompiledEpisodes(episodes.Episodes):
    """Runs all episodes at once, a segment in one compiled call.

    Records always have `segment_length` steps; no episode is alive in those
    after the end.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._advance = compilation.compiled(self._segment)

    @classmethod
    def supplied(cls, task):
        seeds = range(3)
        _, found = task.reset(seeds)
        contract.check_metadata(task, found, len(seeds))
        return metadata.supplied(found)

    def begin(self, seeds, draw=0):
        state, found = self.task.reset(seeds)
        found = found | metadata.course(
            self.task, 0, len(seeds), losses=found.get("losses")
        )
        beginning = tf.constant(0), tf.constant(draw)
        return episodes.Position(*beginning, state, found)

    def advance(self, position):
        position, records = self._advance(position)
        return position, episodes.Records(*(x.numpy() for x in records))

    def result(self, position, split):
        result = self.task.result(position.state, split)
        count = position.metadata["finished"].shape[0]
        contract.check_shape(self.task, "The result", result, [count])
        return result.numpy()

    def details(self, position, split=None):
        found = self.task.details(position.state, split)
        return {name: np.asarray(value) for name, value in found.items()}

    def samples(self, position, count):
        return self.task.samples(position.state, count)

    def save(self, position):
        arrays = named_arrays.read("position", tf.nest.flatten(position))
        return arrays, {"episodes": position.metadata["finished"].shape[0]}

    def load(self, arrays, metadata):
        like = self.begin(range(metadata["episodes"]))
        names = named_arrays.read("position", tf.nest.flatten(like))
        tensors = [tf.constant(arrays[name]) for name in names]
        return tf.nest.pack_sequence_as(like, tensors)

    def _segment(self, position):
        first, draw, state, found = position
        length = self.segment_length
        arrays = [
            tf.TensorArray(dtype, length, element_shape=shape)
            for dtype, shape in self._shapes(position)
        ]

        def body(i, state, before, arrays):
            alive = ~before["finished"]
            step = first + i
            choice = self.schedule(before, step, tf.stack([draw, step]))
            state, after = self.task.step(state, choice.weights)
            self._check(after, before)
            after = after | metadata.course(
                self.task,
                step + 1,
                alive.shape[0],
                choice.weights,
                before,
                after.get("losses"),
            )
            record = (*choice, self._rewards(after, alive), alive)
            arrays = [a.write(i, x) for a, x in zip(arrays, record)]
            return i + 1, state, after, arrays

        done, state, found, arrays = tf.while_loop(
            lambda i, s, found, a: ~tf.reduce_all(found["finished"]),
            body,
            (0, state, found, arrays),
            maximum_iterations=length,
        )
        following = self.schedule(found, first, tf.stack([draw, first]))
        records = [array.stack() for array in arrays]
        return (
            episodes.Position(first + done, draw, state, found),
            (*records, following.features, found["finished"]),
        )

    def _rewards(self, found, alive):
        if self.step_reward is None:
            return tf.zeros_like(alive, tf.float32)
        return tf.where(alive, self.step_reward(found), 0.0)

    def _shapes(self, position):
        seed = tf.stack([position.draw, position.step])
        choice = self.schedule(position.metadata, position.step, seed)
        count = position.metadata["finished"].shape[0]
        what = "The schedule's weights of the actions"
        shape = [count, len(self.task.actions)]
        contract.check_shape(self.task, what, choice.weights, shape)
        shapes = [(x.dtype, x.shape) for x in choice]
        return [*shapes, (tf.float32, [count]), (tf.bool, [count])]

    def _check(self, after, before):
        """Checks metadata of a step, when it is traced."""
        added = metadata.supplied(["losses"]) - {"losses"}
        own = {*before} - added
        if {*after} - added != own:
            raise ValueError(
                f"The task {self.task.name!r} must return the same metadata "
                f"from `step` as from `reset`: {', '.join(sorted(own))}. "
                f"Received: {', '.join(sorted(after))}."
            )
        contract.check_metadata(self.task, after, before["finished"].shape[0])


# The episodes of each kind of task.
KINDS = {
    alternating.AlternatingTask: CompiledEpisodes,
    alternating.ModelTask: model_episodes.ModelEpisodes,
}


def kind_of(task):
    """The subclass of `Episodes` that runs a task; ValueError if none does."""
    for kind, episodes_class in KINDS.items():
        if isinstance(task, kind):
            return episodes_class
    raise ValueError(
        f"{type(task).__name__} is no task that episodes can be made of. "
        f"Derive it from {', '.join(kind.__name__ for kind in KINDS)}."
    )


def episodes_of(task, schedule, *args, **kwargs):
    """`Episodes` of the kind that the task needs; arguments as there."""
    return kind_of(task)(task, schedule, *args, **kwargs)
