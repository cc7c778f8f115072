"""Made readings as a file: CSV, CSV.gz or Parquet by its name, block by block, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from detector.adapters.aside import aside_bytes

PARQUET = (".parquet", ".pq")

#: Of times, and how many nanoseconds each is: the coarsest that fits is written.
UNITS: tuple[tuple[Literal["s", "ms", "us", "ns"], int], ...] = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))


def texts_of(times: NDArray[np.int64]) -> list[str]:
    """Times, ns, as ISO 8601, all with as many digits as the finest needs."""
    unit = next(unit for unit, size in UNITS if not (times % size).any())
    texts: list[str] = np.datetime_as_string(times.astype("datetime64[ns]"), unit=unit, timezone="UTC").tolist()
    return texts


class Output:
    """A file that readings are written to; made by ``writing``."""

    def __init__(self, writer: Any, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema

    def write(self, streams: Sequence[str], times: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Readings ``[S, n, C]`` of streams at ``times`` ``[n]``, ns, in the order of time."""
        S, n, C = values.shape
        times, values = np.repeat(times, S), values.transpose(1, 0, 2).reshape(n * S, C)
        columns: dict[str, Any] = {"timestamp": self._moments(times)}
        if "stream" in self._schema.names:
            columns["stream"] = pa.array(streams).take(pa.array(np.tile(np.arange(S), n)))
        names = self._schema.names[-values.shape[1] :]
        columns |= {name: pa.array(values[:, c], from_pandas=True) for c, name in enumerate(names)}
        self._writer.write_table(pa.table(columns, self._schema))

    def _moments(self, times: NDArray[np.int64]) -> pa.Array:
        kind = self._schema.field(0).type
        if kind != pa.string():
            return pa.array(times.astype("datetime64[ns]")).cast(kind)
        return pa.array(texts_of(times), pa.string())


@contextmanager
def writing(path: str, channels: Sequence[str], *, streams: bool) -> Iterator[Output]:
    """A file that takes ``path``'s place when the block ends without an error. ``streams``: with a column of that name.

    Raises UserError where the place cannot be written to.
    """
    moment = pa.timestamp("ns", "UTC") if path.lower().endswith(PARQUET) else pa.string()
    fields = [("timestamp", moment), *([("stream", pa.string())] if streams else [])]
    schema = pa.schema([*fields, *((name, pa.float32()) for name in channels)])
    with aside_bytes(path) as raw, ExitStack() as stack:
        yield Output(stack.enter_context(_writer(path.lower(), stack, raw, schema)), schema)


def _writer(name: str, stack: ExitStack, raw: BinaryIO, schema: pa.Schema) -> Any:
    if name.endswith(PARQUET):
        return pa_parquet.ParquetWriter(raw, schema)
    if name.endswith(".gz"):  # the same readings, the same bytes
        raw = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="")))
    # its own writer puts every name into quotes
    names = io.StringIO()
    csv.writer(names, lineterminator="\n").writerow(schema.names)
    raw.write(names.getvalue().encode())
    # it quotes every text where it may; of texts there are times, which need none, and names of streams
    quoting = "needed" if "stream" in schema.names else "none"
    options = pa_csv.WriteOptions(include_header=False, quoting_style=quoting)
    return pa_csv.CSVWriter(raw, schema, write_options=options)
