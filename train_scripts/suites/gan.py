"""Updates per second of GANs under a policy, and of ordinary Keras training."""

import statistics

import keras
import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import tasks, trainer
from train_scripts.suites.rows import episodes_speed, row, seconds

_UPDATES = 600
_PERIOD = 150


def measure(counts, repetitions):
    """Episodes of the task "gan", scores included, and Keras beside them."""
    entry = tasks.entry("gan")
    task = entry.task(max_steps=_UPDATES, period=min(_PERIOD, _UPDATES))
    ordinary = _ordinary(task, repetitions)
    yield row("autoloss/gan/keras", ordinary, "updates/s", True)
    for count in counts:
        runner = trainer.Trainer(task, entry.recipe).episodes
        speed, compiling = episodes_speed(runner, count, _UPDATES, repetitions)
        yield row(
            f"autoloss/gan/episodes={count}",
            speed,
            "updates/s",
            True,
            times_keras=speed / ordinary,
            first_call_s=compiling,
        )


class _KerasGan(keras.Model):
    """The same networks of ordinary layers; a step updates each of them."""

    def __init__(self, task):
        super().__init__()
        layers, width, places = keras.layers, task.width, task.nets.size // 4
        self.z_dim = task.z_dim
        self.generator = keras.Sequential(
            [
                keras.Input([task.z_dim]),
                layers.Dense(places**2 * 2 * width, "relu"),
                layers.Reshape([places, places, 2 * width]),
                layers.Conv2DTranspose(width, 4, 2, "same", activation="relu"),
                layers.Conv2DTranspose(1, 4, 2, "same", activation="tanh"),
            ]
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input([task.nets.size, task.nets.size, 1]),
                layers.Conv2D(width, 4, 2, "same"),
                layers.LeakyReLU(0.2),
                layers.Conv2D(2 * width, 4, 2, "same"),
                layers.LeakyReLU(0.2),
                layers.Flatten(),
                layers.Dense(1),
            ]
        )
        self.optimizers = [
            keras.optimizers.Adam(1e-3, beta_1=0.5) for _ in range(2)
        ]

    def train_step(self, real):
        count = tf.shape(real)[0]
        z = tf.random.normal([2, count, self.z_dim])
        nets, losses = [self.discriminator, self.generator], []
        for place, (net, optimizer) in enumerate(zip(nets, self.optimizers)):
            with tf.GradientTape() as tape:
                made = self.generator(z[place])
                logits = self.discriminator(made)
                if place == 0:
                    true = self.discriminator(real)
                    loss = tf.reduce_mean(tf.nn.softplus(logits)) / 2
                    loss += tf.reduce_mean(tf.nn.softplus(-true)) / 2
                else:
                    loss = tf.reduce_mean(tf.nn.softplus(-logits))
            variables = net.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            losses.append(loss)
        return {"discriminator": losses[0], "generator": losses[1]}


def _ordinary(task, repetitions):
    """Updates per second of `Model.fit`, one of each network in a step."""
    model = _KerasGan(task)
    # XLA is slow at gradients of strided convolutions on CPUs.
    model.compile(jit_compile=False)
    for net, optimizer in zip(
        (model.discriminator, model.generator), model.optimizers
    ):
        optimizer.build(net.trainable_variables)
    rows = np.tile(task.images.train, [8, 1, 1, 1])
    data = tf.data.Dataset.from_tensor_slices(rows).shuffle(len(rows))
    data = data.batch(task.batch_size, drop_remainder=True)
    steps = len(rows) // task.batch_size
    taken = seconds(
        lambda: model.fit(data, shuffle=False, verbose=0), repetitions + 1
    )
    return 2 * steps / statistics.median(taken[1:])
