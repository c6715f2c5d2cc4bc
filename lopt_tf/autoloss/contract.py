"""What episodes require of tasks, schedules and features, checked once."""

import numpy as np

from problems.alternating import task as task_lib


def check_task(task):
    """Checks the attributes of a `problems.alternating.Task`.

    Raises:
        ValueError: naming the attribute and what it must be.
    """
    count = len(task.actions)
    different = len(set(task.actions)) == count >= 2
    weighted = len(task.loss_weights) == count
    kept = {
        "name": (isinstance(task.name, str), "a text"),
        "result_name": (isinstance(task.result_name, str), "a text"),
        "actions": (different, "at least two different names"),
        "loss_weights": (weighted, f"{count} numbers, one for each action"),
        "max_steps": (_counts(task.max_steps), "an integer of at least 1"),
        "period": (_counts(task.period), "an integer of at least 1"),
    }
    for name, (is_kept, what) in kept.items():
        if not is_kept:
            raise ValueError(
                f"`{name}` of the task {task.name!r} must be {what}. "
                f"Received: {name}={getattr(task, name)!r}"
            )


def _counts(value):
    return isinstance(value, (int, np.integer)) and value >= 1


def check_metadata(task, metadata, count):
    """Checks metadata of `count` episodes; see `AlternatingTask`.

    Args:
        task: the task that gave them.
        metadata: {name: tensor or array}.
        count: E.

    Raises:
        ValueError: naming the task, the metadata and what they must be.
    """
    if "finished" not in metadata:
        raise ValueError(
            f"The metadata of the task {task.name!r} must have 'finished' [E], "
            f"booleans. Received: {', '.join(metadata) or 'nothing'}."
        )
    for name, value in metadata.items():
        width, kind = task_lib.METADATA.get(name, (None, None))
        shape, dtype = tuple(value.shape), np.dtype(_dtype(value))
        expected = (count,) if width is None else (count, len(task.actions))
        # Only the first axis of unknown names is known.
        fits = shape == expected if kind else shape[:1] == (count,)
        if kind is not None:
            fits &= dtype.kind == ("b" if kind is bool else "f")
        if not fits:
            wanted = {bool: "booleans", float: "floats", None: "E first"}[kind]
            raise ValueError(
                f"{name!r} in the metadata of the task {task.name!r} must be "
                f"[E{', actions' if width else ''}] ({wanted}), for E="
                f"{count} episodes. Received: {dtype} of shape {shape}."
            )


def _dtype(value):
    return getattr(value.dtype, "as_numpy_dtype", value.dtype)


def check_needs(task, supplied, needs):
    """Checks that a task has the metadata that others look at.

    Args:
        task: a task.
        supplied: names of its metadata, with those that episodes add.
        needs: {who, such as "the feature 'gap'": names}.

    Raises:
        ValueError: naming who needs what, and the task.
    """
    for who, names in needs.items():
        missing = [name for name in names if name not in supplied]
        if missing:
            raise ValueError(
                f"{who[0].upper()}{who[1:]} needs the metadata "
                f"{missing[0]!r}, which the task {task.name!r} does not have. "
                f"It has {', '.join(sorted(supplied))}."
            )


def check_shape(task, what, value, shape):
    """Checks a shape that a task or its schedule must keep to.

    Raises:
        ValueError: naming the task, what has the shape, and both shapes.
    """
    if tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"{what} of the task {task.name!r} must have the shape "
            f"{tuple(shape)}. Received: {tuple(value.shape)}."
        )
