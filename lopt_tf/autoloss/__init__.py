"""AutoLoss: schedules of losses, fixed ones and learned ones."""

import importlib

_HOMES = {
    "ControllerOptions": "options",
    "recipe": "options",
    "Policy": "policy",
    "ScheduleController": "controller",
    "Episodes": "episodes",
    "play": "episodes",
    "train": "trainer",
}

__all__ = [*_HOMES]


def __getattr__(name):
    if name in _HOMES:
        module = importlib.import_module(f"lopt_tf.autoloss.{_HOMES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'lopt_tf.autoloss' has no attribute {name!r}")
