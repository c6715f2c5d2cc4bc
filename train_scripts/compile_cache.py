"""XLA's cache of compiled programs in a folder, verified before it is used.

XLA trusts what it finds there, and that is machine code: one flipped bit ends
a program without a word, or changes a number.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import sys

_DIGEST = ".sha256"


@contextlib.contextmanager
def used(folder, say):
    """A context in which TensorFlow keeps compiled programs in a folder.

    Each has a file with its digest beside it. What is not as it was written,
    or was not finished, is deleted first.

    Args:
        folder: its name; "" for none. Nothing is done either once TensorFlow
            has started.
        say: a function of one line of text.

    Raises:
        ValueError: if others can write to the folder.
        OSError: if it cannot be made.
    """
    if not folder or "tensorflow" in sys.modules:
        yield
        return
    if len(str(folder).split()) != 1:
        raise ValueError(
            f"XLA takes no spaces in the folder of --compile_cache: {folder}. "
            "Name another one."
        )
    # Machine code of one machine must not reach another kind of machine.
    path = pathlib.Path(folder).expanduser() / _machine()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(path)
    with contextlib.ExitStack() as stack:
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, number)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"note: another process uses {folder}; this one does without")
        else:
            _delete_damaged(path, say)
            stack.callback(_add_digests, path)
            flag = f"--tf_xla_persistent_cache_directory={path}"
            others = os.environ.get("TF_XLA_FLAGS", "")
            os.environ["TF_XLA_FLAGS"] = f"{others} {flag}".strip()
            stack.callback(os.environ.__setitem__, "TF_XLA_FLAGS", others)
        yield


def _check_private(path):
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ValueError(
            f"Others can write to {path}, the folder of --compile_cache: their "
            "machine code would be run. Name another folder, or delete it."
        )


def _entries(path):
    return [p for p in path.iterdir() if p.is_file() and p.suffix != _DIGEST]


def _digest_file(entry):
    return entry.with_name(entry.name + _DIGEST)


def _digest(entry):
    return hashlib.sha256(entry.read_bytes()).hexdigest()


def _delete_damaged(path, say):
    deleted = 0
    for entry in _entries(path):
        beside = _digest_file(entry)
        known = beside.read_bytes().strip() if beside.is_file() else b""
        if known != _digest(entry).encode():
            entry.unlink()
            deleted += 1
    for beside in path.glob(f"*{_DIGEST}"):
        if not beside.with_suffix("").is_file():
            beside.unlink()
    if deleted:
        say(
            f"note: {deleted} compiled programs in {path} were damaged or "
            "unfinished; they were deleted and are compiled again"
        )


def _add_digests(path):
    for entry in _entries(path):
        beside = _digest_file(entry)
        if not beside.exists():
            beside.write_text(_digest(entry))


def _machine():
    """A name for the processor's abilities and the TensorFlow version."""
    cpu = pathlib.Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    abilities = sorted({x for x in lines if x.startswith(("flags", "Feat"))})
    text = repr((platform.machine(), platform.processor(), abilities))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"tf{importlib.metadata.version('tensorflow')}-{digest}"
