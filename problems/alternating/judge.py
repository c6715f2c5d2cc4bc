"""A classifier that judges generated images: made, kept, read, asked."""

import dataclasses
import functools
import os
import pathlib
import tempfile
import typing
import zipfile

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf

from problems.alternating import scores

# Of the 1,797 digits; the others are held out.
TRAINED_ON = 1400
# The digits' classifier, all chosen.
_EPOCHS, _BATCH, _WIDTH, _FEATURES = 15, 64, 32, 64
_OUTPUTS = ("logits", "probabilities")


class Images(typing.NamedTuple):
    """Images with values in -1..1, [images, height, width, 1].

    Attributes:
        train, held_out: images.
        train_labels, held_out_labels: integers [images]; None if unknown.
    """

    train: np.ndarray
    held_out: np.ndarray
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None


@functools.cache
def digits():
    """scikit-learn's 1,797 digits of 8x8 pixels, 1,400 of them to train on."""
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels = np.float32(pixels[order].reshape(-1, 8, 8, 1) / 8 - 1)
    labels = np.int32(labels[order])
    train, rest = slice(TRAINED_ON), slice(TRAINED_ON, None)
    return Images(pixels[train], pixels[rest], labels[train], labels[rest])


def read_images(path):
    """`Images` of a file ".npz" with "images" [count, size, size] in 0..1.

    Raises:
        ValueError: if it is missing, damaged, or has other images.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            pixels = np.float32(arrays["images"])
    except Exception as error:
        # Whatever NumPy meets in a file that holds no such array.
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Name an "
            ".npz file with an array called images."
        ) from error
    square = pixels.ndim == 3 and pixels.shape[1] == pixels.shape[2]
    if not (square and pixels.shape[1] % 4 == 0 and len(pixels) >= 10):
        raise ValueError(
            f"The images of {path} must be at least ten, [count, size, size] "
            f"with a size divisible by 4. Received: {pixels.shape}."
        )
    if not (
        np.isfinite(pixels).all() and 0 <= pixels.min() <= pixels.max() <= 1
    ):
        raise ValueError(f"The images of {path} must have values in 0..1.")
    pixels = 2 * pixels[..., None] - 1
    most = len(pixels) * 4 // 5
    return Images(pixels[:most], pixels[most:])


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A Keras classifier, and how it is to be asked.

    Args:
        model: from images [images, height, width, channels] to [images,
            classes]. Images of one channel are repeated for others.
        layer: name of the layer whose outputs are the features of
            `scores.frechet_distance`. Defaults to the last but one.
        value_range: what the model takes black and white to be. Defaults to
            (0, 1).
        outputs: "logits" (the default) or "probabilities".
    """

    model: keras.Model
    layer: str | None = None
    value_range: tuple = (0.0, 1.0)
    outputs: str = "logits"

    def __post_init__(self):
        if self.outputs not in _OUTPUTS:
            raise ValueError(
                f"Unknown outputs {self.outputs!r} of a classifier. Known: "
                f"{', '.join(_OUTPUTS)}."
            )
        if (
            not getattr(self.model, "inputs", None)
            or len(self.model.layers) < 2
        ):
            raise ValueError(
                "A classifier must be a sequential or functional Keras model "
                "of at least two layers."
            )
        names = [layer.name for layer in self.model.layers]
        if self.layer is not None and self.layer not in names:
            raise ValueError(
                f"The classifier has no layer {self.layer!r}. It has "
                f"{', '.join(names)}."
            )
        last = self.model.layers[-2] if self.layer is None else None
        features = last or self.model.get_layer(self.layer)
        both = keras.Model(
            self.model.inputs, [self.model.outputs[0], features.output]
        )
        object.__setattr__(self, "_both", both)

    def ask(self, images):
        """Probabilities [images, classes] and features [images, features].

        Args:
            images: in -1..1, [images, height, width, 1].
        """
        low, high = self.value_range
        channels = self.model.inputs[0].shape[-1]
        images = low + (high - low) * (tf.convert_to_tensor(images) + 1) / 2
        images = tf.repeat(images, channels, axis=3) if channels > 1 else images
        outputs, features = self._both(images, training=False)
        if self.outputs == "logits":
            outputs = tf.nn.softmax(outputs)
        return outputs, tf.reshape(features, [tf.shape(features)[0], -1])

    def check_fits(self, images):
        """Raises ValueError if the model does not take images of this size."""
        expected, size = self.model.inputs[0].shape[1:3], images.shape[1:3]
        if any(x not in (None, y) for x, y in zip(expected, size)):
            raise ValueError(
                f"The classifier takes images of {tuple(expected)} pixels; "
                f"these have {tuple(size)}. Name another classifier."
            )

    def score(self, images):
        """The inception score of images, a scalar tensor."""
        return scores.inception_score(self.ask(images)[0])

    def distance(self, images, others):
        """The Frechet distance of two sets of images, a float."""
        first, second = (self.ask(x)[1].numpy() for x in (images, others))
        return scores.frechet_distance(first, second)


def digits_judge(path=None):
    """The `Judge` of digits: read from a file, or trained in seconds.

    Args:
        path: a file "*.keras"; written if it is not there. None keeps it in
            this process alone.

    Raises:
        ValueError: if the file is damaged.
    """
    if path is None:
        return Judge(_digits_classifier())
    path = pathlib.Path(path)
    if not path.exists():
        _save(_digits_classifier(), path)
    return Judge(read_classifier(path))


def read_classifier(path):
    """The Keras model of a file.

    Raises:
        ValueError: if it is missing, damaged, or no model.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no classifier {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"{broken} in it is not what was written")
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        # Whatever Keras meets in a file that is not a model.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"The classifier {path} is damaged, or no Keras model ({reason}). "
            "Delete it to have the digits' trained anew, or name another."
        ) from error


def accuracy(judge, images, labels):
    """The share of images that a judge takes for what they are."""
    return float(np.mean(np.argmax(judge.ask(images)[0], 1) == labels))


def sanity_rows(judge, images):
    """What a judge says of images that are known: rows of a table.

    Args:
        judge: a `Judge`.
        images: `Images`.
    """
    rng = np.random.default_rng(0)
    real = images.train
    flat = real.reshape(len(real), -1)
    known = {
        "real": real,
        "held out": images.held_out,
        "noise": rng.uniform(-1, 1, real.shape).astype("float32"),
        "pixels shuffled": rng.permuted(flat, axis=1).reshape(real.shape),
    }
    if images.train_labels is not None:
        known["one class"] = real[images.train_labels == images.train_labels[0]]
    return [
        {
            "images": name,
            "count": len(each),
            "inception score": float(judge.score(each)),
            "Frechet distance": judge.distance(each, real),
        }
        for name, each in known.items()
    ]


@functools.cache
def _digits_classifier():
    """A small convolutional network: 98 % of the held-out digits or more."""
    images = digits()

    def he(seed):
        return keras.initializers.HeNormal(seed)

    layers = keras.layers
    options = {"activation": "relu", "padding": "same"}
    model = keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            layers.Conv2D(_WIDTH, 3, kernel_initializer=he(0), **options),
            layers.Conv2D(
                _WIDTH, 3, strides=2, kernel_initializer=he(1), **options
            ),
            layers.Flatten(),
            layers.Dense(_FEATURES, "relu", kernel_initializer=he(2)),
            layers.Dropout(0.4, seed=3),
            layers.Dense(10, kernel_initializer=he(4)),
        ]
    )
    # XLA is slow at gradients of strided convolutions on CPUs.
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    orders = [rng.permutation(TRAINED_ON) for _ in range(_EPOCHS)]
    order = np.concatenate(orders)
    # As `Judge` asks it.
    inputs = (images.train[order] + 1) / 2
    model.fit(
        *(inputs, images.train_labels[order]),
        batch_size=_BATCH,
        shuffle=False,
        verbose=0,
    )
    return model


def _save(model, path):
    """Writes a model, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Keras wants this ending.
        written = pathlib.Path(folder) / "model.keras"
        model.save(written)
        content = written.read_bytes()
    number, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(number)
        os.replace(name, path)
    finally:
        pathlib.Path(name).unlink(missing_ok=True)
