"""The learned optimizers by name."""

from lopt_tf.optimizers import keras_optimizers

_CLASSES = {
    optimizer.rule_class.name: optimizer
    for optimizer in (
        keras_optimizers.HierarchicalRNN,
        keras_optimizers.CoordinatewiseRNN,
        keras_optimizers.LearnedAdam,
        keras_optimizers.GlobalLearningRate,
        keras_optimizers.LearningRateSchedule,
    )
}
RULES = {name: optimizer.rule_class for name, optimizer in _CLASSES.items()}


def rule(name, **config):
    """Makes the update rule of that name from its arguments.

    Raises:
        ValueError: if there is none of that name.
    """
    return optimizer_class(name).rule_class(**config)


def optimizer_class(rule_name):
    """The Keras optimizer around the update rule of that name.

    Raises:
        ValueError: if there is none of that name.
    """
    if rule_name not in _CLASSES:
        raise ValueError(
            f"There is no learned optimizer named {rule_name!r}. Known: "
            f"{', '.join(_CLASSES)}."
        )
    return _CLASSES[rule_name]
