"""Many records for one topic at once, in a producer's open transaction.

``KafkaProducer.send`` of kafka-python 3.0.12 takes some 30 µs for a record with headers, twice what it takes to read
and score one; so half of a topic being garbage would slow the other half down to a third. Here the records of a
partition are packed into whole batches, which join the producer's queue as if ``send`` had filled them: the same
compression, sequence numbers and retries, and a future for each record.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

#: (key, value, headers); a record without a key and a value has an empty key.
Row = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]

# Of records, as in Kafka since 0.11.
_FORMAT = 2


def send(producer: KafkaProducer, topic: str, rows: dict[int, list[Row]], batch_bytes: int) -> list[Any]:
    """Send rows, by number of a partition, modulo the partitions that the topic has.

    Returns the futures, as ``send`` does. Raises the client's errors.
    """
    partitions = sorted(producer.partitions_for(topic))
    futures: list[Any] = []
    for number, own in rows.items():
        tp = TopicPartition(topic, partitions[number % len(partitions)])
        producer._transaction_manager.maybe_add_partition_to_transaction(tp)
        futures += _enqueue(producer, tp, own, batch_bytes)
    producer._sender.wakeup()
    return futures


def _enqueue(producer: KafkaProducer, tp: TopicPartition, rows: Iterable[Row], batch_bytes: int) -> Iterator[Any]:
    queue = producer._accumulator
    now_ms = time.time_ns() // 1_000_000
    for packed in _batches(rows, batch_bytes):
        records = MemoryRecordsBuilder(_FORMAT, queue.config["compression_attrs"], batch_bytes)
        _fill(records, packed, now_ms)
        batch = ProducerBatch(tp, records)
        batch.max_record_size = max(map(len, packed))
        futures = [FutureRecordMetadata(batch.produce_future, n, now_ms, None, -1, -1, -1) for n in range(len(packed))]
        batch._record_futures += futures
        with queue._tp_lock(tp):
            queue._batches[tp].append(batch)
            queue._incomplete.add(batch)
        yield from futures


def _fill(records: MemoryRecordsBuilder, packed: Sequence[bytes], now_ms: int) -> None:
    """What as many calls of its ``append`` would leave."""
    builder = records._builder
    builder._buffer += b"".join(packed)
    builder._first_timestamp = builder._max_timestamp = now_ms
    builder._num_records = records._next_offset = len(packed)
    builder._last_offset = len(packed) - 1


def _batches(rows: Iterable[Row], batch_bytes: int) -> Iterator[list[bytes]]:
    """Rows, packed, in batches of at most so many bytes, or of one row."""
    packed: list[bytes] = []
    length = 0
    for row in rows:
        made = pack(len(packed), *row)
        if packed and length + len(made) > batch_bytes:
            yield packed
            packed, length = [], 0
            made = pack(0, *row)
        packed.append(made)
        length += len(made)
    if packed:
        yield packed


def pack(number: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> bytes:
    """The ``number``-th record of a batch, from 0, as it lies there; of the batch's own time."""
    body = b"".join(
        (
            b"\0\0",  # no attributes, no difference of time
            _varint(number),
            b"\1" if key is None else _varint(len(key)) + key,
            b"\1" if value is None else _varint(len(value)),
            value or b"",
            _varint(len(headers)),
            *[_header(*header) for header in headers],
        )
    )
    return _varint(len(body)) + body


@lru_cache(4096)  # most are the same in the next record
def _header(name: str, value: bytes) -> bytes:
    text = name.encode()
    return _varint(len(text)) + text + _varint(len(value)) + value


@lru_cache(4096)
def _varint(number: int) -> bytes:
    made = bytearray()
    encode_varint(number, made.append)
    return bytes(made)
