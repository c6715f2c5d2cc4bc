"""The task "gan" on Keras networks: MNIST, CIFAR-10, any folder of images."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from problems.alternating import (
    gan_losses,
    gan_settings,
    image_data,
    keras_gan_nets,
    scores,
)
from problems.alternating.gan_settings import GanSettings
from problems.alternating.supervised import check_positive
from problems.alternating.task import ModelTask

# What differs by data set. Those of digits are as in the compiled form, those
# of the others published, but for a batch of 128 in place of 256 on CIFAR-10.
_OF_DIGITS = {
    **{"width": 8, "z_dim": 16, "batch_size": 64, "learning_rate": 3e-3},
    **{"kernel": 4, "block": 1, "initial": "he", "batch_norm": False},
}
_OF_OTHERS = {
    **{"width": 64, "z_dim": 128, "batch_size": 128, "learning_rate": 2e-4},
    **{"kernel": 5, "block": 1, "initial": "normal", "batch_norm": True},
}
_DEFAULTS = {
    "digits": _OF_DIGITS,
    "mnist": {**_OF_OTHERS, "block": 4, "batch_norm": False},
}
# Images that are made and judged at once, so that memory is bounded.
_AT_ONCE = 500
# Of the generator's images in a Frechet distance.
_COMPARED = 2000


@dataclasses.dataclass(eq=False)
class KerasGan(GanSettings, ModelTask):
    """The published DCGANs, or smaller ones, as Keras models.

    The task is that of `GanSettings`, with the same metadata: a controller of
    one form plays the other. An update's images and random numbers are a
    function of the start and of the updates before it. Scores of an episode
    are those of other images each time.

    Published: 200,000 steps, a score at every 500th, the end after 50 without
    a better one. `max_steps` and `period` are what a processor core can do.

    Args:
        dataset: "digits", "mnist", "cifar10", an .npz file or a folder of PNG
            and JPEG files: see `image_data.read`.
        learning_rate, width, z_dim, batch_norm, batch_size: if `None`, the
            default, those of the data set: on MNIST 0.0002, 64, 128, False,
            128, as published; on digits those of the compiled form; on all
            others as on MNIST, with `batch_norm`.
        kernel: height and width of the kernels. Defaults to 5, on digits 4.
        block: the generator's updates in one step. Defaults to 4 on MNIST
            (published), 1 otherwise.
        initial: "normal" (deviation 0.02) or "he". Defaults to "normal", on
            digits "he".
        patience: see `ModelTask`.
        data_dir: where "mnist" or "cifar10" is, see `image_data.read`.
        image_size: of a folder's images. Defaults to `None`: their own.
    """

    learning_rate: float | None = None
    width: int | None = None
    z_dim: int | None = None
    batch_norm: bool | None = None
    batch_size: int | None = None
    kernel: int | None = None
    block: int | None = None
    initial: str | None = None
    patience: int | None = None
    data_dir: str | None = None
    image_size: int | None = None

    measures = ("inception score",)
    tells = ("score", "generator_loss", "discriminator_loss")
    # XLA makes the gradients of strided convolutions on CPUs 60 times slower.
    jit_compile = False

    def __post_init__(self):
        defaults = _DEFAULTS.get(self.dataset, _OF_OTHERS)
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.check_settings()
        for name in ("kernel", "block"):
            check_positive(int, 64, **{name: getattr(self, name)})
        for name in ("patience", "image_size"):
            if getattr(self, name) is not None:
                check_positive(int, 2**28, **{name: getattr(self, name)})
        self.check_chosen("initial", keras_gan_nets.INITIAL)
        self.images = image_data.read(
            self.dataset, self.data_dir, self.image_size
        )
        keras_gan_nets.depth(self.images.train.shape[1])
        self._losses = gan_losses.LOSSES[self.loss]

    def build(self):
        # Not above: the house has tasks below AutoLoss.
        from lopt_tf import autoloss

        shape, kernel = self.images.train.shape[1:], self.kernel
        generator = keras_gan_nets.generator(
            *(shape, self.z_dim, self.width, kernel, self.batch_norm)
        )
        discriminator = keras_gan_nets.discriminator(
            *(shape, self.width, kernel, self.activation)
        )
        model = autoloss.AlternatingModel(
            {
                "discriminator": autoloss.Objective(
                    self.discriminator_loss, discriminator
                ),
                "generator": autoloss.Objective(
                    self.generator_loss, generator, self.block
                ),
            },
            discriminator=discriminator,
            generator=generator,
            averages=keras_gan_nets.Averages(),
        )
        model.compile(
            {
                name: keras.optimizers.Adam(
                    self.learning_rate, beta_1=0.5, epsilon=1e-8
                )
                for name in self.actions
            },
            measure_every=0,
            jit_compile=self.jit_compile,
        )
        self._made = tf.function(generator, autograph=False)
        self._judged = tf.function(
            lambda z: self.judge.ask(generator(z)), autograph=False
        )
        return model

    def discriminator_loss(self, model, batch, training):
        """The loss of a batch: real images and z."""
        real, z = batch

        def uniform(shape):
            return keras.random.uniform(shape, seed=model.seed_generator)

        loss, found = self._losses.discriminator(
            _Nets, _networks(model), real, z, uniform
        )
        if training:
            model.averages.take(found, of_generator=False)
        return loss

    def generator_loss(self, model, batch, training):
        """The loss of a batch, of which z alone counts."""
        loss, found = self._losses.generator(_Nets, _networks(model), batch[1])
        if training:
            model.averages.take(found, of_generator=True)
        return loss

    def start(self, model, setting, seed):
        # Made here: a classifier is not trained in the middle of episodes.
        self.judge  # noqa: B018
        rates = self.rates([seed])[0]
        for place, name in enumerate(self.actions):
            network = getattr(model, name)
            keras_gan_nets.begin(network, [seed, place, 2], self.initial)
            model.optimizers[name].learning_rate = rates[place]

    def batch(self, setting, seed, number):
        rng = np.random.default_rng([seed, number, 3])
        real = self.images.train
        rows = rng.integers(len(real), size=self.batch_size)
        z = rng.standard_normal([self.batch_size, self.z_dim], "float32")
        return image_data.scaled(real[rows]), z

    def measure(self, model, split):
        step, score = int(model.schedule_state.step), gan_settings.NO_SCORE
        # Noise may have a higher score than what networks learn at first.
        if step:
            place = gan_settings.SCORE_SEEDS + step
            score = self._score(model, self.score_images, place)
        return {"inception score": score}

    def result(self, model, split):
        place = gan_settings.RESULT_SEEDS[split]
        return self._score(model, gan_settings.RESULT_IMAGES[split], place)

    def metadata(self, model, found):
        averages = model.averages.values.value
        return {
            "score": tf.maximum(found["valid_inception score"], 1.0),
            "generator_loss": averages[:1],
            "discriminator_loss": tf.reduce_mean(averages[1:])[None],
        }

    def details_of(self, model, curve, split=None):
        """As `Gan.details`."""
        goal = gan_settings.GOAL
        reached = [updates for updates, score in curve if score >= goal]
        closeness = {}
        if split == "test":
            closeness = self.compared(self._images(model, _COMPARED))
        found = closeness | {
            f"reaches {goal:g}": float(bool(reached)),
            f"updates to {goal:g}": min(reached, default=float("nan")),
        }
        if self.block > 1 and curve:
            # Schedules make more or less of them in as many choices.
            found["updates"] = float(curve[-1][0])
        return found

    def samples_of(self, model, count):
        """Images of a kept generator, without an axis of one channel."""
        images = self._images(model, count)
        return images[..., 0] if images.shape[-1] == 1 else images

    def _images(self, model, count):
        draws = self._draws(model, count, gan_settings.RESULT_SEEDS["test"])
        return np.concatenate([self._made(z).numpy() for z in draws])

    def _score(self, model, count, place):
        draws = self._draws(model, count, place)
        parts = [self._judged(z)[0].numpy() for z in draws]
        score = float(scores.inception_score(np.concatenate(parts)))
        # Images of what has diverged are not numbers.
        return score if np.isfinite(score) else gan_settings.NO_SCORE

    def _draws(self, model, count, place):
        """z for `count` images, some at a time."""
        draw = int(model.schedule_state.draw)
        rng = np.random.default_rng([draw, place, 4])
        for begin in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - begin)
            yield rng.standard_normal([size, self.z_dim], "float32")


class _Nets:
    """What `gan_losses` calls: Keras models in the place of vectors."""

    @staticmethod
    def generate(network, z):
        return network(z)

    @staticmethod
    def discriminate(network, images):
        return network(images)[:, 0]


def _networks(model):
    return {
        "generator": model.generator,
        "discriminator": model.discriminator,
    }
