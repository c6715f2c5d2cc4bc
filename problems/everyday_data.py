"""Data for everyday networks: drawn from a seed, or part of what is installed.

Each function draws as `datasets.Dataset` needs it: (data, labels) of
`num_features` columns and `num_examples` rows. None of it are the data of
`networks`, on which learned optimizers are tested.
"""

import numpy as np
import sklearn.datasets

from problems import text

_TEACHER_UNITS = 32
_PACKAGED = {
    "iris": sklearn.datasets.load_iris,
    "wine": sklearn.datasets.load_wine,
    "breast_cancer": sklearn.datasets.load_breast_cancer,
}


def teacher(num_features, num_examples, n_classes, random_seed=None):
    """Normal data; the label is the largest output of a random relu net.

    Its outputs have mean 0 and variance 1 over the data, so that no class is
    rare.
    """
    rng = np.random.default_rng(random_seed)
    data = rng.normal(size=(num_examples, num_features))
    first = rng.normal(size=(num_features, _TEACHER_UNITS))
    hidden = np.maximum(data @ first, 0)
    outputs = hidden @ rng.normal(size=(_TEACHER_UNITS, n_classes))
    return data, np.argmax(_standardized(outputs), axis=1)


def images(num_features, num_examples, shape, n_classes, random_seed=None):
    """Flat images: a pattern for each class, shifted, under noise.

    Args:
        num_features, num_examples, n_classes, random_seed: as for `teacher`.
        shape: (height, width, channels), heights and widths that are
            divisible by 4; their product is `num_features`.
    """
    height, width, channels = shape
    rng = np.random.default_rng(random_seed)
    coarse = rng.normal(size=(n_classes, height // 4, width // 4, channels))
    patterns = coarse.repeat(4, axis=1).repeat(4, axis=2)
    labels = rng.integers(n_classes, size=num_examples)
    shifts = rng.integers(-1, 2, size=(num_examples, 2))
    shifted = [
        np.roll(patterns[label], shift, axis=(0, 1))
        for label, shift in zip(labels, shifts)
    ]
    noise = 0.5 * rng.normal(size=(num_examples, num_features))
    return np.reshape(shifted, noise.shape) + noise, labels


def tokens(num_features, num_examples, n_classes, random_seed=None):
    """Rows of tokens, and what follows each: labels [rows, features].

    A token depends on the two before it, by a random table.
    """
    rng = np.random.default_rng(random_seed)
    logits = 2 * rng.normal(size=(n_classes, n_classes, n_classes))
    odds = np.exp(logits)
    bounds = np.cumsum(odds / odds.sum(axis=-1, keepdims=True), axis=-1)
    rows = rng.integers(n_classes, size=(num_examples, num_features + 1))
    for place in range(2, num_features + 1):
        reached = bounds[rows[:, place - 2], rows[:, place - 1], :-1]
        draws = rng.uniform(size=(num_examples, 1))
        rows[:, place] = np.sum(draws > reached, axis=1)
    return rows[:, :-1], rows[:, 1:]


def source(num_features, num_examples, modules, random_seed=None):
    """Pieces of Python source, and what follows each character, as `tokens`.

    Args:
        num_features: characters in a piece.
        num_examples: how many pieces, from random places.
        modules: of the standard library; see `text.standard_library`.
        random_seed: as for `teacher`.
    """
    characters = text.standard_library(modules)
    rng = np.random.default_rng(random_seed)
    starts = rng.integers(len(characters) - num_features, size=num_examples)
    pieces = characters[starts[:, None] + np.arange(num_features + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def packaged(num_features, num_examples, name, random_seed=None):
    """A data set that comes with scikit-learn, its columns standardized.

    Args:
        num_features, num_examples: what the data set has.
        name: "iris", "wine" or "breast_cancer".
        random_seed: nothing is drawn. Defaults to `None`.
    """
    data, labels = _PACKAGED[name](return_X_y=True)
    if data.shape != (num_examples, num_features):
        raise ValueError(
            f"The data set {name} has {data.shape[0]} rows and "
            f"{data.shape[1]} columns. Received: num_examples={num_examples}, "
            f"num_features={num_features}"
        )
    return _standardized(data), labels


def _standardized(columns):
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)
