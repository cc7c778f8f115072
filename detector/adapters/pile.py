"""What is read of several files, piled up part by part and then laid out as one log, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import Columns
from detector.adapters.overflow import Budget, Growing, chunks, empty
from detector.adapters.texts import Names, Stamps

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(slots=True)
class File:
    """One file as far as it has been read."""

    path: str
    start: int
    """Its first row among those of all files."""
    seen: set[str] = field(default_factory=set)
    columns: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    """See ``Columns``."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Columns that hold a number, in the file's order."""
        return tuple(name for name in self.columns if name in self.seen)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of the pile from ``start`` on whose values lie in one array, from ``first`` on."""

    start: int
    first: int
    columns: tuple[str, ...]


class Pile:
    """The rows of files in the order in which they are read; M of them."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._times = Growing(self._budget, np.int64)
        self._codes = Growing(self._budget, np.int32)
        self._blob = Growing(self._budget, np.uint8)
        self._ends: Growing | None = None
        self._place: dict[str, int] = {}
        #: Values by the columns that they are of: as many arrays as there are kinds of file.
        self._values: dict[tuple[str, ...], Growing] = {}
        self._pieces: list[_Piece] = []
        self.files: list[File] = []

    def begin(self, path: str) -> None:
        """What is added from here on is of this file."""
        self.files.append(File(path, len(self._times)))

    def add(self, part: Columns, stream: str) -> None:
        """The next rows of the file; ``stream``: their name where they bring none."""
        file = self.files[-1]
        file.columns, file.texts = part.channels, part.texts
        for j, name in enumerate(part.channels):
            if name not in file.seen and not np.isnan(part.values[:, j]).all():
                file.seen.add(name)
        self._add_values(part)
        self._add_timestamps(part.timestamps, len(part))
        for name in dict.fromkeys(part.streams or (stream,)):
            self._place.setdefault(name, len(self._place))
        if part.streams is None:
            self._codes.append(np.full(len(part), self._place[stream], np.int32))
        else:
            self._codes.append(np.fromiter(map(self._place.__getitem__, part.streams), np.int32, len(part)))
        self._times.append(part.times)

    def _add_values(self, part: Columns) -> None:
        if part.channels not in self._values:
            self._values[part.channels] = Growing(self._budget, np.float32, (len(part.channels),))
        values = self._values[part.channels]
        piece = _Piece(len(self._times), len(values), part.channels)
        last = self._pieces[-1] if self._pieces else None
        if last is None or last.columns != piece.columns or last.start - last.first != piece.start - piece.first:
            self._pieces.append(piece)
        values.append(part.values)

    def _add_timestamps(self, texts: Sequence[str] | None, rows: int) -> None:
        if self._ends is None and texts is not None:
            self._ends = Growing(self._budget, np.int64)
            for part in chunks(len(self._times), 1):
                self._ends.append(np.zeros(part.stop - part.start, np.int64))
        if self._ends is None:
            return
        joined = "".join(texts or ())
        if texts is None:
            sizes = np.zeros(rows, np.int64)
        elif joined.isascii():
            sizes = np.fromiter(map(len, texts), np.int64, rows)
        else:
            sizes = np.fromiter((len(text.encode()) for text in texts), np.int64, rows)
        self._ends.append(len(self._blob) + np.cumsum(sizes))
        self._blob.append(np.frombuffer(joined.encode(), np.uint8))

    def finish(self, channels: tuple[str, ...]) -> tuple[Names, Ints, Floats, Stamps]:
        """Streams, times, values ``[M, C]`` and timestamps of the log. Nothing can be added any more."""
        times = self._times.finish()
        order = self._order(times)
        values = self._laid_out(channels, order, len(times))
        codes = self._codes.finish()
        ends = None if self._ends is None else self._ends.finish()
        if order is not None:
            times, codes = times[order], codes[order]
        return Names(tuple(self._place), codes), times, values, Stamps(times, self._blob.finish(), ends, order)

    def _order(self, times: Ints) -> Ints | None:
        """Which row of the pile each row of the log is; None: the same.

        Taking the head with the least time again and again (ties: the earlier file) is a stable sort by the greatest
        time that each file has shown so far, because a row older than its predecessor goes out right after it.
        """
        if len(self.files) == 1:
            return None
        heads = np.empty_like(times)
        stops = [*(file.start for file in self.files[1:]), len(times)]
        for file, stop in zip(self.files, stops, strict=True):
            np.maximum.accumulate(times[file.start : stop], out=heads[file.start : stop])
        if bool((heads[1:] >= heads[:-1]).all()):  # one file after another
            return None
        return np.argsort(heads, kind="stable")

    def _laid_out(self, channels: tuple[str, ...], order: Ints | None, rows: int) -> Floats:
        arrays: dict[tuple[str, ...], Floats] = {columns: kept.finish() for columns, kept in self._values.items()}
        self._values = {}
        if order is None and list(arrays) == [channels]:
            return arrays[channels]
        starts = [piece.start for piece in self._pieces]
        values = empty((rows, len(channels)), np.float32)
        for part in chunks(rows, len(channels)):
            wanted = np.arange(part.start, part.stop) if order is None else order[part]
            block = np.full((len(wanted), len(channels)), np.nan, np.float32)
            piece_of = np.searchsorted(starts, wanted, side="right") - 1
            for number in np.unique(piece_of):
                piece = self._pieces[number]
                here = np.flatnonzero(piece_of == number)
                there = [k for k, channel in enumerate(channels) if channel in piece.columns]
                found = arrays[piece.columns][wanted[here] - piece.start + piece.first]
                columns = [piece.columns.index(channels[k]) for k in there]
                block[here[:, None], there] = found[:, columns]
            values[part] = block
        return values
