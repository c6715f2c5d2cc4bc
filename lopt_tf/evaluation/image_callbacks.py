"""The Keras callback that makes the metrics.csv of image trainings."""

import csv
import time

import keras

from lopt_tf.reporting import tables

METRICS = ("loss", "top1", "top5")
# Keras' names of the metrics.
KERAS_METRICS = ("cross_entropy", "top1", "top5")
_SPEAK_EVERY_S = 10.0


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
