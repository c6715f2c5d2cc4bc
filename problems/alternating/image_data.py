"""Real images for a generator to imitate: digits, data sets, files, folders."""

import contextlib
import functools
import pathlib
import typing

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf

from problems import tfds_images
from problems.alternating.task import DataMissing

# Of the 1,797 digits; the others are held out.
TRAINED_ON = 1400
# Data sets of TensorFlow Datasets, and what they are called in .npz files.
PREPARED = ("mnist", "cifar10")
_OF_KERAS = ("x_train", "x_test", "y_train", "y_test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
# Height and width; the compiled form has matrices in place of convolutions.
_LARGEST_COMPILED = 28
# Fewer images are no data set (chosen).
_LEAST = 10


class Images(typing.NamedTuple):
    """Square images [images, size, size, channels]; see `scaled`.

    Attributes:
        train, held_out: images.
        train_labels, held_out_labels: integers [images]; None if unknown.
    """

    train: np.ndarray
    held_out: np.ndarray
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None


def scaled(images):
    """Images with values in -1..1, from bytes or from what has them already.

    Data sets are kept as bytes, a quarter of what they take as floats.
    """
    if images.dtype != np.uint8:
        return images
    return np.float32(images) / 127.5 - 1


@functools.cache
def digits():
    """scikit-learn's 1,797 digits of 8x8 pixels, 1,400 of them to train on."""
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels = np.float32(pixels[order].reshape(-1, 8, 8, 1) / 8 - 1)
    labels = np.int32(labels[order])
    train, rest = slice(TRAINED_ON), slice(TRAINED_ON, None)
    return Images(pixels[train], pixels[rest], labels[train], labels[rest])


def read(dataset, data_dir=None, image_size=None):
    """`Images` by name.

    Args:
        dataset: "digits"; "mnist" or "cifar10"; an .npz file; or a folder of
            PNG and JPEG files, see `read_folder`.
        data_dir: where "mnist" or "cifar10" is: as TensorFlow Datasets
            prepares it, or as the file that Keras keeps, such as mnist.npz.
        image_size: height and width that a folder's images are resized to.

    Raises:
        DataMissing: if it is not there.
        ValueError: if it is damaged or has other images, or for an argument
            that has no effect with it.
    """
    path = pathlib.Path(dataset)
    is_folder = dataset not in ("digits", *PREPARED) and path.is_dir()
    for name, value, counts in (
        ("data_dir", data_dir, dataset in PREPARED),
        ("image_size", image_size, is_folder),
    ):
        if value is not None and not counts:
            raise ValueError(f"`{name}` has no effect with {dataset}.")
    if dataset == "digits":
        return digits()
    if dataset in PREPARED:
        kept = pathlib.Path(data_dir or ".") / f"{dataset}.npz"
        if data_dir is not None and kept.is_file():
            return read_arrays(kept)
        return _prepared(dataset, data_dir)
    if path.suffix == ".npz":
        return read_arrays(path)
    if is_folder:
        return read_folder(path, image_size)
    raise DataMissing(
        f"There is no data set {dataset!r}. It may be digits, "
        f"{', '.join(PREPARED)}, an .npz file, or a folder of images."
    )


def read_images(path):
    """`Images` of a file ".npz" with "images" [count, size, size] in 0..1.

    Raises:
        ValueError: if it is missing, damaged, or has other images.
    """
    others = "Others are for form='keras'."
    if "images" not in (names := _names(path)):
        raise ValueError(
            f"{path} has no array called images (it has {', '.join(names)}). "
            f"{others}"
        )
    (pixels,) = _arrays(path, ["images"])
    if pixels.ndim != 3 or pixels.shape[1] > _LARGEST_COMPILED:
        raise ValueError(
            f"The images of {path} must be at least ten, [count, size, size] "
            f"with a size divisible by 4, up to {_LARGEST_COMPILED}. Received: "
            f"{pixels.shape}. {others}"
        )
    pixels = scaled(_checked(path, pixels, 4))
    most = len(pixels) * 4 // 5
    return Images(pixels[:most], pixels[most:])


def read_arrays(path):
    """`Images` of an .npz file.

    It holds "images" [count, size, size] or [count, size, size, channels] and
    perhaps "labels" [count], of which the last fifth is held out; or, as those
    of `keras.datasets`, "x_train", "x_test", "y_train" and "y_test". Images are
    bytes, or floats in 0..1.

    Raises:
        ValueError: if it is missing, damaged, or has other images.
    """
    if "x_train" in _names(path):
        train, held_out, *labels = _arrays(path, _OF_KERAS)
        train, held_out = (_checked(path, x) for x in (train, held_out))
        if train.shape[1:] != held_out.shape[1:]:
            raise ValueError(
                f"{path} has images of {train.shape[1:]} to train on, but of "
                f"{held_out.shape[1:]} to test on."
            )
        labels = [np.int32(x).reshape(-1) for x in labels]
    else:
        pixels = _checked(path, _arrays(path, ["images"])[0])
        most = len(pixels) * 4 // 5
        train, held_out, labels = pixels[:most], pixels[most:], [None, None]
        if "labels" in _names(path):
            given = np.int32(_arrays(path, ["labels"])[0]).reshape(-1)
            labels = [given[:most], given[most:]]
    for images, each in zip((train, held_out), labels):
        if each is not None and len(each) != len(images):
            raise ValueError(
                f"{path} has {len(images)} images, but {len(each)} labels."
            )
    return Images(train, held_out, *labels)


def read_folder(path, image_size=None):
    """`Images` of a folder of PNG and JPEG files, a fifth of them held out.

    Files may lie in folders of their own for each class. They must be squares
    of one size, unless `image_size` says what to resize them to, after cutting
    them to squares. If the first is gray, all become gray.

    Raises:
        ValueError: if there are too few, or one is damaged or of another size;
            the message names it.
    """
    path = pathlib.Path(path)
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _SUFFIXES
        and not any(x.startswith(".") for x in file.relative_to(path).parts)
        and file.is_file()
    )
    if len(files) < _LEAST:
        raise DataMissing(
            f"{path} must hold at least {_LEAST} images "
            f"({', '.join(_SUFFIXES)}). It holds {len(files)}."
        )
    names = sorted({file.parent for file in files})
    channels = _channels(files[0])
    order = np.random.default_rng(0).permutation(len(files))
    files = [files[place] for place in order]
    pixels = _decoded(files, channels, image_size)
    most = len(files) * 4 // 5
    labels = [None, None]
    if len(names) > 1:
        every = np.int32([names.index(file.parent) for file in files])
        labels = [every[:most], every[most:]]
    return Images(pixels[:most], pixels[most:], *labels)


def _channels(file):
    """1 or 3; transparency is left out."""
    with _naming(file):
        image = tf.io.decode_image(
            tf.io.read_file(str(file)), expand_animations=False
        )
    return 1 if image.shape[-1] < 3 else 3


def _decoded(files, channels, image_size):
    """Images of files as bytes, read by `tf.data`."""

    def decode(name):
        image = tf.io.decode_image(
            tf.io.read_file(name), channels=channels, expand_animations=False
        )
        if image_size is None:
            return image
        size = [image_size, image_size]
        image = keras.preprocessing.image.smart_resize(image, size)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    names, pixels = [str(file) for file in files], None
    data = tf.data.Dataset.from_tensor_slices(names)
    data = iter(data.map(decode, num_parallel_calls=2))
    for place, file in enumerate(files):
        with _naming(file):
            image = next(data).numpy()
        if pixels is None:
            pixels = np.empty([len(files), *image.shape], "uint8")
        if image.shape != pixels.shape[1:]:
            raise ValueError(
                f"{file} has {image.shape[:2]} pixels, others have "
                f"{pixels.shape[1:3]}. Say image_size=... to resize them."
            )
        pixels[place] = image
    return _checked(files[0].parent, pixels)


@contextlib.contextmanager
def _naming(file):
    """Says which file it was that cannot be decoded."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"{file} is no image, or damaged.") from error
    except tf.errors.OpError as error:
        raise ValueError(f"{file} cannot be read: {error.message}") from error


def _prepared(name, data_dir):
    """`Images` of a data set that TensorFlow Datasets has prepared."""
    try:
        builder = tfds_images.prepared_by_name(name, data_dir)
    except ValueError as error:
        raise DataMissing(str(error)) from error
    splits = ["train", "test"] if "test" in builder.info.splits else ["train"]
    found = []
    for split in splits:
        examples = builder.as_dataset(split=split, batch_size=-1)
        images = _checked(name, examples["image"].numpy())
        found.append((images, np.int32(examples["label"])))
    if len(found) == 1:
        (images, labels), most = found[0], len(found[0][0]) * 4 // 5
        return Images(
            images[:most], images[most:], labels[:most], labels[most:]
        )
    (train, labels), (held_out, others) = found
    return Images(train, held_out, labels, others)


def _names(path):
    """The names of the arrays in an .npz file."""
    with _reading(path), np.load(path, allow_pickle=False) as arrays:
        return list(arrays.files)


def _arrays(path, names):
    with _reading(path), np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in names]


@contextlib.contextmanager
def _reading(path):
    try:
        yield
    except FileNotFoundError as error:
        raise DataMissing(
            f"{path} cannot be read (there is no such file). Name "
            "an .npz file with an array called images."
        ) from error
    except Exception as error:
        # Whatever NumPy meets in a file that holds no such array.
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Name an "
            ".npz file with an array called images."
        ) from error


def _checked(path, pixels, multiple=1):
    """Images [count, size, size, channels]: bytes as they are, or in -1..1.

    Raises:
        ValueError: if there are too few, or they are no such images.
    """
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    fits = (
        pixels.ndim == 4
        and len(pixels) >= _LEAST
        and pixels.shape[1] == pixels.shape[2]
        and pixels.shape[1] % multiple == 0
        and pixels.shape[3] in (1, 3)
    )
    if not fits:
        divisible = f" divisible by {multiple}" if multiple > 1 else ""
        raise ValueError(
            f"The images of {path} must be at least ten, [count, size, size] "
            f"or [count, size, size, channels] with a size{divisible} and 1 "
            f"or 3 channels. Received: {pixels.shape}."
        )
    if pixels.dtype == np.uint8:
        return pixels
    pixels = np.float32(pixels)
    if not (
        np.isfinite(pixels).all() and 0 <= pixels.min() <= pixels.max() <= 1
    ):
        raise ValueError(
            f"The images of {path} must have values in 0..1, or be bytes."
        )
    return 2 * pixels - 1
