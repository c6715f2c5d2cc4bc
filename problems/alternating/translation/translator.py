"""Translates and tags with a model, in compiled searches."""

import functools

import numpy as np
import tensorflow as tf

from problems.alternating.translation import layers, search, subwords
from problems.alternating.translation.batches import Stream
from problems.alternating.translation.data import FIRST_TAG, START_TAG
from problems.alternating.translation.sources import TASKS


class Translator:
    """The search for outputs of a model's decoders, compiled for each length.

    Args:
        model: with the attributes that `networks.make` names.
        vocabulary: `Subwords`.
        lengths: of sources, in subwords, ascending.
        size: sentences side by side.
    """

    def __init__(self, model, vocabulary, lengths, size):
        self.model = model
        self.vocabulary = vocabulary
        self.lengths = tuple(lengths)
        self.size = size
        self._search = tf.function(self._found, autograph=False)

    def translate(self, texts, beams=5):
        """Translations of texts.

        Args:
            texts: a list; longer ones than the last length are cut there.
            beams: candidates of each; 1 for greedy search. Defaults to `5`.
        """
        texts = list(texts)
        if not texts:
            return []
        sources = [
            [*own[: self.most_subwords], subwords.END]
            for own in self.vocabulary.encode(texts)
        ]
        stream = Stream(
            *(sources, [[1]] * len(sources), 1), self.lengths, self.size
        )
        found = self.outputs(TASKS[0], stream, beams)
        return [self.vocabulary.decode(found[i]) for i in range(len(texts))]

    @property
    def most_subwords(self):
        """Of a text that is translated whole."""
        return self.lengths[-1] - 1

    def count_cut(self, texts):
        """How many of a list of texts are too long to be translated whole."""
        found = self.vocabulary.encode(texts)
        return sum(len(own) > self.most_subwords for own in found)

    def outputs(self, task, stream, beams=1):
        """{sentence: numbers of its outputs} for all of a `Stream`."""
        found = {}
        for places, batch in stream.whole():
            rows = self._search(batch.source, task, beams).numpy()
            found.update(zip(places.tolist(), rows.tolist()))
        return found

    def _found(self, source, task, beams):
        mask = layers.mask_of(source)
        find = functools.partial(
            search.search,
            getattr(self.model, f"{task}_decoder"),
            *(self.model.encoder(source, training=False), mask),
        )
        if task == TASKS[0]:
            # A translation may be longer than its source.
            symbols, _ = find(
                *(self.lengths[-1], subwords.START, beams, subwords.END),
                first=subwords.END,
            )
            return symbols
        return find(source.shape[1], START_TAG, first=FIRST_TAG)[0]


def tags(translator, data, task, split):
    """(true, told) tags of the sentences of a split, lists of lists."""
    found = translator.outputs(task, data.streams[task][split])
    rows = [data.tags_of(task, split, *item) for item in found.items()]
    return tuple(map(list, zip(*rows)))


def teacher_forced(function, batches):
    """(mean loss, share of hits) of a task's sentences.

    Args:
        function: compiled, of a `Batch`: sums as of `networks.sums`.
        batches: an iterable of `Batch`.
    """
    total = np.zeros(3)
    for batch in batches:
        total += [float(x) for x in function(batch)]
    loss, hits, count = total
    return loss / max(count, 1), hits / max(count, 1)
