"""What a policy looks at: features of metadata, and the episodes' own."""

import typing
from collections.abc import Callable

import tensorflow as tf

# No feature leaves this range, on whatever task.
_LIMIT = 5.0
# Metadata that episodes add to those of every task.
COURSE = ("progress", "last_action", "run_length")
# Of the moving averages of losses and improvements (published).
DECAY = 0.9


def supplied(own):
    """Names of all metadata of a task that supplies its `own`."""
    averages = {"average_losses"} if "losses" in own else set()
    return {*own, *COURSE, *averages}


def course(task, step, count, action_weights=None, before=None, losses=None):
    """The metadata that every task has.

    Args:
        task: a `problems.alternating.Task`.
        step: steps that were run.
        count: E.
        action_weights: of the last step [E, actions]; None before the first.
        before: metadata before that step.
        losses: the actions' losses now [E, actions]; None if the task does not
            tell them. Defaults to `None`.

    Returns:
        progress: the share of `max_steps` that was run [E].
        last_action: `action_weights`, or zeros [E, actions].
        run_length: how many of the last steps took the same weights [E], a
            float.
        average_losses: moving averages of `losses` [E, actions], if these are
            told.
    """
    progress = tf.cast(step, tf.float32) / task.max_steps
    if action_weights is None:
        last = tf.zeros([count, len(task.actions)])
        length, averages = tf.zeros([count]), losses
    else:
        last, length = action_weights, run_length(action_weights, before)
        if losses is not None:
            averages = moving_average(before["average_losses"], losses)
    found = {
        "progress": tf.fill([count], progress),
        "last_action": last,
        "run_length": length,
    }
    return found if losses is None else found | {"average_losses": averages}


def run_length(action_weights, before):
    """How many of the last steps took these weights [E], this one included."""
    same = tf.reduce_all(action_weights == before["last_action"], axis=1)
    return tf.where(same, before["run_length"] + 1, 1.0)


def moving_average(before, value, is_first=False):
    """The next moving average; it starts at the first value."""
    decay = tf.where(is_first, 0.0, DECAY)
    return decay * before + (1 - decay) * value


class Feature(typing.NamedTuple):
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


def _improvement(metadata):
    return 1 + tf.math.log(metadata["mean_improvement"] + 1e-5) / 12


def _level(metadata, scale):
    return tf.minimum(1.0, metadata["losses"][:, 0] / scale) - 0.5


def _magnitudes(metadata):
    return tf.unstack(metadata["gradient_magnitudes"][:, :2], axis=1)


def _relative_magnitudes(metadata):
    first, second = _magnitudes(metadata)
    return (first - second) / tf.maximum(second, 1e-6)


def _log_magnitudes(metadata):
    first, second = _magnitudes(metadata)
    ratio = tf.maximum(first, 1e-8) / tf.maximum(second, 1e-8)
    return tf.math.log(ratio) / tf.math.log(10.0)


def _natural_ratio(metadata):
    return _log_magnitudes(metadata) * tf.math.log(10.0)


def _average(metadata, place):
    return metadata["average_losses"][:, place] - 1


def _average_ratio(metadata):
    averages = tf.maximum(metadata["average_losses"][:, :2], 1e-8)
    return tf.math.log(averages[:, 0] / averages[:, 1])


def _last_action(metadata):
    return metadata["last_action"][:, 1] - metadata["last_action"][:, 0]


GAP_NEEDS = ("train_loss", "valid_loss")
_MAGNITUDES = ("gradient_magnitudes",)
# Those of the recipes in `tasks` are published, with their scales (but for
# translation's, see `_task_features`); the others are our own.
FEATURES = {
    "gap": Feature(gap, GAP_NEEDS),
    # The logarithm of the mean improvement of the validation loss: from about
    # 0, where nothing improves, to 1 for an improvement of 1.
    "improvement": Feature(_improvement, ("mean_improvement",)),
    # The first loss in units of a scale, about 0; the second loss, about 0.
    "level_20": Feature(lambda m: _level(m, 20.0), ("losses",)),
    "level_1": Feature(lambda m: _level(m, 1.0), ("losses",)),
    "penalty": Feature(lambda m: m["losses"][:, 1] - 1, ("losses",)),
    # The first loss's gradient magnitude minus the second's; the same in units
    # of the second; the logarithm of their ratio, to the base 10.
    "magnitudes": Feature(lambda m: tf.subtract(*_magnitudes(m)), _MAGNITUDES),
    "relative_magnitudes": Feature(_relative_magnitudes, _MAGNITUDES),
    "log_magnitudes": Feature(_log_magnitudes, _MAGNITUDES),
    "accuracy_gap": Feature(
        lambda m: m["train_accuracy"] - m["valid_accuracy"],
        ("train_accuracy", "valid_accuracy"),
    ),
    "cosine": Feature(lambda m: m["gradient_cosine"], ("gradient_cosine",)),
    # Of two opposed networks, published: the logarithm of the gradient
    # magnitudes' ratio, moving averages of their losses, and a score.
    "log_ratio": Feature(_natural_ratio, _MAGNITUDES),
    "generator_loss": Feature(
        lambda m: m["generator_loss"] - 1, ("generator_loss",)
    ),
    "discriminator_loss": Feature(
        lambda m: m["discriminator_loss"], ("discriminator_loss",)
    ),
    "score": Feature(lambda m: m["score"] - 8, ("score",)),
    # The same, about 0 and of one size on small networks.
    "centred_log_ratio": Feature(
        lambda m: _natural_ratio(m) + 1.2, _MAGNITUDES
    ),
    "centred_generator_loss": Feature(
        lambda m: 2 * (m["generator_loss"] - 1.3), ("generator_loss",)
    ),
    "centred_discriminator_loss": Feature(
        lambda m: 3 * (m["discriminator_loss"] - 0.45), ("discriminator_loss",)
    ),
    "centred_score": Feature(lambda m: 0.5 * (m["score"] - 5), ("score",)),
    # The share of the longest episode that is done, about 0.
    "progress": Feature(lambda m: m["progress"] - 0.5, ("progress",)),
    # As long as a weight that is drawn about 0 makes a difference.
    "wide_progress": Feature(lambda m: 4 * m["progress"] - 2, ("progress",)),
    # The moving averages of the first two losses, about 0 where they are 1.
    "average_first": Feature(lambda m: _average(m, 0), ("average_losses",)),
    "average_second": Feature(lambda m: _average(m, 1), ("average_losses",)),
    # The logarithm of their ratio.
    "average_ratio": Feature(_average_ratio, ("average_losses",)),
    # Which of the first two actions came last: -1, 1, or 0 for neither.
    "last_action": Feature(_last_action, ("last_action",)),
    # How often the last action was repeated: 0 for 10 times, 1 for 100.
    "run_length": Feature(
        lambda m: tf.math.log(m["run_length"] + 1) / tf.math.log(10.0) - 1,
        ("run_length",),
    ),
}
# What a task of several objectives measures of each, at validations.
_OF_TASKS = ("translation", "tags", "entities")


def _task_features(task):
    """{name: Feature}, the published six of one task; the scales are chosen.

    Losses are told by their logarithms, about 0 where a loss is 1; accuracies
    about 0 where half is right; gaps are validation minus training.
    """
    names = {
        name: f"valid_{task}_{name}"
        for name in ("loss", "accuracy", "train_loss", "train_accuracy")
    }

    def log(metadata, name):
        return 0.5 * tf.math.log(metadata[names[name]] + 1e-2)

    def feature(function, *needs):
        return Feature(function, tuple(names[name] for name in needs))

    both = ("loss", "train_loss"), ("accuracy", "train_accuracy")
    found = {
        name: feature(lambda m, n=name: log(m, n), name) for name in both[0]
    }
    for name in both[1]:
        found[name] = feature(lambda m, n=names[name]: m[n] - 0.5, name)
    found["loss_gap"] = feature(
        lambda m: log(m, "loss") - log(m, "train_loss"), *both[0]
    )
    found["accuracy_gap"] = feature(
        lambda m: m[names["accuracy"]] - m[names["train_accuracy"]], *both[1]
    )
    return {f"{task}_{name}": each for name, each in found.items()}


OF_TASKS = {
    name: each for t in _OF_TASKS for name, each in _task_features(t).items()
}
FEATURES |= OF_TASKS
# Features of a second loss, or of two: a third would be left out, silently.
PAIRWISE = (
    *("penalty", "magnitudes", "relative_magnitudes", "log_magnitudes"),
    *("log_ratio", "centred_log_ratio", "average_ratio"),
)


class Features:
    """A function from metadata to features [E, len(names)].

    Args:
        names: of `FEATURES`; ValueError if there is none or an unknown one.

    Attributes:
        needs: {"the feature 'name'": names of the metadata that it needs}.
        pairwise: names of those that are for tasks of two actions alone.
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
        self.names = names
        self.pairwise = [name for name in names if name in PAIRWISE]
        self.needs = {
            f"the feature {name!r}": FEATURES[name].needs for name in names
        }

    def __call__(self, metadata):
        columns = [FEATURES[name].function(metadata) for name in self.names]
        found = tf.clip_by_value(tf.stack(columns, 1), -_LIMIT, _LIMIT)
        # An episode that diverged must not spoil the others' gradient.
        return tf.where(tf.math.is_nan(found), 0.0, found)


def check_pairwise(schedule, count, what):
    """Checks that features which compare two losses see all there are.

    Args:
        schedule: what may have such features.
        count: the number of losses, of `what`: words for a message.
    """
    features = getattr(schedule, "pairwise", ())
    if features and count != 2:
        raise ValueError(
            f"The feature {features[0]!r} is of two losses; {what}. Choose "
            "other features."
        )
