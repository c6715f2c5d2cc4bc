"""Prepared data sets of TensorFlow Datasets, read record by record."""

import tarfile

import tensorflow as tf
import tensorflow_datasets as tfds

from lopt_tf.images import sources
from problems import tfds_images

_TEST_SPLITS = ("validation", "test")
# Files that are read side by side, and records of one of them in a row.
_FILES = 16
_IN_A_ROW = 16
# Records that are mixed: of ImageNet 2012, 220 MB.
_BLOCK = 2048


class Records(sources.Source):
    """A split of a prepared data set.

    Each epoch reads the files in an order of its own, sixteen at a time, and
    mixes 2,048 records at a time. To begin in the middle of an epoch, its
    records so far are read, but not decoded.

    Args:
        builder: the data set's builder.
        split: the split's name.

    Raises:
        ValueError: if it does not hold labelled images.
    """

    def __init__(self, builder, split):
        features = builder.info.features
        if not (
            {"image", "label"} <= set(features)
            and isinstance(features["label"], tfds.features.ClassLabel)
        ):
            raise ValueError(
                f"The data set {builder.info.full_name} has no image with a "
                f"ClassLabel called label: {', '.join(features)}."
            )
        if builder.info.file_format.value != "tfrecord":
            raise ValueError(
                f"The data set {builder.info.full_name} is in files of the "
                f"format {builder.info.file_format.value}: prepare it as "
                "tfrecord."
            )
        examples = builder.info.splits[split]
        super().__init__(examples.num_examples, features["label"].num_classes)
        self._features = features
        self._files = [str(path) for path in examples.filepaths]
        self._content_name = f"{builder.info.full_name} {split}"
        height, width, channels = features["image"].shape
        if height and height == width:
            self.image_size = height
            self.augmentation = sources.usual_augmentation(channels)

    def _content(self):
        return self._content_name

    def in_order(self):
        return tf.data.TFRecordDataset(self._files)

    def _epoch(self, seed, epoch):
        order = sources.permutation(len(self._files), seed, epoch)
        files = tf.gather(self._files, order)
        files = tf.data.Dataset.from_tensor_slices(files)
        records = files.interleave(
            tf.data.TFRecordDataset,
            cycle_length=_FILES,
            block_length=_IN_A_ROW,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

        def mixed(number, block):
            size = tf.size(block)
            order = sources.permutation(size, seed, epoch, number)
            return tf.data.Dataset.from_tensor_slices(tf.gather(block, order))

        blocks = records.batch(_BLOCK).enumerate().prefetch(1)
        return blocks.flat_map(mixed)

    def name_of(self, record):
        if "file_name" not in self._features:
            return ""
        skipped = {"image": tfds.decode.SkipDecoding()}
        example = self._features.deserialize_example(record, decoders=skipped)
        return example["file_name"].numpy().decode()

    def load(self, record):
        # The image stays a file: its best part is decoded later.
        example = self._features.deserialize_example(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )
        return example["image"], example["label"]


def open_folder(path):
    """(training, test) sources of a folder that holds a prepared data set.

    Raises:
        ValueError: if it is damaged, or holds other data.
    """
    try:
        builder = tfds.builder_from_directory(path)
    except Exception as error:
        # TensorFlow Datasets have no class of errors of their own for it.
        raise ValueError(
            f"The data set in {path} cannot be read ({_in_a_line(error)})."
        ) from error
    return _splits(builder)


def open_name(name, data_dir=None, manual_dir=None):
    """(training, test) sources of a data set of TensorFlow Datasets.

    Args:
        name: its name, say "imagenet2012".
        data_dir: where it was prepared, or shall be.
        manual_dir: as in `sources.open_splits`.

    Raises:
        ValueError: for an unknown name, or if it is not prepared and cannot
            be.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        # Names, configurations and versions: each has an error of its own.
        is_unknown = isinstance(error, tfds.core.DatasetNotFoundError)
        why = "" if is_unknown else f" ({_in_a_line(error)})"
        raise ValueError(
            f"There is no data set {name!r}{why}: name digits, synthetic, a "
            ".npz file, a folder as ./NAME, or one of TensorFlow Datasets."
        ) from error
    is_manual = bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
    if manual_dir and not is_manual:
        raise ValueError(
            f"`manual_dir` has no effect with {name}: `tfds build {name}` "
            "prepares it without files of yours."
        )
    if is_manual and not builder.is_prepared():
        _prepare(builder, manual_dir)
    return _splits(tfds_images.prepared(builder))


def _prepare(builder, manual_dir):
    if not manual_dir:
        needed = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise ValueError(
            f"The data set {builder.name!r} is not prepared in "
            f"{builder.data_path}, and cannot be downloaded: give manual_dir. "
            f"{needed}"
        )
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=config)
    except (AssertionError, tarfile.TarError, tf.errors.OpError) as error:
        raise ValueError(
            f"{builder.name} cannot be prepared from the files in "
            f"{manual_dir} ({_in_a_line(error)})."
        ) from error


def _in_a_line(error):
    return " ".join(str(error).split())[:300]


def _splits(builder):
    splits = builder.info.splits
    tests = [name for name in _TEST_SPLITS if name in splits]
    if "train" not in splits or not tests:
        raise ValueError(
            f"The data set {builder.info.full_name} has no training and test "
            f"data: {', '.join(splits)}."
        )
    return [Records(builder, name) for name in ("train", tests[0])]
