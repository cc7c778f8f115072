"""Data files as one log: CSV, CSV.gz and Parquet, merged on their heads by timestamp."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import Columns, is_stream, shorten
from detector.adapters.csv_file import as_text, read_csv
from detector.engine.readings import Readings
from schemas.errors import DataError


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """The rows of one or more files in the order of one log: N rows, C channels."""

    streams: list[str]
    """N names."""
    times: NDArray[np.int64]
    """``[N]``, nanoseconds since 1970."""
    values: NDArray[np.float32]
    """``[N, C]``, NaN where missing."""
    timestamps: list[str]
    """The text of each timestamp as it stood in its file."""
    channels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return f"<Table of {len(self)} readings, {len(set(self.streams))} streams, {len(self.channels)} channels>"

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
        return Readings(partition, [self.streams[i] for i in rows.tolist()], self.times[rows], self.values[rows])


def read_table(
    sources: Sequence[str], *, channels: Sequence[str] | None = None, default_stream: str = "default"
) -> Table:
    """The readings of ``sources``, each ``PATH`` or ``STREAM=PATH``, as one log.

    ``channels`` None: every column whose first cell that is not missing is a number, in the order in which they appear
    over all files; a column ``label`` is refused. Else exactly these, in this order: other columns are ignored, absent
    ones are missing values.

    Files are merged on their heads by timestamp, ties in the order given; rows of one file keep their order.

    Raises DataError with file, line and column where something cannot be read.
    """
    files: list[Columns] = []
    names: list[str] = []
    for source in sources:
        stream, path = split_source(source)
        columns = _read(path, channels)
        if stream is not None and columns.streams is not None:
            raise DataError(f"{source}: the file has a column stream of its own: name it without {stream}=")
        files.append(columns)
        names.append(default_stream if stream is None else stream)
    if not files:
        raise DataError("no data: name at least one file")
    wanted = _union(files) if channels is None else tuple(channels)
    return _merge(files, names, wanted)


def split_source(source: str) -> tuple[str | None, str]:
    """(stream or None, path). A file whose own name holds a ``=`` wins over the reading as ``STREAM=PATH``."""
    stream, equals, path = source.partition("=")
    if not equals or os.path.exists(source) or ("/" in stream and not os.path.exists(path)):
        return None, source
    if not is_stream(stream):
        raise DataError(f"{shorten(source)}: {shorten(stream)} is not a stream's name: write STREAM=PATH")
    return stream, path


def _read(path: str, channels: Sequence[str] | None) -> Columns:
    """One file, in whichever of the formats it is."""
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder: name the files in it")
    try:
        with open(path, "rb") as raw:
            # peeking, not seeking: a pipe will do for CSV
            return _decode(path, raw, raw.peek(4)[:4], channels)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(path: str, raw: BinaryIO, start: bytes, channels: Sequence[str] | None) -> Columns:
    name = path.lower()
    if start == b"PAR1" or name.endswith((".parquet", ".pq")):
        from detector.adapters.parquet_file import read_parquet

        return read_parquet(path, raw, channels)
    if start[:2] == b"\x1f\x8b" or (name.endswith(".gz") and start):
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    with as_text(raw) as text:
        return read_csv(path, text, channels)


def _union(files: Sequence[Columns]) -> tuple[str, ...]:
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


def _merge(files: Sequence[Columns], names: Sequence[str], channels: tuple[str, ...]) -> Table:
    """The log. Taking the head with the least time again and again (ties: the earlier file) is a stable sort by the
    greatest time that each file has shown so far, because a row older than its predecessor goes out right after it.
    """
    streams: list[str] = []
    timestamps: list[str] = []
    values = np.full((sum(map(len, files)), len(channels)), np.nan, np.float32)
    start = 0
    for file, name in zip(files, names, strict=True):
        streams += [name] * len(file) if file.streams is None else file.streams
        timestamps += file.timestamps
        place = {channel: j for j, channel in enumerate(file.channels)}
        there = [k for k, channel in enumerate(channels) if channel in place]
        values[start : start + len(file), there] = file.values[:, [place[channels[k]] for k in there]]
        start += len(file)
    times = np.concatenate([file.times for file in files])
    if len(files) == 1:
        return Table(streams, times, values, timestamps, channels)
    heads = np.concatenate([np.maximum.accumulate(file.times) for file in files])
    order = np.argsort(heads, kind="stable")
    rows = order.tolist()
    return Table([streams[i] for i in rows], times[order], values[order], [timestamps[i] for i in rows], channels)
