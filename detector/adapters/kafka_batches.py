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
from dataclasses import dataclass, replace
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

#: Seconds of answers without a byte of a partition that has some, before that counts as damage.
SILENCE_S = 10.0
_SILENT = "the broker sends nothing of it"

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


class UnreadableError(Exception):
    """A batch that cannot be read: ``reason`` CORRUPT where it is not what its sender made."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


class MetError(Exception):
    """Ends a poll that has come to a batch that cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The head of a batch of records, checked. ``next``: the offset after its last."""

    data: memoryview
    base: int
    next: int
    epoch: int
    attributes: int
    first_timestamp: int
    max_timestamp: int
    producer: int
    count: int

    @classmethod
    def read(cls, data: memoryview) -> Batch:
        """Raises UnreadableError where it is damaged."""
        if len(data) < _HEADER.size:
            raise UnreadableError(Reason.CORRUPT, f"a batch of {len(data)} bytes is none")
        base, _, epoch, magic, crc, attributes, delta, first, newest, producer, _, _, count = _HEADER.unpack_from(data)
        if magic != 2:
            raise UnreadableError(Reason.CORRUPT, f"a batch of format {magic} is unknown")
        if calc_crc32c(data[_CHECKED_FROM:]) != crc:
            raise UnreadableError(Reason.CORRUPT, "the checksum is wrong")
        if delta < 0 or count < 0:
            raise UnreadableError(Reason.UNREADABLE, f"{count} records over {delta + 1} offsets make no batch")
        return cls(data, base, base + delta + 1, epoch, attributes, first, newest, producer, count)

    @property
    def is_control(self) -> bool:
        """It holds a broker's mark, and nothing of a sender's."""
        return bool(self.attributes & _CONTROL)

    def records(self, start: int) -> Iterator[Record]:
        """The records from an offset on, without their headers. Raises UnreadableError at what is none."""
        try:
            yield from self._take_apart(unpack(self.attributes & _CODEC, self.data[_HEADER.size :]), start)
        except UnpackedTooLongError as error:
            raise UnreadableError(Reason.TOO_LONG, str(error)) from error
        except (ValueError, IndexError) as error:
            raise UnreadableError(Reason.UNREADABLE, str(error)) from error

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


class Watch:
    """What the fetches of one consumer have shown of its partitions, for it to act on."""

    def __init__(self) -> None:
        self.unpacked = 0  # bytes, since the poll began
        self.ends: dict[TopicPartition, int] = {}  # no batch lies beyond
        self.readable: dict[TopicPartition, int] = {}  # up to here everything can be read: no transaction is open
        self.epochs: dict[TopicPartition, int] = {}  # of the leader: no batch is of a later one
        self.met: dict[TopicPartition, _Met] = {}

    def meet(self, tp: TopicPartition, damaged: Damaged) -> None:
        """Note what cannot be read, and how often it was met."""
        before = self.met.get(tp)
        if before is None or before.damaged.first != damaged.first:
            before = _Met(damaged, 0, time.monotonic())
        self.met[tp] = _Met(damaged, before.times + 1, before.since)

    def hides(self, tp: TopicPartition, first: int, base: int) -> Damaged | None:
        """What was met at an offset, where the fetch now begins beyond: its offset was damaged too, and it is gone."""
        met = self.met.get(tp)
        return replace(met.damaged, next=base) if met and met.damaged.first == first < base else None


@dataclass(frozen=True, slots=True)
class _Met:
    """Something that cannot be read, how often it was met, and since when (monotonic)."""

    damaged: Damaged
    times: int
    since: float


class FetchedRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one fetch; what kafka-python's fetcher holds on to until they are taken."""

    def __init__(self, watch: Watch, fetch_offset: int, tp: TopicPartition, records: Any, **settings: Any) -> None:
        self._watch = watch
        super().__init__(fetch_offset, tp, records, **settings)

    def _unpack_records(self, tp: TopicPartition, records: Any, *_: Any) -> Iterator[Record]:
        """Generates what ``take`` hands out; ends where a batch cannot be read, its partition's position before it."""
        buffer, at, before = memoryview(records._buffer), 0, -1
        while (end := _end(buffer, at)) is not None and self._watch.unpacked < MOST_POLLED:
            data = buffer[at:end]
            try:
                if len(data) > _MAGIC and data[_MAGIC] <= 1:
                    yield from self._old(data)
                else:
                    batch = Batch.read(data)
                    self._check_place(batch, before, buffer[end : end + 8])
                    if hidden := self._watch.hides(tp, self.next_fetch_offset, batch.base):
                        return self._give_up(hidden)
                    yield from self._batch(batch)
                    before = batch.next
            except UnreadableError as error:
                first, following = self.next_fetch_offset, _base(buffer, end)
                if following is None or following > first:  # else all of it lies before the position
                    sound = error.reason is not Reason.CORRUPT
                    until = following or _until(data, first, self._watch.ends.get(tp, first), sound)
                    return self._give_up(Damaged(tp.partition, first, until, error.reason, error.why, bytes(data)))
            at = end
        return self.drain()  # type: ignore[no-any-return]

    def _give_up(self, damaged: Damaged) -> None:
        """End the fetch before it; and the poll, where nothing came before it: then the position is its own."""
        self._watch.meet(self.topic_partition, damaged)
        self.drain()
        if self.next_fetch_offset == self.fetch_offset:
            raise MetError

    def _check_place(self, batch: Batch, before: int, following: memoryview) -> None:
        """Its first offset is no part of its checksum, so it has to fit those around it, and the partition's end."""
        wanted = max(before, self.fetch_offset)
        last = self._watch.ends.get(self.topic_partition, batch.next)
        if batch.base < max(before, 0) or batch.next > last >= 0:
            raise UnreadableError(Reason.CORRUPT, f"offsets {batch.base} to {batch.next - 1} are not its own")
        if batch.base > wanted and len(following) == 8 and int.from_bytes(following, "big") < batch.next:
            raise UnreadableError(Reason.CORRUPT, f"offset {batch.base} does not fit those that follow")

    def _batch(self, batch: Batch) -> Iterator[Record]:
        # a batch says so itself, outside of its checksum; too late an epoch would make the client doubt its position
        if batch.epoch <= self._watch.epochs.get(self.topic_partition, -1):
            self.leader_epoch = batch.epoch
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
                raise UnreadableError(Reason.CORRUPT, "the checksum is wrong")
            found = [Record(r.offset, -1 if r.timestamp is None else r.timestamp, r.key, r.value) for r in batch]
        except UnreadableError:
            raise
        except Exception as error:
            raise UnreadableError(Reason.CORRUPT, f"{type(error).__name__}: {error}") from error
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
    except UnreadableError:
        return None


def _until(data: memoryview, first: int, end: int, sound: bool) -> int:
    """Where to go on after a batch that cannot be read and that no other follows in its fetch.

    After as many offsets as it says, where its checksum is ``sound``. Else it says so in two ways that are to agree:
    after the fewer, from its own first one on if that makes sense; what is left will be met again. Never beyond the
    partition's end.
    """
    if len(data) < _HEADER.size:
        return first + 1
    base, *_, delta, _, _, _, _, _, count = _HEADER.unpack_from(data)
    span = delta + 1 if sound else min(delta + 1, count)
    until = (base if base <= first < base + span else first) + span
    return max(min(int(until), end), first + 1)


class CheckedConsumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer that says which records it cannot read, and gets past them where it is told to.

    ``passes``: asked of each such batch, once it was fetched ``ATTEMPTS`` times where it is damaged. True: it is
    passed over, and ``passed`` has it, in the order of the polls. False: ``poll`` raises TemporaryError, which ends
    with ``advice``. Nobody is asked twice about a batch. ``poll`` returns ``Record`` s.
    """

    def __init__(self, *topics: str, passes: Callable[[Damaged], bool], advice: str, **config: Any) -> None:
        self._passes, self._advice = passes, advice
        self._watch = Watch()
        self._resumed: dict[TopicPartition, int] = {}  # where one went on after the last that was passed over
        self._waiting: dict[TopicPartition, int] = {}  # the positions before which there is something, a second ago
        self._look_at = 0.0
        self.passed: deque[Damaged] = deque()
        super().__init__(*topics, **config)
        self._parse: Callable[[CompletedFetch], Any] = self._fetcher._parse_fetched_data
        self._fetcher._parse_fetched_data = self._parsed
        self._fetcher.PartitionRecords = partial(FetchedRecords, self._watch)

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None, update_offsets: bool = True
    ) -> dict[TopicPartition, list[Record]]:
        """See ``KafkaConsumer.poll``; the last of what is returned may be followed by what cannot be read."""
        self._judge()
        self._look_for_silence()
        self._watch.unpacked = 0
        began = time.monotonic()
        try:
            found: dict[TopicPartition, list[Record]] = super().poll(timeout_ms, max_records, update_offsets)
        except MetError:
            if not self._judge():
                time.sleep(max(min(RETRY_S, timeout_ms / 1000 - (time.monotonic() - began)), 0.0))
            return {}
        return found

    def _judge(self) -> bool:
        """Pass over what is due; True where something was."""
        any_passed = False
        for tp, met in list(self._watch.met.items()):
            damaged = met.damaged
            if not self._is_at(tp, damaged.first):
                del self._watch.met[tp]
            elif self._is_settled(tp, met):
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

    def _is_settled(self, tp: TopicPartition, met: _Met) -> bool:
        """Trying again will not help; nor does it where what was just passed over goes on."""
        if met.damaged.reason is not Reason.CORRUPT or self._resumed.get(tp) == met.damaged.first:
            return True
        patience = SILENCE_S if met.damaged.why == _SILENT else 0.0
        return met.times >= ATTEMPTS and time.monotonic() - met.since >= patience

    def _look_for_silence(self) -> None:
        """Where a partition stands still although there is more of it: have the broker answer in full.

        Of its usual answers it leaves out what it has nothing to send of (KIP-227), damaged or not.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + 1.0
        before, self._waiting = self._waiting, {}
        for tp in self._subscription.fetchable_partitions():
            position = self._subscription.assignment[tp].position.offset
            if position < self._watch.readable.get(tp, 0):
                self._waiting[tp] = position
        still = any(position in (before.get(tp), self._resumed.get(tp)) for tp, position in self._waiting.items())
        self._fetcher.config["enable_incremental_fetch_sessions"] = not still

    def _is_at(self, tp: TopicPartition, offset: int) -> bool:
        """The partition is to be delivered from this offset on, as it was when something was met there."""
        if not self._subscription.is_fetchable(tp):
            return False
        return bool(self._subscription.assignment[tp].position.offset == offset)

    def _parsed(self, fetch: CompletedFetch) -> Any:
        """What the broker itself cannot read, or sends so that no batch can be found in it, is told of likewise."""
        tp, first = fetch.topic_partition, fetch.fetched_offset
        if fetch.partition_data.error_code == 0:
            self._watch.ends[tp] = fetch.partition_data.high_watermark
            self._watch.readable[tp] = fetch.partition_data.last_stable_offset
            epoch = self._fetcher._manager.cluster.leader_epoch_for_partition(tp)
            self._watch.epochs[tp] = -1 if epoch is None else epoch
        try:
            parsed = self._parse(fetch)
            if not _is_silent(fetch) or not self._is_at(tp, first):
                return parsed
            why = _SILENT
        except (vendor.CorruptRecordError, vendor.InvalidRecordError) as error:
            why = f"the broker says {type(error).__name__}"
        except vendor.KafkaError as error:
            if type(error) is not vendor.KafkaError:
                raise
            why = "no batch can be made out"
        self._watch.meet(tp, Damaged(tp.partition, first, first + 1, Reason.CORRUPT, why, None))
        if why == _SILENT:  # others may have more to say
            return None
        raise MetError


def _is_silent(fetch: CompletedFetch) -> bool:
    """The broker sends nothing although there is something to be read, as it does of a batch whose length is wrong.

    It also does so of some partitions where others have filled the answer.
    """
    found = fetch.partition_data
    return found.error_code == 0 and not found.records and fetch.fetched_offset < found.last_stable_offset
