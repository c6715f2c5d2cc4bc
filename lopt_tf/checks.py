"""Checks of numbers: whether settings and arrays can be used at all."""

import dataclasses
import numbers
import os
import sys

import numpy as np

# The lower bound of what must be positive.
POSITIVE = sys.float_info.min
# The most units of a layer of a learned optimizer.
LARGEST_LAYER = 2048
# The upper bound of seeds: TensorFlow's are 32 bits long.
LARGEST_SEED = 2**31 - 1


def in_range(name, value, low, high):
    """Checks that a number lies between two bounds, which NaN does not.

    Args:
        name: how the number is called.
        value: the number; a whole one if `low` is an integer.
        low, high: the bounds, both allowed. `POSITIVE` for `low` says that
            zero is not.

    Raises:
        ValueError: if it does not; the message gives name, bounds and value.
    """
    is_whole = isinstance(low, int)
    kind = numbers.Integral if is_whole else numbers.Real
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not (fits and low <= value <= high):
        least = "positive" if low == POSITIVE else f"at least {low:g}"
        what = ", a whole number" if is_whole else ""
        raise ValueError(
            f"`{name}` must be {least} and at most {high:.12g}{what}. "
            f"Received: {name}={value!r}"
        )


def plain(number):
    """A number of NumPy's as one of Python's, for `json.dumps(default=)`."""
    if hasattr(number, "item") and not getattr(number, "ndim", 1):
        return number.item()
    raise TypeError(f"{number!r} cannot be written as JSON")


def all_in_range(settings, bounds):
    """Checks fields of a dataclass: see `in_range`.

    Args:
        settings: the dataclass.
        bounds: {name: (low, high)} of its numbers.

    Raises:
        ValueError: for the first that is not; TypeError if a field of
            numbers has no bounds, which is a mistake of the programmer.
    """
    for field in dataclasses.fields(settings):
        if field.type in (int, float) and field.name not in bounds:
            raise TypeError(f"The setting {field.name} has no bounds.")
    for name, (low, high) in bounds.items():
        in_range(name, getattr(settings, name), low, high)


def fits_memory(what, floats):
    """Checks before the work whether it can be held in memory at all.

    Args:
        what: what is to be held, in words; the advice comes with it.
        floats: how many numbers of 4 bytes that takes at least.

    Raises:
        ValueError: if that is more than this machine's memory.
    """
    if 4 * floats > memory():
        raise ValueError(
            f"{what} take at least {4 * floats / 2**30:,.0f} GiB; this machine "
            f"has {memory() / 2**30:,.0f} GiB. Choose fewer or smaller ones."
        )


def memory():
    """The bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def all_finite(arrays):
    """Whether all of many arrays hold finite numbers alone."""
    return all(bool(np.all(np.isfinite(array))) for array in arrays)


def wrong_arrays(arrays, expected):
    """What is wrong with weights: a list of sentences, empty if nothing is.

    Args:
        arrays: {name: array}; they must be finite float32.
        expected: {name: shape}.
    """
    wrong = [f"{name} is missing" for name in expected if name not in arrays]
    for name, array in arrays.items():
        shape, dtype = tuple(np.shape(array)), np.asarray(array).dtype
        if name not in expected:
            wrong.append(f"unknown: {name}")
        elif shape != tuple(expected[name]):
            wrong.append(f"{name}: {shape} instead of {tuple(expected[name])}")
        elif dtype != np.float32:
            wrong.append(f"{name}: {dtype} instead of float32")
        elif not np.all(np.isfinite(array)):
            wrong.append(f"{name} has NaN or infinite numbers")
    return sorted(wrong)


def is_like(value, default):
    """Whether a value read from JSON can stand for a setting's default."""
    if isinstance(default, (tuple, list)):
        if not isinstance(value, (tuple, list)):
            return False
        return not default or all(is_like(each, default[0]) for each in value)
    if default is None or isinstance(default, str):
        return value is None or isinstance(value, str)
    kinds = {float: (int, float)}.get(type(default), type(default))
    return isinstance(value, kinds) and (
        isinstance(default, bool) or not isinstance(value, bool)
    )
