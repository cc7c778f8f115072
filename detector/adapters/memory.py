"""The log in memory: the same semantics without a broker, for the demo, for tests, for trying things out.

A ``MemoryBroker`` holds the topics of one installation; each ``MemoryLog`` is a member of its consumer group. Members
may live in different threads. Transactions are atomic because they are applied under one lock.
"""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter

from detector.adapters.partitioner import partition_of
from detector.adapters.port import Committed, Records, StateRecord, Transaction
from schemas.dead_letter import DeadLetter
from schemas.errors import Fenced, Rebalanced


@dataclass(frozen=True, slots=True)
class _Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class _Partition:
    records: list[_Record] = field(default_factory=list)
    first: int = 0
    end: int = 0


class MemoryBroker:
    """Topics in memory: readings by partition, alerts, dead letters and state. Safe for several threads."""

    def __init__(self, partitions: int = 1, topic: str = "readings") -> None:
        self.topic = topic
        self.lock = threading.Condition()  # its lock may be taken again by the thread that holds it
        self.alerts: list[tuple[bytes, bytes]] = []
        self.dead_letters: list[DeadLetter] = []
        self._partitions = [_Partition() for _ in range(partitions)]
        self._state: list[list[StateRecord]] = [[] for _ in range(partitions)]
        self._committed: dict[str, dict[int, Committed]] = {}
        self._members: dict[str, list[MemoryLog]] = {}
        self._generation: dict[str, int] = {}

    def produce(
        self,
        value: bytes | None,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> int:
        """Append a record, placed by its key as Kafka would (without a key: on partition 0); returns its offset."""
        with self.lock:
            if partition is None:
                partition = partition_of(key, len(self._partitions)) if key is not None else 0
            target = self._partitions[partition]
            stamp = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
            target.records.append(_Record(target.end, stamp, key, value))
            target.end += 1
            self.lock.notify_all()
            return target.end - 1

    def skip(self, partition: int, count: int = 1) -> None:
        """Leave offsets without a record, as control records and compaction do."""
        with self.lock:
            self._partitions[partition].end += count
            self.lock.notify_all()

    def trim(self, partition: int, first: int) -> None:
        """Delete records before an offset, as retention does."""
        with self.lock:
            target = self._partitions[partition]
            target.first = max(target.first, min(first, target.end))
            target.records = [record for record in target.records if record.offset >= target.first]

    # -- for MemoryLog, under the lock -----------------------------------------------------------------------------

    def join(self, member: MemoryLog) -> None:
        """Take a member into its group; one with the same replica id is fenced."""
        with self.lock:
            members = self._members.setdefault(member.group, [])
            for other in members:
                if other.replica == member.replica:
                    other.fenced = True
            members[:] = [other for other in members if not other.fenced]
            members.append(member)
            self._rebalance(member.group)

    def leave(self, member: MemoryLog) -> None:
        """Let a member go and share its partitions out."""
        with self.lock:
            members = self._members.get(member.group, [])
            if member in members:
                members.remove(member)
                self._rebalance(member.group)

    def _rebalance(self, group: str) -> None:
        self._generation[group] = self._generation.get(group, 0) + 1
        members = self._members[group]
        for number, member in enumerate(members):
            member.assign(
                self._generation[group],
                frozenset(p for p in range(len(self._partitions)) if p % len(members) == number),
            )
        self.lock.notify_all()

    def generation(self, group: str) -> int:
        """How often the group has moved on."""
        return self._generation[group]

    def partition(self, number: int) -> _Partition:
        """One partition of the readings."""
        return self._partitions[number]

    @property
    def count(self) -> int:
        """Partitions of the readings topic."""
        return len(self._partitions)

    def offsets(self, group: str) -> dict[int, Committed]:
        """What a group has committed, by partition."""
        return self._committed.setdefault(group, {})

    def state(self, partition: int) -> dict[bytes, bytes]:
        """Newest value by key."""
        newest: dict[bytes, bytes] = {}
        for record in self._state[partition]:
            if record.value is None:
                newest.pop(record.key, None)
            else:
                newest[record.key] = record.value
        return newest

    def apply(self, group: str, transaction: Transaction) -> None:
        """Make a transaction visible."""
        self.alerts += transaction.alerts
        self.dead_letters += transaction.dead_letters
        for record in transaction.state:
            self._state[record.partition].append(record)
        self.offsets(group).update(transaction.offsets)
        self.lock.notify_all()


class MemoryLog:
    """A member of a consumer group of a ``MemoryBroker``. See ``port.Log``."""

    def __init__(self, broker: MemoryBroker, group_id: str = "residual", replica_id: str | None = None) -> None:
        self.topic = broker.topic
        self.group, self.replica = group_id, replica_id or str(uuid.uuid4())
        self.fenced = False
        self._broker = broker
        self._joined = self._closed = False
        self._generation = -1  # of the newest assignment that was taken
        self._waiting: tuple[int, frozenset[int]] | None = None
        self._positions: dict[int, int] = {}

    def assign(self, generation: int, partitions: frozenset[int]) -> None:
        """Called by the broker when the group moves on."""
        self._waiting = (generation, partitions)

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        """See ``Log.poll``."""
        deadline = time.monotonic() + timeout_s
        with self._broker.lock:
            if not self._joined:
                self._joined = True
                self._broker.join(self)
                return []
            while True:
                self._check()
                found = self._take(max_records)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._broker.lock.wait(left)

    def _check(self) -> None:
        if self.fenced:
            raise Fenced("another process runs with this replica id: give each replica its own")
        if self._waiting is not None:
            self._positions.clear()
            if self._generation != -1:
                raise Rebalanced("the group's members changed")

    def _take(self, max_records: int) -> list[Records]:
        found = []
        for number, position in sorted(self._positions.items()):
            partition = self._broker.partition(number)
            start = max(position, partition.first)
            index = bisect_left(partition.records, start, key=attrgetter("offset"))
            batch = partition.records[index : index + max_records]
            max_records -= len(batch)
            # what has no record is passed over once everything before it has been delivered
            exhausted = not batch or batch[-1] is partition.records[-1]
            self._positions[number] = (
                partition.end if exhausted and max_records > 0 else (batch[-1].offset + 1 if batch else start)
            )
            if batch:
                found.append(
                    Records(
                        number,
                        [record.offset for record in batch],
                        [record.timestamp for record in batch],
                        [record.key for record in batch],
                        [record.value for record in batch],
                    )
                )
        return found

    def take_assignment(self) -> frozenset[int] | None:
        """See ``Log.take_assignment``."""
        with self._broker.lock:
            if self._waiting is None:
                return None
            self._generation, partitions = self._waiting
            self._waiting = None
            self._positions.clear()
            return partitions

    def positions(self) -> dict[int, int]:
        """See ``Log.positions``."""
        return dict(self._positions)

    def bounds(self, partition: int) -> tuple[int, int]:
        """See ``Log.bounds``."""
        with self._broker.lock:
            found = self._broker.partition(partition)
            return found.first, found.end

    def ends(self) -> dict[int, tuple[int, int]]:
        """See ``Log.ends``."""
        return {partition: self.bounds(partition) for partition in range(self._broker.count)}

    def offset_at(self, partition: int, time_ms: int) -> int:
        """See ``Log.offset_at``."""
        with self._broker.lock:
            found = self._broker.partition(partition)
            return next((record.offset for record in found.records if record.timestamp >= time_ms), found.end)

    def committed(self, partition: int) -> Committed | None:
        """See ``Log.committed``."""
        with self._broker.lock:
            return self._broker.offsets(self.group).get(partition)

    def group_offsets(self) -> dict[int, int | None]:
        """See ``Log.group_offsets``."""
        with self._broker.lock:
            offsets = self._broker.offsets(self.group)
            return {p: offsets[p].offset if p in offsets else None for p in range(self._broker.count)}

    def read_state(self, partition: int) -> dict[bytes, bytes]:
        """See ``Log.read_state``."""
        with self._broker.lock:
            return self._broker.state(partition)

    def start(self, partition: int, offset: int) -> None:
        """See ``Log.start``."""
        self._positions[partition] = offset

    def commit(self, transaction: Transaction) -> None:
        """See ``Log.commit``."""
        with self._broker.lock:
            if self.fenced:
                raise Fenced("another process runs with this replica id: give each replica its own")
            if not self._joined or self._generation != self._broker.generation(self.group):
                self._positions.clear()
                raise Rebalanced("the group's members changed")
            self._broker.apply(self.group, transaction)

    def close(self) -> None:
        """See ``Log.close``."""
        if not self._closed:
            self._closed = True
            self._broker.leave(self)
