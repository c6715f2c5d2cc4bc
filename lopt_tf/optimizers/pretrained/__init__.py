"""Trained meta-parameters as files: arrays, JSON and a format version."""

import dataclasses
import hashlib
import pathlib
import typing

import numpy as np

from lopt_tf import checkpointing, checks
from lopt_tf.optimizers import registry

KIND = "lopt_tf.optimizer"
_FOLDER = pathlib.Path(__file__).parent
# What a user gets who names none.
_DEFAULT = "hierarchical_rnn_roles"


def save(path, rule, weights):
    """Writes an update rule's configuration and meta-parameters.

    Args:
        path: the file to write.
        rule: the `UpdateRule`.
        weights: {name: array}.

    Raises:
        ValueError: unless the weights are finite float32 arrays of the names
            and shapes that the rule has; nothing is written.
    """
    weights = {name: np.asarray(array) for name, array in weights.items()}
    wrong = checks.wrong_arrays(weights, _shapes(rule))
    if wrong:
        raise ValueError(
            f"{path} was not written: its weights would not be of use "
            f"({checkpointing.some(wrong)})."
        )
    metadata = {"rule": rule.name, "config": rule.get_config()}
    checkpointing.save(path, KIND, weights, metadata)


def absolute(path):
    """The absolute path of a file, as text."""
    return str(pathlib.Path(path).resolve())


def digest(weights, about=""):
    """A short text that tells weights from others.

    Args:
        weights: {name: array}.
        about: what else it shall tell, as text. Defaults to `""`.
    """
    found = hashlib.sha256(about.encode())
    for name in sorted(weights):
        found.update(name.encode())
        found.update(np.ascontiguousarray(weights[name], "float32").tobytes())
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


class UnknownNameError(ValueError):
    """There are no shipped weights of that name, and no such file."""


def path(name):
    """The file of shipped weights.

    Raises:
        UnknownNameError: if there are none of that name.
    """
    if name not in names():
        known = ", ".join(names()) or "none in this version"
        raise UnknownNameError(
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
    if not str(path_or_name):
        raise ValueError("The name of a trained optimizer is empty.")
    if isinstance(path_or_name, str) and path_or_name in names():
        # Whatever lies in the working directory.
        return path(path_or_name), path_or_name
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
            A shipped name means the shipped weights, whatever file or folder
            of that name there is ("./NAME" means those).
        rule_name: the kind of optimizer that is wanted; None for any.

    Raises:
        ValueError: if the file is missing, damaged or of another kind, or
            the name is unknown.
    """
    file, name = _find(path_or_name, rule_name)
    weights, metadata = checkpointing.load(file, KIND)
    rule = _rule(file, metadata, rule_name)
    checkpointing.check_arrays(file, weights, _shapes(rule))
    return TrainedRule(rule, weights, name, file)


def _rule(file, metadata, rule_name):
    """The update rule that a file's metadata describe, checked."""
    kind, config = metadata.get("rule"), metadata.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise checkpointing.CheckpointError(
            f"{file} does not describe an optimizer. Name another file."
        )
    if kind not in registry.OPTIMIZERS:
        raise checkpointing.CheckpointError(
            f"{file} holds the optimizer {kind!r}. Known: "
            f"{', '.join(registry.OPTIMIZERS)}. Import what defines it first, "
            "or install a newer lopt_tf."
        )
    if rule_name not in (None, kind):
        raise checkpointing.CheckpointError(
            f"{file} holds the optimizer {kind!r}, not {rule_name!r}."
        )
    fields = dataclasses.fields(registry.optimizer_class(kind).rule_class)
    defaults = {field.name: field.default for field in fields}
    checkpointing.check_known(file, config, defaults)
    try:
        return registry.rule(kind, **config)
    except (ValueError, TypeError, OverflowError) as error:
        raise checkpointing.CheckpointError(
            f"{file} describes an optimizer that cannot be ({error}). Name "
            "another file."
        ) from error


def _shapes(rule):
    """{name: shape} of a rule's weights."""
    return {name: a.shape for name, a in rule.init_weights(0).items()}
