"""What a policy looks at: features of metadata, and the episodes' own."""

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

# No feature leaves this range, on whatever task.
_LIMIT = 5.0
# Metadata that episodes add to those of every task.
COURSE = ("progress", "last_action", "run_length")


def course(task, step, count, action_weights=None, before=None):
    """The metadata that every task has.

    Args:
        task: a `problems.alternating.Task`.
        step: steps that were run.
        count: E.
        action_weights: of the last step [E, actions]; None before the first.
        before: metadata before that step.

    Returns:
        progress: the share of `max_steps` that was run [E].
        last_action: the weights of the actions in the last step, zeros before
            the first [E, actions].
        run_length: how many of the last steps took the same weights [E]; a
            float.
    """
    progress = tf.cast(step, tf.float32) / task.max_steps
    if action_weights is None:
        last = tf.zeros([count, len(task.actions)])
        length = tf.zeros([count])
    else:
        last = action_weights
        same = tf.reduce_all(last == before["last_action"], axis=1)
        length = tf.where(same, before["run_length"] + 1, 1.0)
    return {
        "progress": tf.fill([count], progress),
        "last_action": last,
        "run_length": length,
    }


@dataclasses.dataclass(frozen=True)
class Feature:
    """One number that a policy sees of each episode.

    Attributes:
        function: from metadata to [E].
        needs: names of the metadata that the function looks at.
    """

    function: Callable
    needs: tuple


def gap(metadata):
    """How much higher the validation loss is, in training losses."""
    train = metadata["train_loss"]
    return (metadata["valid_loss"] - train) / tf.maximum(train, 1e-6)


def improvement(metadata):
    """The logarithm of the mean improvement of the validation loss.

    From about 0, where nothing improves, to 1 for an improvement of 1.
    """
    return 1 + tf.math.log(metadata["mean_improvement"] + 1e-5) / 12


def level(metadata, scale):
    """The first loss in units of `scale`, about 0."""
    return tf.minimum(1.0, metadata["losses"][:, 0] / scale) - 0.5


def penalty(metadata):
    """The second loss, about 0."""
    return metadata["losses"][:, 1] - 1


def magnitudes(metadata):
    """Gradient magnitude of the first loss minus that of the second."""
    first, second = tf.unstack(metadata["gradient_magnitudes"][:, :2], axis=1)
    return first - second


def relative_magnitudes(metadata):
    """The same, in units of the second."""
    second = metadata["gradient_magnitudes"][:, 1]
    return magnitudes(metadata) / tf.maximum(second, 1e-6)


def accuracy_gap(metadata):
    """Training accuracy minus validation accuracy."""
    return metadata["train_accuracy"] - metadata["valid_accuracy"]


def cosine(metadata):
    """Cosine of the angle between the gradients of the two losses."""
    return metadata["gradient_cosine"]


def progress(metadata):
    """The share of the longest episode that is done, about 0."""
    return metadata["progress"] - 0.5


def log_magnitudes(metadata):
    """Logarithm of the ratio of the gradient magnitudes, to the base 10."""
    first, second = tf.unstack(metadata["gradient_magnitudes"][:, :2], axis=1)
    ratio = tf.maximum(first, 1e-8) / tf.maximum(second, 1e-8)
    return tf.math.log(ratio) / tf.math.log(10.0)


GAP_NEEDS = ("train_loss", "valid_loss")
_MAGNITUDES = ("gradient_magnitudes",)
# Those of the recipes in `tasks` are published, with their scales; the others
# are our own.
FEATURES = {
    "gap": Feature(gap, GAP_NEEDS),
    "improvement": Feature(improvement, ("mean_improvement",)),
    "level_20": Feature(functools.partial(level, scale=20.0), ("losses",)),
    "level_1": Feature(functools.partial(level, scale=1.0), ("losses",)),
    "penalty": Feature(penalty, ("losses",)),
    "magnitudes": Feature(magnitudes, _MAGNITUDES),
    "relative_magnitudes": Feature(relative_magnitudes, _MAGNITUDES),
    "log_magnitudes": Feature(log_magnitudes, _MAGNITUDES),
    "accuracy_gap": Feature(accuracy_gap, ("train_accuracy", "valid_accuracy")),
    "cosine": Feature(cosine, ("gradient_cosine",)),
    "progress": Feature(progress, ("progress",)),
}


class Features:
    """A function from metadata to features [E, len(names)].

    Args:
        names: of `FEATURES`, at least one.

    Attributes:
        needs: {"the feature 'name'": names of the metadata that it needs}.

    Raises:
        ValueError: for an unknown name, or none.
    """

    def __init__(self, names):
        if not names:
            raise ValueError(
                "A policy must look at one feature at least. "
                f"Known: {', '.join(FEATURES)}."
            )
        unknown = [name for name in names if name not in FEATURES]
        if unknown:
            raise ValueError(
                f"Unknown feature {unknown[0]!r}. Known: {', '.join(FEATURES)}."
            )
        self._features = [FEATURES[name] for name in names]
        self.needs = {
            f"the feature {name!r}": FEATURES[name].needs for name in names
        }

    def __call__(self, metadata):
        columns = [f.function(metadata) for f in self._features]
        return tf.clip_by_value(tf.stack(columns, 1), -_LIMIT, _LIMIT)
