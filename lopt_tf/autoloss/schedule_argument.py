"""What names a schedule: texts, files, controllers; and schedules as JSON."""

import os
import pathlib
import re

import numpy as np

from lopt_tf.autoloss import metadata, policy, schedules
from lopt_tf.autoloss.controller import ScheduleController

# Of chances that are to sum to 1.
_ROUNDING = 1e-4
_RATIO = re.compile(r"\d+(:\d+)*")
_FIXED = {
    kind.__name__: kind
    for kind in (
        schedules.Constant,
        schedules.Ratio,
        schedules.Coin,
        schedules.Curriculum,
        schedules.WatchOverfitting,
        schedules.Feedback,
    )
}


def schedule_of(given, names):
    """The schedule of one run that an argument stands for.

    Args:
        given: a text "1:5", with a number for each objective; the path of a
            controller's file; a `ScheduleController`; a `schedules.Schedule` of
            one episode, or a `PolicySchedule`.
        names: of the objectives.

    Raises:
        ValueError: if it is none of these or does not fit the objectives; of
            a file also CheckpointError.
    """
    if isinstance(given, str) and _RATIO.fullmatch(given.replace(" ", "")):
        given = _ratio(given.replace(" ", ""), names)
    elif isinstance(given, (str, os.PathLike)):
        given = _controller(given, names)
    if isinstance(given, ScheduleController):
        given = given.schedule()
    if isinstance(given, schedules.PolicySchedule):
        _check_actions(given, names)
    elif isinstance(given, schedules.Schedule):
        _check_fixed(given, names)
    else:
        raise ValueError(
            "A schedule is a text such as '1:5', a Schedule, a "
            f"ScheduleController or its file. Received: schedule={given!r}"
        )
    return given


def order_of(schedule, names):
    """For each of the schedule's actions the place of its objective."""
    actions = getattr(schedule, "actions", None) or names
    return [list(names).index(action) for action in actions]


def get_config(schedule):
    """JSON-ready settings; weights of a policy are not among them."""
    if isinstance(schedule, schedules.PolicySchedule):
        return {
            "kind": "PolicySchedule",
            "policy": schedule.policy.get_config(),
            "features": list(schedule.features.names),
            "actions": list(schedule.actions or ()),
            "even_draws": schedule.even_draws,
        }
    kind = type(schedule).__name__
    if _FIXED.get(kind) is not type(schedule):
        raise ValueError(
            f"A schedule of the class {kind} cannot be saved; those of "
            f"lopt_tf can: {', '.join(_FIXED)}, PolicySchedule. Save the "
            "weights alone, with `save_weights`."
        )
    settings = schedule.settings.numpy().tolist()
    return {"kind": kind, "settings": settings, **schedule.arguments()}


def from_config(config):
    """The schedule of what `get_config` returned."""
    if config["kind"] != "PolicySchedule":
        arguments = {**config}
        return _FIXED[arguments.pop("kind")](**arguments)
    features = metadata.Features(tuple(config["features"]))
    made = policy.Policy(**config["policy"])
    made.build([None, len(features.names)])
    return schedules.PolicySchedule(
        made,
        features,
        tuple(config["actions"]) or None,
        config.get("even_draws", False),
    )


def _ratio(text, names):
    parts = [int(part) for part in text.split(":")]
    if len(parts) != len(names) or not sum(parts):
        raise ValueError(
            f"The schedule {text!r} must have a number for each of the "
            f"objectives {', '.join(names)}, and not zeros alone: such as "
            f"'{':'.join(['1'] * len(names))}'."
        )
    return schedules.Ratio([parts])


def _controller(path, names):
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"The schedule {str(path)!r} is neither a ratio, such as "
            f"'{':'.join(['1'] * len(names))}' for {', '.join(names)}, nor the "
            "file of a controller."
        )
    return ScheduleController.load(path)


def _check_actions(schedule, names):
    if sorted(schedule.actions or names) != sorted(names):
        raise ValueError(
            f"The controller decides between {', '.join(schedule.actions)}; "
            f"the model's objectives are {', '.join(names)}. Say which is "
            "which: controller.schedule(actions={theirs: mine})."
        )


def _check_fixed(schedule, names):
    count = len(names)
    settings = schedule.settings.numpy()
    if isinstance(schedule, schedules.WatchOverfitting):
        fits, what = count == 2, "two objectives"
    elif isinstance(schedule, schedules.Feedback):
        fits = count == 2 and settings.shape[1:] == (2,)
        what = "two objectives, a slope and a level"
    elif _FIXED.get(type(schedule).__name__) is not type(schedule):
        # What a user's own class makes of its settings is not known.
        fits, what = True, "no more"
    else:
        fits = settings.shape[-1] == count
        what = f"a number for each of {', '.join(names)}"
    if not fits or len(settings) != 1:
        raise ValueError(
            f"A {type(schedule).__name__} schedule of a model needs the "
            f"settings of one run, and {what}. Received settings of shape "
            f"{settings.shape}."
        )
    shares = (schedules.Ratio, schedules.Coin, schedules.Curriculum)
    is_share = np.isfinite(settings).all() and settings.min() >= 0
    if isinstance(schedule, shares) and not (is_share and settings.any()):
        raise ValueError(
            f"The settings of a {type(schedule).__name__} schedule must be 0 "
            "or more, one of them positive. Received: "
            f"{settings[0].tolist()}"
        )
    if isinstance(schedule, schedules.Ratio) and np.any(settings % 1):
        raise ValueError(
            "The settings of a Ratio schedule are numbers of steps: integers. "
            f"Received: {settings[0].tolist()}"
        )
    is_whole = abs(settings.sum() - 1) <= _ROUNDING
    if isinstance(schedule, shares[1:]) and not is_whole:
        raise ValueError(
            f"The settings of a {type(schedule).__name__} schedule must sum "
            f"to 1. Received: {settings[0].tolist()}"
        )
    if not isinstance(schedule, schedules.Constant):
        return
    if not np.array_equal(np.sort(settings[0]), np.eye(count)[-1]):
        raise ValueError(
            "A model takes one objective at a time: a Constant schedule must "
            "be a one and zeros. For a weighted sum, write it as one "
            f"objective. Received: {settings[0].tolist()}"
        )
