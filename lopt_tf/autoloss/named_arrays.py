"""Variables as named arrays, as checkpoints hold them, and back."""


def read(prefix, variables):
    """{"prefix/number": NumPy array} of a list of variables."""
    return {f"{prefix}/{i}": v.numpy() for i, v in enumerate(variables)}


def shapes(prefix, variables):
    """{"prefix/number": shape} of what `read` returns."""
    return {f"{prefix}/{i}": tuple(v.shape) for i, v in enumerate(variables)}


def assign(prefix, variables, arrays):
    """Gives variables the values that `read` returned, perhaps among others."""
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"{prefix}/{i}"])
