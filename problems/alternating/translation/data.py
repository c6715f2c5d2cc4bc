"""Three tasks' sentences, split, in subwords, as streams of batches."""

import functools
import itertools
import json

import numpy as np

from problems import digests
from problems.alternating.translation import splits, subwords
from problems.alternating.translation.batches import Stream
from problems.alternating.translation.sources import TASKS

TRANSLATION, *TAGGING = TASKS
# Tags have the numbers from here on; one stands before the first.
FIRST_TAG, START_TAG = 2, 1


class Data:
    """What the tasks train and are measured on.

    Args:
        sources: `Sources`.
        counts: (validation, test) sentences of each task.
        symbols: the size of the vocabulary.
        lengths: of the buckets, in subwords, ascending.
        size: rows of a batch.
        seed: of the splits.

    Attributes:
        subwords: `Subwords`, learned on the training parts alone.
        labels: {tagging task: its tags, a list}.
        outputs: {task: how many symbols or tags its decoder tells apart}.
        streams: {task: {split: `Stream`}}.
        pairs: {split: list of `Pair`} of translation.
        empty: pairs and tokens that the sources left out.
        shared: pairs and sentences that share a side with a published test
            sentence, or might: left out.
    """

    def __init__(self, sources, counts, symbols, lengths, size, seed):
        found = splits.split(
            *(sources.items, dict.fromkeys(TASKS, counts), seed),
            sources.tests,
        )
        self.pairs = found[TRANSLATION]
        texts, translations = zip(*self.pairs["train"])
        for task in TAGGING:
            texts += tuple(x.text for x in found[task]["train"])
        self.subwords = subwords.Subwords.learn(
            _alike(texts, translations), symbols
        )
        self.labels, self.outputs = {}, {TRANSLATION: len(self.subwords)}
        self.streams, self._firsts = {}, {}
        self.empty = sources.empty
        self.shared = _count(sources.items) - sum(map(_count, found.values()))
        self.shared += _count(sources.tests)
        self._shape, self._seed = (lengths, size), seed
        self._take_pairs()
        for task in TAGGING:
            self._take_tags(task, found[task])

    @functools.cached_property
    def digest(self):
        """A text that changes with any sentence, tag or subword."""
        texts = [
            "\n".join(itertools.chain.from_iterable(pairs))
            for pairs in self.pairs.values()
        ]
        arrays = [
            array
            for streams in self.streams.values()
            for stream in streams.values()
            for array in stream.arrays()
        ]
        texts.append(json.dumps(self.labels))
        return digests.digest(*texts, *arrays)

    def told(self):
        """A line of text: how many sentences there are, and are not."""

        def told(of_split, count):
            return "/".join(str(count(of_split[s])) for s in splits.NAMES)

        kept, left_out = (
            ", ".join(
                f"{task} {told(of_split, count)}"
                for task, of_split in self.streams.items()
            )
            for count in (
                lambda stream: len(stream.kept),
                lambda stream: stream.left_out,
            )
        )
        return (
            f"sentences ({'/'.join(splits.NAMES)}): {kept}; left out, of more "
            f"than {self._shape[0][-1]} subwords: {left_out}; "
            f"{self.empty} without text"
            + f", {self.shared} too like a test sentence"
            * bool(self.shared)
        )

    def _take_pairs(self):
        self.streams[TRANSLATION] = {
            split: Stream(
                *map(self.sentences, zip(*pairs)),
                *(subwords.START, *self._shape),
            )
            for split, pairs in self.pairs.items()
        }

    def _take_tags(self, task, found):
        labels = {tag for x in found["train"] for tag in x.tags}
        # Subwords behind the first of an entity need what continues it.
        labels |= {"I-" + tag[2:] for tag in labels if tag.startswith("B-")}
        self.labels[task] = sorted(labels)
        self.outputs[task] = FIRST_TAG + len(labels)
        numbers = {tag: i for i, tag in enumerate(sorted(labels), FIRST_TAG)}
        self.streams[task], self._firsts[task] = {}, {}
        for split, items in found.items():
            if task == TASKS[2] and split == "train":
                items = balanced(items, self._seed)
            encoded = self.subwords.encode_tokens(items)
            # A tag that was never seen is as good as padding: in no loss, but
            # wrong wherever it is the truth of a test.
            targets = [
                [numbers.get(x, 0) for x in subwords.carried(each.tags, owners)]
                for each, (_, owners) in zip(items, encoded)
            ]
            self.streams[task][split] = Stream(
                [[*own, subwords.END] for own, _ in encoded],
                *(targets, START_TAG, *self._shape),
            )
            if task == TASKS[2] and split == "train":
                self._check_named(items)
            firsts = [subwords.firsts(owners) for _, owners in encoded]
            self._firsts[task][split] = [
                (each.tags, places) for each, places in zip(items, firsts)
            ]

    def _check_named(self, items):
        """Raises ValueError if no sentence that is short enough has a name."""
        kept = self.streams[TASKS[2]]["train"].kept
        if not any(_is_named(items[i]) for i in kept):
            raise ValueError(
                "No sentence to train on of at most "
                f"{self._shape[0][-1]} subwords has an entity."
            )

    def sentences(self, texts):
        """Subwords with an end, for each text."""
        encoded = self.subwords.encode(list(texts))
        return [[*own, subwords.END] for own in encoded]

    def tags_of(self, task, split, place, outputs):
        """(true tags, told tags) of a sentence's tokens, lists.

        Args:
            task, split: which.
            place: of the sentence, as `Stream.whole` has it.
            outputs: a number for each subword.
        """
        tags, places = self._firsts[task][split][place]
        labels = self.labels[task]
        told = [labels[outputs[i] - FIRST_TAG] for i in places]
        return list(tags), told


def _count(lists):
    """How many items there are in a dictionary of lists."""
    return sum(map(len, lists.values()))


def _alike(*languages):
    """Texts of several languages, as many of each: the fewer ones repeated.

    Each text counts once within its language; else a vocabulary would hold
    words of one language, and letters of the other.
    """
    languages = [list(dict.fromkeys(texts)) for texts in languages]
    most = max(map(len, languages))
    return itertools.chain.from_iterable(
        itertools.islice(itertools.cycle(texts), most) for texts in languages
    )


def balanced(items, seed):
    """Sentences with entities, and no more others, drawn, than these.

    A tagger that has seen names alone tags names everywhere; one that has
    hardly seen any tags none.
    """
    named = [_is_named(each) for each in items]
    plain = np.flatnonzero(~np.array(named))
    if not any(named):
        raise ValueError("No sentence to train on has an entity.")
    drawn = np.random.default_rng([seed, 3]).permutation(plain)
    kept = {*np.flatnonzero(named), *drawn[: sum(named)]}
    return [items[i] for i in sorted(kept)]


def _is_named(item):
    return any(tag != "O" for tag in item.tags)
