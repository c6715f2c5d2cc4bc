"""All problems by name, the meta-training corpus first.

"The release", here and elsewhere, is the TensorFlow 1 code that the authors
of a paper published: of *Learned Optimizers that Scale and Generalize* the
folder research/learned_optimizer of github.com/tensorflow/models, of *AutoLoss*
the authors' own repository.
"""

import difflib
import functools

from problems import datasets, everyday_problems, networks, release_sets
from problems.classifiers import FullyConnected
from problems.convnet import ConvNet
from problems.test_functions import Saddle
from problems.tfds_images import TfdsImages, prepared_by_name

# Beyond the release: classifiers of the size and shape of everyday ones, as
# (features, hidden sizes, classes, activation, batch size, separation).
_WIDE_NETS = {
    "wide_classifier_problems": (
        (20, (32,), 10, "relu", 32, 1.5),
        (32, (64, 32), 10, "relu", 32, 2.0),
        (48, (32,), 10, "tanh", 64, 1.0),
        (16, (32, 32, 32), 5, "relu", 16, 1.5),
        (40, (48, 24), 10, "sigmoid", 32, 2.0),
        (64, (64,), 8, "relu", 128, 1.0),
        (24, (24, 24, 24, 24), 6, "tanh", 32, 1.5),
        (12, (100,), 10, "sigmoid", 20, 2.0),
        (24, (48, 48, 48), 10, "relu", 64, 2.0),
        (10, (20, 20), 4, "relu", 16, 1.0),
        (36, (72,), 12, "relu", 16, 1.0),
        (20, (16, 16, 16, 16, 16), 5, "relu", 32, 2.0),
    ),
    # For validation: other sizes, other data.
    "wide_classifier_validation_problems": (
        (56, (40,), 10, "relu", 32, 1.5),
        (28, (56, 56), 10, "relu", 64, 1.5),
        (36, (30, 20), 7, "sigmoid", 24, 1.5),
        (18, (80,), 12, "tanh", 16, 2.0),
    ),
}


def _wide_nets(set_name):
    return [_wide_net(*row) for row in _WIDE_NETS[set_name]]


def _wide_net(features, hidden, classes, activation, batch, sep):
    data = datasets.Dataset(
        datasets.random, features, 1000, n_classes=classes, sep=sep
    )
    return FullyConnected(
        features, classes, data, batch, hidden, activation, num_scored=200
    )


# Sets for meta-training that the release does not have.
_ADDED_SETS = {
    **{n: functools.partial(_wide_nets, n) for n in _WIDE_NETS},
    "everyday_network_problems": everyday_problems.problems,
    "everyday_validation_problems": everyday_problems.validation_problems,
}

# The objective at every step looks at so many of MNIST's 60000 images.
_SCORED = 512


def _mnist_nets(data_dir):
    data = TfdsImages("mnist", data_dir)
    return [
        FullyConnected(784, 10, data, 64, (64,), name, num_scored=_SCORED)
        for name in ("sigmoid", "relu")
    ]


def _mnist_convnets(data_dir):
    data = TfdsImages("mnist", data_dir)
    return [
        ConvNet((28, 28, 1), 10, data, 64, activation=name, num_scored=_SCORED)
        for name in ("sigmoid", "relu")
    ]


def _test_net(features, classes):
    data = datasets.Dataset(datasets.random, features, 1000, n_classes=classes)
    return FullyConnected(
        features, classes, data, 64, (32, 64), use_softmax=True
    )


# Sets that read prepared data: functions of their folder.
_MNIST_SETS = {
    "mnist_fully_connected": _mnist_nets,
    "mnist_convnet": _mnist_convnets,
}
_TEST_SETS = {
    "mlp_test": lambda: [_test_net(10, 2), _test_net(20, 10)],
    "saddle": lambda: [Saddle()],
}


def sets():
    """Returns every set of the release: {set name: list of problems}."""
    return {name: make() for name, make in release_sets.SETS.items()}


def set_names():
    """Names of all sets of the release."""
    return tuple(release_sets.SETS)


def added_sets():
    """Names of the sets for meta-training that the release does not have."""
    return tuple(_ADDED_SETS)


def default_sets():
    """The names of the sets that the release trains on by default."""
    return [
        name for name in set_names() if name not in release_sets.OFF_BY_DEFAULT
    ]


def test_sets():
    """Names of test problems, on which nothing is trained.

    They are like the release's; `mlp_test` has fewer rows, data that each
    instance draws, and starts as the corpus has them.
    """
    return (*_MNIST_SETS, *_TEST_SETS)


def network_sets(data_dir=None):
    """Names of the sets of networks to test on whose data are there.

    Args:
        data_dir: where TensorFlow Datasets are prepared. Defaults to `None`:
            their own default, where MNIST's networks are among the sets if it
            is there.

    Raises:
        ValueError: if MNIST is not in the folder that is named.
    """
    if data_dir is not None:
        prepared_by_name("mnist", data_dir)
    mnist = _MNIST_SETS if TfdsImages.is_prepared("mnist", data_dir) else ()
    return [*mnist, *networks.SETS, "mlp_test"]


def check_data_dir(names, data_dir):
    """Raises ValueError if a folder is named, and none of these reads it.

    Args:
        names: of sets or problems, see `select`.
        data_dir: the folder, or None.
    """
    if data_dir is None:
        return
    chosen = {name.partition(".")[0] for name in names}
    # `select` tells of names that nobody knows.
    known = {"default", *_makers(data_dir)}
    if chosen <= known and not chosen & {*_MNIST_SETS}:
        raise ValueError(
            "`data_dir` has no effect: none of the chosen problems reads such "
            f"data ({', '.join(_MNIST_SETS)} do)."
        )


def select(names, data_dir=None):
    """Problems by name: {name: problem}, in the given order.

    Args:
        names: an iterable of set names ("bowl_problems", "recurrent"), single
            problems ("bowl_problems.2"), or "default": all of `default_sets`.
        data_dir: where TensorFlow Datasets are prepared, for the test
            problems on MNIST. Defaults to `None`: their own default.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    makers = _makers(data_dir)
    chosen = {}
    for name in names:
        if name == "default":
            chosen.update(select(default_sets()))
            continue
        set_name, _, index = name.partition(".")
        if set_name not in makers:
            close = difflib.get_close_matches(set_name, ["default", *makers], 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"Unknown problem set {set_name!r}.{hint} {_known()} One "
                "problem of a set: SET.INDEX."
            )
        members = makers[set_name]()
        if index and not (index.isdigit() and int(index) < len(members)):
            raise ValueError(
                f"Unknown problem {name!r}: {set_name} holds "
                f"{set_name}.0 to {set_name}.{len(members) - 1}."
            )
        wanted = [int(index)] if index else range(len(members))
        chosen.update({f"{set_name}.{i}": members[i] for i in wanted})
    if not chosen:
        raise ValueError(f"No problem was named. {_known()}")
    return chosen


def _makers(data_dir):
    """{set name: function that makes its problems}."""
    return {
        **release_sets.SETS,
        **_ADDED_SETS,
        **{n: functools.partial(m, data_dir) for n, m in _MNIST_SETS.items()},
        **_TEST_SETS,
        **networks.SETS,
    }


def _known():
    return (
        f"Known sets: default, {', '.join([*set_names(), *_ADDED_SETS])}. "
        f"Test sets: {', '.join(test_sets())}. "
        f"Networks: {', '.join(networks.SETS)}."
    )
