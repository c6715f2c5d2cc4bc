"""Folders of long work: one process at a time, files whole or not at all."""

import contextlib
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
    path = folder / ".lock"
    file = open(path, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(
            f"Another process is working in {folder}. Wait for it, or name "
            "another folder."
        ) from None
    if not _is_at(file, path):
        # Its owner deleted it in between.
        file.close()
        return lock(folder)
    return file


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def claimed(folder):
    """A context in which only this process works in a folder.

    The folder and its parents are made if needed. If nothing was put there,
    nothing of it remains.

    Args:
        folder: a `pathlib.Path`; None for no folder at all.

    Raises:
        ValueError: if another process works in it.
    """
    if folder is None:
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = lock(folder)
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)
            file.close()
    finally:
        # Only empty folders can be removed.
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
