"""Task 3: a generator and a discriminator, each updated in its turn."""

import dataclasses
import functools
import math
import pathlib

import numpy as np
import tensorflow as tf

from problems.alternating import gan_losses, gan_nets, gan_update
from problems.alternating import judge as judge_lib
from problems.alternating.supervised import check_positive
from problems.alternating.task import AlternatingTask, Feedback

# Of the moving mean of improvements.
_DECAY = 0.9
# Images of a result, and where its random numbers begin.
_RESULT_IMAGES = {"valid": 2000, "test": 5000}
_RESULT_SEEDS = {"valid": 2**30, "test": 2**30 + 1}
_SCORE_SEEDS = 2**29
# A score that is told when it is first reached (chosen: digits can be read).
_GOAL = 5.0
# What a score changes in the state.
_OF_SCORE = (
    *("best_params", "best_score", "score", "score_sum", "reached"),
    *("improvement", "mean_improvement"),
)


@dataclasses.dataclass(eq=False)
class Gan(AlternatingTask):
    """A generative adversarial network under a schedule (AutoLoss, 5.2).

    Actions are an update of the discriminator, and one of the generator. Every
    `period` updates the generator's images get an inception score from a
    classifier; the best generator is kept, and scored afresh at the end, since
    the best of many noisy scores is too high.

    Not in the paper: the learning rates of the two networks differ from start
    to start, by up to `balance`. With one balance the best fixed ratio is hard
    to beat; no ratio is good for all.

    The gradient of a network is that of its last update: that of an action
    which is not taken is never computed.

    Args:
        dataset: "digits" (the default), or an .npz file with "images"
            [count, size, size] in 0..1; the last fifth is held out.
        balance: the learning rate of the generator over that of the
            discriminator is drawn from 1/balance..balance, its logarithm
            evenly. Defaults to 8; 1 is the paper's.
        balances: a list of such ratios to take by turns, start by start,
            instead. Defaults to none.
        loss: "non_saturating" (the default) or "wgan_gp".
        learning_rate: of Adam, for the faster network. Defaults to 0.003.
        width, z_dim, batch_norm: see `gan_nets.Nets`. Default to 8, 16, False.
        batch_size: images of an update. Defaults to 64.
        max_steps: updates of an episode. Defaults to 2,000.
        period: updates between two scores. Defaults to 150.
        score_images: images of a score. Defaults to 1,000.
        classifier_path: a Keras classifier (".keras"); if `None`, the default,
            one of digits is trained in seconds.
        classifier_layer, classifier_range, classifier_outputs: see
            `judge.Judge`.

    Attributes:
        images: `judge.Images`.
    """

    dataset: str = "digits"
    balance: float = 8.0
    balances: list = ()
    loss: str = "non_saturating"
    learning_rate: float = 3e-3
    width: int = 8
    z_dim: int = 16
    batch_norm: bool = False
    batch_size: int = 64
    max_steps: int = 2000
    period: int = 150
    score_images: int = 1000
    classifier_path: str | None = None
    classifier_layer: str | None = None
    classifier_range: list = (0.0, 1.0)
    classifier_outputs: str = "logits"

    name = "gan"
    actions = gan_update.NAMES
    result_name = "inception score"
    higher_is_better = True
    coin_parts = 10
    feedback = Feedback(
        "generator_loss",
        slopes=(1.0, 3.0, 6.0, 10.0),
        levels=(0.8, 1.0, 1.2, 1.5, 1.7, 2.0),
    )

    def __post_init__(self):
        for name in ("width", "z_dim", "batch_size", "score_images"):
            check_positive(int, 4096, **{name: getattr(self, name)})
        for name in ("max_steps", "period"):
            check_positive(int, 2**28, **{name: getattr(self, name)})
        check_positive(float, 10.0, learning_rate=self.learning_rate)
        self._check_balances()
        self._check_classifier()
        if not isinstance(self.batch_norm, bool):
            raise ValueError(
                "`batch_norm` must be True or False. Received: "
                f"batch_norm={self.batch_norm!r}"
            )
        if self.loss not in gan_losses.LOSSES:
            raise ValueError(
                f"Unknown loss {self.loss!r}. Known: "
                f"{', '.join(gan_losses.LOSSES)}."
            )
        self._kept_beside = None
        self.images = self._read_images()
        size = self.images.train.shape[1]
        self.nets = gan_nets.Nets(size, self.z_dim, self.width, self.batch_norm)
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

    def _check_balances(self):
        check_positive(float, 1e6, balance=self.balance)
        if self.balance < 1:
            raise ValueError(
                "`balance` must be at least 1: ratios are drawn from "
                f"1/balance..balance. Received: balance={self.balance!r}"
            )
        if not isinstance(self.balances, (list, tuple)):
            raise ValueError(
                "`balances` must be a list of ratios. Received: "
                f"balances={self.balances!r}"
            )
        for ratio in self.balances:
            check_positive(float, 1e6, balances=ratio)

    def _check_classifier(self):
        try:
            low, high = map(float, self.classifier_range)
            fits = -1e6 <= low < high <= 1e6
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                "`classifier_range` must be two numbers, the lower one first. "
                f"Received: classifier_range={self.classifier_range!r}"
            )

    def _read_images(self):
        if self.dataset == "digits":
            return judge_lib.digits()
        if self.classifier_path is None:
            raise ValueError(
                f"The images of {self.dataset!r} need a classifier that judges "
                "them: name a Keras model, `classifier_path`. Without one: "
                "dataset='digits'."
            )
        return judge_lib.read_images(self.dataset)

    def get_config(self):
        config = dataclasses.asdict(self)
        for name in ("balances", "classifier_range"):
            config[name] = list(config[name])
        return config

    def keep_beside(self, folder):
        """The digits' classifier is kept in a folder, and reused from there."""
        if self.classifier_path is None:
            self._kept_beside = pathlib.Path(folder) / "classifier.keras"

    @functools.cached_property
    def judge(self):
        """The `judge.Judge` of the images."""
        if self.classifier_path is None:
            return judge_lib.digits_judge(self._kept_beside)
        model = judge_lib.read_classifier(self.classifier_path)
        judge = judge_lib.Judge(
            model,
            self.classifier_layer,
            tuple(self.classifier_range),
            self.classifier_outputs,
        )
        judge.check_fits(self.images.train)
        return judge

    def ratios(self, seeds):
        """Learning rates of G over those of D of some starts, an array [E]."""
        if self.balances:
            places = [int(seed) % len(self.balances) for seed in seeds]
            return np.array([self.balances[place] for place in places])
        draws = [np.random.default_rng([s, 1]).uniform(-1, 1) for s in seeds]
        return float(self.balance) ** np.array(draws)

    def groups(self, seeds):
        """Labels of starts with alike balances: five classes, or the list's."""
        ratios = self.ratios(seeds)
        if self.balances or self.balance == 1:
            return [f"{ratio:g}" for ratio in ratios]
        centres = float(self.balance) ** np.linspace(-1, 1, 5)
        distance = np.abs(np.log(ratios)[:, None] - np.log(centres))
        return [f"{centres[place]:.3g}" for place in distance.argmin(1)]

    def reset(self, seeds):
        seeds = [int(seed) for seed in seeds]
        # Made here: classifiers cannot be trained inside of compiled programs.
        self.judge  # noqa: B018
        ratio = np.float32(self.ratios(seeds))
        factors = np.stack([np.minimum(1, 1 / ratio), np.minimum(1, ratio)], 1)
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
            "rates": tf.constant(self.learning_rate * factors, tf.float32),
            "seed": tf.constant(np.int32(np.array(seeds) % (2**31 - 1))),
            "time": tf.constant(0),
            "magnitudes": tf.zeros([count, 2]),
            # Of the generator's loss, and the discriminator's two parts.
            "averages": tf.zeros([count, 3]),
            "best_params": generator,
            "best_score": none,
            "score": tf.ones([count]),
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
        which are NaN where it is not reached. With `split` "test" also the
        "Frechet distance" of the kept generator's images.
        """
        scores = tf.maximum(state["time"] // self.period, 1)
        reached = state["reached"]
        is_reached = tf.math.is_finite(reached)
        distances = {}
        if split == "test":
            distances["Frechet distance"] = self.distances(state)
        return distances | {
            "mean score": state["score_sum"] / tf.cast(scores, tf.float32),
            "last score": state["score"],
            "best score": state["best_score"],
            f"reaches {_GOAL:g}": tf.cast(is_reached, tf.float32),
            f"updates to {_GOAL:g}": tf.where(is_reached, reached, math.nan),
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
        real = self.images.train
        return np.array(
            [
                self.judge.distance(images[..., None], real)
                for images in self.samples(state, count)
            ]
        )

    def sanity_rows(self):
        """What the classifier says of images that are known: a table."""
        return judge_lib.sanity_rows(self.judge, self.images)

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
            _SCORE_SEEDS + time,
        )
        best = score > state["best_score"]
        first = (score >= _GOAL) & tf.math.is_inf(state["reached"])
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
        count, place = _RESULT_IMAGES[split], _RESULT_SEEDS[split]
        return self._scores(generators, seeds, count, place)

    def _scores(self, generators, seeds, count, place):
        """Scores [E] of some images of each generator [E, numbers]."""

        def score(each):
            return self.judge.score(self._images(*each, count, place))

        return tf.map_fn(
            score, (generators, seeds), fn_output_signature=tf.float32
        )

    def _images(self, generator, seed, count, place):
        z = gan_update.normal([count, self.z_dim], seed, place)
        images = self.nets.generate(generator, z)
        return tf.reshape(images, [count, self.nets.size, self.nets.size, 1])

    def _sampled(self, generators, seeds, count):
        place = _RESULT_SEEDS["test"]
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
            "score": state["score"],
            "improvement": state["improvement"],
            "mean_improvement": state["mean_improvement"],
            "generator_loss": averages[:, 0],
            "discriminator_loss": tf.reduce_mean(averages[:, 1:], 1),
            "gradient_magnitudes": state["magnitudes"],
        }
