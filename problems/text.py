"""Text that is always there: the source of Python's standard library."""

import functools
import pathlib
import sysconfig

import numpy as np

# Printable ASCII and the end of a line; anything else reads as a space.
VOCABULARY = "\n" + "".join(map(chr, range(32, 127)))
# What trained optimizers are tested on; nothing else reads these.
TEST_MODULES = (
    *("argparse", "ast", "difflib", "inspect", "subprocess", "typing"),
)


@functools.cache
def standard_library(modules=TEST_MODULES):
    """Characters as numbers below `len(VOCABULARY)`, uint8 [length].

    Args:
        modules: names of the modules to read. Defaults to `TEST_MODULES`.

    Raises:
        ValueError: if this Python has no source of its standard library.
    """
    folder = pathlib.Path(sysconfig.get_path("stdlib"))
    files = [folder / f"{name}.py" for name in modules]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"The text problems read {', '.join(missing)} of Python's "
            f"standard library, and {folder} does not hold them. Leave the "
            "text problems out with --problems."
        )
    text = "".join(file.read_text("utf-8") for file in files)
    known = {character: i for i, character in enumerate(VOCABULARY)}
    space = known[" "]
    return np.array([known.get(c, space) for c in text], "uint8")


def windows(length):
    """Pieces of the text and what follows each character.

    Args:
        length: characters in a piece; pieces do not overlap.

    Returns:
        (characters [pieces, length] float32, next ones [pieces, length]
        int32).
    """
    text = standard_library()
    pieces = (len(text) - 1) // length
    used = pieces * length
    return (
        text[:used].reshape(pieces, length).astype("float32"),
        text[1 : used + 1].reshape(pieces, length).astype("int32"),
    )
