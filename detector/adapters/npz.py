"""Arrays of an .npz file, read with suspicion: nothing is unpickled, nothing unpacked that claims an absurd size."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of all arrays together, unpacked: of 100,000 streams of 38 channels they are 35 MB.
MOST_BYTES = 1 << 30

#: Axes of an array: ours have at most two.
MOST_AXES = 4

#: Bytes of the text that says an array's type and shape; NumPy evaluates it as a literal.
HEADER_BYTES = 4096

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class BadArraysError(ValueError):
    """The file is no .npz, is damaged, or claims sizes that it does not have: the message says which array."""


def read_arrays(data: bytes, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that are in the file, by name. Raises BadArraysError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = _members(file)
            return {name: _array(file, members[f"{name}.npy"]) for name in names if f"{name}.npy" in members}
    except BadArraysError:
        raise
    # what zipfile, zlib and NumPy raise of a damaged, encrypted or unknown file
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError, KeyError) as error:
        said = str(error).splitlines()
        raise BadArraysError(said[0][:200] if said else type(error).__name__) from error


def _members(file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = file.infolist()
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise BadArraysError(f"it would unpack to more than {MOST_BYTES:,} bytes")
    found = {member.filename: member for member in members}
    if len(found) < len(members):
        raise BadArraysError("it holds an array twice")
    return found


def _array(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """The array, once its header is seen to fit the size of its file: NumPy would make room for what it claims."""
    name = member.filename.removesuffix(".npy")
    if member.compress_type not in _PACKED:
        raise BadArraysError(f"{name} is packed in an unusual way")
    with file.open(member) as stream:
        shape, dtype = _header(stream, name)
        left = member.file_size - stream.tell()
    if len(shape) > MOST_AXES or prod(shape) * dtype.itemsize != left:
        raise BadArraysError(f"{name} claims {' × '.join(map(str, shape)) or 1} elements and has {left:,} bytes")
    with file.open(member) as stream:
        found: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=HEADER_BYTES)
    return found


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = _HEADERS.get(np.lib.format.read_magic(stream))
    if read is None:
        raise BadArraysError(f"{name} has a header of an unknown version")
    shape, _, dtype = read(stream, max_header_size=HEADER_BYTES)
    if dtype.hasobject:
        raise BadArraysError(f"{name} holds Python objects, which are never read")
    return shape, dtype
