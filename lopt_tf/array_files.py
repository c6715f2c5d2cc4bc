"""Files of named arrays (.npz), of which every byte is verified.

NumPy's own reader trusts what an entry says of its shape: it stops where that
says, and then never comes to the entry's checksum. It also takes the memory
that a header asks for before it knows whether the file is that long.
"""

import io
import math
import os
import zipfile

import numpy as np

from lopt_tf import checks

# Booleans, integers, floats, complex numbers, text. No objects: those could
# be programs.
_KINDS = "biufcSU"


class DamagedError(Exception):
    """A file is no file of arrays, or not what was written."""


def write(file, arrays):
    """Writes {name: array} into an open binary file."""
    np.savez(file, **arrays)


def read(path):
    """Reads what `write` wrote: {name: array}.

    Nothing in the file is ever executed, and no more memory is taken than
    the file is long.

    Raises:
        DamagedError: if any entry is not whole, or it is no such file.
        MemoryError: if the file is larger than this machine's memory.
        OSError: if it cannot be read.
    """
    size = os.stat(path).st_size
    if size > checks.memory():
        raise MemoryError(f"{size} bytes do not fit into memory")
    with open(path, "rb") as file:
        content = file.read()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _arrays(archive, len(content))
    except (DamagedError, MemoryError):
        raise
    except Exception as error:
        # zipfile and numpy.lib.format raise a dozen types, from BadZipFile
        # over NotImplementedError to tokenize.TokenError.
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def _arrays(archive, size):
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        # What is not compressed cannot be larger than the file.
        raise DamagedError("its entries are compressed")
    if sum(entry.file_size for entry in entries) > size:
        raise DamagedError("its entries are longer than the file")
    arrays = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in arrays:
            raise DamagedError(f"there are two entries {name!r}")
        # Reads to the end, and verifies the checksum there.
        arrays[name] = _array(name, archive.read(entry))
    return arrays


def _array(name, content):
    """The array of an entry, which must be exactly as long as it says."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, in_columns, dtype = read_header(file)
    if dtype.kind not in _KINDS:
        raise DamagedError(f"{name!r} holds {dtype}, not numbers or text")
    data = memoryview(content)[file.tell() :]
    if dtype.itemsize * math.prod(shape) != len(data):
        raise DamagedError(f"{name!r} is not as long as its shape {shape}")
    # Text without characters has no bytes.
    flat = np.frombuffer(data, dtype) if len(data) else np.zeros(shape, dtype)
    order = "F" if in_columns else "C"
    # A copy: it may be written to, and the file's content be freed.
    return flat.reshape(shape, order=order).copy(order=order)
