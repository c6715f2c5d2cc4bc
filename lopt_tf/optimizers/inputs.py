"""What a step can work with: checks of variables and gradients."""

import keras
import numpy as np
from keras import ops

from lopt_tf.optimizers import backends

_TYPES = ("float16", "bfloat16", "float32", "float64")
# The largest float32: wider gradients are cut there.
_LARGEST = 3.4028234663852886e38


def integer(value):
    """An integer as Keras' own counters are, for a variable.

    On TensorFlow of 64 bits: those of 32 stay on the host, where XLA on a GPU
    cannot reach them.
    """
    return np.asarray(value, keras.backend.standardize_dtype("int"))


def path(variable):
    """Where a variable is; plain variables of TensorFlow have names only."""
    return getattr(variable, "path", None) or variable.name


def wide_type(dtype):
    """The type to compute a parameter in: its own, and at least float32."""
    return "float64" if _name(dtype) == "float64" else "float32"


def wide(tensor):
    """A tensor in its `wide_type`."""
    return ops.cast(tensor, wide_type(tensor.dtype))


def narrowed(gradient):
    """A finite gradient as float32: beyond its range, its largest value."""
    if _name(gradient.dtype) == "float64":
        gradient = ops.clip(gradient, -_LARGEST, _LARGEST)
    return ops.cast(gradient, "float32")


def check_variables(variables, key):
    """Checks what an optimizer is built for.

    Args:
        variables: list of Keras' or TensorFlow's variables.
        key: function of a variable: what identifies it.

    Raises:
        ValueError: if one has a type that is not a real floating one, or a
            shape that is not known, or is there twice.
    """
    for variable in variables:
        if _name(variable.dtype) not in _TYPES:
            raise ValueError(
                f"Variable {path(variable)} is {_name(variable.dtype)}; this "
                f"optimizer trains {', '.join(_TYPES)}. Make it of one of "
                "these types, or do not train it (trainable=False)."
            )
        shape = _shape(variable)
        if shape is None or None in shape:
            raise ValueError(
                f"Variable {path(variable)} has the shape {variable.shape}; "
                "an optimizer needs shapes that are known. Give the variable "
                "a fixed shape."
            )
    _check_once(variables, key)


def checked(grads, variables, key):
    """Dense gradients that fit their variables.

    Args:
        grads: list of tensors, sparse ones, or None.
        variables: list of variables, one for each.
        key: function of a variable: what identifies it.

    Raises:
        ValueError: if there are more or fewer gradients than variables, a
            variable is there twice, or a gradient has another shape than its
            variable or is not of a real floating type.
    """
    if len(grads) < len(variables):
        raise ValueError(
            f"There is no gradient for variable {path(variables[len(grads)])}: "
            f"received {len(grads)} gradients for {len(variables)} variables. "
            "Give None for a variable without one."
        )
    if len(grads) > len(variables):
        last = f" (the last one is {path(variables[-1])})" if variables else ""
        raise ValueError(
            f"Received {len(grads)} gradients for {len(variables)} "
            f"variables{last}. Give one for each."
        )
    _check_once(variables, key)
    return [_fitting(g, v) for g, v in zip(grads, variables)]


def _fitting(gradient, variable):
    if gradient is None:
        return None
    if not hasattr(gradient, "dtype"):
        gradient = ops.convert_to_tensor(gradient)
    if _name(gradient.dtype) not in _TYPES:
        raise ValueError(
            f"The gradient of variable {path(variable)} is "
            f"{_name(gradient.dtype)}; it must be of a real floating type: "
            f"{', '.join(_TYPES)}."
        )
    shape = tuple(variable.shape)
    found = backends.dense_shape(gradient, shape)
    if found is None or len(found) != len(shape):
        fits = found is None
    else:
        fits = all(f in (None, s) for f, s in zip(found, shape))
    if not fits:
        raise ValueError(
            f"The gradient of variable {path(variable)} has the shape {found}, "
            f"the variable {shape}. They must be equal."
        )
    return backends.dense(gradient, shape)


def _check_once(variables, key):
    seen = set()
    for variable in variables:
        if key(variable) in seen:
            raise ValueError(
                f"Variable {path(variable)} is there twice. Give each variable "
                "once, with the sum of its gradients."
            )
        seen.add(key(variable))


def _name(dtype):
    return getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")


def _shape(tensor):
    """Its static shape; None where not even the rank is known."""
    if getattr(tensor.shape, "rank", 0) is None:
        return None
    return tuple(tensor.shape)
