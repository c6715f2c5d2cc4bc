"""Seeds of initial models: training, validation and test never overlap."""

import numpy as np

# Of the actions' random numbers in validations. Those of tests are 0, and the
# episodes of models, which are alone, count on from there.
VALIDATION_DRAW = 2**30


def starts(purpose, count):
    """Seeds for "validation" (tuning, choosing) or "test"."""
    begin = {"validation": 1_000_000, "test": 2_000_000}[purpose]
    return list(range(begin, begin + count))


def training_starts(seed, number, count, group=1):
    """Seeds of the `number`-th round of a training, each `group` times."""
    rng = np.random.default_rng([seed, number])
    seeds = rng.integers(3_000_000, 2**31, count // group)
    return np.repeat(seeds, group).tolist()
