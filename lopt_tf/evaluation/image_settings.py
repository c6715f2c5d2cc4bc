"""What an image classifier is trained with."""

import dataclasses
import math

from lopt_tf import checks
from lopt_tf.images import models, sources, views

DTYPE_POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
_BOUNDS = {
    "batch_size": (1, 2**20),
    "image_size": (1, 4096),
    "steps": (1, 10**9),
    "log_every": (1, 10**6),
    "test_every": (1, 10**9),
    "checkpoint_every": (1, 10**9),
    "learning_rate": (checks.POSITIVE, 1e6),
    "decay_share": (checks.POSITIVE, 1.0),
    "seed": (0, checks.LARGEST_SEED),
    "label_smoothing": (0.0, 1.0),
}
# Steps between two lines, about, and how often to test, unless it is said.
_LOGGED = 100
# Rows after fewer steps than this take longer than the steps.
_LEAST_LOGGED = 10
_TESTS = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that the result of a training depends on.

    Attributes:
        model: one of `images.models.MODELS`.
        dataset: as in `images.sources.open_splits`.
        optimizer: as in `keras_training.optimizer_by_name`; None for the
            default weights that ship.
        learning_rate: the optimizer's own if None.
        decay_share: of the steps, the last ones, in which it falls to 0 (see
            `lopt_tf.LateDecay`); None for none of them.
        batch_size: images in a step, on all replicas together.
        image_size: pixels of a side; None for what the model was made for,
            or the data set's, where the model takes any size.
        steps: of the whole training.
        log_every: steps between two rows of metrics.csv; None for the divisor
            of `steps` that is nearest to 100.
        test_every: steps between two tests, a multiple of `log_every`; None
            for about ten in all. The end is always tested.
        checkpoint_every: steps between two backups; None for `test_every`.
        seed: of weights, order, augmentation and optimizer.
        dtype_policy: "float32", "mixed_float16" or "mixed_bfloat16".
        label_smoothing: as in `keras.losses.CategoricalCrossentropy`.
        augmentation: one of `images.views.AUGMENTATIONS`; None for what suits
            the data set.
        start_from: a file with a trained network of the same kind, whose
            weights are the first ones; see `images.models.take_weights`.
    """

    model: str = "resnet20_v2"
    dataset: str = "digits"
    optimizer: str | None = None
    learning_rate: float | None = None
    decay_share: float | None = None
    batch_size: int = 64
    image_size: int | None = None
    steps: int = 1000
    log_every: int | None = None
    test_every: int | None = None
    checkpoint_every: int | None = None
    seed: int = 0
    dtype_policy: str = "float32"
    label_smoothing: float = 0.0
    augmentation: str | None = None
    start_from: str | None = None

    def completed(self):
        """The same with the intervals that were left open, checked.

        Raises:
            ValueError: for a value that cannot be.
        """
        self._check()
        steps = self.steps
        every = self.log_every or _divisor_near(_LOGGED, steps)
        if self.log_every is None and every < min(_LEAST_LOGGED, steps):
            raise ValueError(
                f"`steps`, {steps}, has no divisor near {_LOGGED} but {every}: "
                "a row after so few steps would slow the training. Choose "
                "other `steps`, or give `log_every`."
            )
        tests = self.test_every or every * max(1, steps // every // _TESTS)
        backups = self.checkpoint_every or tests
        intervals = {
            "steps": steps,
            "test_every": tests,
            "checkpoint_every": backups,
        }
        for name, number in intervals.items():
            if number % every:
                raise ValueError(
                    f"`{name}` must be a multiple of log_every. Received: "
                    f"{name}={number}, log_every={every}"
                )
        return dataclasses.replace(
            self, log_every=every, test_every=tests, checkpoint_every=backups
        )

    def _check(self):
        models.check(self.model)
        for name, bounds in _BOUNDS.items():
            if getattr(self, name) is not None:
                checks.in_range(name, getattr(self, name), *bounds)
        for name, known in (
            ("dtype_policy", DTYPE_POLICIES),
            ("augmentation", (None, *views.AUGMENTATIONS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Unknown {name} {getattr(self, name)!r}. Known: "
                    f"{', '.join(filter(None, known))}."
                )

    def open(self, data_dir=None, manual_dir=None):
        """(training source, test source, settings with the image size)."""
        size = self.image_size or models.usual_size(self.model)
        train, test = sources.open_splits(
            self.dataset, data_dir, manual_dir, size
        )
        # Small images stay as they are where the network takes any size.
        size = size or train.image_size
        if size is None:
            raise ValueError(
                f"{self.model} takes images of any size, and those of "
                f"{self.dataset} differ: give image_size."
            )
        return train, test, dataclasses.replace(self, image_size=size)


def _divisor_near(wanted, number):
    """The divisor of a number whose ratio to another is nearest to 1."""
    found = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    found += [number // n for n in found]
    return min(found, key=lambda n: abs(math.log(n / wanted)))
