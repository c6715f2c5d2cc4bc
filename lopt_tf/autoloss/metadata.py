"""What a policy looks at: features of a task's metadata, normalised."""

import functools

import tensorflow as tf

# No feature leaves this range, on whatever task.
_LIMIT = 5.0


def gap(metadata):
    """How much higher the validation loss is, in training losses."""
    train = metadata["train_loss"]
    return (metadata["valid_loss"] - train) / tf.maximum(train, 1e-6)


def improvement(metadata):
    """The logarithm of the mean improvement of the validation loss."""
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


FEATURES = {
    "gap": gap,
    "improvement": improvement,
    "level_20": functools.partial(level, scale=20.0),
    "level_1": functools.partial(level, scale=1.0),
    "penalty": penalty,
    "magnitudes": magnitudes,
    "relative_magnitudes": relative_magnitudes,
    "log_magnitudes": log_magnitudes,
    "accuracy_gap": accuracy_gap,
    "cosine": cosine,
    "progress": progress,
}


def compose(names):
    """A function from metadata to features [E, len(names)].

    Args:
        names: of `FEATURES`.

    Raises:
        ValueError: for an unknown name.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise ValueError(
            f"Unknown feature {unknown[0]!r}. Known: {', '.join(FEATURES)}."
        )

    def features(metadata):
        columns = [FEATURES[name](metadata) for name in names]
        return tf.clip_by_value(tf.stack(columns, 1), -_LIMIT, _LIMIT)

    return features
