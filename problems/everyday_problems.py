"""Sets of everyday networks to meta-train and validate on, as data.

Widths of 32 to 512, one to four hidden layers, residual ones too, batches of 8
to 256, starts from N(0, 0.02^2) to He's, with and without norms and weight
decay. No network, and none of the data, are those of `networks`; the text to
validate on is another one than that to train on.
"""

from problems import datasets, everyday_data, text
from problems.everyday_networks import (
    AttentionNet,
    PlainNet,
    PooledConvNet,
    RecurrentNet,
    ResidualMLP,
)

_ROWS = 1000
# The objective at every step looks at so many rows.
_SCORED = 200
_SCORED_IMAGES = 100
_SCORED_TEXTS = 50
_SMALL = 0.02

# What is drawn for each instance: (function, features, classes).
_CLUSTERS = (datasets.random, 32, 10)
_FEW_CLUSTERS = (datasets.random, 24, 8)
_TEACHER = (everyday_data.teacher, 20, 10)
_WIDE_TEACHER = (everyday_data.teacher, 48, 10)
_SMALL_TEACHER = (everyday_data.teacher, 16, 4)
_VALIDATION_CLUSTERS = (datasets.random, 40, 9)
_VALIDATION_TEACHER = (everyday_data.teacher, 28, 6)
# What all share: (name, features, classes, rows).
_IRIS = ("iris", 4, 3, 150)
_WINE = ("wine", 13, 3, 178)
_BREAST_CANCER = ("breast_cancer", 30, 2, 569)

# (data, hidden sizes, batch size, start, further settings).
_PLAIN = (
    (_CLUSTERS, (32,), 32, "he", {}),
    (_TEACHER, (64, 64), 64, "glorot", {}),
    (_WIDE_TEACHER, (128, 128), 128, "he", {}),
    (_CLUSTERS, (512,), 256, _SMALL, {}),
    (_FEW_CLUSTERS, (256,), 8, "glorot", {"activation": "tanh"}),
    (_CLUSTERS, (64, 64, 64), 32, _SMALL, {}),
    (_SMALL_TEACHER, (48,) * 4, 32, "he", {"weight_decay": 1e-4}),
    (_TEACHER, (64, 64), 64, "glorot", {"use_batch_norm": True}),
    (
        _FEW_CLUSTERS,
        (32,) * 4,
        128,
        "he",
        {"use_batch_norm": True, "weight_decay": 1e-4},
    ),
    (_IRIS, (32, 32), 8, "glorot", {"activation": "tanh"}),
    (_WINE, (64,), 16, "he", {"weight_decay": 1e-3}),
    (_BREAST_CANCER, (128,), 32, _SMALL, {}),
)
# As `_PLAIN`; the names of what was there before must not change.
_WIDE = (
    (_CLUSTERS, (256, 256), 64, "glorot", {}),
    (_TEACHER, (512, 512), 32, _SMALL, {}),
)
# (data, size, blocks, batch size, start, further settings).
_RESIDUAL = (
    (_TEACHER, 48, 2, 32, "glorot", {}),
    (
        _FEW_CLUSTERS,
        32,
        4,
        64,
        "glorot",
        {"use_layer_norm": True, "weight_decay": 1e-4},
    ),
)
# (image shape, channels, batch size, start, further settings).
_CONVOLUTIONAL = (
    ((12, 12, 1), (8, 16), 32, "he", {}),
    (
        (8, 8, 3),
        (16,),
        64,
        "glorot",
        {"use_batch_norm": True, "weight_decay": 1e-4},
    ),
)
_TOKENS, _PLACES = 16, 12
# Text of Python's standard library, in pieces of so many characters.
_MODULES = (
    *("configparser", "doctest", "mailbox", "pickle", "shutil", "tarfile"),
)
_VALIDATION_MODULES = (
    *("calendar", "optparse", "pdb", "statistics", "threading", "traceback"),
)
_CHARACTERS, _VALIDATION_CHARACTERS = 24, 20
_VALIDATION_PLAIN = (
    (_VALIDATION_CLUSTERS, (384, 384), 64, _SMALL, {}),
    (_VALIDATION_TEACHER, (96, 96, 96), 48, "glorot", {"activation": "tanh"}),
    (
        _VALIDATION_TEACHER,
        (160, 80),
        32,
        "he",
        {"use_batch_norm": True, "weight_decay": 1e-4},
    ),
)
_VALIDATION_RESIDUAL = (
    (_VALIDATION_TEACHER, 64, 3, 48, "he", {"use_layer_norm": True}),
)


def _plain(data, hidden, batch, start, settings):
    _, features, classes, *rows = data
    return PlainNet(
        features,
        classes,
        _shared(*data) if rows else _drawn(*data),
        batch,
        hidden,
        start=start,
        num_scored=_SCORED,
        **settings,
    )


def _residual(data, size, blocks, batch, start, settings):
    _, features, classes = data
    return ResidualMLP(
        features,
        classes,
        _drawn(*data),
        batch,
        size,
        blocks,
        start,
        num_scored=_SCORED,
        **settings,
    )


def _drawn(kind, features, classes):
    return datasets.Dataset(kind, features, _ROWS, n_classes=classes)


def _shared(name, features, classes, rows):
    del classes
    # Any seed: the instances share one data set.
    return datasets.Dataset(
        everyday_data.packaged, features, rows, random_seed=0, name=name
    )


def _convolutional(shape, channels, batch, start, settings):
    height, width, depth = shape
    dataset = datasets.Dataset(
        everyday_data.images,
        height * width * depth,
        _ROWS,
        shape=shape,
        n_classes=10,
    )
    return PooledConvNet(
        shape,
        10,
        dataset,
        batch,
        channels,
        start=start,
        num_scored=_SCORED_IMAGES,
        **settings,
    )


def _tokens(tokens, places):
    """(how many tokens, places of a row, data)."""
    data = datasets.Dataset(
        everyday_data.tokens, places, _ROWS, n_classes=tokens
    )
    return tokens, places, data


def _source(modules, places):
    """As `_tokens`."""
    data = datasets.Dataset(
        everyday_data.source, places, _ROWS, modules=modules
    )
    return len(text.VOCABULARY), places, data


def _recurrent(rows, batch, embedding, units):
    tokens, _, data = rows
    return RecurrentNet(
        tokens,
        data,
        batch,
        embedding_size=embedding,
        units=units,
        num_scored=_SCORED_TEXTS,
    )


def _attentive(rows, batch, size, heads, start):
    tokens, places, data = rows
    return AttentionNet(
        places,
        tokens,
        data,
        batch,
        size=size,
        heads=heads,
        start=start,
        num_scored=_SCORED_TEXTS,
    )


def problems():
    """The problems to train on, in their order."""
    tokens = _tokens(_TOKENS, _PLACES)
    source = _source(_MODULES, _CHARACTERS)
    return [
        *(_plain(*row) for row in _PLAIN),
        *(_convolutional(*row) for row in _CONVOLUTIONAL),
        _recurrent(tokens, 16, 8, 32),
        _attentive(tokens, 16, 16, 2, _SMALL),
        *(_plain(*row) for row in _WIDE),
        *(_residual(*row) for row in _RESIDUAL),
        _recurrent(source, 32, 12, 40),
        _attentive(source, 8, 24, 2, _SMALL),
    ]


def validation_problems():
    """The problems to validate on: wider nets, other lengths of text."""
    source = _source(_VALIDATION_MODULES, _VALIDATION_CHARACTERS)
    return [
        *(_plain(*row) for row in _VALIDATION_PLAIN),
        _recurrent(_tokens(24, 16), 32, 12, 48),
        _attentive(_tokens(24, 10), 32, 24, 3, "glorot"),
        *(_residual(*row) for row in _VALIDATION_RESIDUAL),
        _recurrent(source, 24, 20, 28),
        _attentive(source, 16, 20, 4, "glorot"),
    ]
