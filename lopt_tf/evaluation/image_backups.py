"""Backups of image trainings: whole, verified, two of them."""

import hashlib
import json
import pathlib
import shutil
import tempfile
import time

import keras
import numpy as np
from keras import ops

from lopt_tf import folders

# Those that Keras writes, and ours.
_FILES = ("latest.weights.h5", "training_metadata.json")
_DIGESTS = "digests.json"
# What a killed training loses at most, if its rows come that often.
_LONGEST_S = 600.0


def newest(folder, report, group=None):
    """The newest backup in a folder that is what was written; None without.

    Args:
        folder: where the backups are.
        report: a function of one line of text, about damaged ones.
        group: the `Replicas` that go on from it: all workers from the same, as
            the chief has found it. Defaults to `None`: this process alone.

    Raises:
        ValueError: if there are backups, and all are damaged.
        OSError: if one cannot be read, perhaps for a moment.
    """
    if group is not None and group.num_workers > 1:
        found = newest(folder, report) if group.is_chief else None
        step = group.of_chief(_step_of(found) if found else 0)
        return _path(folder, step) if step else None
    found = sorted(_all(folder), reverse=True)
    for number, path in enumerate(found):
        if _is_sound(path):
            if number:
                names = ", ".join(old.name for old in found[:number])
                report(f"note: {names} is damaged; resuming from {path.name}")
            return path
    if found:
        raise ValueError(
            f"The backup {found[0]} is damaged, or of an older version, and no "
            "other is whole. Start anew in another folder."
        )
    return None


def _path(folder, step):
    return pathlib.Path(folder) / f"step-{step:09d}"


def _step_of(path):
    return int(path.name.removeprefix("step-"))


def _all(folder):
    """Backups that were finished, if not damaged since."""
    return [
        path
        for path in pathlib.Path(folder).glob("step-*")
        if path.suffix == ""
    ]


def seal(folder):
    """Writes what the files of a finished backup are verified by."""
    (folder / _DIGESTS).write_text(json.dumps(_digests(folder)))


def _digests(folder):
    found = {}
    for name in _FILES:
        with open(folder / name, "rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _is_sound(path):
    try:
        return json.loads((path / _DIGESTS).read_text()) == _digests(path)
    except (FileNotFoundError, ValueError):
        return False


class Backups(keras.callbacks.Callback):
    """Keras' `BackupAndRestore` into folders that are whole or not there.

    The last two are kept. Metrics are written before a backup takes its
    place, so that they are never behind.

    Args:
        folder: where the folders are.
        start: the backup to go on from; None to start anew.
        metrics: the `Metrics`.
        settings: the `Settings`.
        group: the `Replicas` that train. All workers take part in saving, the
            chief writes.
        asked: function that tells whether to save and stop after the present
            steps.
    """

    def __init__(self, folder, start, metrics, settings, group, asked):
        super().__init__()
        self._folder = pathlib.Path(folder)
        self._start = self._last = start
        self._metrics = metrics
        self._settings = settings
        self._group = group
        self._asked = asked
        self._saved = time.monotonic()
        self.was_stopped = False

    def on_train_begin(self, logs=None):
        self._saved = time.monotonic()
        if self._start is None:
            return
        try:
            self._keras_callback(self._start).on_train_begin()
        except MemoryError:
            raise
        except Exception as error:
            # Keras raises whatever it meets in the file.
            raise ValueError(
                f"The backup {self._start} is of another model ({error}). "
                "Start anew in another folder."
            ) from error

    def on_epoch_end(self, epoch, logs=None):
        settings = self._settings
        step = (epoch + 1) * settings.log_every
        is_late = time.monotonic() - self._saved > _LONGEST_S
        asked, is_late = self._group.agree([self._asked(), is_late])
        stops = asked and step < settings.steps
        is_due = step % settings.checkpoint_every == 0
        if stops or is_late or is_due or step == settings.steps:
            self._check_finite(step)
            self._save(epoch, step)
            self._saved = time.monotonic()
        if stops:
            self.was_stopped = self.model.stop_training = True

    def first_step(self):
        """The number of steps that the training goes on after."""
        if self._start is None:
            return 0
        metadata = json.loads((self._start / _FILES[1]).read_text())
        return int(metadata["epoch"]) * self._settings.log_every

    def _check_finite(self, step):
        """Raises FloatingPointError rather than losing the last good one."""
        wrong = [
            weight.path
            for weight in self.model.weights
            if not np.all(np.isfinite(ops.convert_to_numpy(weight)))
        ]
        # A worker may have moving averages of its own.
        if self._group.agree([bool(wrong)])[0]:
            if self._group.is_chief:
                # How it came to that; who goes on drops what is no more.
                self._metrics.write(self._folder.parent / "metrics.csv")
            raise FloatingPointError(
                f"After step {step} {(wrong or ['another worker'])[0]} is not "
                "finite any more: the training has diverged. Lower the "
                f"learning rate in another folder. {self._folder} keeps what "
                "was before."
            )

    def _save(self, epoch, step):
        if not self._group.is_chief:
            with tempfile.TemporaryDirectory() as folder:
                self._keras_callback(folder).on_epoch_end(epoch)
            return
        path = _path(self._folder, step)
        for unfinished in self._folder.glob("step-*.tmp"):
            shutil.rmtree(unfinished)
        unfinished = path.with_suffix(".tmp")
        unfinished.mkdir(parents=True)
        try:
            self._keras_callback(unfinished).on_epoch_end(epoch)
            seal(unfinished)
            self._metrics.write(self._folder.parent / "metrics.csv")
            # One of that step is damaged, or it would have been gone on from.
            shutil.rmtree(path, ignore_errors=True)
            folders.put(unfinished, path)
        except OSError:
            # It may be gigabytes, on a disk that is full.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        # Others are older, or damaged.
        for old in {*_all(self._folder)} - {self._last, path}:
            shutil.rmtree(old)
        self._last = path

    def _keras_callback(self, folder):
        callback = keras.callbacks.BackupAndRestore(
            str(folder), delete_checkpoint=False
        )
        callback.set_model(self.model)
        return callback
