"""Sets of everyday networks to meta-train and validate on, as data.

Widths of 32 to 512, one to four hidden layers, batches of 8 to 256, starts
from N(0, 0.02^2) to He's, with and without batch normalisation and weight
decay. No network, and none of the data, are those of `networks`.
"""

from problems import datasets, everyday_data
from problems.everyday_networks import (
    AttentionNet,
    PlainNet,
    PooledConvNet,
    RecurrentNet,
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


def _plain(data, hidden, batch, start, settings):
    kind, features, classes, *rows = data
    dataset = (
        _shared(*data)
        if rows
        else datasets.Dataset(kind, features, _ROWS, n_classes=classes)
    )
    return PlainNet(
        features,
        classes,
        dataset,
        batch,
        hidden,
        start=start,
        num_scored=_SCORED,
        **settings,
    )


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


def _texts(tokens, places):
    return datasets.Dataset(
        everyday_data.tokens, places, _ROWS, n_classes=tokens
    )


def _recurrent(tokens, places, batch, embedding, units):
    return RecurrentNet(
        tokens,
        _texts(tokens, places),
        batch,
        embedding_size=embedding,
        units=units,
        num_scored=_SCORED_TEXTS,
    )


def _attentive(tokens, places, batch, size, heads, start):
    return AttentionNet(
        places,
        tokens,
        _texts(tokens, places),
        batch,
        size=size,
        heads=heads,
        start=start,
        num_scored=_SCORED_TEXTS,
    )


def problems():
    """The problems to train on, in their order."""
    return [
        *(_plain(*row) for row in _PLAIN),
        *(_convolutional(*row) for row in _CONVOLUTIONAL),
        _recurrent(_TOKENS, _PLACES, 16, 8, 32),
        _attentive(_TOKENS, _PLACES, 16, 16, 2, _SMALL),
    ]


def validation_problems():
    """The problems to validate on: wider nets, other lengths of text."""
    return [
        *(_plain(*row) for row in _VALIDATION_PLAIN),
        _recurrent(24, 16, 32, 12, 48),
        _attentive(24, 10, 32, 24, 3, "glorot"),
    ]
