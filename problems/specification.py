"""What tells problems and data sets apart: their type and their settings."""

import dataclasses
import functools
import hashlib

import numpy as np

# The dataclasses of this package: frozen, compared and shown as below.
specified = dataclasses.dataclass(frozen=True, eq=False, repr=False)


class Specification:
    """Two are equal if their reprs are: the same type and the same settings.

    The repr is the same in every process, so that a checkpoint can tell
    whether a resumed training still has its problems. It leaves out settings
    at their defaults: a setting that is added later does not make older
    checkpoints those of other problems.
    """

    def settings(self):
        """{name: value} of all settings that differ from their defaults.

        For a dataclass these are its fields, else its public attributes.
        """
        if not dataclasses.is_dataclass(self):
            return {k: v for k, v in vars(self).items() if k[0] != "_"}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.default is dataclasses.MISSING
            or describe(getattr(self, field.name)) != describe(field.default)
        }

    def __repr__(self):
        return f"{type(self).__name__}({_pairs(self.settings())})"

    def __eq__(self, other):
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))


def describe(value):
    """A setting as text, the same in every process.

    Functions are told apart by their names and what they close over, arrays
    and tensors by their shapes and digests; 8 and 8.0 are one number.
    """
    if isinstance(value, dict):
        return f"{{{_pairs(dict(sorted(value.items())))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, functools.partial):
        return describe([value.func, value.args, value.keywords])
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        digest = hashlib.sha256(array).hexdigest()[:12]
        return f"{array.dtype}{list(np.shape(value))}:{digest}"
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}{_origin(value)}"
    return repr(value)


def _pairs(settings):
    return ", ".join(f"{k}={describe(v)}" for k, v in settings.items())


def _origin(function):
    """Line and closed-over values of a function that was made in another."""
    if "<" not in function.__qualname__ or not hasattr(function, "__code__"):
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    values = [value for value in cells if not callable(value)]
    return f":{function.__code__.co_firstlineno}{describe(values)}"
