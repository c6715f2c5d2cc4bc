"""Data sets drawn from a seed, as in the release, and minibatches."""

import numpy as np
import sklearn.datasets

from problems.specification import Specification


class Dataset(Specification):
    """How to draw (data, labels).

    Args:
        draw: function of (num_features, num_examples, random_seed=...) and
            `kw`, one of this module's for instance.
        num_features: columns of data.
        num_examples: rows of data.
        random_seed: an integer if every instance shares one draw. Defaults to
            `None`: each instance of a problem draws its own.
        kw: further arguments of `draw`.
    """

    def __init__(
        self, draw, num_features, num_examples, random_seed=None, **kw
    ):
        self.draw = draw
        self.num_features = num_features
        self.num_examples = num_examples
        self.random_seed = random_seed
        self.kw = kw

    def settings(self):
        settings = super().settings()
        return settings | settings.pop("kw")

    def instances(self, seed, count):
        """(data [K or 1, rows, features] float32, labels [K or 1, rows])."""
        if self.random_seed is not None:
            seeds = [self.random_seed]
        else:
            rng = np.random.default_rng([int(s) & 0xFFFFFFFF for s in seed])
            seeds = rng.integers(2**31, size=count)
        sizes = (self.num_features, self.num_examples)
        draws = [
            self.draw(*sizes, random_seed=int(s), **self.kw) for s in seeds
        ]
        return (
            np.stack([data for data, _ in draws]).astype("float32"),
            np.stack([labels for _, labels in draws]).astype("int32"),
        )


def random(num_features, num_examples, n_classes=2, sep=1.0, random_seed=None):
    """Classes of Gaussian clusters, all features informative."""
    return sklearn.datasets.make_classification(
        n_samples=num_examples,
        n_features=num_features,
        n_informative=num_features,
        n_redundant=0,
        n_classes=n_classes,
        class_sep=sep,
        random_state=random_seed,
    )


def random_mlp(num_features, num_examples, random_seed=None):
    """Normal data, labelled by the sign of a random relu net's output.

    The net has six layers of width 20 without biases; the label is whether
    its first output is positive.
    """
    rng = np.random.RandomState(random_seed)
    data = rng.randn(num_examples, num_features)
    hidden = data
    for layer in range(6):
        if layer:
            hidden = np.maximum(hidden, 0)
        hidden = hidden @ rng.randn(hidden.shape[1], 20)
    return data, (hidden[:, 0] > 0).astype("int32")


def random_binary(num_features, num_examples, random_seed=None):
    """Zeros and ones; the labels [rows, 1] are zeros, and mean nothing."""
    rng = np.random.RandomState(random_seed)
    data = rng.randint(2, size=(num_examples, num_features))
    return data.astype("float32"), np.zeros((num_examples, 1), "int32")


def random_symmetric(num_features, num_examples, random_seed=None):
    """Normal rows, then their negatives; labels [rows, 1] of zeros."""
    if num_examples % 2:
        raise ValueError(
            "Rows and their negatives are an even number of examples. "
            f"Received: num_examples={num_examples}"
        )
    rng = np.random.RandomState(random_seed)
    half = rng.randn(num_examples // 2, num_features)
    data = np.concatenate([half, -half]).astype("float32")
    return data, np.zeros((num_examples, 1), "int32")


def noisy_parity_class(
    num_examples,
    n_classes=2,
    n_context_ids=5,
    noise_prob=0.25,
    random_seed=None,
):
    """Class ids; the label is their sum modulo the classes, or one more.

    The arguments are in the release's order, for the tests of parity with it.
    Problems use `noisy_parity`, which has the order of the other data sets.
    """
    rng = np.random.RandomState(random_seed)
    ids = rng.randint(0, n_classes, size=(num_examples, n_context_ids))
    noise = rng.binomial(1, noise_prob, size=num_examples)
    labels = (ids.sum(axis=1) + noise) % n_classes
    return ids.astype("float32"), labels.astype("int32")


def noisy_parity(num_features, num_examples, random_seed=None, **kw):
    """`noisy_parity_class` of `num_features` ids in a row."""
    return noisy_parity_class(
        num_examples, n_context_ids=num_features, random_seed=random_seed, **kw
    )


def batch_indices(rng, num_examples, batch_size, num_steps):
    """Minibatches [steps, B] from reshuffled epochs, without remainders.

    As in the release, and only for the tests of parity with it: training uses
    `minibatches`. A batch never exceeds the data set. The order is shuffled in
    place again whenever fewer than `batch_size` examples are left.

    Args:
        rng: a `numpy.random.RandomState`, or the module `numpy.random`.
        num_examples: the size of the data set.
        batch_size: the wanted size of a batch.
        num_steps: the number of batches.
    """
    order = np.arange(num_examples)
    rng.shuffle(order)
    batches, start = [], 0
    for _ in range(num_steps):
        if start + batch_size > num_examples:
            rng.shuffle(order)
            start = 0
        batches.append(order[start : start + batch_size].copy())
        start += batch_size
    return np.stack(batches)


def minibatches(seed, first_step, num_steps, instances, num_examples, size):
    """Minibatches of any stretch of an inner run: int32 [steps, K, B].

    Every epoch is a fresh order of all examples for every instance; what is
    left of an epoch after the last full batch is dropped. The result depends
    on the arguments alone, so that a resumed run sees the same batches.

    Args:
        seed: sequence of integers.
        first_step: the first inner step wanted.
        num_steps: how many.
        instances: K.
        num_examples: the size of the data set.
        size: B, at most `num_examples`.
    """
    per_epoch = num_examples // size
    batches, epoch_order = [], (None, None)
    for step in range(first_step, first_step + num_steps):
        epoch, place = divmod(step, per_epoch)
        if epoch_order[0] != epoch:
            rng = np.random.default_rng([*map(int, seed), epoch])
            order = np.tile(
                np.arange(num_examples, dtype="int32"), (instances, 1)
            )
            epoch_order = (epoch, rng.permuted(order, axis=1))
        batches.append(epoch_order[1][:, place * size : (place + 1) * size])
    return np.stack(batches)
