"""Folders of long work: one process at a time, files whole or not at all."""

import fcntl
import os


def lock(folder):
    """Makes this process the only one that works in a folder.

    Args:
        folder: a `pathlib.Path` of an existing folder.

    Returns:
        A file; closing it lets others work in the folder.

    Raises:
        ValueError: if another process works in it.
    """
    file = open(folder / ".lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(
            f"Another process is working in {folder}. Wait for it, or name "
            "another folder."
        ) from None
    return file


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
