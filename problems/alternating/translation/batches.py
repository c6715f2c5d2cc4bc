"""Batches of numbered sentences: static shapes, a few lengths."""

import functools
import typing

import numpy as np

_NO_ROW = -1


class Batch(typing.NamedTuple):
    """Rows of numbers, int32; 0 pads them.

    Attributes:
        source: subwords with their end [B, L].
        inputs: what a decoder sees, the targets one place later [B, L].
        targets: what it shall say [B, L].
    """

    source: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray


class Stream:
    """Sentences in buckets of one length each; longer ones are left out.

    Args:
        sources: lists of subwords, with their ends.
        targets: for each a list of symbols or of tags.
        start: the number that stands before the first target.
        lengths: of the buckets, ascending.
        size: rows of a batch.

    Attributes:
        kept: which of the sentences were not too long, ascending.
        left_out: how many were.
    """

    def __init__(self, sources, targets, start, lengths, size):
        self.size = size
        longest = np.array(
            [max(len(s), len(t)) for s, t in zip(sources, targets)]
        )
        buckets = np.searchsorted(lengths, longest)
        self.kept = np.flatnonzero(buckets < len(lengths))
        self.left_out = len(sources) - len(self.kept)
        if not self.kept.size:
            raise ValueError(
                f"Every one of {len(sources)} sentences is longer than "
                f"{lengths[-1]} subwords. Choose more `symbols`, or longer "
                "`lengths`."
            )
        # (which sentences, their Batch) of each length that occurs.
        self._buckets = []
        for bucket in np.unique(buckets[self.kept]):
            places = np.flatnonzero(buckets == bucket)
            rows = _padded(
                [sources[i] for i in places],
                [targets[i] for i in places],
                *(start, lengths[bucket]),
            )
            self._buckets.append((places, rows))
        self._order = functools.lru_cache(8)(self._epoch)

    def batch(self, seed, number):
        """A `Batch` of `size` rows: a function of two integers.

        An epoch, a permutation of its own, takes each sentence once; a bucket
        that is not a multiple of the size repeats some, one that is smaller is
        filled with rows of zeros, which have no target that counts.
        """
        epoch, place = divmod(number, self.batches_per_epoch)
        bucket, rows = self._order(seed, epoch)[place]
        is_row = (rows >= 0)[:, None]
        return Batch(*(x[rows] * is_row for x in self._buckets[bucket][1]))

    @property
    def batches_per_epoch(self):
        return sum(-(-len(x) // self.size) for x, _ in self._buckets)

    def _epoch(self, seed, epoch):
        """[(bucket, rows)] of all batches of an epoch."""
        rng = np.random.default_rng([seed, epoch])
        found = []
        for bucket, (places, _) in enumerate(self._buckets):
            count = len(places)
            order = rng.permutation(count)
            if count < self.size:
                order = np.pad(
                    order, (0, self.size - count), constant_values=_NO_ROW
                )
            order = np.resize(order, -(-count // self.size) * self.size)
            found += [(bucket, rows) for rows in order.reshape(-1, self.size)]
        return [found[i] for i in rng.permutation(len(found))]

    def arrays(self):
        """All that is in it, a list of arrays."""
        return [x for places, rows in self._buckets for x in (places, *rows)]

    def spaced(self, count):
        """At most so many batches of `whole`, evenly spaced: of all lengths."""
        parts = self._parts()
        places = np.linspace(0, len(parts) - 1, min(count, len(parts)))
        for place in places.round().astype(int):
            yield self._filled(*parts[place])

    def whole(self):
        """Yields (which sentences, `Batch`) once through, in order.

        The last batch of a bucket is filled with rows of zeros, which have no
        target that counts.
        """
        for bucket, first in self._parts():
            places = self._buckets[bucket][0]
            part = self._filled(bucket, first)
            yield places[first : first + self.size], part

    def _parts(self):
        """(bucket, its first row) of all batches of `whole`."""
        return [
            (bucket, first)
            for bucket, (places, _) in enumerate(self._buckets)
            for first in range(0, len(places), self.size)
        ]

    def _filled(self, bucket, first):
        rows = self._buckets[bucket][1]
        part = [x[first : first + self.size] for x in rows]
        missing = self.size - len(part[0])
        return Batch(*(np.pad(x, [(0, missing), (0, 0)]) for x in part))


def _padded(sources, targets, start, length):
    rows = [np.zeros([len(sources), length], "int32") for _ in range(3)]
    for i, (source, target) in enumerate(zip(sources, targets)):
        rows[0][i, : len(source)] = source
        rows[1][i, : len(target)] = [start, *target[:-1]]
        rows[2][i, : len(target)] = target
    return Batch(*rows)
