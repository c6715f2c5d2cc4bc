"""Data sets of labelled images: who holds them, and in which order they come.

A source is one split. It gives *records* (an index, a serialized example) in
an order that is a function of (seed, place) alone, and turns a record into an
image and a label. Only what is used is ever read or decoded.
"""

import pathlib

import numpy as np
import tensorflow as tf

from problems import digests, networks

_VALIDATION_FOLDERS = ("validation", "val", "test")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
# Noise that is held, and as how many images it passes.
_SYNTHETIC_IMAGES = 64
_SYNTHETIC_SIZE = 2**20
# Data that needs no folder, and how names of folders begin that must be there.
_HERE = ("digits", "synthetic")
_PATHS = ("/", "./", "../", "~")


class Source:
    """One split of a data set.

    Attributes:
        size: number of images.
        num_classes: number of classes; labels are 0, 1, ....
        augmentation: what suits the images: see `views.AUGMENTATIONS`.
        image_size: pixels of a side, where all images are alike squares;
            else None.
    """

    augmentation = "inception"
    image_size = None

    def __init__(self, size, num_classes):
        self.size = size
        self.num_classes = num_classes

    def identity(self):
        """What tells this split from another one, JSON-ready."""
        return {
            "images": self.size,
            "classes": self.num_classes,
            "content": self._content(),
        }

    def _content(self):
        """A text that changes with the images, or with their files' names."""
        raise NotImplementedError

    def in_order(self):
        """Dataset of all records, each once, in an order that never changes."""
        raise NotImplementedError

    def shuffled(self, seed, first, per_epoch):
        """Endless dataset of records in the order of training.

        Args:
            seed: integer.
            first: the number of the record that comes first, counted since
                training began.
            per_epoch: how many records an epoch has, at most `size`. Each
                epoch has an order of its own.
        """

        def epoch(number):
            return self._epoch(seed, number).take(per_epoch)

        epochs = tf.data.Dataset.counter(first // per_epoch)
        return epochs.flat_map(epoch).skip(first % per_epoch)

    def _epoch(self, seed, epoch):
        """Dataset of all records, each once, in an epoch's order."""
        raise NotImplementedError

    def name_of(self, record):
        """What a record's image is called, a text; "" if it has no name."""
        return ""

    def load(self, record):
        """(image, scalar integer label) of a record.

        The image is uint8 [height, width, 1 or 3], or a string: a file that
        `tf.io.decode_image` reads.
        """
        raise NotImplementedError


class Indexed(Source):
    """A source whose records are indices."""

    def in_order(self):
        return tf.data.Dataset.range(self.size)

    def _epoch(self, seed, epoch):
        order = permutation(self.size, seed, epoch)
        return tf.data.Dataset.from_tensor_slices(order)


class Arrays(Indexed):
    """Images in memory.

    Args:
        images: uint8 [n, side, side, 1 or 3].
        labels: integers [n].
        num_classes: number of classes.
        augmentation: what suits the images. Defaults to "none".
    """

    def __init__(self, images, labels, num_classes, augmentation="none"):
        super().__init__(len(images), num_classes)
        self.augmentation = augmentation
        self.image_size = images.shape[1]
        labels = labels.astype("int64")
        self._digest = digests.digest(images, labels)
        # Made here: within a program of tf.data, 2 GB would be the most.
        with tf.device("CPU"):
            self._images, self._labels = map(tf.constant, (images, labels))

    def _content(self):
        return self._digest

    def load(self, record):
        return self._images[record], self._labels[record]


class Noise(Arrays):
    """Images that come again and again: enough of them for any batch.

    Args:
        images, labels, num_classes: see `Arrays`.
    """

    def __init__(self, images, labels, num_classes):
        super().__init__(images, labels, num_classes)
        self.size = _SYNTHETIC_SIZE

    def load(self, record):
        return super().load(record % _SYNTHETIC_IMAGES)


class Files(Indexed):
    """Image files in one folder for each class.

    Args:
        folder: the split's folder.
        classes: names of the classes' folders.
        each: whether each class must have an image. Defaults to `True`.

    Raises:
        ValueError: if there is no image.
    """

    def __init__(self, folder, classes, each=True):
        paths, labels = [], []
        for label, name in enumerate(classes):
            found = _image_files(folder / name)
            if each and not found:
                raise ValueError(
                    f"There are no images in {folder / name}. They end in "
                    f"{', '.join(_SUFFIXES)}."
                )
            paths += found
            labels += [label] * len(found)
        if not paths:
            raise ValueError(f"There are no images in {folder}/CLASS.")
        super().__init__(len(paths), len(classes))
        self._paths, self._labels = paths, np.array(labels, "int64")
        self._folder = folder

    def _content(self):
        # Their bytes would take as long as a pass over them.
        start = len(str(self._folder))
        return digests.digest("\n".join(path[start:] for path in self._paths))

    def name_of(self, record):
        return self._paths[int(record)]

    def load(self, record):
        path = tf.constant(self._paths)[record]
        return tf.io.read_file(path), tf.constant(self._labels)[record]


def _image_files(folder):
    """Paths of the images below a folder, without what others hide there."""
    return [
        str(file)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _SUFFIXES
        and not any(
            part.startswith(".") for part in file.relative_to(folder).parts
        )
        and file.is_file()
    ]


def permutation(size, *numbers):
    """0 .. size - 1 in an order that integers draw, all bits of them."""
    key = tf.zeros([2], "int64")
    for number in numbers:
        key = tf.random.experimental.stateless_fold_in(
            key, tf.cast(number, "int64")
        )
    places = tf.range(tf.cast(size, "int64"))
    return tf.random.experimental.stateless_shuffle(places, key)


def open_splits(name, data_dir=None, manual_dir=None, image_size=None):
    """(training source, test source) of a data set.

    Args:
        name: "digits" (scikit-learn's 1,797), "synthetic" (noise), a .npz file
            with x_train, y_train, x_test and y_test, a folder (of images, as
            train/CLASS/FILE and validation/CLASS/FILE; or a prepared data set
            of TensorFlow Datasets), or a name of TensorFlow Datasets
            ("imagenet2012", "imagenet_resized/64x64").
        data_dir: where TensorFlow Datasets are prepared.
        manual_dir: where the files are that a data set is made of which cannot
            be downloaded; it is then prepared if it is not yet.
        image_size: of synthetic images. Defaults to `None`: 224.

    Raises:
        ValueError: if it is not there, or not as described.
    """
    path = pathlib.Path(name).expanduser()
    is_here = name in _HERE or path.suffix == ".npz"
    # Names of TensorFlow Datasets may have a slash, too.
    is_folder = "/" in name and path.is_dir()
    if (is_here or is_folder) and (data_dir or manual_dir):
        raise ValueError(
            f"`data_dir` and `manual_dir` have no effect with {name}: they are "
            "for names of TensorFlow Datasets."
        )
    if name == "digits":
        return _digits()
    if name == "synthetic":
        return _synthetic(image_size or 224)
    if path.suffix == ".npz":
        return _npz(path)
    if is_folder and not (path / "dataset_info.json").exists():
        return _image_folder(path)
    if name.startswith(_PATHS) and not is_folder:
        raise ValueError(f"There is no folder {name}.")
    # The import is slow.
    from lopt_tf.images import records

    if is_folder:
        return records.open_folder(path)
    return records.open_name(name, data_dir, manual_dir)


def _digits():
    return [
        Arrays(np.round(images * 255).astype("uint8"), labels, 10)
        for images, labels in networks.split_digits()
    ]


def _synthetic(size):
    rng = np.random.default_rng(0)
    shape = (_SYNTHETIC_IMAGES, size, size, 3)
    images = rng.integers(256, size=shape, dtype="uint8")
    labels = rng.integers(1000, size=_SYNTHETIC_IMAGES)
    # A test takes each once.
    return [source(images, labels, 1000) for source in (Noise, Arrays)]


def _npz(path):
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[key] for key in keys]
    except Exception as error:
        # Whatever NumPy meets in a damaged file, or one that is no archive.
        raise ValueError(
            f"{path} cannot be read as arrays {', '.join(keys)} ({error})."
        ) from error
    train, train_labels, test, test_labels = arrays
    labels = [train_labels.ravel(), test_labels.ravel()]
    images = [x[..., None] if x.ndim == 3 else x for x in (train, test)]
    for x, y in zip(images, labels):
        is_square = x.ndim == 4 and x.shape[1] == x.shape[2]
        if not (is_square and x.shape[3] in (1, 3) and x.dtype == "uint8"):
            raise ValueError(
                f"{path} must hold uint8 images [n, side, side, 1 or 3]. "
                f"Received: {x.dtype} {list(x.shape)}"
            )
        if not len(x):
            raise ValueError(f"{path} must have images in both parts.")
        if len(x) != len(y) or y.dtype.kind not in "iu" or y.min() < 0:
            raise ValueError(f"{path} must have one class number an image.")
    num_classes = 1 + max(int(y.max()) for y in labels)
    augmentation = usual_augmentation(images[0].shape[3])
    return [
        Arrays(x, y, num_classes, augmentation) for x, y in zip(images, labels)
    ]


def usual_augmentation(channels):
    """That of small square images: gray ones are mostly writing."""
    return "none" if channels == 1 else "shift"


def _image_folder(path):
    train = path / "train"
    tests = [path / name for name in _VALIDATION_FOLDERS]
    tests = [folder for folder in tests if folder.is_dir()]
    if not (train.is_dir() and tests):
        raise ValueError(
            f"{path} is no data set: it needs train/CLASS/FILE and "
            "validation/CLASS/FILE, or what TensorFlow Datasets prepare (the "
            "folder with dataset_info.json)."
        )
    classes, tested = (
        sorted(f.name for f in folder.iterdir() if _is_class(f))
        for folder in (train, tests[0])
    )
    unknown = sorted({*tested} - {*classes})
    if unknown:
        raise ValueError(
            f"{tests[0]} has classes that {train} does not have: "
            f"{', '.join(unknown)}."
        )
    return [
        Files(folder, classes, each=folder == train)
        for folder in (train, tests[0])
    ]


def _is_class(path):
    """Whether it is a class's folder: not what other programs hide there."""
    return path.is_dir() and not path.name.startswith(".")
