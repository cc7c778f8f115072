"""Data files as one log: CSV, CSV.gz and Parquet, merged on their heads by timestamp."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import Columns, is_stream, shorten
from detector.adapters.csv_file import as_text, read_csv
from detector.adapters.overflow import taken
from detector.adapters.pile import File, Pile
from detector.adapters.texts import Names, coded, picked, take
from detector.engine.readings import Readings
from schemas.errors import DataError


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """The rows of one or more files in the order of one log: N rows, C channels."""

    streams: Sequence[str]
    """N names."""
    times: NDArray[np.int64]
    """``[N]``, nanoseconds since 1970."""
    values: NDArray[np.float32]
    """``[N, C]``, NaN where missing."""
    timestamps: Sequence[str]
    """The text of each timestamp as it stood in its file."""
    channels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        streams = len(np.unique(coded(self.streams).codes))
        return f"<Table of {len(self)} readings, {streams} streams, {len(self.channels)} channels>"

    def rows(self, rows: NDArray[np.int64]) -> Table:
        """These rows, on disk where they are many. Raises DataError where it has no room."""
        names = coded(self.streams)
        return replace(
            self, streams=Names(names.names, names.codes[rows]), times=self.times[rows],
            values=taken(self.values, rows), timestamps=picked(self.timestamps, rows),
        )  # fmt: skip

    def slice(self, start: int, stop: int, partitions: int = 1) -> list[Readings]:
        """The rows ``start`` to ``stop`` as the poll of a log would bring them: one ``Readings`` per partition."""
        return [self._readings(partition, rows) for partition, rows in self._dealt(start, stop, partitions)]

    def batches(self, size: int, partitions: int = 1) -> Iterator[list[Readings]]:
        """All rows, ``size`` at a time; within a partition they keep their order.

        A stream's partition is where Kafka's default partitioner would put its name as a key.
        """
        for start in range(0, len(self), size):
            yield self.slice(start, start + size, partitions)

    def order(self, size: int, partitions: int = 1) -> NDArray[np.int64]:
        """``[N]``: which row of the table each row of ``batches(size, partitions)``, laid end to end, is.

        So ``column[table.order(size, partitions)] = scored`` brings results back into the table's order.
        """
        dealt = [
            rows for start in range(0, len(self), size) for _, rows in self._dealt(start, start + size, partitions)
        ]
        return np.concatenate([np.empty(0, np.int64), *dealt])

    def _dealt(self, start: int, stop: int, partitions: int) -> list[tuple[int, NDArray[np.int64]]]:
        """(partition, its rows) for the rows ``start`` to ``stop``."""
        rows = np.arange(start, min(stop, len(self)), dtype=np.int64)
        if partitions == 1:
            return [(0, rows)]
        from detector.adapters.partitioner import partition_of  # here: it loads the Kafka client

        streams = self.streams[start:stop]
        place = {stream: partition_of(stream.encode(), partitions) for stream in set(streams)}
        of_row = np.fromiter((place[stream] for stream in streams), np.int64, len(rows))
        return [(int(partition), rows[of_row == partition]) for partition in np.unique(of_row)]

    def _readings(self, partition: int, rows: NDArray[np.int64]) -> Readings:
        return Readings(partition, take(self.streams, rows), self.times[rows], self.values[rows])


def read_table(
    sources: Sequence[str], *, channels: Sequence[str] | None = None, default_stream: str = "default"
) -> Table:
    """The readings of ``sources``, each ``PATH`` or ``STREAM=PATH``, as one log.

    ``channels`` None: every column whose first cell that is not missing is a number, in the order in which they appear
    over all files; a column ``label`` is refused. Else exactly these, in this order: other columns are ignored, absent
    ones are missing values.

    Files are merged on their heads by timestamp, ties in the order given; rows of one file keep their order. They are
    read part by part; what is larger than ``overflow.LIMIT`` lies on disk (see there), and with it the table.

    Raises DataError with file, line and column where something cannot be read.
    """
    pile = Pile()
    for source in sources:
        stream, path = split_source(source)
        pile.begin(path)
        for part in _read(path, channels):
            if stream is not None and part.streams is not None:
                raise DataError(f"{source}: the file has a column stream of its own: name it without {stream}=")
            pile.add(part, default_stream if stream is None else stream)
    if not sources:
        raise DataError("no data: name at least one file")
    wanted = _union(pile.files) if channels is None else tuple(channels)
    return Table(*pile.finish(wanted), wanted)


def split_source(source: str) -> tuple[str | None, str]:
    """(stream or None, path). A file whose own name holds a ``=`` wins over the reading as ``STREAM=PATH``."""
    stream, equals, path = source.partition("=")
    if not equals or os.path.exists(source) or ("/" in stream and not os.path.exists(path)):
        return None, source
    if not is_stream(stream):
        raise DataError(f"{shorten(source)}: {shorten(stream)} is not a stream's name: write STREAM=PATH")
    return stream, path


def _read(path: str, channels: Sequence[str] | None) -> Iterator[Columns]:
    """One file part by part, in whichever of the formats it is."""
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder: name the files in it")
    try:
        with open(path, "rb") as raw:
            # peeking, not seeking: a pipe will do for CSV
            yield from _decode(path, raw, raw.peek(4)[:4], channels)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(path: str, raw: BinaryIO, start: bytes, channels: Sequence[str] | None) -> Iterator[Columns]:
    name = path.lower()
    if start == b"PAR1" or name.endswith((".parquet", ".pq")):
        from detector.adapters.parquet_file import read_parquet

        yield from read_parquet(path, raw, channels)
        return
    if start[:2] == b"\x1f\x8b" or (name.endswith(".gz") and start):
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    with as_text(raw) as text:
        yield from read_csv(path, text, channels)


def _union(files: Sequence[File]) -> tuple[str, ...]:
    """The channels of all files in order of appearance."""
    wanted = tuple(dict.fromkeys(name for file in files for name in file.channels))
    for file in files:
        for name in wanted:
            if name in file.texts:
                raise DataError(f"{file.path}, column {name}, {file.texts[name]} is no number, as it is in other files")
        if not file.channels:
            raise DataError(
                f"{file.path}: no channel found: no column besides timestamp and stream starts with a number"
            )
    return wanted
