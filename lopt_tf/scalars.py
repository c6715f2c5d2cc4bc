"""Scalars for TensorBoard, in a folder that appears with the first of them."""

import tensorflow as tf


class Scalars:
    """Writes scalars over the steps of one run.

    Args:
        folder: gets TensorBoard's event files; None writes nothing.
    """

    def __init__(self, folder):
        self._folder = folder
        self._writer = None

    def write(self, step, values):
        """Writes {name: number} at a step."""
        if not self._folder:
            return
        if self._writer is None:
            # A run that ends before its first step leaves no event file.
            self._writer = tf.summary.create_file_writer(str(self._folder))
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def flush(self):
        """Brings what was written so far to the disk."""
        if self._writer is not None:
            self._writer.flush()
