"""Prepared image data sets of TensorFlow Datasets, for classifiers."""

import numpy as np

from problems.specification import Specification, describe


class TfdsImages(Specification):
    """A split of a prepared image data set, read once and never written.

    It has what a problem needs of a `datasets.Dataset`. Images are flat rows
    of numbers from 0 to 1. Nothing is ever downloaded. The same images in
    another folder are the same data set.

    Args:
        name: the data set's name in TensorFlow Datasets, say "mnist".
        data_dir: where it was prepared; None means TensorFlow Datasets'
            default (the environment's TFDS_DATA_DIR, if set).
        split: the split to read. Defaults to "train".

    Raises:
        ValueError: if it is not prepared there; the message tells how to.
    """

    def __init__(self, name, data_dir=None, split="train"):
        examples = prepared_by_name(name, data_dir).as_dataset(
            split=split, batch_size=-1, as_supervised=False
        )
        examples = _tfds().as_numpy(examples)
        images = np.asarray(examples["image"])
        labels = np.asarray(examples["label"]).astype("int32")
        self._settings = {
            "name": name,
            "split": split,
            "images": describe(images),
            "labels": describe(labels),
        }
        self.num_examples = len(images)
        self.image_shape = images.shape[1:]
        self.data = images.reshape(len(images), -1).astype("float32") / 255
        self.labels = labels

    def instances(self, seed, count):
        """(data [1, rows, pixels], labels [1, rows]), shared by all."""
        return self.data[None], self.labels[None]

    def settings(self):
        return self._settings

    @staticmethod
    def is_prepared(name, data_dir=None):
        """Whether the data set is there, so that nothing need be downloaded."""
        return _tfds().builder(name, data_dir=data_dir).is_prepared()


def prepared_by_name(name, data_dir=None):
    """The builder of a data set that is there already; arguments as above.

    Raises:
        ValueError: if it is not prepared there; the message tells how to.
    """
    return prepared(_tfds().builder(name, data_dir=data_dir))


def prepared(builder):
    """The builder of a data set, if it is prepared.

    Raises:
        ValueError: if it is not; the message tells how to.
    """
    if not builder.is_prepared():
        name = builder.name
        if builder.builder_config:
            name = f"{name}/{builder.builder_config.name}"
        raise ValueError(
            f"The data set {name!r} is not prepared in {builder.data_path}. "
            "Nothing is downloaded here. On a machine with internet, run "
            f"`tfds build {name}`, or `tfds.load({name!r}, data_dir=...)` in "
            "Python; then say where it is: data_dir, or the environment's "
            "TFDS_DATA_DIR."
        )
    return builder


def _tfds():
    # Not at the top: the import is slow, and few problems need it.
    import tensorflow_datasets

    return tensorflow_datasets
