"""A round of episodes in the middle, and how it is kept to go on from."""

import numpy as np

from lopt_tf.autoloss.episodes import Records

_POSITION = "round/position/"


class Round:
    """The episodes of a round, as far as they were played.

    Attributes:
        position: of the episodes.
        records: the `Records` of the segments so far, a list.
        explored: the share of random actions in each of them, a list.
    """

    def __init__(self, position):
        self.position = position
        self.records = []
        self.explored = []

    @property
    def steps(self):
        """How many were played, of the longest episode."""
        return sum(len(each.actions) for each in self.records)

    def add(self, position, records, epsilon):
        """Takes what a segment has come to."""
        self.position = position
        self.records = [*self.records, records]
        self.explored = [*self.explored, float(epsilon)]

    def played(self):
        """Actions, alive and log_prob [T, E] and what was explored [T, 1]."""
        shares = [
            np.full([len(each.actions), 1], share)
            for each, share in zip(self.records, self.explored)
        ]
        parts = [
            (each.actions, each.alive, each.log_prob) for each in self.records
        ]
        return *map(np.concatenate, zip(*parts)), np.concatenate(shares)

    def save(self, episodes):
        """({name: array}, JSON-ready dictionary), for `load`."""
        arrays, facts = episodes.save(self.position)
        found = {_POSITION + name: array for name, array in arrays.items()}
        for number, records in enumerate(self.records):
            for field, array in records._asdict().items():
                found[f"round/records/{number}/{field}"] = array
        return found, {"position": facts, "explored": self.explored}

    @classmethod
    def load(cls, episodes, arrays, metadata):
        """What `save` was told, of the same `Episodes`."""
        position = {
            name.removeprefix(_POSITION): array
            for name, array in arrays.items()
            if name.startswith(_POSITION)
        }
        found = cls(episodes.load(position, metadata["position"]))
        found.explored = list(metadata["explored"])
        found.records = [
            Records(
                *(
                    np.asarray(arrays[f"round/records/{number}/{field}"])
                    for field in Records._fields
                )
            )
            for number in range(len(found.explored))
        ]
        return found
