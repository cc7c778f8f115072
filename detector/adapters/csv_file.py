"""CSV, plain or gzipped (RFC 4180, UTF-8 with or without a byte order mark, any line ends), read a chunk at a time."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import (
    MISSING,
    STREAM,
    TIMESTAMP,
    Columns,
    bad_number,
    bad_stream,
    bad_time,
    check_header,
    is_stream,
    looks_like_number,
    number,
    shorten,
    time_of,
)
from schemas.errors import DataError

#: Cells held as Python strings at once (about 60 bytes each), whatever the file's width.
CHUNK_CELLS = 200_000

_NAN = float("nan")
_Row = list[str]
_Pick = Callable[[_Row], Sequence[str]]


def read_csv(path: str, text: TextIO, channels: Sequence[str] | None) -> Iterator[Columns]:
    """The rows of a CSV file, a chunk at a time. ``text``: opened with ``errors="surrogateescape"`` and ``newline=""``.

    ``channels`` None: every column whose first cell that is not missing is a number; else these, where the file has
    them. Raises DataError with file, line and column.
    """
    reader = csv.reader(_checked(path, text), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(f"{path} is empty: its first line must name the columns")
        names = [name.strip() for name in header]
        check_header(path, names, channels)
        parser = _Parser(path, names, channels)
        empty = True
        for rows, lines in _chunks(reader, len(names)):
            yield parser.parse(rows, lines)
            empty = False
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}: correct the quotes of this row") from None
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}, after line {reader.line_num}: cannot be read on ({error}): is it whole?") from error
    if empty:
        raise DataError(f"{path} has no rows below its first line: nothing to read")


def _checked(path: str, text: Iterable[str]) -> Iterator[str]:
    """The lines, as long as they are UTF-8: bytes that are not arrive as lone surrogates."""
    for line, content in enumerate(text, 1):
        if not content.isascii():
            try:
                content.encode()
            except UnicodeEncodeError:
                raise DataError(f"{path}, line {line}: not UTF-8: save the file with that encoding") from None
        yield content


def _chunks(reader: Iterator[_Row], width: int) -> Iterator[tuple[list[_Row], list[int]]]:
    """Rows with the line at which each begins; blank lines are no rows."""
    size = max(1, CHUNK_CELLS // width)
    rows: list[_Row] = []
    lines: list[int] = []
    line = reader.line_num + 1  # type: ignore[attr-defined]  # csv's reader type is not public
    for row in reader:
        if len(row) > 1 or (row and not row[0].isspace() and row[0]):
            rows.append(row)
            lines.append(line)
            if len(rows) == size:
                yield rows, lines
                rows, lines = [], []
        line = reader.line_num + 1  # type: ignore[attr-defined]
    if rows:
        yield rows, lines


class _Parser:
    """Turns chunks of rows into columns; finds out on the way which columns are channels."""

    def __init__(self, path: str, names: list[str], channels: Sequence[str] | None) -> None:
        self._path = path
        self._names = names
        self._time = names.index(TIMESTAMP)
        self._stream = names.index(STREAM) if STREAM in names else None
        rest = [i for i, name in enumerate(names) if name not in (TIMESTAMP, STREAM)]
        #: Columns known to be channels, and those of which no cell has been seen yet.
        wanted = frozenset(channels or ())
        self._numbers: list[int] = [i for i in rest if names[i] in wanted]
        self._open: list[int] = rest if channels is None else []
        self._texts: dict[str, str] = {}

    def parse(self, rows: list[_Row], lines: list[int]) -> Columns:
        """A chunk as columns; ``lines``: where each row begins."""
        width = len(self._names)
        for row, line in zip(rows, lines, strict=True):
            if len(row) != width:
                raise DataError(
                    f"{self._path}, line {line}: {len(row)} cells where the first line names {width} columns: "
                    "correct the row"
                )
        self._settle(rows, lines)
        stamps = [row[self._time] for row in rows]
        times: list[int] = []
        for stamp, line in zip(stamps, lines, strict=True):
            try:
                times.append(time_of(stamp))
            except ValueError:
                raise bad_time(self._path, f"line {line}", stamp) from None
        streams = None if self._stream is None else self._names_of(rows, lines, self._stream)
        return Columns(
            timestamps=stamps,
            times=np.array(times, np.int64),
            streams=streams,
            channels=tuple(self._names[i] for i in self._numbers),
            values=self._values(rows, lines),
            texts=self._texts,
        )

    def _names_of(self, rows: list[_Row], lines: list[int], column: int) -> list[str]:
        for row, line in zip(rows, lines, strict=True):
            if not is_stream(row[column]):
                raise bad_stream(self._path, f"line {line}", row[column])
        return [row[column] for row in rows]

    def _settle(self, rows: list[_Row], lines: list[int]) -> None:
        """Decide each open column by its first cell in these rows that is not missing."""
        still_open = []
        for i in self._open:
            seen = next((k for k, row in enumerate(rows) if row[i].strip().lower() not in MISSING), None)
            if seen is None:
                still_open.append(i)
                continue
            if not looks_like_number(rows[seen][i]):
                self._texts[self._names[i]] = f"line {lines[seen]}: {shorten(rows[seen][i])}"
                continue
            if not self._names[i]:
                raise DataError(f"{self._path}, line 1: column {i + 1} has no name: name or remove it")
            self._numbers.append(i)
        self._open = still_open
        self._numbers.sort()

    def _values(self, rows: list[_Row], lines: list[int]) -> NDArray[np.float32]:
        columns = self._numbers
        wide = np.array([self._floats(row, line) for row, line in self._picked(rows, lines)], np.float64)
        wide = wide.reshape(len(rows), len(columns))
        with np.errstate(over="ignore"):  # what overflows is refused on the next line
            values = wide.astype(np.float32)
        for i, j in np.argwhere(np.isinf(values))[:1]:
            raise bad_number(self._path, f"line {lines[i]}", self._names[columns[j]], rows[i][columns[j]])
        return values

    def _picked(self, rows: list[_Row], lines: list[int]) -> Iterator[tuple[Sequence[str], int]]:
        """The channels' cells of each row."""
        pick = _picker(self._numbers)
        return zip(map(pick, rows), lines, strict=True)

    def _floats(self, cells: Sequence[str], line: int) -> list[float]:
        """The values of a row: quick where all is well, cell by cell where something is missing or odd."""
        joined = "".join(cells)
        if joined.isascii() and "_" not in joined:
            try:
                return [float(cell) if cell else _NAN for cell in cells]
            except ValueError:
                pass
        values = []
        for cell, column in zip(cells, self._numbers, strict=True):
            try:
                values.append(number(cell))
            except ValueError:
                raise bad_number(self._path, f"line {line}", self._names[column], cell) from None
        return values


def _picker(columns: Collection[int]) -> _Pick:
    """A function that takes these cells out of a row."""
    if len(columns) > 1:
        return itemgetter(*columns)
    kept = list(columns)
    return lambda row: [row[i] for i in kept]


def as_text(raw: BinaryIO) -> TextIO:
    """The bytes as ``read_csv`` wants them."""
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
