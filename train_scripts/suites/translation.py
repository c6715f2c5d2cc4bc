"""Seconds of a translation update in episodes, over those of plain Keras."""

import functools
import statistics

import keras
import tensorflow as tf

from lopt_tf.autoloss import baselines, compiled_episodes
from problems import alternating
from problems.alternating.translation import networks
from problems.alternating.translation.batches import Batch
from train_scripts.suites.rows import row, seconds

# Updates of a repetition.
_UPDATES = 25
# Generated sentences of so many words that every preset has all its symbols.
_SENTENCES = {"pairs": 8000, "tagged": 600, "valid": 100, "test": 100}
_WORDS = {"nouns": 4000, "verbs": 2000, "adjectives": 2000, "names": 2000}
PRESETS = ("demo", "full", "paper")


def measure(repetitions, presets=PRESETS):
    """Translation alone, the same networks and batches, by turns."""
    for preset in presets:
        make = functools.partial(
            alternating.Translation,
            preset=preset,
            **_SENTENCES,
            language=_WORDS,
            hold=_UPDATES,
            validations=1,
        )
        compiling = _repetitions_that_compile(make())
        # Longer than what is run: no validation is timed.
        task = make(updates=_UPDATES * (compiling + repetitions + 1))
        episode, plain = _Episode(task), _Plain(task)
        times = [[], []]
        for number in range(compiling + repetitions):
            for each, taken in zip((episode, plain), times):
                (spent,) = seconds(functools.partial(each.run, number))
                taken.append(spent / _UPDATES)
        ours, theirs = (statistics.median(taken[compiling:]) for taken in times)
        yield row(
            f"translation/{preset}",
            ours,
            "s/update",
            False,
            times_train_on_batch=ours / theirs,
            first_updates_s=sum(times[0][:compiling]) * _UPDATES,
            symbols=task.data.outputs["translation"],
            parameters=plain.model.count_params(),
        )


def _repetitions_that_compile(task):
    """After how many a batch of each length was seen."""
    batches = task.data.streams["translation"]["train"].batches_per_epoch
    shapes = [task.batch(None, 0, i, 0).source.shape for i in range(batches)]
    return max(shapes.index(shape) for shape in {*shapes}) // _UPDATES + 1


class _Episode:
    """An episode of the task, translation alone."""

    def __init__(self, task):
        alone = baselines.published(task)["translation alone"]
        self._played = compiled_episodes.episodes_of(
            task, alone.kind([alone.setting]), _UPDATES // task.hold
        )
        self._position = self._played.begin([0])

    def run(self, number):
        """The next updates."""
        self._position, _ = self._played.advance(self._position)


class _Plain:
    """`train_on_batch` with a Keras model of the same networks."""

    def __init__(self, task):
        self._task = task
        self.model = PlainTranslator(task.networks(task.data.outputs))
        # As the task's networks.
        self.model.compile(
            keras.optimizers.Adam(task.learning_rate, global_clipnorm=1.0),
            _masked,
            jit_compile=task.jit_compile,
        )

    def run(self, number):
        for place in range(_UPDATES):
            update = number * _UPDATES + place
            batch = self._task.batch(None, 0, update, 0)
            inputs = batch.source, batch.inputs
            self.model.train_on_batch(inputs, batch.targets)


class PlainTranslator(keras.Model):
    def __init__(self, made):
        super().__init__()
        self.encoder = made["encoder"]
        self.translation_decoder = made["translation_decoder"]

    def call(self, inputs, training=False):
        batch = Batch(*inputs, inputs[1])
        return networks.logits(self, "translation", batch, training)[0]


def _masked(targets, logits):
    # Keras makes them floats.
    total, _, count = networks.sums(logits, tf.cast(targets, tf.int32))
    return total / count
