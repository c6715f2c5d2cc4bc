"""Image files for tests, and data sets made of them."""

import io
import os
import pathlib
import tarfile

import numpy as np
import tensorflow as tf
from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

VALIDATION = 6


def jpeg(seed, height=40, width=48):
    """The bytes of a JPEG file: a smooth picture of a colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(4, 4, 3)).astype("float32")
    image = tf.image.resize(coarse, (height, width))
    return tf.io.encode_jpeg(tf.cast(image, "uint8")).numpy()


def photographs():
    """Bytes of real photographs where `LOPT_DATA_DIR` has them, else ours."""
    folder = pathlib.Path(os.environ.get("LOPT_DATA_DIR", "nowhere"))
    files = sorted((folder / "imagenet_foolbox20").glob("*.jpg"))
    if files:
        return [file.read_bytes() for file in files]
    return [jpeg(seed) for seed in range(20)]


def ilsvrc(folder, images, classes=4):
    """The two tar files that ImageNet 2012 comes in, with a few images.

    Args:
        folder: where they go.
        images: bytes of JPEG files; the last six are for validation.
        classes: how many of the thousand classes have training images.
    """
    synsets = pathlib.Path(imagenet_common.label_names_file()).read_text()
    synsets = synsets.split()[:classes]
    train, validation = images[:-VALIDATION], images[-VALIDATION:]
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for number, synset in enumerate(synsets):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for i, image in enumerate(train[number::classes]):
                    _add(tar, f"{synset}_{i + 1}.JPEG", image)
            _add(outer, f"{synset}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for i, image in enumerate(validation):
            _add(tar, f"ILSVRC2012_val_{i + 1:08d}.JPEG", image)


def _add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def class_folders(folder, classes=3, images=4):
    """A folder of train/CLASS/FILE and validation/CLASS/FILE."""
    for split in ("train", "validation"):
        for number in range(classes):
            own = folder / split / f"class_{number}"
            own.mkdir(parents=True)
            for i in range(images):
                content = jpeg(10 * number + i)
                if i == 0:
                    image = tf.io.decode_jpeg(content)
                    content = tf.io.encode_png(image[..., :1]).numpy()
                (own / f"{i}.{'png' if i == 0 else 'JPEG'}").write_bytes(
                    content
                )
