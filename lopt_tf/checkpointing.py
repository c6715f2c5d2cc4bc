"""Atomic checkpoints of arrays and JSON: save, verify, find, resume."""

import hashlib
import json
import pathlib
import re

import numpy as np

from lopt_tf import array_files, checks, folders

_METADATA = "__metadata__"
_VERSION = 1
_NAME = re.compile(r"checkpoint-(\d+)\.npz")


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was written."""


def save(path, kind, arrays, metadata):
    """Writes one file, so that it is there whole or not at all.

    Args:
        path: the file, conventionally "*.npz".
        kind: what the file is, checked by `load`.
        arrays: {name: array}.
        metadata: JSON-ready dictionary.

    Raises:
        OSError: if it cannot be written; it names the file.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: np.asarray(array) for name, array in arrays.items()}
    header = {
        "kind": kind,
        "version": _VERSION,
        "metadata": metadata,
        "arrays": _described(content),
    }
    header = json.dumps(header, default=checks.plain)
    content[_METADATA] = np.array(header)
    with folders.whole(path) as file:
        array_files.write(file, content)


def load(path, kind):
    """Reads a file that `save` wrote: (arrays, metadata).

    Every entry is verified whole: its checksum, and that its name, shape and
    type are those that were written (files of older versions do not hold
    these). Nothing in the file is ever executed.

    Raises:
        DamagedError: if it is not what was written, or no file of `save`.
        CheckpointError: if it is missing, of another kind, or of a newer
            version.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        arrays = array_files.read(path)
        header = _header(arrays.pop(_METADATA, None))
        written = header.get("arrays", _described(arrays))
        if written != _described(arrays):
            raise array_files.DamagedError("its arrays are not those written")
    except MemoryError as error:
        raise CheckpointError(
            f"{path} cannot be read: it is larger than memory ({error})."
        ) from error
    except OSError as error:
        # A disk or a permission, perhaps for a moment: not the file's fault.
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}). It was left "
            "as it is."
        ) from error
    except array_files.DamagedError as error:
        raise DamagedError(
            f"{path} is damaged, or not a file of lopt_tf ({error}). "
            "It was left as it is: put a good copy in its place, or name "
            "another file."
        ) from error
    found, version = header["kind"], header["version"]
    if found != kind:
        raise CheckpointError(
            f"{path} holds {found!r}, but {kind!r} is needed here."
        )
    if version > _VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this lopt_tf reads up to "
            f"{_VERSION}. Install a newer lopt_tf."
        )
    return arrays, header["metadata"]


def _described(arrays):
    """{name: [type, shape]} of arrays, as JSON holds it."""
    return {n: [a.dtype.str, list(a.shape)] for n, a in arrays.items()}


def _header(entry):
    """The dictionary that `save` wrote beside the arrays.

    Raises:
        DamagedError: of `array_files`, if there is none.
    """
    try:
        header = json.loads(str(entry))
        kinds = {"kind": str, "version": int, "metadata": dict}
        fits = all(type(header[name]) is kind for name, kind in kinds.items())
    except Exception as error:
        # Also RecursionError, of JSON that is nested too deeply.
        raise array_files.DamagedError(
            f"its description cannot be read: {type(error).__name__}"
        ) from error
    if not fits:
        raise array_files.DamagedError("its description is not one of lopt_tf")
    return header


def check_arrays(path, arrays, expected):
    """Checks weights that were read from a file.

    Args:
        path: the file.
        arrays: {name: array}.
        expected: {name: shape}.

    Raises:
        CheckpointError: unless they are finite float32 arrays of these names
            and shapes.
    """
    wrong = checks.wrong_arrays(arrays, expected)
    if wrong:
        raise CheckpointError(
            f"{path} holds weights that cannot be used ({some(wrong)}). Name "
            "another file."
        )


def check_known(path, settings, defaults):
    """Checks settings that were read from a file.

    Args:
        path: the file.
        settings: {name: value}, as JSON holds them.
        defaults: {name: default} of those that this version knows.

    Raises:
        CheckpointError: for a setting that it does not know, or that is of
            another type than its default.
    """
    unknown = sorted({*settings} - {*defaults})
    if unknown:
        raise CheckpointError(
            f"{path} was made by a newer version of lopt_tf: it has settings "
            f"that this one does not know ({some(unknown)}). Install that "
            "version."
        )
    for name, value in settings.items():
        if not checks.is_like(value, defaults[name]):
            raise CheckpointError(
                f"{path} holds a setting that cannot be: {name}={value!r}. "
                "Name another file."
            )


def some(sentences):
    """The first few of many sentences, as one text."""
    more = f"; {len(sentences) - 4} more" if len(sentences) > 4 else ""
    return "; ".join(sentences[:4]) + more


def digest(content):
    """A text that changes with what JSON-ready content says."""
    text = json.dumps(content, sort_keys=True, default=checks.plain)
    return hashlib.sha256(text.encode()).hexdigest()


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
        # Found damaged; removed when there is a good one again.
        self._damaged = []

    def paths(self):
        """Existing checkpoint files, by number: oldest first."""
        if self.folder is None:
            return []
        found = [
            (int(match[1]), path)
            for path in self.folder.glob("checkpoint-*.npz")
            if (match := _NAME.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]

    def save(self, step, arrays, metadata):
        """Saves checkpoint number `step` and drops the oldest ones."""
        if self.folder is None:
            return
        path = self.folder / f"checkpoint-{step:08d}.npz"
        save(path, self.kind, arrays, metadata)
        damaged = [old for old in self._damaged if old != path]
        good = [old for old in self.paths() if old not in damaged]
        for old in (*damaged, *good[: -self.keep]):
            old.unlink(missing_ok=True)
        self._damaged = []

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

    def load_latest(self, report=None):
        """(arrays, metadata) of the newest checkpoint that is whole.

        Args:
            report: a function of one line of text, about damaged ones.

        Raises:
            CheckpointError: if there is none, all are damaged, or the newest
                is of another kind or a newer version.
        """
        paths = self.paths()
        if not paths:
            raise CheckpointError(
                f"There is no checkpoint in {self.folder} to resume from. "
                "Start without resuming, or name another folder."
            )
        self._damaged = []
        for path in reversed(paths):
            try:
                found = load(path, self.kind)
            except DamagedError as error:
                self._damaged.append(path)
                last = error
                continue
            if self._damaged and report:
                names = ", ".join(old.name for old in self._damaged)
                report(f"note: {names} is damaged; resuming from {path.name}")
            return found
        raise DamagedError(
            f"{last} There is no older one: start anew in another folder."
        ) from last
