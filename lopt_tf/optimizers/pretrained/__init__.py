"""Trained meta-parameters as files: arrays, JSON and a format version."""

import hashlib
import pathlib
import typing

import numpy as np

from lopt_tf import checkpointing
from lopt_tf.optimizers import registry

KIND = "lopt_tf.optimizer"
_FOLDER = pathlib.Path(__file__).parent
# What a user gets who names none.
_DEFAULT = "hierarchical_rnn_scaled"


def save(path, rule, weights):
    """Writes an update rule's configuration and meta-parameters.

    Args:
        path: the file to write.
        rule: the `UpdateRule`.
        weights: {name: array}.
    """
    metadata = {"rule": rule.name, "config": rule.get_config()}
    checkpointing.save(path, KIND, weights, metadata)


def absolute(path):
    """The absolute path of a file, as text."""
    return str(pathlib.Path(path).resolve())


def checked(name, array):
    """A weight array as float32.

    Raises:
        ValueError: if it is not of a real floating type, or not finite.
    """
    array = np.asarray(array)
    if array.dtype.kind != "f":
        raise ValueError(
            f"The weights {name} are {array.dtype}, not floating-point "
            "numbers. Meta-train or save the optimizer again."
        )
    array = array.astype("float32", copy=False)
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"The weights {name} are not finite: the optimizer would make all "
            "parameters NaN. Meta-train it again, or take an older file."
        )
    return array


def digest(weights):
    """A short text that tells weights from others.

    Args:
        weights: {name: array}.
    """
    found = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], "float32")
        found.update(f"{name} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def names(rule_name=None):
    """Names of the weights that ship with the package, the default first.

    Args:
        rule_name: the kind of optimizer; None for all.
    """
    files = sorted(
        _FOLDER.glob("*.npz"), key=lambda file: (file.stem != _DEFAULT, file)
    )
    if rule_name is not None:
        files = [f for f in files if load_rule(f).rule.name == rule_name]
    return [file.stem for file in files]


def path(name):
    """The file of shipped weights.

    Raises:
        ValueError: if there are none of that name.
    """
    if name not in names():
        known = ", ".join(names()) or "none in this version"
        raise ValueError(
            f"There are no pretrained weights named {name!r} (shipped: "
            f"{known}), and no such file. Meta-train an optimizer with "
            "`python -m train_scripts.metatrain`, and give the path of its "
            "optimizer.npz."
        )
    return _FOLDER / f"{name}.npz"


def _find(path_or_name, rule_name):
    """(file, shipped name or None); see `load_rule`."""
    if path_or_name is None:
        path_or_name = next(iter(names(rule_name)), "default")
    as_path = pathlib.Path(path_or_name)
    if as_path.is_dir():
        as_path = as_path / "optimizer.npz"
    if as_path.is_file():
        return as_path, None
    if as_path.suffix or len(as_path.parts) > 1:
        raise checkpointing.CheckpointError(f"There is no file {as_path}.")
    return path(str(path_or_name)), str(path_or_name)


class TrainedRule(typing.NamedTuple):
    """An update rule with its trained weights.

    Attributes:
        rule: the `UpdateRule`.
        weights: {name: array [out, in]}.
        name: the name of shipped weights, or None.
        path: the file that they come from, or None.
    """

    rule: object
    weights: dict
    name: str | None = None
    path: pathlib.Path | None = None


def load_rule(path_or_name=None, rule_name=None):
    """The `TrainedRule` of a file, a folder of a meta-training, or a name.

    Settings that are newer than the file are at their defaults.

    Args:
        path_or_name: the path or name; None for the default ones that ship.
        rule_name: the kind of optimizer that is wanted; None for any.

    Raises:
        ValueError: if the file is missing, damaged or of another kind, or
            the name is unknown.
    """
    file, name = _find(path_or_name, rule_name)
    weights, metadata = checkpointing.load(file, KIND)
    kind = metadata["rule"]
    if rule_name not in (None, kind):
        raise checkpointing.CheckpointError(
            f"{file} holds the optimizer {kind!r}, not {rule_name!r}."
        )
    rule = registry.rule(kind, **metadata["config"])
    return TrainedRule(rule, weights, name, file)
