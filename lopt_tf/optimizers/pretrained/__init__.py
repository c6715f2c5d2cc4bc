"""Trained meta-parameters as files: arrays, JSON and a format version."""

from lopt_tf import checkpointing

_KIND = "lopt_tf.optimizer"


def save(path, rule, weights):
    """Writes an update rule's configuration and meta-parameters.

    Args:
        path: the file to write.
        rule: the `UpdateRule`.
        weights: {name: array}.
    """
    metadata = {"rule": rule.name, "config": rule.get_config()}
    checkpointing.save(path, _KIND, weights, metadata)


def load(path, rule_name):
    """Reads what `save` wrote: (configuration, weights).

    Raises:
        CheckpointError: if the file is missing, damaged, or holds another
            kind of optimizer.
    """
    weights, metadata = checkpointing.load(path, _KIND)
    if metadata["rule"] != rule_name:
        raise checkpointing.CheckpointError(
            f"{path} holds the optimizer {metadata['rule']!r}, not "
            f"{rule_name!r}."
        )
    return metadata["config"], weights
