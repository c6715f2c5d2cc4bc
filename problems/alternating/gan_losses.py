"""Losses of generators and discriminators."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

# Of the gradient penalty (Gulrajani et al., 2017).
_PENALTY = 10.0


@dataclasses.dataclass(frozen=True)
class Loss:
    """A pair of losses, of the discriminator's logits.

    Attributes:
        fake, real: the discriminator's loss of logits of generated and of
            real images, a scalar each.
        wanted: the generator's, of logits of generated images.
        share: weight of each part of the discriminator's loss.
        penalty: weight of a penalty on the discriminator's gradient.
    """

    fake: Callable
    real: Callable
    wanted: Callable
    share: float
    penalty: float = 0.0

    def discriminator(self, nets, params, real, z, uniform):
        """(loss, moving values [3]): see `Gan`.

        Args:
            nets: what has `generate` and `discriminate`, as `gan_nets.Nets`.
            params: {network: what these take}.
            real: images [batch, ...].
            z: [batch, z_dim].
            uniform: a function of a shape that draws numbers from 0..1, for
                the places of the penalty.
        """
        fake = nets.generate(params["generator"], z)
        images = tf.concat([real, fake], 0)
        vector = params["discriminator"]
        logits = nets.discriminate(vector, images)
        of_real, of_fake = tf.split(logits, 2)
        parts = self.fake(of_fake), self.real(of_real)
        loss = self.share * sum(parts)
        if self.penalty:
            loss += self.penalty * _penalty(nets, vector, real, fake, uniform)
        return loss, tf.stack([self.wanted(of_fake), *parts])

    def generator(self, nets, params, z):
        """(loss, moving values [3]), the last of which means nothing."""
        images = nets.generate(params["generator"], z)
        logits = nets.discriminate(params["discriminator"], images)
        loss = self.wanted(logits)
        return loss, tf.stack([loss, self.fake(logits), 0.0])


def _penalty(nets, vector, real, fake, uniform):
    """(|gradient| - 1)^2 at images between real and generated ones."""
    share = uniform([real.shape[0]] + [1] * (len(real.shape) - 1))
    between = real + share * (fake - real)
    with tf.GradientTape() as tape:
        tape.watch(between)
        total = tf.reduce_sum(nets.discriminate(vector, between))
    gradient = tape.gradient(total, between)
    axes = list(range(1, len(real.shape)))
    squares = tf.reduce_sum(tf.square(gradient), axes)
    return tf.reduce_mean(tf.square(tf.sqrt(squares + 1e-12) - 1))


def _softplus(sign):
    return lambda logits: tf.reduce_mean(tf.nn.softplus(sign * logits))


def _mean(sign):
    return lambda logits: sign * tf.reduce_mean(logits)


LOSSES = {
    # The discriminator's loss is the mean of its parts, as in the release.
    "non_saturating": Loss(_softplus(1), _softplus(-1), _softplus(-1), 0.5),
    "wgan_gp": Loss(_mean(1), _mean(-1), _mean(-1), 1.0, _PENALTY),
}
