"""Where the Kafka client's own reading is mended."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from crc32c import crc32c
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder

from detector.adapters.kafka_batches import FetchedRecords, Watch

HEADER = DefaultRecordBase.HEADER_STRUCT
TRANSACTIONAL, CONTROL = DefaultRecordBase.TRANSACTIONAL_MASK, DefaultRecordBase.CONTROL_MASK


def emptied(offset: int, attributes: int) -> bytes:
    """A batch of producer 7 that compaction has emptied: its header is kept, for the offset and the sequence in it."""
    body = struct.pack(">hiqqqhii", attributes, 0, 0, 0, 7, 0, 0, 0)
    length = HEADER.size - DefaultRecordBase.AFTER_LEN_OFFSET
    return struct.pack(">qiibI", offset, length, 0, 2, crc32c(body)) + body


def written(offset: int, value: bytes) -> bytes:
    """A batch with one record."""
    builder = DefaultRecordBatchBuilder(2, 0, True, 7, 0, 0, 10_000)
    builder.append(0, 0, b"key", value, [])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, offset)
    return bytes(built)


def read(kind: Callable[..., Any], data: bytes) -> tuple[list[bytes], int]:
    """The values, and the offset to go on from."""
    part = kind(
        0, TopicPartition("topic", 0), MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED
    )  # fmt: skip
    values = []
    while part:
        values += [record.value for record in part.take(10)]
    return values, part.next_fetch_offset


LOG = written(0, b"a") + emptied(5, TRANSACTIONAL | CONTROL) + written(6, b"b") + emptied(9, TRANSACTIONAL)


def test_a_transactions_end_that_compaction_has_emptied_is_passed_over() -> None:
    assert read(partial(FetchedRecords, Watch()), LOG) == ([b"a", b"b"], 10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_client_by_itself_still_breaks_off() -> None:
    """Where it does not any more, ours can go."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        read(Fetcher.PartitionRecords, LOG)
