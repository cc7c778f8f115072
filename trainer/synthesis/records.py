"""Made readings as the records of a topic: JSON as the detector reads it, one reading each or many.

All of it is text that Arrow puts together: an object per reading would cost five times as much as the reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.reading import FieldNames
from trainer.synthesis.output import texts_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """What is sent."""

    stream: int
    """Its number."""
    newest_ns: int
    """Time of its newest reading."""
    readings: int
    value: bytes
    timestamp_ms: int | None = None
    """Of the record, where that is the reading's time; None: when it is sent."""


class Encoder:
    """Records of streams by their names; ``per_record`` readings in each, one after the other, as a list where it is
    more than one.
    """

    def __init__(self, names: Sequence[str], channels: Sequence[str], fields: FieldNames, per_record: int = 1) -> None:
        self._heads = [f'{{{_text(fields.stream)}:{_text(name)},{_text(fields.timestamp)}:"' for name in names]
        self._channels = [f"{_text(name)}:" for name in channels]
        self._values = f'",{_text(fields.values)}:{{'
        self._per_record = per_record

    def records(self, times: Ints, values: Floats) -> Iterator[Record]:
        """Of readings ``[S, n, C]`` at ``times`` ``[n]``, ns, in the order of time."""
        ends = [*range(self._per_record, len(times), self._per_record), len(times)]
        starts = [0, *ends[:-1]]
        moments = pa.array(texts_of(times), pa.string())
        columns = [self._joined(head, moments, own, starts) for head, own in zip(self._heads, values, strict=True)]
        for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
            newest = int(times[end - 1])
            for number, column in enumerate(columns):
                yield Record(number, newest, end - start, column[place])

    def _joined(self, head: str, moments: pa.Array, values: Floats, starts: Sequence[int]) -> list[bytes]:
        """The records of one stream."""
        parts: list[pa.Array | str] = [head, moments, self._values]
        for c, name in enumerate(self._channels):
            parts += [name if c == 0 else f",{name}", _numbers(values[:, c])]
        readings = pc.binary_join_element_wise(*parts, "}}", "")
        if self._per_record > 1:
            lists = pa.ListArray.from_arrays(pa.array([*starts, len(moments)], pa.int32()), readings)
            readings = pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
        found: list[bytes] = readings.cast(pa.binary()).to_pylist()
        return found


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _numbers(column: Floats) -> pa.Array:
    """Shortest texts that give the same 32-bit number again; null for NaN."""
    return pc.fill_null(pa.array(column, from_pandas=True).cast(pa.string()), "null")
