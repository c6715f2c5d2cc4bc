"""Folders of long work: one process at a time, files whole or not at all."""

import contextlib
import fcntl
import os
import pathlib
import re
import tempfile

# Files that a process which died was writing; `lopt_tf` has called them so,
# older versions with the process's number or nothing before ".tmp".
_STRAY = re.compile(r"\..+\.(npz|csv|json|html|png|txt|keras)(\.\w+)?\.tmp")


def lock(folder):
    """Makes this process the only one that works in a folder.

    What a process that died was writing there is removed.

    Args:
        folder: a `pathlib.Path` of an existing folder.

    Returns:
        A file; closing it lets others work in the folder.

    Raises:
        ValueError: if another process works in it, or it cannot be locked.
    """
    path = folder / ".lock"
    # Never through a link, and never emptied: the name is known to everybody.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be opened ({error.strerror}). Delete it if it is "
            "a link or a folder, or name another folder."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"Another process is working in {folder}. Wait for it, or name "
            "another folder."
        ) from None
    except OSError as error:
        file.close()
        raise ValueError(
            f"{folder} cannot be locked ({error.strerror}). Name a folder on "
            "a file system that has locks."
        ) from error
    if not _is_at(file, path):
        # Its owner deleted it in between.
        file.close()
        return lock(folder)
    for stray in folder.rglob(".*.tmp"):
        _remove_stray(stray)
    return file


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _remove_stray(path):
    """Removes a temporary file of ours, unless somebody is writing it."""
    if not _STRAY.fullmatch(path.name):
        return
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(file)


@contextlib.contextmanager
def usable(folder):
    """A context in which a folder is there, and can be written to.

    The folder and its parents are made if needed. If nothing was put there,
    nothing of it remains.

    Args:
        folder: a `pathlib.Path`.

    Raises:
        ValueError: if it cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(
                f"{folder} cannot be written to ({error.strerror}). Name "
                "another folder."
            ) from error
        yield
    finally:
        # Only empty folders can be removed.
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def claimed(folder):
    """A context in which only this process works in a folder; see `usable`.

    Args:
        folder: a `pathlib.Path`; None for no folder at all.

    Raises:
        ValueError: if another process works in it, or it cannot be written
            to.
    """
    if folder is None:
        yield
        return
    with usable(folder):
        file = lock(folder)
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)
            file.close()


@contextlib.contextmanager
def whole(path):
    """A context that writes a file, whole or not at all: a binary file.

    It is on the disk before it takes the place of an older one. Its name
    until then can be neither known before nor be a link.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be written; it names the file.
    """
    path = pathlib.Path(path)
    try:
        for stray in path.parent.glob(f".{path.name}.*tmp"):
            _remove_stray(stray)
        number, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        temporary = pathlib.Path(name)
        try:
            with os.fdopen(number, "wb") as file:
                # Who finds the file unlocked may remove it.
                _try_lock(file)
                yield file
                file.flush()
                os.fchmod(file.fileno(), _file_mode(path))
                os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _try_lock(file):
    # Not every file system has locks.
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _file_mode(path):
    """The mode of the file that is replaced, or that of a new file."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def put(finished, path):
    """Moves a finished file or folder to its place, on the disk.

    Args:
        finished: where it is, on the same file system.
        path: where it goes; a file there is replaced.

    Raises:
        OSError: if it cannot be written.
    """
    for each in (*finished.rglob("*"), finished):
        if each.is_dir():
            _sync(each)
            continue
        with open(each, "rb") as file:
            os.fsync(file.fileno())
    finished.replace(path)
    _sync(path.parent)


def _sync(folder):
    """Puts a folder's entries on the disk: a new name, too, can be lost."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    with whole(path) as file:
        file.write(text.encode())
