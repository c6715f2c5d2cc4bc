"""What episodes require of tasks, schedules and features, checked once."""

import numpy as np

from problems.alternating import task as task_lib


def check_task(task):
    """Checks the attributes of a `problems.alternating.Task`.

    Raises:
        ValueError: naming the attribute and what it must be.
    """
    names = tuple(task.actions)
    if len(set(names)) < max(2, len(names)):
        _fail(task, "actions", "be at least two different names", names)
    for name in ("max_steps", "period"):
        value = getattr(task, name)
        if not isinstance(value, (int, np.integer)) or value < 1:
            _fail(task, name, "be an integer of at least 1", value)
    for name in ("name", "result_name"):
        if not isinstance(getattr(task, name), str):
            _fail(task, name, "be a text", getattr(task, name))
    if len(task.loss_weights) != len(names):
        _fail(
            task,
            "loss_weights",
            f"have one number for each of {len(names)} actions",
            task.loss_weights,
        )


def _fail(task, name, what, value):
    raise ValueError(
        f"`{name}` of the task {task.name!r} must {what}. "
        f"Received: {name}={value!r}"
    )


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
