"""What a fetch brought, taken apart batch by batch: one that cannot be read must cost itself and nothing else.

kafka-python 3.0.12 does not bear one:

* It raises CorruptRecordError; and on the next poll it goes round in a loop for ever, still holding what is left of the
  generator that raised.
* A header whose name is not UTF-8 (clients in C send it, and brokers take it) makes the whole batch such a one.
* A batch is unpacked whole, whatever that makes of it, and so is the next.

So its consumer is given another way to take fetches apart: batches are checked and unpacked here, one after the other,
within bounds, and headers, which nobody here reads, are passed over. A batch that cannot be read stops its partition
and is told of (``CheckedConsumer``). The format: https://kafka.apache.org/documentation/#recordbatch.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as vendor
from kafka.consumer.fetcher import CompletedFetch, Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.legacy_records import LegacyRecordBatch
from kafka.record.util import calc_crc32c, decode_varint

from detector.adapters.kafka_codecs import UnpackedTooLongError, unpack
from detector.adapters.port import Damaged
from schemas.dead_letter import Reason
from schemas.errors import TemporaryError

#: Bytes that a poll unpacks: when they are reached no other batch is begun. With the largest one there may be more.
MOST_POLLED = 16 * 1024 * 1024

#: How often a damaged batch is fetched before it counts as damaged where it lies: the damage may be of the way here, or
#: of a broker's memory; and the seconds in between, a second and a half in all.
ATTEMPTS = 5
RETRY_S = 0.3

#: Of the batch's bytes the first 12 say how long the others are.
_OVERHEAD = 12
_HEADER = struct.Struct(">qiibIhiqqqhii")
_CHECKED_FROM = 21  # up to here a broker may write into a batch, so the checksum is of what follows
_MAGIC = 16
_CODEC, _LOG_APPEND, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_ABORT = 0  # of a control record's types
_LONGEST_INT = 2**63


class Record(NamedTuple):
    """A record as far as anybody here reads it. ``timestamp``: milliseconds, -1 where it has none."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class _UnreadableError(Exception):
    """A batch that cannot be read: ``reason`` CORRUPT where it is not what its sender made."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


class _MetError(Exception):
    """Ends a poll that has come to a batch that cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The head of a batch of records, checked. ``next``: the offset after its last."""

    data: memoryview
    base: int
    next: int
    attributes: int
    first_timestamp: int
    max_timestamp: int
    producer: int
    count: int

    @classmethod
    def read(cls, data: memoryview) -> Batch:
        """Raises _UnreadableError where it is damaged."""
        if len(data) < _HEADER.size:
            raise _UnreadableError(Reason.CORRUPT, f"a batch of {len(data)} bytes is none")
        base, _, _, magic, crc, attributes, delta, first, newest, producer, _, _, count = _HEADER.unpack_from(data)
        if magic != 2:
            raise _UnreadableError(Reason.CORRUPT, f"a batch of format {magic} is unknown")
        if calc_crc32c(data[_CHECKED_FROM:]) != crc:
            raise _UnreadableError(Reason.CORRUPT, "the checksum is wrong")
        if delta < 0 or count < 0:
            raise _UnreadableError(Reason.UNREADABLE, f"{count} records over {delta + 1} offsets make no batch")
        return cls(data, base, base + delta + 1, attributes, first, newest, producer, count)

    @property
    def is_control(self) -> bool:
        """It holds a broker's mark, and nothing of a sender's."""
        return bool(self.attributes & _CONTROL)

    def records(self, start: int) -> Iterator[Record]:
        """The records from an offset on, without their headers. Raises _UnreadableError at what is none."""
        try:
            yield from self._take_apart(unpack(self.attributes & _CODEC, self.data[_HEADER.size :]), start)
        except UnpackedTooLongError as error:
            raise _UnreadableError(Reason.TOO_LONG, str(error)) from error
        except (ValueError, IndexError) as error:
            raise _UnreadableError(Reason.UNREADABLE, str(error)) from error

    def _take_apart(self, data: bytes, start: int) -> Iterator[Record]:
        at, last, size = 0, self.base - 1, len(data)
        appended = self.max_timestamp if self.attributes & _LOG_APPEND else None
        for _ in range(self.count):
            length, at = decode_varint(data, at)
            end = at + length
            if not at < end <= size:
                raise ValueError(f"a record of {length} bytes does not fit what is left of the batch")
            delta, at = decode_varint(data, at + 1)  # after a byte of attributes, of which there are none
            step, at = decode_varint(data, at)
            offset = self.base + step
            if not last < offset < self.next:
                raise ValueError(f"offset {offset} does not follow {last} in a batch that ends before {self.next}")
            last = offset
            length, at = decode_varint(data, at)
            key = None if length < 0 else data[at : at + length]
            at += max(length, 0)
            length, at = decode_varint(data, at)
            value = None if length < 0 else data[at : at + length]
            if at + max(length, 0) > end:
                raise ValueError("a key or a value is longer than its record")
            at = end  # the headers, which nobody reads, lie between
            if offset >= start:
                stamp = self.first_timestamp + delta if appended is None else appended
                yield Record(offset, stamp if 0 <= stamp < _LONGEST_INT else -1, key, value)
        if at != size:
            raise ValueError(f"{size - at} bytes follow the last record")


class _Watch:
    """What the batches of one consumer's fetches have shown."""

    def __init__(self) -> None:
        self.unpacked = 0  # bytes, since the poll began
        self.met: dict[TopicPartition, tuple[Damaged, int]] = {}  # with how often it was met

    def meet(self, tp: TopicPartition, damaged: Damaged) -> None:
        before = self.met.get(tp)
        times = before[1] if before is not None and before[0].first == damaged.first else 0
        self.met[tp] = (damaged, times + 1)


class _Records(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one fetch; what kafka-python's fetcher holds on to until they are taken."""

    def __init__(self, watch: _Watch, fetch_offset: int, tp: TopicPartition, records: Any, **settings: Any) -> None:
        self._watch = watch
        super().__init__(fetch_offset, tp, records, **settings)

    def _unpack_records(self, tp: TopicPartition, records: Any, *_: Any) -> Iterator[Record]:
        """Generates what ``take`` hands out; ends where a batch cannot be read, its partition's position before it."""
        buffer, at = memoryview(records._buffer), 0
        while (end := _end(buffer, at)) is not None and self._watch.unpacked < MOST_POLLED:
            data = buffer[at:end]
            try:
                if len(data) > _MAGIC and data[_MAGIC] <= 1:
                    yield from self._old(data)
                else:
                    yield from self._batch(Batch.read(data))
            except _UnreadableError as error:
                first, following = self.next_fetch_offset, _base(buffer, end)
                if following is None or following > first:  # else all of it lies before the position
                    until = following or _until(data, first)
                    self._watch.meet(tp, Damaged(tp.partition, first, until, error.reason, error.why, bytes(data)))
                    self.drain()
                    raise _MetError from error
            at = end
        self.drain()

    def _batch(self, batch: Batch) -> Iterator[Record]:
        if not self._is_left_out(batch):
            for record in batch.records(self.fetch_offset):
                self._count(record)
                yield record
        self.next_fetch_offset = max(batch.next, self.fetch_offset)

    def _count(self, record: Record) -> None:
        size = len(record.key or b"") + len(record.value or b"")
        self._watch.unpacked += size
        self.bytes_read += size
        self.records_read += 1
        self.next_fetch_offset = record.offset + 1

    def _is_left_out(self, batch: Batch) -> bool:
        """A broker's mark, or records of a transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.producer >= 0:
            self._consume_aborted_transactions_up_to(batch.next - 1)
            if batch.is_control:
                if _is_abort(batch):
                    self.aborted_producer_ids.discard(batch.producer)
            elif batch.attributes & _TRANSACTIONAL and batch.producer in self.aborted_producer_ids:
                return True
        return batch.is_control

    def _old(self, data: memoryview) -> Iterator[Record]:
        """A batch of the format before Kafka 0.11, which lies on old disks only; by the client's own means."""
        try:
            batch = LegacyRecordBatch(data, data[_MAGIC])
            if not batch.validate_crc():
                raise _UnreadableError(Reason.CORRUPT, "the checksum is wrong")
            found = [Record(r.offset, -1 if r.timestamp is None else r.timestamp, r.key, r.value) for r in batch]
        except _UnreadableError:
            raise
        except Exception as error:
            raise _UnreadableError(Reason.CORRUPT, f"{type(error).__name__}: {error}") from error
        for record in found:
            if record.offset >= self.fetch_offset:
                self._count(record)
                yield record


def _is_abort(batch: Batch) -> bool:
    key = next((record.key for record in batch.records(0)), None) or b""
    return len(key) >= 4 and int.from_bytes(key[2:4], "big") == _ABORT


def _end(buffer: memoryview, at: int) -> int | None:
    """Where a batch ends; None where the rest of a fetch is no whole one, as is usual at its end."""
    if len(buffer) - at < _OVERHEAD:
        return None
    length = int.from_bytes(buffer[at + 8 : at + 12], "big", signed=True)
    end = at + _OVERHEAD + max(length, 0)
    return end if end <= len(buffer) else None


def _base(buffer: memoryview, at: int) -> int | None:
    """The first offset of the batch that begins there; None where there is none whole, or it is damaged, too."""
    end = _end(buffer, at)
    if end is None:
        return None
    try:
        return Batch.read(buffer[at:end]).base
    except _UnreadableError:
        return None


def _until(data: memoryview, first: int) -> int:
    """Where to go on after a batch that cannot be read and that no other follows in its fetch.

    After the last offset that it claims, in two ways that are to agree, else the smaller; after one offset only where
    that makes no sense: the broker looks for the next batch by itself.
    """
    if len(data) < _HEADER.size:
        return first + 1
    base, *_, delta, _, _, _, _, _, count = _HEADER.unpack_from(data)
    return max(int(base) + min(delta + 1, count), first + 1) if base <= first else first + 1


class CheckedConsumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer that says which records it cannot read, and gets past them where it is told to.

    ``passes``: asked of each such batch, once it was fetched ``ATTEMPTS`` times where it is damaged. True: it is
    passed over, and ``passed`` has it, in the order of the polls. False: ``poll`` raises TemporaryError, which ends
    with ``advice``. Nobody is asked twice about a batch. ``poll`` returns ``Record`` s.
    """

    def __init__(self, *topics: str, passes: Callable[[Damaged], bool], advice: str, **config: Any) -> None:
        self._passes, self._advice = passes, advice
        self._watch = _Watch()
        self._resumed: dict[TopicPartition, int] = {}
        self.passed: deque[Damaged] = deque()
        super().__init__(*topics, **config)
        self._parse: Callable[[CompletedFetch], Any] = self._fetcher._parse_fetched_data
        self._fetcher._parse_fetched_data = self._parsed
        self._fetcher.PartitionRecords = partial(_Records, self._watch)

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None, update_offsets: bool = True
    ) -> dict[TopicPartition, list[Record]]:
        """See ``KafkaConsumer.poll``; the last of what is returned may be followed by what cannot be read."""
        self._judge()
        self._watch.unpacked = 0
        began = time.monotonic()
        try:
            found: dict[TopicPartition, list[Record]] = super().poll(timeout_ms, max_records, update_offsets)
        except _MetError:
            if not self._judge():
                time.sleep(max(min(RETRY_S, timeout_ms / 1000 - (time.monotonic() - began)), 0.0))
            return {}
        return found

    def _judge(self) -> bool:
        """Pass over what is due; True where something was."""
        any_passed = False
        for tp, (damaged, times) in list(self._watch.met.items()):
            if not self._is_at(tp, damaged.first):
                del self._watch.met[tp]
                continue
            follows = self._resumed.get(tp) == damaged.first
            if damaged.reason is Reason.CORRUPT and times < ATTEMPTS and not follows:
                continue
            if not self._passes(damaged):
                raise TemporaryError(
                    f"{tp.topic}, partition {tp.partition}: what lies from offset {damaged.first} to "
                    f"{damaged.next - 1} cannot be read: {damaged.why}; {self._advice}"
                )
            del self._watch.met[tp]
            self._resumed[tp] = damaged.next
            self.seek(tp, damaged.next)
            self.passed.append(damaged)
            any_passed = True
        return any_passed

    def _is_at(self, tp: TopicPartition, offset: int) -> bool:
        """The partition is to be delivered from this offset on, as it was when something was met there."""
        if not self._subscription.is_fetchable(tp):
            return False
        return bool(self._subscription.assignment[tp].position.offset == offset)

    def _parsed(self, fetch: CompletedFetch) -> Any:
        """What the broker itself cannot read, or sends so that no batch can be found in it, is told of likewise."""
        try:
            return self._parse(fetch)
        except (vendor.CorruptRecordError, vendor.InvalidRecordError) as error:
            why = f"the broker says {type(error).__name__}"
        except vendor.KafkaError as error:
            if type(error) is not vendor.KafkaError:
                raise
            why = "no batch can be made out"
        tp, first = fetch.topic_partition, fetch.fetched_offset
        self._watch.meet(tp, Damaged(tp.partition, first, first + 1, Reason.CORRUPT, why, None))
        raise _MetError
