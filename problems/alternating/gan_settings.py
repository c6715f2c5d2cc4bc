"""What all forms of the task "gan" share: settings, balances, the judge."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from problems import digests
from problems.alternating import gan_losses, gan_nets
from problems.alternating import judge as judge_lib
from problems.alternating.supervised import check_positive
from problems.alternating.task import DataMissing, Feedback

# Images of a result, and where its random numbers begin.
RESULT_IMAGES = {"valid": 2000, "test": 5000}
RESULT_SEEDS = {"valid": 2**30, "test": 2**30 + 1}
SCORE_SEEDS = 2**29
# That of what has learned nothing yet, or has diverged: less than any other,
# so that it is not kept. Schedules see 1, the least score of images.
NO_SCORE = 0.0
# A score that is told when it is first reached (chosen: digits can be read).
GOAL = 5.0
# Settings by what they must be: kind, most, names.
_NUMBERS = (
    (int, 4096, ("width", "z_dim", "batch_size")),
    (int, 2**20, ("score_images",)),
    (int, 2**28, ("max_steps", "period")),
    (float, 10.0, ("learning_rate",)),
)


@dataclasses.dataclass(eq=False)
class GanSettings:
    """A generative adversarial network under a schedule (AutoLoss, 5.2).

    Actions are an update of the discriminator, and one (or some) of the
    generator. Every `period` steps the generator's images get an inception
    score from a classifier; the best generator is kept, and scored afresh at
    the end, since the best of many noisy scores is too high.

    Not in the paper: the learning rates of the two networks differ from start
    to start, by up to `balance`. With one balance the best fixed ratio is hard
    to beat; no ratio is good for all.

    The gradient of a network is that of its last update: that of an action
    which is not taken is never computed.

    Args:
        dataset: the images to imitate. Defaults to "digits".
        balance: the learning rate of the generator over that of the
            discriminator is drawn from 1/balance..balance, its logarithm
            evenly. Defaults to 8; 1 is the paper's.
        balances: a list of such ratios to take by turns, start by start,
            instead. Defaults to none.
        loss: "non_saturating" (the default) or "wgan_gp".
        learning_rate: of Adam, for the faster network. Defaults to 0.003.
        width: channels of the discriminator's first layer. Defaults to 8.
        z_dim: numbers that an image is made of. Defaults to 16.
        batch_norm: whether the generator's hidden layers are normalised by
            the batch at hand. Defaults to False.
        activation: of the discriminator's hidden layers: "leaky_relu" (the
            default, published), "relu", "elu" or "tanh".
        batch_size: images of an update. Defaults to 64.
        max_steps: steps of an episode. Defaults to 2,000.
        period: steps between two scores. Defaults to 150.
        score_images: images of a score. Defaults to 1,000.
        classifier_path: a Keras classifier (".keras" or ".h5"); if `None`, the
            default, one is trained: of digits in seconds, of MNIST in a minute.
        classifier_layer, classifier_range, classifier_outputs: see
            `judge.Judge`.

    Attributes:
        images: `image_data.Images`.
    """

    dataset: str = "digits"
    balance: float = 8.0
    balances: list = ()
    loss: str = "non_saturating"
    learning_rate: float = 3e-3
    width: int = 8
    z_dim: int = 16
    batch_norm: bool = False
    activation: str = "leaky_relu"
    batch_size: int = 64
    max_steps: int = 2000
    period: int = 150
    score_images: int = 1000
    classifier_path: str | None = None
    classifier_layer: str | None = None
    classifier_range: list = (0.0, 1.0)
    classifier_outputs: str = "logits"

    name = "gan"
    actions = ("discriminator", "generator")
    result_name = "inception score"
    higher_is_better = True
    coin_parts = 10
    feedback = Feedback(
        "generator_loss",
        slopes=(1.0, 3.0, 6.0, 10.0),
        levels=(0.8, 1.0, 1.2, 1.5, 1.7, 2.0),
    )
    _kept_beside = None

    def check_settings(self):
        """Raises ValueError if an argument is not what it must be."""
        for kind, most, names in _NUMBERS:
            for name in names:
                check_positive(kind, most, **{name: getattr(self, name)})
        self._check_balances()
        self._check_classifier()
        self.check_chosen("batch_norm", {True: 0, False: 0})
        self.check_chosen("loss", gan_losses.LOSSES)
        self.check_chosen("activation", gan_nets.ACTIVATIONS)

    def check_chosen(self, name, table):
        """Raises ValueError unless an argument is a key of the table."""
        value = getattr(self, name)
        known = isinstance(value, (str, bool)) and value in table
        if known:
            return
        if True in table:
            raise ValueError(
                f"`{name}` must be True or False (in commands: true, false). "
                f"Received: {name}={value!r}"
            )
        raise ValueError(
            f"Unknown {name} {value!r}. Known: {', '.join(table)}."
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
        for name in ("classifier_path", "classifier_layer"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                setattr(self, name, os.fspath(value))
            elif not isinstance(value, str | None):
                raise ValueError(
                    f"`{name}` must be a text. Received: {name}={value!r}"
                )
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
        self._check_unnamed_classifier()
        if self.classifier_path is None and (
            self.dataset not in judge_lib.TRAINED
        ):
            raise DataMissing(
                f"The images of {self.dataset!r} need a classifier that judges "
                "them: name a Keras model, `classifier_path`. Without one: "
                "dataset='digits' or 'mnist'."
            )

    def _check_unnamed_classifier(self):
        """Raises ValueError for what is said of a classifier not named."""
        if self.classifier_path is not None:
            return
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            given = tuple(value) if isinstance(value, list) else value
            if field.name.startswith("classifier_") and given != field.default:
                raise ValueError(
                    f"`{field.name}` is of a classifier that is named, "
                    f"`classifier_path`. Received: {field.name}={value!r}"
                )

    def get_config(self):
        config = dataclasses.asdict(self)
        for name in ("balances", "classifier_range"):
            config[name] = list(config[name])
        return config

    def keep_beside(self, folder):
        """A classifier that is trained is kept there, and reused."""
        if self.classifier_path is None:
            of = "" if self.dataset == "digits" else f"{self.dataset}_"
            self._kept_beside = pathlib.Path(folder) / f"{of}classifier.keras"

    @functools.cached_property
    def data_digest(self):
        """Of images and classifier: scores of two of these do not compare."""
        of = [self.images.train, self.images.held_out]
        # One that nobody keeps is trained again, perhaps in other bits.
        if self.classifier_path is not None or self._kept_beside is not None:
            of += self.judge.model.get_weights()
        return digests.digest(*of)

    @functools.cached_property
    def judge(self):
        """The `judge.Judge` of the images."""
        if self.classifier_path is not None:
            judge = judge_lib.Judge(
                judge_lib.read_classifier(self.classifier_path),
                self.classifier_layer,
                tuple(self.classifier_range),
                self.classifier_outputs,
            )
        elif self.dataset == "digits":
            judge = judge_lib.digits_judge(self._kept_beside)
        else:
            judge = judge_lib.mnist_judge(self.images, self._kept_beside)
        judge.check_fits(self.images.train)
        return judge

    @functools.cached_property
    def _real_features(self):
        return self.judge.told(judge_lib.some(self.images.train))[1]

    def compared(self, images):
        """How close images are to the real ones: see `Judge.compared`."""
        return self.judge.compared(images, self._real_features)

    def sanity_rows(self):
        """What the classifier says of images that are known: a table."""
        return judge_lib.sanity_rows(self.judge, self.images)

    def balances_of(self, seeds):
        """Learning rates of G over those of D of some starts, an array [E]."""
        if self.balances:
            places = [int(seed) % len(self.balances) for seed in seeds]
            return np.array([self.balances[place] for place in places])
        draws = [np.random.default_rng([s, 1]).uniform(-1, 1) for s in seeds]
        return float(self.balance) ** np.array(draws)

    def rates(self, seeds):
        """Learning rates of D and G of some starts, an array [E, 2]."""
        ratio = np.float32(self.balances_of(seeds))
        factors = np.stack([np.minimum(1, 1 / ratio), np.minimum(1, ratio)], 1)
        return np.float32(self.learning_rate * factors)

    def groups(self, seeds):
        """Labels of starts with alike balances: five classes, or the list's."""
        ratios = self.balances_of(seeds)
        if self.balances or self.balance == 1:
            return [f"{ratio:g}" for ratio in ratios]
        centres = float(self.balance) ** np.linspace(-1, 1, 5)
        distance = np.abs(np.log(ratios)[:, None] - np.log(centres))
        return [f"{centres[place]:.3g}" for place in distance.argmin(1)]
