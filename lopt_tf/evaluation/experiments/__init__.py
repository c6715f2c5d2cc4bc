"""The experiments, each a module with the same five names.

TITLE and QUESTION say what it is about; LEARNED whether it needs a trained
optimizer ("required", "optional" or "never"); PRESETS holds the settings of
"quick" and "full", a dataclass each; `run(folder, settings)` returns an
`Outcome`.
"""

import dataclasses
import importlib

from lopt_tf import checks

NAMES = (
    "training_set",
    "generalization",
    "peers",
    "learning_rates",
    "ablation",
    "wall_clock",
    "long_runs",
    "failures",
    "problems",
    "digits",
    "imagenet",
)

# Of the settings that a user may change, in whatever experiment.
BOUNDS = {
    "steps": (1, 10**7),
    "seeds": (1, 10**4),
    "tuning_seeds": (1, 10**4),
    "epochs": (1, 10**5),
    "meta_updates": (1, 10**9),
    "repetitions": (1, 10**5),
}


def find(name):
    """The module of that experiment.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in NAMES:
        raise ValueError(
            f"Unknown experiment {name!r}. Known: {', '.join(NAMES)}."
        )
    return importlib.import_module(f"lopt_tf.evaluation.experiments.{name}")


def settings(name, preset, changes=None):
    """The settings of an experiment: a preset's, but for `changes`.

    Raises:
        ValueError: if the experiment has no such preset or setting, or a
            setting is out of bounds.
    """
    presets = find(name).PRESETS
    if preset not in presets:
        raise ValueError(
            f"Unknown preset {preset!r}. Known: {', '.join(presets)}."
        )
    chosen = presets[preset]
    known = [field.name for field in dataclasses.fields(chosen)]
    for change in changes or {}:
        if change not in known:
            raise ValueError(
                f"The experiment {name!r} has no setting {change!r}. It has: "
                f"{', '.join(known)}."
            )
    chosen = dataclasses.replace(chosen, **(changes or {}))
    for setting in {*known} & {*BOUNDS}:
        checks.in_range(setting, getattr(chosen, setting), *BOUNDS[setting])
    steps, seeds = (getattr(chosen, x, 1) for x in ("steps", "seeds"))
    # Adam runs four times as long.
    checks.fits_memory(f"curves of {steps:,} steps", 4 * steps * seeds)
    return chosen
