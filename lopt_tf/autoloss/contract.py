"""What episodes require of tasks, schedules and features, checked once."""

import numpy as np
import tensorflow as tf

from problems.alternating import task as task_lib

# Details that all tasks of models tell of an episode's results.
OF_RESULTS = ("mean score", "last score", "best score")


def check_task(task):
    """Checks a task's attributes; ValueError says what one must be."""
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
    if task.period > task.max_steps:
        raise ValueError(
            f"`max_steps` of the task {task.name!r} must be at least `period`, "
            f"{task.period}, or nothing is validated. Received: "
            f"max_steps={task.max_steps}"
        )


def _counts(value):
    return isinstance(value, (int, np.integer)) and value >= 1


def check_metadata(task, metadata, count):
    """Checks a task's metadata of `count` episodes; see `AlternatingTask`."""
    if "finished" not in metadata:
        raise ValueError(
            f"The metadata of the task {task.name!r} must have 'finished' [E], "
            f"booleans. Received: {', '.join(metadata) or 'nothing'}."
        )
    for name, value in metadata.items():
        shape, dtype = tuple(value.shape), tf.as_dtype(value.dtype)
        if name in task_lib.BOOLEANS:
            wanted, fits = "[E] (booleans)", dtype.is_bool and shape == (count,)
        elif name in task_lib.NUMBERS:
            wanted = "[E] (floats)"
            fits = dtype.is_floating and shape == (count,)
        elif name in task_lib.PER_ACTION:
            wanted = "[E, actions] (floats)"
            fits = dtype.is_floating and shape == (count, len(task.actions))
        else:
            wanted, fits = "[E] (E first)", shape[:1] == (count,)
        if not fits:
            raise ValueError(
                f"{name!r} in the metadata of the task {task.name!r} must be "
                f"{wanted}, for E={count} episodes. Received: {dtype.name} of "
                f"shape {shape}."
            )


def check_needs(task, supplied, needs):
    """Checks that a task has the metadata that others need, {who: names}."""
    for who, names in needs.items():
        missing = [name for name in names if name not in supplied]
        if missing:
            raise ValueError(
                f"{who[0].upper()}{who[1:]} needs the metadata "
                f"{missing[0]!r}, which the task {task.name!r} does not have. "
                f"It has {', '.join(sorted(supplied))}."
            )


def check_reward(task, episodes, name):
    """Checks that a task tells the detail that is to be the reward, if any."""
    if not name:
        return
    details = episodes.details(episodes.begin([0]))
    if name not in details:
        raise ValueError(
            f"The task {task.name!r} does not tell {name!r}, which is to be "
            f"the reward. It tells {', '.join(details) or 'the result alone'}."
        )


def check_direction(task, options):
    """Checks that more reward is a better result.

    Details of a task's own may be either.
    """
    if options.algorithm == "ppo" or not options.final_scale:
        return
    if not options.reward:
        # The scale is divided by the result.
        wanted, what = not task.higher_is_better, task.result_name
    elif options.reward in OF_RESULTS:
        wanted, what = task.higher_is_better, options.reward
    else:
        return
    if (options.final_scale > 0) != wanted:
        sign = "positive" if wanted else "negative"
        raise ValueError(
            f"`final_scale` must be {sign} for the reward from the {what} of "
            f"the task {task.name!r}, or worse episodes would be rewarded. "
            f"Received: final_scale={options.final_scale:g}"
        )


def check_shape(task, what, value, shape):
    """Checks a shape that a task or its schedule must keep to."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"{what} of the task {task.name!r} must have the shape "
            f"{tuple(shape)}. Received: {tuple(value.shape)}."
        )
