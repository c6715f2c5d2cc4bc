"""Sizes of the task: three presets, and what they may be changed to."""

import dataclasses

# Settings of a preset: see `task.Translation`.
PRESETS = {
    # About a minute of one core: scarce pairs, plenty of tags.
    "demo": {
        "pairs": 400,
        "tagged": 6000,
        "symbols": 1000,
        "width": 64,
        "embedding": 64,
        "depth": 1,
        "dropout": 0.3,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "lengths": (16, 28),
        "updates": 2000,
        "hold": 25,
        "validations": 20,
        "valid": 200,
        "test": 300,
    },
    # Three to five minutes of one core on 18,000 idioms.
    "full": {
        "pairs": 20_000,
        "tagged": 20_000,
        "symbols": 2000,
        "width": 128,
        "embedding": 128,
        "depth": 1,
        "dropout": 0.2,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "lengths": (12, 16, 24, 40),
        "updates": 4000,
        "hold": 50,
        "validations": 20,
        "valid": 500,
        "test": 500,
    },
    # As published, for 160,000 pairs.
    "paper": {
        "pairs": 160_000,
        "tagged": 50_000,
        "symbols": 10_000,
        "width": 256,
        "embedding": 128,
        "depth": 2,
        "dropout": 0.3,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "lengths": (12, 16, 24, 40, 60),
        "updates": 100_000,
        "hold": 50,
        "validations": 100,
        "valid": 2000,
        "test": 2000,
    },
}


def filled(task):
    """Gives a dataclass's fields that are None its preset's values.

    Raises:
        ValueError: for an unknown preset.
    """
    if task.preset not in PRESETS:
        raise ValueError(
            f"Unknown preset {task.preset!r}. Known: {', '.join(PRESETS)}."
        )
    for field in dataclasses.fields(task):
        if field.default is None and getattr(task, field.name) is None:
            setattr(task, field.name, PRESETS[task.preset][field.name])
