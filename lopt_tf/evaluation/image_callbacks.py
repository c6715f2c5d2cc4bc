"""Keras callbacks of image trainings: metrics.csv and backups."""

import csv
import json
import pathlib
import shutil
import tempfile
import time

import keras

from lopt_tf.reporting import tables

METRICS = ("loss", "top1", "top5")
# Keras' names of the metrics.
KERAS_METRICS = ("cross_entropy", "top1", "top5")
_SPEAK_EVERY_S = 10.0
_FILES = ("latest.weights.h5", "training_metadata.json")


def read_metrics(path):
    """The rows of a metrics.csv: list of dictionaries, numbers as such.

    Raises:
        ValueError: if it is missing or no such file.
    """
    try:
        with open(path, newline="") as file:
            rows = [_row(row) for row in csv.DictReader(file)]
        if not rows:
            raise ValueError("it has no rows")
        return rows
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not the metrics.csv of a training ({error})."
        ) from error


def _row(row):
    return {
        "step": int(row["step"]),
        "seconds": float(row["seconds"]),
        "split": row["split"],
        **{name: float(row[name]) for name in METRICS},
    }


class Metrics(keras.callbacks.Callback):
    """Collects the rows of metrics.csv: step, seconds, split, loss, ....

    Seconds are those of training since it began: without tests and backups,
    with the compilation. A row of the split "train" has means over the steps
    since the row before.

    Args:
        settings: the `Settings`.
        report: a function of one line of text.

    Attributes:
        rows: list of dictionaries.
    """

    def __init__(self, settings, report):
        super().__init__()
        self.rows = []
        self._every = settings.log_every
        self._steps = settings.steps
        self._batch_size = settings.batch_size
        self._seconds = 0.0
        self._report = report
        self._spoken = time.perf_counter()

    def begin(self, path, first_step):
        """Takes the rows of an earlier part of the training, if there was one.

        Args:
            path: its metrics.csv.
            first_step: the number of its steps that count.
        """
        if first_step:
            rows = read_metrics(path)
            self.rows = [row for row in rows if row["step"] <= first_step]
            if not self.rows:
                raise ValueError(f"{path} begins after step {first_step}.")
            self._seconds = self.rows[-1]["seconds"]

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()
        self._is_training = True

    def on_test_begin(self, logs=None):
        self._pause()

    def on_epoch_end(self, epoch, logs=None):
        self._pause()
        step = (epoch + 1) * self._every
        self._add(step, "train", "", logs)
        if "val_top1" in logs:
            self._add(step, "test", "val_", logs)
        elif time.perf_counter() - self._spoken < _SPEAK_EVERY_S:
            return
        self._spoken = time.perf_counter()
        self._speak(step)

    def write(self, path):
        """Writes metrics.csv."""
        tables.write_csv(path, self.rows)

    def _pause(self):
        if self._is_training:
            self._last = time.perf_counter() - self._began
            self._seconds += self._last
            self._is_training = False

    def _add(self, step, split, prefix, logs):
        values = [float(logs[f"{prefix}{name}"]) for name in KERAS_METRICS]
        self.rows.append(
            {
                "step": step,
                "seconds": round(self._seconds, 4),
                "split": split,
                **dict(zip(METRICS, values)),
            }
        )

    def _speak(self, step):
        row = self.rows[-1]
        speed = self._every * self._batch_size / self._last
        self._report(
            f"step {step}/{self._steps}, {row['split']}: "
            f"loss {row['loss']:.4g}, top-1 {row['top1']:.1%}, "
            f"top-5 {row['top5']:.1%}; {speed:.4g} images a second"
        )


def newest_backup(folder):
    """The newest whole backup in a folder of them; None if there is none."""
    found = [
        path
        for path in pathlib.Path(folder).glob("step-*")
        if path.suffix == "" and all((path / f).exists() for f in _FILES)
    ]
    return max(found, default=None)


class Backups(keras.callbacks.Callback):
    """Keras' `BackupAndRestore` into folders that are whole or not there.

    The newest one takes the place of the others when it is complete. Metrics
    are written before, so that they are never behind.

    Args:
        folder: where the folders are.
        metrics: the `Metrics`.
        settings: the `Settings`.
        is_chief: whether this process writes. All take part in saving.
        asked: function that tells whether to save and stop after the present
            steps.
    """

    def __init__(self, folder, metrics, settings, is_chief, asked):
        super().__init__()
        self._folder = pathlib.Path(folder)
        self._metrics = metrics
        self._settings = settings
        self._is_chief = is_chief
        self._asked = asked
        self.was_stopped = False

    def on_train_begin(self, logs=None):
        newest = newest_backup(self._folder)
        if newest is None:
            return
        try:
            self._keras_callback(newest).on_train_begin()
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"The backup {newest} is damaged or of another model "
                f"({error}). Start anew in another folder."
            ) from error

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self._settings.log_every
        stops = self._asked() and step < self._settings.steps
        is_last = step == self._settings.steps
        if stops or is_last or step % self._settings.checkpoint_every == 0:
            self._save(epoch, step)
        if stops:
            self.was_stopped = self.model.stop_training = True

    def first_step(self):
        """The number of steps that the newest backup comes after."""
        newest = newest_backup(self._folder)
        if newest is None:
            return 0
        try:
            metadata = json.loads((newest / _FILES[1]).read_text())
            return int(metadata["epoch"]) * self._settings.log_every
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{newest} is damaged ({error}).") from error

    def _save(self, epoch, step):
        if not self._is_chief:
            with tempfile.TemporaryDirectory() as folder:
                self._keras_callback(folder).on_epoch_end(epoch)
            return
        path = self._folder / f"step-{step:09d}"
        unfinished = path.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self._keras_callback(unfinished).on_epoch_end(epoch)
        self._metrics.write(self._folder.parent / "metrics.csv")
        unfinished.replace(path)
        for old in self._folder.glob("step-*"):
            if old != path:
                shutil.rmtree(old)

    def _keras_callback(self, folder):
        callback = keras.callbacks.BackupAndRestore(
            str(folder), delete_checkpoint=False
        )
        callback.set_model(self.model)
        return callback
