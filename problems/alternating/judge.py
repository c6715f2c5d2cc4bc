"""A classifier that judges generated images: made, kept, read, asked."""

import dataclasses
import functools
import os
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from problems import keras_files
from problems.alternating import scores
from problems.alternating.image_data import digits, scaled

# Data sets that a classifier is trained for here, and how often it sees them.
TRAINED = {"digits": 15, "mnist": 1}
# The trained classifier, all chosen.
_BATCH, _WIDTH, _FEATURES = 64, 32, 64
_OUTPUTS = ("logits", "probabilities")
# Images that are asked for at once, so that memory is bounded.
_AT_ONCE = 500
# Of an image; distances take the time of their cube.
_MOST_FEATURES = 4096
# Images whose outputs are looked at, and how far sums of chances may be off 1.
_LOOKED_AT, _ROUNDING = 16, 1e-2
# What a classifier that was kept must know of the images that it judges.
_LEAST_KNOWN = 0.5
# Images of each kind in the table of those that are known.
_KNOWN = 5000


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
        features = _output(self.model, last or self.model.get_layer(self.layer))
        both = keras.Model(self.model.inputs, [self.model.outputs[0], features])
        object.__setattr__(self, "_both", both)

    def ask(self, images):
        """Probabilities [images, classes] and features [images, features].

        Both are NaN of what is not finite, which layers may hide.

        Args:
            images: in -1..1, [images, height, width, channels].
        """
        outputs, features = self._outputs(images)
        if self.outputs == "logits":
            outputs = tf.nn.softmax(outputs)
        features = tf.reshape(features, [tf.shape(features)[0], -1])
        is_finite = tf.reduce_all(tf.math.is_finite(images), [1, 2, 3])
        return [
            tf.where(is_finite[:, None], each, float("nan"))
            for each in (outputs, features)
        ]

    def _outputs(self, images):
        """What the model itself makes of images."""
        low, high = self.value_range
        channels = self.model.inputs[0].shape[-1]
        images = low + (high - low) * (tf.convert_to_tensor(images) + 1) / 2
        if channels != images.shape[3]:
            images = tf.repeat(images, channels, axis=3)
        # A classifier may compute in another type.
        found = self._both(images, training=False)
        return [tf.cast(each, tf.float32) for each in found]

    def told(self, images):
        """What `ask` tells of any number of images, as arrays.

        Args:
            images: in -1..1, or bytes, see `image_data.scaled`.
        """
        places = range(0, len(images), _AT_ONCE)
        parts = [self.ask(scaled(images[i : i + _AT_ONCE])) for i in places]
        outputs, features = zip(*parts)
        return np.concatenate(outputs), np.concatenate(features)

    def check_fits(self, images):
        """Raises ValueError if the model does not take images like these."""
        *expected, channels = self.model.inputs[0].shape[1:]
        *size, own = images.shape[1:]
        if any(x not in (None, y) for x, y in zip(expected, size)):
            raise ValueError(
                f"The classifier takes images of {tuple(expected)} pixels; "
                f"these have {tuple(size)}. Name another classifier."
            )
        if own not in (1, channels):
            raise ValueError(
                f"The classifier takes images of {channels} channels; these "
                f"have {own}. Name another classifier."
            )
        self._check_outputs(images[:_LOOKED_AT])

    def _check_outputs(self, images):
        """Raises ValueError if outputs cannot be what they are said to be."""
        found = self._outputs(scaled(images))[0].numpy()
        if found.ndim != 2 or found.shape[1] < 2:
            raise ValueError(
                "A classifier tells apart two classes at least: outputs "
                f"[images, classes]. These are {found.shape}."
            )
        if not np.isfinite(found).all():
            raise ValueError("The classifier's outputs are not finite.")
        sums = np.abs(found.sum(1) - 1).max()
        are_chances = found.min() >= 0 and sums < _ROUNDING
        if not are_chances and 0 < found.min() <= found.max() < 1:
            raise ValueError(
                "The classifier's outputs are all within 0..1, but no chances "
                f"(their sums are up to {sums:.3g} off 1) and hardly logits: "
                "a sigmoid for each class, say. Name one with a softmax, or "
                "without an activation."
            )
        if are_chances != (self.outputs == "probabilities"):
            other = next(x for x in _OUTPUTS if x != self.outputs)
            raise ValueError(
                f"The classifier's outputs are no {self.outputs}: they are "
                f"{found.min():.3g} to {found.max():.3g}, their sums up to "
                f"{sums:.3g} off 1. Set classifier_outputs={other!r}."
            )

    def score(self, images):
        """The inception score of images, a scalar tensor."""
        return scores.inception_score(self.ask(images)[0])

    def compared(self, images, real_features):
        """How close images are to real ones: {name: float}.

        Args:
            images: as for `told`.
            real_features: what `told` returns of real images.
        """
        check_features(real_features)
        return scores.closeness(self.told(images)[1], real_features)


def check_features(features):
    """Raises ValueError if images cannot be compared by them in time."""
    count = features.shape[1]
    if count > _MOST_FEATURES:
        raise ValueError(
            f"The classifier's layer has {count:,} numbers for an image, too "
            f"many to compare images by (at most {_MOST_FEATURES:,}). Name "
            "another one (classifier_layer)."
        )


def _output(model, layer):
    """What a layer puts out in a model: of models within it not their own."""
    graph = getattr(model, "_functional", model)
    known = {
        id(node) for level in graph._nodes_by_depth.values() for node in level
    }
    nodes = [node for node in layer._inbound_nodes if id(node) in known]
    outputs = nodes[-1].output_tensors if nodes else ()
    if len(outputs) != 1:
        raise ValueError(
            f"The layer {layer.name!r} of the classifier has no output of its "
            "own. Name another (classifier_layer)."
        )
    return outputs[0]


def digits_judge(path=None):
    """The `Judge` of digits: read from a file, or trained in seconds.

    Args:
        path: a file "*.keras"; written if it is not there. None keeps it in
            this process alone.

    Raises:
        ValueError: if the file is damaged.
    """
    return _kept_judge(path, lambda: _digits_classifier())


def mnist_judge(images, path=None):
    """The `Judge` of MNIST, as that of digits; it is trained in a minute.

    Args:
        images: `image_data.Images` with labels.
        path: as for `digits_judge`.
    """
    if images.train_labels is None or images.held_out_labels is None:
        raise ValueError(
            "These images have no labels, which a classifier of them is "
            "trained with. Name one that is trained: classifier_path."
        )
    is_kept = path is not None and pathlib.Path(path).exists()
    judge = _kept_judge(
        path, lambda: _trained_classifier(images, TRAINED["mnist"])
    )
    if not is_kept:
        return judge
    held_out = images.held_out[:_KNOWN], images.held_out_labels[:_KNOWN]
    known = accuracy(judge, *held_out)
    # Here and of a few thousand images it knows 95 % and more.
    if known < _LEAST_KNOWN:
        raise ValueError(
            f"{path} knows {known:.0%} of these images: it was trained on "
            "others. Delete it, or choose another folder."
        )
    return judge


def _kept_judge(path, make):
    if path is None:
        return Judge(make())
    path = pathlib.Path(path)
    if not path.exists():
        _save(make(), path)
    return Judge(read_classifier(path))


def read_classifier(path):
    """The Keras model of a file; ValueError as of `keras_files.read`."""
    return keras_files.read(
        path,
        "classifier",
        "Delete it to have one trained anew, or name another.",
    )


def accuracy(judge, images, labels):
    """The share of images that a judge takes for what they are."""
    return float(np.mean(np.argmax(judge.told(images)[0], 1) == labels))


def some(images, most=_KNOWN):
    """At most so many of the images, drawn once."""
    if len(images) <= most:
        return images
    return images[np.random.default_rng(0).permutation(len(images))[:most]]


def sanity_rows(judge, images):
    """What a judge says of images that are known: rows of a table.

    The inception score of noise may be high; its distance from real images is
    large, and it covers few of them: see `scores.closeness`.

    Args:
        judge: a `Judge`.
        images: `image_data.Images`.
    """
    rng = np.random.default_rng(0)
    real = scaled(some(images.train))
    flat = real.reshape(len(real), -1)
    known = {
        "real": real,
        "held out": some(images.held_out),
        "noise": rng.uniform(-1, 1, real.shape).astype("float32"),
        "pixels shuffled": rng.permuted(flat, axis=1).reshape(real.shape),
    }
    if images.train_labels is not None:
        kinds, counts = np.unique(images.train_labels, return_counts=True)
        # A distance needs two images at least.
        if counts.max() > 1:
            is_kind = images.train_labels == kinds[counts.argmax()]
            known["one class"] = some(images.train[is_kind])
    told = {name: judge.told(each) for name, each in known.items()}
    check_features(told["real"][1])
    return [
        {
            "images": name,
            "count": len(outputs),
            "inception score": float(scores.inception_score(outputs)),
            **scores.closeness(features, told["real"][1]),
        }
        for name, (outputs, features) in told.items()
    ]


@functools.cache
def _digits_classifier():
    """A small convolutional network: 98 % of the held-out digits or more."""
    return _trained_classifier(digits(), TRAINED["digits"])


def _trained_classifier(images, epochs):
    """A small convolutional network of ten classes, trained on images."""

    def he(seed):
        return keras.initializers.HeNormal(seed)

    layers = keras.layers
    options = {"activation": "relu", "padding": "same"}
    model = keras.Sequential(
        [
            keras.Input(images.train.shape[1:]),
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
    rng, count = np.random.default_rng(0), len(images.train)
    order = np.concatenate([rng.permutation(count) for _ in range(epochs)])

    def batches():
        for place in range(0, len(order), _BATCH):
            rows = order[place : place + _BATCH]
            # As `Judge` asks it.
            inputs = (scaled(images.train[rows]) + 1) / 2
            yield inputs, images.train_labels[rows]

    specs = tuple(
        tf.TensorSpec([None, *array.shape[1:]], dtype)
        for array, dtype in (
            (images.train, "float32"),
            (images.train_labels, "int32"),
        )
    )
    data = tf.data.Dataset.from_generator(batches, output_signature=specs)
    steps = -(-len(order) // _BATCH)
    data = data.apply(tf.data.experimental.assert_cardinality(steps))
    model.fit(data, shuffle=False, verbose=0)
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
            # As any new file: others may read it.
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(number, 0o666 & ~mask)
            os.fsync(number)
        os.replace(name, path)
    finally:
        pathlib.Path(name).unlink(missing_ok=True)
