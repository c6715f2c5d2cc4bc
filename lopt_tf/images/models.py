"""Convolutional networks by name, untrained: they return logits."""

import pathlib

import keras
import numpy as np
from keras import layers

from problems import keras_files

# Those of `keras.applications` that take pixels in -1..1, with the size of
# images that they were made for.
_APPLICATIONS = {
    "inception_v3": (keras.applications.InceptionV3, 299),
    "resnet50_v2": (keras.applications.ResNet50V2, 224),
    "resnet101_v2": (keras.applications.ResNet101V2, 224),
    "resnet152_v2": (keras.applications.ResNet152V2, 224),
    "inception_resnet_v2": (keras.applications.InceptionResNetV2, 299),
    "xception": (keras.applications.Xception, 299),
    "mobilenet_v2": (keras.applications.MobileNetV2, 224),
}
_SMALL = "resnet20_v2"
MODELS = (_SMALL, *_APPLICATIONS)


def usual_size(name):
    """The pixels of a side that a network was made for; None: any."""
    check(name)
    return None if name == _SMALL else _APPLICATIONS[name][1]


def check(name):
    """Raises ValueError unless it is one of `MODELS`."""
    if name not in MODELS:
        raise ValueError(f"Unknown model {name!r}. Known: {', '.join(MODELS)}.")


def build(name, image_size, num_classes):
    """A Keras model of images [n, size, size, 3] in -1..1.

    Args:
        name: one of `MODELS`.
        image_size: pixels of a side.
        num_classes: how many logits.

    Raises:
        ValueError: for an unknown name, or if the network cannot take images
            of that size.
    """
    check(name)
    if name == _SMALL:
        return resnet20_v2(image_size, num_classes)
    make, usual = _APPLICATIONS[name]
    try:
        return make(
            weights=None,
            input_shape=(image_size, image_size, 3),
            classes=num_classes,
            classifier_activation=None,
        )
    except ValueError as error:
        raise ValueError(
            f"{name} cannot take images of {image_size} pixels (it was made "
            f"for {usual}): {str(error).splitlines()[0]}"
        ) from error


def take_weights(model, path):
    """Gives a network the weights of a trained one of the same kind.

    Its last layer starts anew if it has another number of classes.

    Args:
        model: the network.
        path: of the trained one's file, as `image_training.train` writes it;
            or its folder.

    Raises:
        ValueError: if it is missing, damaged, or another network.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path /= "model.keras"
    trained = keras_files.read(path, "network", "Name another, or train anew.")
    ours, theirs = (
        [x for x in each.layers if x.weights] for each in (model, trained)
    )
    if _shapes(*ours[:-1]) != _shapes(*theirs[:-1]):
        raise ValueError(
            f"The network of {path} is not a {model.name} for images of that "
            "size. Start from one of the same kind."
        )
    if _shapes(ours[-1]) != _shapes(theirs[-1]):
        ours.pop()
    for one, other in zip(ours, theirs):
        arrays = other.get_weights()
        if not all(np.all(np.isfinite(array)) for array in arrays):
            raise ValueError(
                f"The network of {path} has weights that are not finite: it "
                "has diverged. Start from another."
            )
        one.set_weights(arrays)


def _shapes(*parts):
    return [weight.shape for part in parts for weight in part.weights]


def with_precise_logits(model, make=keras.Model):
    """The same network, whose logits are float32 whatever it computes in.

    Args:
        model: the network.
        make: the class of the new one. Defaults to `keras.Model`.
    """
    logits = layers.Activation("linear", dtype="float32", name="logits")
    return make(model.inputs, logits(model.outputs[0]), name=model.name)


def resnet20_v2(image_size, num_classes):
    """The residual network of He et al. 2016 (v2) for small images.

    A convolution; three groups of three blocks of 16, 32 and 64 channels, the
    later groups at half the resolution; the mean over all places; a linear
    layer. A block adds two 3x3 convolutions to its input, each after batch
    normalization and relu. Batch statistics are those of all replicas.

    Raises:
        ValueError: if the images are smaller than 4 pixels.
    """
    if image_size < 4:
        raise ValueError(
            "resnet20_v2 takes images of at least 4 pixels. "
            f"Received: image_size={image_size}"
        )
    inputs = layers.Input((image_size, image_size, 3))
    values = _convolution(16)(inputs)
    for channels in (16, 32, 64):
        for block in range(3):
            stride = 2 if channels > 16 and block == 0 else 1
            values = _block(values, channels, stride)
    values = layers.GlobalAveragePooling2D()(_normalized(values))
    return keras.Model(inputs, layers.Dense(num_classes)(values), name=_SMALL)


def _block(values, channels, stride):
    hidden = _normalized(values)
    if stride > 1:
        # The shortcut, too, begins with the normalized values.
        values = _convolution(channels, stride, size=1)(hidden)
    hidden = _convolution(channels, stride)(hidden)
    hidden = _convolution(channels)(_normalized(hidden))
    return layers.Add()([values, hidden])


def _convolution(channels, stride=1, size=3):
    return layers.Conv2D(
        channels,
        size,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )


def _normalized(values):
    # JAX programs see the batch of all devices anyway.
    is_shared = keras.backend.backend() == "tensorflow"
    values = layers.BatchNormalization(synchronized=is_shared)(values)
    return layers.Activation("relu")(values)
