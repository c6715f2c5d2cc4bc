"""README's examples of schedules for one's own models, and their cost."""

import inspect
import pathlib
import re
import textwrap

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from lopt_tf import autoloss

ROOT = pathlib.Path(__file__).parents[1]
RNG = np.random.default_rng(0)


def _examples():
    """The Python examples of README's section, as a user would copy them."""
    text = (ROOT / "README.md").read_text()
    (section,) = re.findall(
        r"^## Schedules for your own model\n(.*?)^## ", text, re.M | re.S
    )
    return re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)


def _short(example):
    """The same with fewer steps, epochs and episodes, else as it is."""
    for name, count in (
        ("steps_per_epoch", 60),
        ("epochs", 1),
        ("episodes", "2, parallel=2"),
        ("max_steps, period", "8, 4"),
    ):
        example = re.sub(
            rf"\b{name}( ?= ?)\d+(, \d+)?", rf"{name}\g<1>{count}", example
        )
    return example


def _gan_parts():
    def net(inputs, outputs):
        return keras.Sequential(
            [
                keras.Input((inputs,)),
                keras.layers.Dense(8, "tanh"),
                keras.layers.Dense(outputs),
            ]
        )

    images = RNG.normal(size=(64, 4)).astype("float32")
    options = tf.data.Options()
    # Autotuning can hold up the end of an iterator for seconds.
    options.autotune.enabled = False
    images = tf.data.Dataset.from_tensor_slices(images).batch(16)
    return {
        "generator": net(128, 4),
        "discriminator": net(4, 1),
        "images": images.with_options(options),
    }


def _classifier_parts():
    """A classifier of points, and how far they were rotated as a second task.

    Images of a user would be rotated; points are multiplied by -1.
    """

    def make(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4,))
        body = keras.layers.Dense(8, "tanh", name="body")
        class_head = keras.layers.Dense(2, name="class_head")
        rotation_head = keras.layers.Dense(1, name="rotation_head")
        hidden = body(inputs)
        outputs = {"class": class_head(hidden)}
        outputs["rotation"] = rotation_head(hidden)
        return keras.Model(inputs, outputs)

    def class_loss(model, batch, training):
        inputs, labels = batch
        logits = model.classifier(inputs, training=training)["class"]
        return ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
        )

    def rotation_loss(model, batch, training):
        inputs = batch[0] if isinstance(batch, tuple) else batch
        there, back = (
            model.classifier(x, training=training)["rotation"]
            for x in (inputs, -inputs)
        )
        return ops.mean(ops.softplus(-there) + ops.softplus(back))

    x = RNG.normal(size=(64, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    classifier = make(0)
    return {
        "make_classifier": make,
        "classifier": classifier,
        **{
            name: classifier.get_layer(name)
            for name in ("body", "class_head", "rotation_head")
        },
        "class_loss": class_loss,
        "rotation_loss": rotation_loss,
        "labelled": tf.data.Dataset.from_tensor_slices((x, y))
        .batch(8)
        .repeat(),
        "unlabelled": tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(),
        "x": x,
        "y": y,
        "data": {"valid": (x, y), "test": (x, y)},
    }


def test_readme_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme", **_gan_parts(), **_classifier_parts()}
    for example in _examples():
        exec(compile(_short(example), "README.md", "exec"), names)
        model = names["model"]
        if "discriminator" in example:
            assert model.batches_taken == {"d": 30, "g": 120}
    assert model.schedule.actions == ("classify", "rotate")
    assert autoloss.ScheduleController.load("controller.npz").facts == {}
    assert len(names["history"]) == 1
    assert 0.5 < names["history"][0]["reward"] <= 1


# A GAN of a user in ordinary Keras, and what makes it a scheduled one.


class Gan(keras.Model):
    """As in Keras' own examples: two optimizers and a `train_step`."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.seed_generator = keras.random.SeedGenerator(1)

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer

    def train_step(self, batch):
        logs = {}
        for name, loss, net, optimizer in (
            ("d", d_loss, self.discriminator, self.d_optimizer),
            ("g", g_loss, self.generator, self.g_optimizer),
        ):
            with tf.GradientTape() as tape:
                logs[name] = loss(self, batch, True)
            variables = net.trainable_variables
            gradients = tape.gradient(logs[name], variables)
            optimizer.apply_gradients(zip(gradients, variables))
        return logs


def d_loss(model, batch, training):
    real = model.discriminator(batch, training=training)
    fake = model.discriminator(_fakes(model, batch), training=training)
    return ops.mean(ops.softplus(-real) + ops.softplus(fake))


def g_loss(model, batch, training):
    fake = model.discriminator(_fakes(model, batch), training=training)
    return ops.mean(ops.softplus(-fake))


def _fakes(model, batch):
    shape = (ops.shape(batch)[0], 128)
    noise = keras.random.normal(shape, seed=model.seed_generator)
    return model.generator(noise)


def _scheduled(generator, discriminator):
    model = autoloss.AlternatingModel(
        {
            "d": autoloss.Objective(d_loss, discriminator),
            "g": autoloss.Objective(g_loss, generator),
        },
        generator=generator,
        discriminator=discriminator,
    )
    model.compile(keras.optimizers.SGD(0.1), schedule="1:1")
    return model


def test_a_users_gan_is_scheduled_by_few_lines():
    """The losses and networks stay; under ten lines take `Gan`'s place."""
    added = inspect.getsource(_scheduled).splitlines()[1:-1]
    assert len(textwrap.dedent("\n".join(added)).splitlines()) < 10
    parts = _gan_parts()
    images = parts.pop("images")
    first = [v.numpy() for net in parts.values() for v in net.weights]
    ordinary = Gan(**parts)
    ordinary.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    ordinary.fit(images, epochs=2, verbose=0)
    expected = [v.numpy() for net in parts.values() for v in net.weights]
    weights = [v for net in parts.values() for v in net.weights]
    for v, value in zip(weights, first):
        v.assign(value)
    model = _scheduled(**parts)
    model.seed_generator.state.assign(Gan(**parts).seed_generator.state)
    # Two choices are one step of the other.
    twice = (
        images.unbatch()
        .batch(16)
        .flat_map(lambda x: tf.data.Dataset.from_tensors(x).repeat(2))
    )
    model.fit(twice, steps_per_epoch=8, epochs=1, verbose=0)
    model.fit(twice, steps_per_epoch=8, epochs=1, verbose=0)
    for v, value in zip(weights, expected):
        np.testing.assert_allclose(v.numpy(), value, rtol=1e-4, atol=1e-6)
