"""Networks of ImageNet: train steps beside Adam's, and the images' pipeline."""

import pathlib
import statistics
import tempfile

import keras
import numpy as np
import tensorflow as tf

from lopt_tf.evaluation import image_settings, image_training
from lopt_tf.images import models, pipeline, sources
from train_scripts.suites import networks, update
from train_scripts.suites.rows import row, seconds

_STEPS = 2
# Of the pipeline: a network, pixels, images in a batch, and how many batches.
PIPELINES = {
    "digits": ("resnet20_v2", 8, 64, 50),
    "photographs": ("resnet50_v2", 96, 32, 3),
}
_PHOTOGRAPHS = 64


def measure(repetitions):
    """All rows: steps, first steps, memory; images a second and waiting."""
    for name, network in networks.IMAGE_NETWORKS.items():
        title = f"images/{name}"
        yield update.step_row(
            f"{title}/step_over_adam", network, repetitions, _STEPS
        )
        yield from update.first_step_rows(title, name, 1)
    with tempfile.TemporaryDirectory() as folder:
        for name in PIPELINES:
            yield from _pipeline(name, pathlib.Path(folder), repetitions)


def _pipeline(name, folder, repetitions):
    """The pipeline alone; and a step with it over one that never waits."""
    network, size, batch_size, steps = PIPELINES[name]
    source = _photographs(folder) if name == "photographs" else _digits()
    batches = pipeline.Batches(source, batch_size, size).training(0)
    taken = iter(batches)

    def take():
        for _ in range(steps):
            next(taken)

    take()
    alone = statistics.median(seconds(take, repetitions))
    yield row(
        f"images/pipeline/{name}",
        steps * batch_size / alone,
        "images/s",
        True,
        pixels=size,
        augmentation=source.augmentation,
    )
    model = _compiled(network, size, source.num_classes)
    held = tf.data.Dataset.from_tensors(next(taken)).cache().repeat()
    found = {"held": [], "pipeline": []}
    for _ in range(repetitions + 1):
        for kind, data in (("held", held), ("pipeline", batches)):
            (time,) = seconds(
                lambda data=data: model.fit(
                    data, steps_per_epoch=steps, shuffle=False, verbose=0
                )
            )
            found[kind].append(time / steps)
    # The first ones compile.
    medians = {k: statistics.median(v[1:]) for k, v in found.items()}
    yield row(
        f"images/waiting/{name}/{network}",
        1 - medians["held"] / medians["pipeline"],
        "share of a step",
        False,
        milliseconds={k: 1e3 * m for k, m in medians.items()},
        batch_size=batch_size,
    )


def _digits():
    training, _ = sources.open_splits("digits")
    return training


def _photographs(folder):
    """JPEG files of a photograph's size, in two classes."""
    rng = np.random.default_rng(0)
    for i in range(_PHOTOGRAPHS):
        coarse = rng.integers(256, size=(30, 40, 3)).astype("float32")
        image = tf.cast(tf.image.resize(coarse, (375, 500)), "uint8")
        path = folder / str(i % 2) / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(image).numpy())
    return sources.Files(folder, ("0", "1"))


def _compiled(network, size, num_classes):
    keras.utils.set_random_seed(0)
    model = models.with_precise_logits(models.build(network, size, num_classes))
    settings = image_settings.Settings(model=network, steps=1000)
    image_training.compile_model(model, settings.completed())
    return model
