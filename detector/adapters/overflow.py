"""Arrays that may be larger than memory: small ones lie in it, large ones in a file that the system maps into it.

The file is in the folder of temporary files ($TMPDIR) and has no name there, so it is gone when nobody holds the array
any more, and when the process ends, however it ends. What fits is kept in memory by the system, which takes it back
where memory is wanted. Room is taken before it is used: a full disk is an error here, not a signal later.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from schemas.errors import DataError

#: Bytes up to which an array, or what is read of files, lies in memory.
LIMIT = 1 << 27

#: Cells worked on at once: 16 MB of values.
CHUNK_CELLS = 1 << 22


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices that cover ``rows`` rows of ``width`` cells in order."""
    step = max(1, CHUNK_CELLS // max(width, 1))
    return (slice(at, min(at + step, rows)) for at in range(0, rows, step))


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array to be written to; what it holds is not said. Raises DataError where the disk has no room for it."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= LIMIT:
        return np.empty(shape, dtype)
    with _room(), _unnamed() as file:
        _reserve(file, size)
        return _mapped(file, shape, dtype)


def taken(rows_of: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """These rows of an array, on disk where they are many. Raises likewise."""
    shape = (len(rows), *rows_of.shape[1:])
    if int(np.prod(shape, dtype=np.int64)) * rows_of.itemsize <= LIMIT:
        return rows_of[rows]
    found = empty(shape, rows_of.dtype)
    for part in chunks(len(rows), int(np.prod(shape[1:], dtype=np.int64))):
        found[part] = rows_of[rows[part]]
    return found


class Budget:
    """How many bytes several arrays hold in memory together."""

    def __init__(self) -> None:
        self.held = 0


class Growing:
    """An array that rows are appended to; it goes to disk when it is over the limit with the others of its budget.

    ``shape``: of a row. Raises DataError where the disk has no room.
    """

    def __init__(self, budget: Budget, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._budget, self._dtype, self._shape = budget, np.dtype(dtype), shape
        self._blocks: list[NDArray[Any]] = []
        self._file: FileIO | None = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: ArrayLike) -> None:
        """Add rows ``[n, …]``, which are not copied: they must not change."""
        block = np.ascontiguousarray(rows, self._dtype)
        self._rows += len(block)
        if self._file is not None:
            self._write(block)
            return
        self._blocks.append(block)
        self._budget.held += block.nbytes
        if self._budget.held > LIMIT:
            self._overflow()

    def finish(self) -> NDArray[Any]:
        """All rows ``[N, …]``. Nothing can be added any more."""
        blocks, file, shape = self._blocks, self._file, (self._rows, *self._shape)
        self._blocks, self._file = [], None
        if file is None:
            self._budget.held -= sum(block.nbytes for block in blocks)
            return np.concatenate([np.empty((0, *self._shape), self._dtype), *blocks])
        with _room(), file:
            return _mapped(file, shape, self._dtype)

    def __del__(self) -> None:
        if self._file is not None:  # given up half way
            self._file.close()

    def _overflow(self) -> None:
        with _room():
            self._file = _unnamed()
        for block in self._blocks:
            self._budget.held -= block.nbytes
            self._write(block)
        self._blocks = []

    def _write(self, block: NDArray[Any]) -> None:
        assert self._file is not None
        left = block.reshape(-1).view(np.uint8).data
        with _room():
            while left:  # a write may stop half way; the next one says why
                left = left[self._file.write(left) :]


def _unnamed() -> FileIO:
    # without a buffer: what is left in one would be tried again, on a full disk, when the file is thrown away
    return tempfile.TemporaryFile(prefix="residual-", buffering=0)


def _reserve(file: FileIO, size: int) -> None:
    """Take the room, so that writing to the mapped array cannot fail."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = memoryview(bytes(1 << 24))
    left = size
    while left:
        left -= file.write(zeros[: min(left, len(zeros))])


def _mapped(file: FileIO, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """The file as an array; it holds a handle of its own."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if not size:
        return np.empty(shape, dtype)
    return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{tempfile.tempdir or 'temporary files'}: data larger than memory go there, and it cannot be written "
            f"({error.strerror or error}): make room, or name another folder with the variable TMPDIR"
        ) from error
