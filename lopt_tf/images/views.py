"""What a network sees of an image: random views to train on, one to test on.

All that is random is a function of a seed, so that an image that is seen again
by a resumed training is seen as before.
"""

import functools

import keras
import tensorflow as tf

AUGMENTATIONS = ("inception", "shift", "none")
# Of the image; Szegedy et al. 2015, section 6.
_LEAST_AREA = 0.08
_ASPECT_RATIOS = (3 / 4, 4 / 3)
# What a test looks at: the middle of photographs.
_CENTRAL = 0.875
# Of an image's side, added at each edge before a random crop.
_PADDING = 1 / 8


def random_view(image, size, seed, augmentation):
    """An image to train on: float32 [size, size, 3] in -1..1.

    Args:
        image: as `sources.Source.load` gives it.
        size: pixels of a side.
        seed: integers [2].
        augmentation: "inception": a part of 8 % to 100 % of the image, of an
            aspect ratio of 3/4 to 4/3, resized, perhaps flipped, in other
            colours (Szegedy et al. 2015); "shift": the image moved by up to
            an eighth, perhaps flipped (He et al. 2016); "none".
    """
    if augmentation == "inception":
        image = _resized(_random_part(image, seed), size)
    else:
        image = _resized(_decoded(image), size)
    if augmentation == "shift":
        padded = size + 2 * round(size * _PADDING)
        image = tf.image.resize_with_crop_or_pad(image, padded, padded)
        shape = (size, size, 3)
        image = tf.image.stateless_random_crop(image, shape, seed)
    images = image[None] / 255
    for number, layer in enumerate(_layers(augmentation)):
        changes = layer.get_random_transformation(
            images, training=True, seed=_Seeds(seed, number)
        )
        images = layer.transform_images(images, changes, training=True)
    return 2 * tf.ensure_shape(images[0], (size, size, 3)) - 1


def test_view(image, size, augmentation):
    """An image to test on; see `random_view`. Of photographs the middle."""
    image = _decoded(image)
    if augmentation == "inception":
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        shorter = tf.cast(tf.minimum(height, width), "float32")
        side = tf.cast(tf.round(_CENTRAL * shorter), "int32")
        image = tf.image.resize_with_crop_or_pad(image, side, side)
    return 2 * (_resized(image, size) / 255) - 1


@functools.cache
def _layers(augmentation):
    """Keras' layers, applied in this order."""
    layers = _colours() if augmentation == "inception" else ()
    if augmentation != "none":
        flip = keras.layers.RandomFlip("horizontal", dtype="float32")
        layers = (flip, *layers)
    for layer in layers:
        # In tf.data, whatever backend the network computes on.
        layer.backend.set_backend("tensorflow")
    return layers


def _colours():
    # Of pixels in 0..1; float32, whatever the network computes in.
    about = {"value_range": (0, 1), "dtype": "float32"}
    return (
        keras.layers.RandomBrightness(32 / 255, **about),
        # Saturation times 0.5 to 1.5: times f / (1 - f) in Keras' terms.
        keras.layers.RandomSaturation((1 / 3, 0.6), **about),
        # Times 0.5 to 1.5, and up to 0.2 to either side.
        keras.layers.RandomContrast(0.5, **about),
        keras.layers.RandomHue((0.0, 0.4), **about),
    )


class _Seeds(keras.random.SeedGenerator):
    """The seeds of one layer's call: functions of a seed, not of a state.

    Args:
        seed: integers [2].
        layer: the layer's number.
    """

    def __init__(self, seed, layer):
        # Without the variable that Keras' own seeds live in.
        self._seed = tf.cast(seed, "int32")
        self._layer = layer
        self._drawn = 0

    def next(self, ordered=True):
        del ordered
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(
            self._seed, 100 * self._layer + self._drawn
        )


def _decoded(image):
    if image.dtype == tf.string:
        image = tf.io.decode_image(image, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
    elif image.shape[-1] == 1:
        image = tf.repeat(image, 3, axis=-1)
    return image


def _resized(image, size):
    if image.shape == (size, size, 3):
        return tf.cast(image, "float32")
    return tf.image.resize(image, (size, size))


def _random_part(image, seed):
    """A random part of an image; of a JPEG file only that is decoded."""
    if image.dtype != tf.string:
        return _part(_decoded(image), seed)
    return tf.cond(
        tf.io.is_jpeg(image),
        lambda: tf.image.decode_and_crop_jpeg(
            image, _window(tf.image.extract_jpeg_shape(image), seed), channels=3
        ),
        lambda: _part(_decoded(image), seed),
    )


def _part(image, seed):
    window = _window(tf.shape(image), seed)
    return tf.image.crop_to_bounding_box(image, *tf.unstack(window))


def _window(shape, seed):
    """(top, left, height, width) of a random part of an image, [4]."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=_ASPECT_RATIOS,
        area_range=(_LEAST_AREA, 1.0),
        max_attempts=10,
    )
    return tf.concat([begin[:2], size[:2]], 0)
