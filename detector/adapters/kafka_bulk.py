"""Many records for one topic at once, in a producer's open transaction.

``KafkaProducer.send`` of kafka-python 3.0.12 takes some 30 µs for a record with headers, twice what it takes to read
and score one; so half of a topic being garbage would slow the other half down to a third. Here the records of a
partition are packed into whole batches, which join the producer's queue as if ``send`` had filled them: the same
compression, sequence numbers and retries.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.producer.future import FutureProduceResult
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

#: (key, value, headers); a record without a key and a value has an empty key.
Row = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]

# Of records, as in Kafka since 0.11.
_FORMAT = 2


class _Place:
    """In which batch a record is; stands for the client's future of the record, which costs more than the record."""

    __slots__ = ("future",)

    def __init__(self, future: FutureProduceResult) -> None:
        self.future = future

    def rebind(self, future: FutureProduceResult, _: int) -> None:
        """Called by the client, where the batch was too long for the topic and is split: the record is in another."""
        before, self.future = self.future, future
        before._latch.set()  # it will never be done: whoever waits for it looks again


class Confirmation:
    """Waits until the brokers have a batch, or all that it was split into."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._places = places

    def get(self, timeout: float) -> None:
        """Raises what the client says of it, or KafkaTimeoutError."""
        deadline = time.monotonic() + timeout
        while pending := [future for future in self._futures() if not future.is_done]:
            if not pending[0].wait(max(deadline - time.monotonic(), 0)):
                raise KafkaTimeoutError(f"no broker has confirmed a batch within {timeout:.0f} s")
        for future in self._futures():
            if future.failed():
                raise future.exception
            refusal = future.value[2]
            if refusal is not None:
                raise refusal(0)

    def _futures(self) -> set[FutureProduceResult]:
        return {place.future for place in self._places}


def send(producer: KafkaProducer, topic: str, rows: dict[int, list[Row]], batch_bytes: int) -> list[Confirmation]:
    """Send rows, by number of a partition, modulo the partitions that the topic has.

    Returns what is to be waited for before the commit. Raises the client's errors.
    """
    partitions = sorted(producer.partitions_for(topic))
    confirmations = []
    for number, own in rows.items():
        tp = TopicPartition(topic, partitions[number % len(partitions)])
        producer._transaction_manager.maybe_add_partition_to_transaction(tp)
        confirmations += _enqueue(producer, tp, own, batch_bytes)
    producer._sender.wakeup()
    return confirmations


def _enqueue(producer: KafkaProducer, tp: TopicPartition, rows: list[Row], batch_bytes: int) -> list[Confirmation]:
    queue, now_ms = producer._accumulator, time.time_ns() // 1_000_000
    confirmations = []
    for packed in _batches(rows, batch_bytes):
        records = MemoryRecordsBuilder(_FORMAT, queue.config["compression_attrs"], batch_bytes)
        _fill(records, packed, now_ms)
        batch = ProducerBatch(tp, records)
        batch.max_record_size = max(map(len, packed))
        batch._record_futures += [_Place(batch.produce_future) for _ in packed]
        confirmations.append(Confirmation(batch._record_futures))
        with queue._tp_lock(tp):
            queue._batches[tp].append(batch)
            queue._incomplete.add(batch)
    return confirmations


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
