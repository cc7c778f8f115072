"""Parquet, read a batch of rows at a time; pyarrow is loaded only where a file asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import (
    STREAM,
    TIMESTAMP,
    Columns,
    bad_number,
    bad_stream,
    bad_time,
    check_header,
    is_stream,
    time_of,
)
from schemas.errors import DataError, UserError
from schemas.moment import parse_time

#: Rows and cells decoded at once, at most.
BATCH_ROWS, BATCH_CELLS = 16_384, 1 << 19


def read_parquet(path: str, raw: BinaryIO, channels: Sequence[str] | None) -> Iterator[Columns]:
    """The rows of a Parquet file, a batch at a time; see ``read_csv``. Places are told as ``row N``, counted from 1.

    A timestamp may be of Arrow's type (without a zone: UTC), a text or a number of milliseconds; its echo is RFC 3339,
    the text or the number.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path} is Parquet, which needs pyarrow: pip install 'residual[parquet]'") from None
    try:
        file = pq.ParquetFile(raw)
        names = [name.strip() for name in file.schema_arrow.names]
        check_header(path, names, channels)
        fields = list(file.schema_arrow)
        rest = [i for i, name in enumerate(names) if name not in (TIMESTAMP, STREAM)]
        if channels is None:
            chosen = [i for i in rest if _is_number(pa, fields[i].type)]
        else:
            asked = frozenset(channels)
            chosen = [i for i in rest if names[i] in asked]
        texts = {names[i]: f"row 1: its type is {fields[i].type}" for i in rest if i not in chosen}
        for i in chosen:
            if not _is_number(pa, fields[i].type):
                raise DataError(f"{path}, column {names[i]}: its type is {fields[i].type}: make it a column of numbers")
        # read by name: a column that is left out is never decoded
        wanted = [names.index(name) for name in (TIMESTAMP, STREAM) if name in names] + chosen
        size = max(1, min(BATCH_ROWS, BATCH_CELLS // len(wanted)))
        batches = file.iter_batches(size, columns=[fields[i].name for i in wanted])
        yield from _decoded(path, pa, batches, [names[i] for i in wanted], [names[i] for i in chosen], texts)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}): is it whole?") from error


def _is_number(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _decoded(
    path: str, pa: Any, batches: Any, names: list[str], chosen: list[str], texts: dict[str, str]
) -> Iterator[Columns]:
    row = 1
    for batch in batches:
        columns = dict(zip(names, batch.columns, strict=True))
        stamps, times = _times(path, pa, columns[TIMESTAMP], row)
        streams = _streams(path, pa, columns[STREAM], row) if STREAM in columns else None
        values = np.empty((batch.num_rows, len(chosen)), np.float32)
        for j, name in enumerate(chosen):
            values[:, j] = _values(path, pa, columns[name], name, row)
        yield Columns(stamps, times, streams, tuple(chosen), values, texts)
        row += batch.num_rows
    if row == 1:
        raise DataError(f"{path} has no rows: nothing to read")


def _times(path: str, pa: Any, column: Any, row: int) -> tuple[list[str] | None, NDArray[np.int64]]:
    """The text and the nanoseconds of each timestamp."""
    if pa.types.is_timestamp(column.type):
        return None, _typed_times(path, pa, column, row)
    if pa.types.is_date(column.type):
        cells = [None if cell is None else cell.isoformat() for cell in column.to_pylist()]
    else:
        cells = column.to_pylist()
    stamps, times = [], []
    for i, cell in enumerate(cells):
        try:
            if isinstance(cell, str):
                stamps.append(cell)
                times.append(time_of(cell))
            elif isinstance(cell, int | float):
                stamps.append(str(cell))
                times.append(parse_time(cell))
            else:
                raise ValueError(cell)  # noqa: TRY004, it is caught just below
        except (ValueError, OverflowError):
            raise bad_time(path, f"row {row + i}", str(cell)) from None
    return stamps, np.array(times, np.int64)


def _typed_times(path: str, pa: Any, column: Any, row: int) -> NDArray[np.int64]:
    per = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}[column.type.unit]
    known = np.asarray(column.is_valid())
    cells: NDArray[np.int64] = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(~known | (cells < 0) | (cells > ((1 << 63) - 1) // per))[:1]:
        raise bad_time(path, f"row {row + i}", str(int(cells[i]) * per) if known[i] else "None")
    return cells * per


def _streams(path: str, pa: Any, column: Any, row: int) -> list[str]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.dictionary_encode()  # each name is looked at once
    if not pa.types.is_dictionary(column.type):
        raise bad_stream(path, f"row {row}", str(column[0].as_py()))
    names: list[Any] = [*column.dictionary.to_pylist(), None]
    right = np.array([isinstance(name, str) and is_stream(name) for name in names])
    codes = column.indices.cast(pa.int64()).fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(~right[codes])[:1]:
        raise bad_stream(path, f"row {row + i}", str(names[codes[i]]))
    return [names[code] for code in codes.tolist()]


def _values(path: str, pa: Any, column: Any, name: str, row: int) -> NDArray[np.float32]:
    """``[N]``; a null is missing."""
    wide = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what overflows is refused on the next line
        values: NDArray[np.float32] = wide.astype(np.float32)
    for i in np.flatnonzero(np.isinf(values))[:1]:
        raise bad_number(path, f"row {row + i}", name, str(wide[i]))
    return values
