"""A folder that remembers finished work, so that nothing is done twice."""

import hashlib
import json
import pathlib

from lopt_tf import checkpointing, folders

_KIND = "lopt_tf.evaluation"
_SETTINGS = "settings.json"


class Store:
    """Finished pieces of work in a folder, each in a file of its own.

    Args:
        folder: the folder; made if it is not there. One process at a time
            may work in it.
        settings: JSON-ready dictionary of all that the results depend on.

    Raises:
        CheckpointError: if the folder holds results of other settings, or is
            damaged.
        ValueError: if another process works in it.
    """

    def __init__(self, folder, settings):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = folders.lock(self.folder)
        self.settings = json.loads(json.dumps(settings))
        self._digest = _digest(self.settings)
        try:
            if self._settings_path.exists():
                _check_same(self._settings_path, self.settings)
        except BaseException:
            self.close()
            raise

    @property
    def _settings_path(self):
        return self.folder / _SETTINGS

    def write_settings(self):
        """Binds the folder to these settings, if it is not yet.

        That is when there are results, or soon will be: a mistake that is
        found before may be corrected in the same folder.
        """
        if not self._settings_path.exists():
            text = json.dumps(self.settings, indent=1) + "\n"
            folders.write_text(self._settings_path, text)

    def has(self, name):
        """Whether that piece is finished."""
        return self._path(name).exists()

    def get(self, name, make):
        """What `make` returned, now or before: (arrays, metadata).

        Args:
            name: the piece's name, a relative path.
            make: function without arguments that does the work and returns
                ({name: array}, JSON-ready metadata).

        Raises:
            CheckpointError: if the piece's file is damaged, or was made with
                other settings.
        """
        path = self._path(name)
        if not path.exists():
            # Before: what was stopped midway may leave files, too.
            self.write_settings()
            arrays, metadata = make()
            checkpointing.save(
                path, _KIND, arrays, {**metadata, "settings": self._digest}
            )
        try:
            arrays, metadata = checkpointing.load(path, _KIND)
        except checkpointing.CheckpointError as error:
            raise checkpointing.CheckpointError(
                f"{error} Delete it to have it made again."
            ) from error
        if metadata.pop("settings") != self._digest:
            raise checkpointing.CheckpointError(
                f"{path} was made with other settings than those of "
                f"{self.folder / _SETTINGS}. Delete it to have it made again."
            )
        return arrays, metadata

    def path(self, name):
        """A file or folder of a piece that keeps its own state."""
        return self.folder / "parts" / name

    def _path(self, name):
        return self.folder / "parts" / f"{name}.npz"

    def close(self):
        """Lets others work in the folder."""
        self._lock.close()


def _digest(settings):
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_same(path, settings):
    try:
        saved = json.loads(path.read_text())
        names = sorted({*saved, *settings})
    except (OSError, ValueError, TypeError) as error:
        raise checkpointing.CheckpointError(
            f"{path} is damaged ({error}). Name another folder."
        ) from error
    different = [
        f"{name}: saved {saved.get(name)!r}, given {settings.get(name)!r}"
        for name in names
        if saved.get(name) != settings.get(name)
    ]
    if different:
        raise checkpointing.CheckpointError(
            f"{path.parent} holds results of other settings "
            f"({'; '.join(different)}). Name another folder, or give the "
            "saved settings to go on."
        )
