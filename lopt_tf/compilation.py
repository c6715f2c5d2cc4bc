"""XLA: compiled functions, and how many more of them a process can hold.

XLA maps every compiled kernel into memory by itself: about a thousand maps
for the backward pass of one problem. Linux kills a process that passes
`vm.max_map_count` (65,530 by default), and TensorFlow never unmaps.
"""

import pathlib

import tensorflow as tf

_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
_MAPS = pathlib.Path("/proc/self/maps")
# What the programs of one problem may need, with a margin.
_NEEDED = 6000
# What those of a problem take at least, with backpropagation.
_USUAL = 850


class NoRoomError(RuntimeError):
    """This process cannot compile programs for one more problem."""


def compiled(function, jit_compile=True):
    """A function compiled (with XLA); its Python runs as written, once."""
    return tf.function(function, jit_compile=jit_compile, autograph=False)


def maps_left():
    """Memory maps that the process may still make, or None if unlimited."""
    if not (_LIMIT.exists() and _MAPS.exists()):
        return None
    with _MAPS.open("rb") as maps:
        used = sum(1 for _ in maps)
    return int(_LIMIT.read_text()) - used


def check_room():
    """Checks that one more problem can be compiled.

    Raises:
        NoRoomError: if not; the message says how to go on.
    """
    left = maps_left()
    if left is not None and left < _NEEDED:
        raise NoRoomError(
            "The compiled programs of this process have used up its memory "
            f"maps ({left} are left). Nothing is lost: resume in a new "
            "process, or allow more with `sysctl -w vm.max_map_count=262144`."
        )


def check_all_fit(count):
    """Checks that so many problems can be compiled, with backpropagation.

    For processes that cannot go on in a new one, such as workers.

    Raises:
        ValueError: if not, by what they take at least.
    """
    left = maps_left()
    if left is not None and left < _USUAL * count:
        raise ValueError(
            f"A worker comes to compile all {count} problems, which takes "
            f"{_USUAL * count:,} memory maps at least; {left:,} are left. "
            "Allow more on every machine with `sysctl -w "
            "vm.max_map_count=262144`, or name fewer problems."
        )
