"""Splits of corpora that keep sentences which are equal on one side."""

import collections

import numpy as np

NAMES = ("train", "valid", "test")
_TESTS = object()


def split(corpora, counts, seed, tests=None):
    """Splits several corpora at once.

    Sentences that share a side, whatever their capitals and spaces, form a
    group, in one corpus and between corpora; so do those that are linked by
    others. A group is in one split. Validation and test sentences of a corpus
    are drawn from groups without repetition: each counts once.

    Args:
        corpora: {name: list of items}, each item a `Pair` or `Tagged`.
        counts: {name: (validation, test) sentences}.
        seed: of the draw.
        tests: {name: items} that are the test sentences already; what shares
            a side with one of them is left out, and so is what would have
            become another one. Defaults to `None`.

    Returns:
        {name: {"train", "valid", "test": list of items}}.

    Raises:
        ValueError: if a corpus has too few sentences.
    """
    tests = tests or {}
    of_item = _groups({**corpora, _TESTS: sum(tests.values(), [])})
    taken = {*of_item.pop(_TESTS)}
    barred = taken | {
        group
        for groups in of_item.values()
        for group, count in collections.Counter(groups).items()
        if count > 1
    }
    rng = np.random.default_rng([seed, 2])
    assigned = {}
    for name, groups in of_item.items():
        single = [g for g in groups if g not in barred]
        present = collections.Counter(map(assigned.get, single))
        order = iter(rng.permutation(single).tolist())
        wanted_tests = 0 if tests.get(name) else counts[name][1]
        for part, wanted in (
            ("valid", counts[name][0]),
            ("test", wanted_tests),
        ):
            for _ in range(wanted - present[part]):
                group = next((g for g in order if g not in assigned), None)
                if group is None:
                    raise ValueError(
                        f"The corpus {name!r} has too few sentences: {wanted} "
                        f"for {part!r} are wanted. Of {len(groups)} in all, "
                        f"{len(single)} are like no other on either side. Ask "
                        "for fewer, leave out repetitions, or give it more."
                    )
                assigned[group] = part
    found = {name: {part: [] for part in NAMES} for name in corpora}
    for name, items in tests.items():
        found[name]["test"] += items
    for name, items in corpora.items():
        for item, group in zip(items, of_item[name]):
            part = assigned.get(group, "train")
            published = part == "test" and tests.get(name)
            if group not in taken and not published:
                found[name][part].append(item)
        if not found[name]["train"]:
            raise ValueError(
                f"The corpus {name!r} has no sentences left to train on: it "
                f"has {len(items)} in all. Give it more."
            )
    return found


def _groups(corpora):
    """{name: the group of each item, integers}, numbered over all corpora."""
    parents, of_key = [], {}

    def root(place):
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    places = {}
    for name, items in corpora.items():
        places[name] = []
        for item in items:
            own = len(parents)
            parents.append(own)
            places[name].append(own)
            for key in _keys(item):
                other = of_key.setdefault(key, own)
                parents[root(own)] = root(other)
    return {name: [root(x) for x in found] for name, found in places.items()}


def _keys(item):
    """What two items must not share across splits."""
    if hasattr(item, "tokens"):
        return [("source", _plain("".join(item.tokens)))]
    return [("source", _plain(item.source)), ("target", _plain(item.target))]


def _plain(text):
    return "".join(text.split()).casefold()
