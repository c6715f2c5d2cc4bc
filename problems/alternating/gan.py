"""Task 3: a generator and a discriminator, each updated in its turn."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from problems.alternating import gan_losses, gan_nets, gan_update, image_data
from problems.alternating.gan_settings import (
    GOAL,
    NO_SCORE,
    RESULT_IMAGES,
    RESULT_SEEDS,
    SCORE_SEEDS,
    GanSettings,
)
from problems.alternating.task import AlternatingTask

# Of the moving mean of improvements.
_DECAY = 0.9
# What a score changes in the state.
_OF_SCORE = (
    *("best_params", "best_score", "score", "score_sum", "reached"),
    *("improvement", "mean_improvement"),
)


@dataclasses.dataclass(eq=False)
class Gan(GanSettings, AlternatingTask):
    """Small networks for small images of one channel, compiled whole.

    The task is that of `gan_settings.GanSettings`, which has the arguments;
    `dataset` may be an .npz file with "images" [count, size, size] in 0..1,
    the last fifth of which is held out. The networks are `gan_nets.Nets`.
    """

    def __post_init__(self):
        self.check_settings()
        self.images = (
            image_data.digits()
            if self.dataset == "digits"
            else image_data.read_images(self.dataset)
        )
        self.nets = gan_nets.Nets(
            self.images.train.shape[1],
            *(self.z_dim, self.width, self.batch_norm, self.activation),
        )
        flat = self.images.train.reshape(len(self.images.train), -1)
        self._updates = gan_update.Updates(
            self.nets,
            gan_losses.LOSSES[self.loss],
            tf.constant(flat, tf.float32),
            self.batch_size,
        )
        self._compiled_result = tf.function(
            self._fresh_scores, jit_compile=True, autograph=False
        )
        self._compiled_samples = tf.function(
            self._sampled, jit_compile=True, autograph=False
        )

    def reset(self, seeds):
        seeds = [int(seed) for seed in seeds]
        # Made here: classifiers cannot be trained inside of compiled programs.
        self.judge  # noqa: B018
        generator, discriminator = (
            tf.constant(np.stack(vectors))
            for vectors in zip(*map(self.nets.initial, seeds))
        )
        count = len(seeds)
        params = dict(zip(self.actions, (discriminator, generator)))
        zeros = {name: tf.zeros_like(x) for name, x in params.items()}
        none = tf.zeros([count])
        state = {
            "params": params,
            "first_moments": zeros,
            "second_moments": dict(zeros),
            "updates": tf.zeros([count, 2], tf.int32),
            "rates": tf.constant(self.rates(seeds)),
            "seed": tf.constant(np.int32(np.array(seeds) % (2**31 - 1))),
            "time": tf.constant(0),
            "magnitudes": tf.zeros([count, 2]),
            # Of the generator's loss, and the discriminator's two parts.
            "averages": tf.zeros([count, 3]),
            "best_params": generator,
            "best_score": none + NO_SCORE,
            "score": none + NO_SCORE,
            "score_sum": none,
            "reached": tf.fill([count], np.inf),
            "improvement": none,
            "mean_improvement": none,
            "finished": tf.zeros([count], tf.bool),
        }
        return state, self._metadata(state)

    def step(self, state, action_weights):
        state = dict(state)
        alive = ~state["finished"]
        choice = tf.argmax(action_weights, 1, output_type=tf.int32)
        # An episode that has finished moves no further.
        choice = tf.where(alive, choice, 2)
        time = state["time"]
        state |= gan_update.updated(state, choice, self._updates)
        state["time"] = time + tf.cast(tf.reduce_any(alive), tf.int32)
        state |= tf.cond(
            tf.reduce_any(alive) & (state["time"] % self.period == 0),
            lambda: self._scored(state),
            lambda: {name: state[name] for name in _OF_SCORE},
        )
        state["finished"] |= state["time"] >= self.max_steps
        return state, self._metadata(state)

    def result(self, state, split):
        parts = state["best_params"], state["seed"]
        return self._compiled_result(*parts, split)

    def details(self, state, split=None):
        """How the scores of an episode went, {name: [E]}.

        "mean score" of its curve, "last score", "best score" (too high, being
        the best of many), "reaches 5": 1.0 or 0.0, and the "updates to 5",
        which are NaN where it is not reached. With `split` "test" also how
        close the kept generator's images are to real ones.
        """
        scores = tf.maximum(state["time"] // self.period, 1)
        reached = state["reached"]
        is_reached = tf.math.is_finite(reached)
        closeness = self._closeness(state) if split == "test" else {}
        return closeness | {
            "mean score": state["score_sum"] / tf.cast(scores, tf.float32),
            "last score": state["score"],
            "best score": state["best_score"],
            f"reaches {GOAL:g}": tf.cast(is_reached, tf.float32),
            f"updates to {GOAL:g}": tf.where(is_reached, reached, math.nan),
        }

    def samples(self, state, count):
        """Images of the kept generators, [E, count, size, size] in -1..1."""
        parts = state["best_params"], state["seed"]
        return self._compiled_samples(*parts, count).numpy()

    def distances(self, state, count=2000):
        """Frechet distances of the kept generators' images, an array [E].

        Args:
            state: of the episodes.
            count: images of each.
        """
        return self._closeness(state, count)["Frechet distance"]

    def _closeness(self, state, count=2000):
        """{name: array [E]}: see `GanSettings.compared`."""
        rows = [
            self.compared(images[..., None])
            for images in self.samples(state, count)
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def products(self):
        """Matrix products of a generator's update: (rows, inputs, outputs)."""
        width, places = self.width, (self.nets.size // 4) ** 2
        layers = [
            (places * 2 * width, 4 * places * width),
            (4 * places * width, 16 * places),
        ]
        both = [(self.z_dim, places * 2 * width), *layers]
        both += [(b, a) for a, b in layers[::-1]]
        return [(self.batch_size, a, b) for a, b in both]

    def _scored(self, state):
        time, before = state["time"], state["score"]
        score = self._scores(
            state["params"]["generator"],
            state["seed"],
            self.score_images,
            SCORE_SEEDS + time,
        )
        best = score > state["best_score"]
        first = (score >= GOAL) & tf.math.is_inf(state["reached"])
        change = score - before
        decay = tf.where(time == self.period, 0.0, _DECAY)
        mean = state["mean_improvement"]
        return {
            "best_params": tf.where(
                best[:, None],
                state["params"]["generator"],
                state["best_params"],
            ),
            "best_score": tf.where(best, score, state["best_score"]),
            "score": score,
            "score_sum": state["score_sum"] + score,
            "reached": tf.where(
                first, tf.cast(time, tf.float32), state["reached"]
            ),
            "improvement": change,
            "mean_improvement": decay * mean + (1 - decay) * tf.abs(change),
        }

    def _fresh_scores(self, generators, seeds, split):
        count, place = RESULT_IMAGES[split], RESULT_SEEDS[split]
        return self._scores(generators, seeds, count, place)

    def _scores(self, generators, seeds, count, place):
        """Scores [E] of some images of each generator [E, numbers]."""

        def score(each):
            return self.judge.score(self._images(*each, count, place))

        found = tf.map_fn(
            score, (generators, seeds), fn_output_signature=tf.float32
        )
        # Images of what has diverged are not numbers.
        return tf.where(tf.math.is_finite(found), found, NO_SCORE)

    def _images(self, generator, seed, count, place):
        z = gan_update.normal([count, self.z_dim], seed, place)
        images = self.nets.generate(generator, z)
        return tf.reshape(images, [count, self.nets.size, self.nets.size, 1])

    def _sampled(self, generators, seeds, count):
        place = RESULT_SEEDS["test"]
        return tf.map_fn(
            lambda each: self._images(*each, count, place)[..., 0],
            (generators, seeds),
            fn_output_signature=tf.float32,
        )

    def _metadata(self, state):
        averages = state["averages"]
        validated = (state["time"] > 0) & (state["time"] % self.period == 0)
        return {
            "validated": tf.fill(state["finished"].shape, validated),
            "finished": state["finished"],
            "score": tf.maximum(state["score"], 1.0),
            "improvement": state["improvement"],
            "mean_improvement": state["mean_improvement"],
            "generator_loss": averages[:, 0],
            "discriminator_loss": tf.reduce_mean(averages[:, 1:], 1),
            "gradient_magnitudes": state["magnitudes"],
        }
