"""Atomic checkpoints of arrays and JSON: save, verify, find, resume."""

import json
import os
import pathlib
import zipfile

import numpy as np

_METADATA = "__metadata__"
_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit."""


def save(path, kind, arrays, metadata):
    """Writes one file, so that it is there whole or not at all.

    Args:
        path: the file, conventionally "*.npz".
        kind: what the file is, checked by `load`.
        arrays: {name: array}.
        metadata: JSON-ready dictionary.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"kind": kind, "version": _VERSION, "metadata": metadata}
    content = {name: np.asarray(array) for name, array in arrays.items()}
    content[_METADATA] = np.array(json.dumps(header))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path, kind):
    """Reads a file that `save` wrote: (arrays, metadata).

    Raises:
        CheckpointError: if it is missing, damaged, of another kind, or of a
            newer version. Nothing in the file is ever executed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            # Reading every entry verifies its checksum.
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_METADATA)))
        found, version = header["kind"], header["version"]
        metadata = header["metadata"]
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(
            f"{path} is damaged, or not a file of lopt_tf ({error}). "
            "It was left as it is."
        ) from error
    if found != kind:
        raise CheckpointError(
            f"{path} holds {found!r}, but {kind!r} is needed here."
        )
    if version > _VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this lopt_tf reads up to "
            f"{_VERSION}. Install a newer lopt_tf."
        )
    return arrays, metadata


def below(prefix, arrays):
    """The arrays whose names have a prefix, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def differences(saved, given):
    """["name: saved ..., given ..."] where two dictionaries differ."""
    return [
        f"{name}: saved {saved.get(name)!r}, given {given.get(name)!r}"
        for name in sorted({*saved, *given})
        if saved.get(name) != given.get(name)
    ]


def check_settings(saved, given):
    """Checks that a run resumes with the settings that it began with.

    Args:
        saved, given: {part: {name: JSON-ready value}}.

    Raises:
        CheckpointError: if they differ; the message gives both values.
    """
    different = [
        f"{part}.{line}"
        for part in given
        for line in differences(saved.get(part, {}), given[part])
    ]
    if different:
        raise CheckpointError(
            "The checkpoint was made with other settings: "
            f"{'; '.join(different)}. Resume with the saved ones, or start "
            "anew in another folder."
        )


class Checkpoints:
    """The numbered checkpoints of one long run, newest last.

    Args:
        folder: where they are; None keeps none.
        kind: as for `save`.
        keep: how many to keep.
    """

    def __init__(self, folder, kind, keep=2):
        self.folder = None if folder is None else pathlib.Path(folder)
        self.kind = kind
        self.keep = keep

    def paths(self):
        """Existing checkpoint files, oldest first."""
        if self.folder is None:
            return []
        return sorted(self.folder.glob("checkpoint-*.npz"))

    def save(self, step, arrays, metadata):
        """Saves checkpoint number `step` and drops the oldest ones."""
        if self.folder is None:
            return
        path = self.folder / f"checkpoint-{step:08d}.npz"
        save(path, self.kind, arrays, metadata)
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def check_unused(self, output_dir, what):
        """Makes sure that a new run overwrites no other.

        Args:
            output_dir: the run's folder, as it was named by the user.
            what: the kind of run, such as "a training".

        Raises:
            CheckpointError: if there are checkpoints.
        """
        if self.paths():
            raise CheckpointError(
                f"{output_dir} already holds {what}. Resume it, or name "
                "another folder."
            )

    def load_latest(self):
        """(arrays, metadata) of the newest checkpoint.

        Raises:
            CheckpointError: if there is none, or the newest is damaged; the
                message says how to go on from the one before.
        """
        paths = self.paths()
        if not paths:
            raise CheckpointError(
                f"There is no checkpoint in {self.folder} to resume from. "
                "Start without resuming, or name another folder."
            )
        try:
            return load(paths[-1], self.kind)
        except CheckpointError as error:
            older = (
                f"Delete it to resume from {paths[-2].name}."
                if len(paths) > 1
                else "There is no older one: start anew in another folder."
            )
            raise CheckpointError(f"{error} {older}") from error
