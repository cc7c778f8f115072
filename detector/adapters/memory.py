"""The log in memory: the same semantics without a broker, for the demo, for tests, for trying things out.

A ``MemoryBroker`` holds the topics of one installation; each ``MemoryLog`` is a member of a consumer group. Members may
live in different threads. Transactions are atomic because they are applied under one lock.
"""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter

from detector.adapters.partitioner import partition_of
from detector.adapters.port import (
    Commands,
    Committed,
    Damaged,
    Records,
    ScoreRecord,
    Step,
    Transaction,
    Watch,
    quiet,
    unwatched,
)
from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import Fenced, Rebalanced, TemporaryError


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
    damaged: list[Damaged] = field(default_factory=list)

    def append(self, timestamp: int, key: bytes | None, value: bytes | None) -> int:
        """Returns the new record's offset."""
        self.records.append(_Record(self.end, timestamp, key, value))
        self.end += 1
        return self.end - 1

    def trim(self, first: int) -> None:
        """Delete records before an offset."""
        self.first = max(self.first, min(first, self.end))
        self.records = [record for record in self.records if record.offset >= self.first]

    def damage_from(self, position: int) -> Damaged | None:
        """The next range at or after a position that cannot be read."""
        ahead = [d for d in self.damaged if d.next > max(position, self.first)]
        return min(ahead, key=attrgetter("first"), default=None)


class _Group:
    """A consumer group: its members, what it has committed, its state topic, and its commands topic."""

    def __init__(self, partitions: int) -> None:
        self.generation = 0
        self.members: list[MemoryLog] = []
        self.replicas: dict[str, MemoryLog] = {}
        self.offsets: dict[int, Committed] = {}
        self.state: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        self.commands = _Partition()

    def share_out(self) -> None:
        """Begin a new generation: evenly, and everyone keeps what it has as far as that goes."""
        self.generation += 1
        if not self.members:
            return
        least, longer = divmod(len(self.state), len(self.members))
        spare, shares = set(range(len(self.state))), []
        for member in self.members:
            held = sorted(member.owned & spare)
            share = held[: least + (longer > 0)]
            longer -= len(share) > least
            spare -= set(share)
            shares.append(share)
        for share in sorted(shares, key=len):
            while len(share) < least or (longer > 0 and len(share) == least and spare):
                longer -= len(share) == least
                share.append(min(spare))
                spare.remove(share[-1])
        for member, share in zip(self.members, shares, strict=True):
            member.assign(self.generation, frozenset(share))

    def write(self, transaction: Transaction) -> None:
        """What a transaction says of the group's offsets and of its state."""
        self.offsets.update(transaction.offsets)
        for record in transaction.state:
            if record.value is None:
                self.state[record.partition].pop(record.key, None)
            else:
                self.state[record.partition][record.key] = record.value


class MemoryBroker:
    """Topics in memory: readings by partition, alerts, dead letters, and a state topic for each group.

    Safe for several threads. ``alerts`` are (key = stream, value), ``dead_letters`` as they were handed over, both in
    the order of their transactions.
    """

    def __init__(self, partitions: int = 1, topic: str = "readings") -> None:
        self.topic = topic
        self.topic_id = str(uuid.uuid4())
        self.lock = threading.Condition()  # its lock may be taken again by the thread that holds it
        self.alerts: list[tuple[bytes, bytes]] = []
        self.dead_letters: list[DeadLetter] = []
        self.scores: list[ScoreRecord] = []
        self.partitions = [_Partition() for _ in range(partitions)]
        self._groups: dict[str, _Group] = {}

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
                partition = partition_of(key, len(self.partitions)) if key is not None else 0
            stamp = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
            offset = self.partitions[partition].append(stamp, key, value)
            self.lock.notify_all()
            return offset

    def tell(self, value: bytes | None, group_id: str = "residual") -> int:
        """Append a record to a group's commands topic; returns its offset."""
        with self.lock:
            offset = self.group(group_id).commands.append(int(time.time() * 1000), None, value)
            self.lock.notify_all()
            return offset

    def skip_commands(self, group_id: str = "residual") -> None:
        """Leave an offset of a group's commands topic without a record."""
        with self.lock:
            self.group(group_id).commands.end += 1
            self.lock.notify_all()

    def skip(self, partition: int, count: int = 1) -> None:
        """Leave offsets without a record, as control records and compaction do."""
        with self.lock:
            self.partitions[partition].end += count
            self.lock.notify_all()

    def damage(
        self, partition: int, first: int, following: int, reason: Reason = Reason.CORRUPT, data: bytes | None = None
    ) -> None:
        """Make what lies before the offset ``following`` unreadable, as a bad disk or a bad sender would."""
        with self.lock:
            damaged = Damaged(partition, first, following, reason, f"{reason.value} by order", data)
            self.partitions[partition].damaged.append(damaged)
            self.lock.notify_all()

    def trim(self, partition: int, first: int) -> None:
        """Delete records before an offset, as retention does."""
        with self.lock:
            self.partitions[partition].trim(first)
            self.lock.notify_all()

    def trim_commands(self, first: int, group_id: str = "residual") -> None:
        """Delete commands before an offset, as retention does."""
        with self.lock:
            self.group(group_id).commands.trim(first)
            self.lock.notify_all()

    def grow(self, partitions: int) -> None:
        """Add partitions to the readings topic; every group's state topic gets as many."""
        with self.lock:
            self.partitions += [_Partition() for _ in range(partitions - len(self.partitions))]
            for group in self._groups.values():
                group.state += [{} for _ in range(partitions - len(group.state))]
                group.share_out()
            self.lock.notify_all()

    def remake(self, partitions: int | None = None) -> None:
        """Delete the readings topic and make it anew under the same name, without a record."""
        with self.lock:
            self.topic_id = str(uuid.uuid4())
            self.partitions = [_Partition() for _ in range(partitions or len(self.partitions))]
            for group in self._groups.values():
                group.state += [{} for _ in range(len(self.partitions) - len(group.state))]
                group.share_out()
            self.lock.notify_all()

    def lose_state(self, group_id: str = "residual") -> None:
        """Delete a group's state topic and make it anew, without a record."""
        with self.lock:
            group = self.group(group_id)
            group.state = [{} for _ in group.state]

    def evict(self, member: MemoryLog) -> None:
        """Give a member up that has not been heard of, as after a kill -9 or a long silence. It is told nothing."""
        with self.lock:
            group = self.group(member.group)
            if member in group.members:
                group.members.remove(member)
                member.owned = frozenset()
                group.share_out()
                self.lock.notify_all()

    def group(self, group_id: str) -> _Group:
        """For ``MemoryLog``, under the lock."""
        return self._groups.setdefault(group_id, _Group(len(self.partitions)))


class MemoryLog:
    """A member of a consumer group of a ``MemoryBroker``. See ``port.Log``.

    A second one with the same replica id fences the first off, as in Kafka. ``skip_corrupt``: what is damaged is passed
    over.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        group_id: str = "residual",
        replica_id: str | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        self.topic = broker.topic
        self.group, self.replica = group_id, replica_id or str(uuid.uuid4())
        self._broker = broker
        self.owned: frozenset[int] = frozenset()  # by the newest generation
        self._held: int | None = None  # generation of the assignment that was taken; None until one is
        self._kept: frozenset[int] = frozenset()  # taken, and ours ever since
        self._generation = 0
        self._waiting = False  # whether the assignment is to be handed out
        self._positions: dict[int, int] = {}
        self._skip_corrupt = skip_corrupt
        self._damaged: list[Damaged] = []
        with broker.lock:
            group = broker.group(group_id)
            before = group.replicas.get(self.replica)
            group.replicas[self.replica] = self
            if before is not None and before in group.members:  # it keeps its partitions under the new process
                group.members.remove(before)
                group.share_out()

    def assign(self, generation: int, partitions: frozenset[int]) -> None:
        """Called by the broker when the group moves on."""
        self.owned, self._generation, self._waiting = partitions, generation, True
        self._kept &= partitions

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        """See ``Log.poll``. Where records were deleted beyond a position, Rebalanced is raised: restoring finds out."""
        deadline = time.monotonic() + timeout_s
        with self._broker.lock:
            self._join()
            while True:
                self._check()
                found = self._take(max_records)
                left = deadline - time.monotonic()
                if found or self._damaged or left <= 0:
                    return found
                self._broker.lock.wait(left)

    def _join(self) -> None:
        group = self._broker.group(self.group)
        if self not in group.members and group.replicas[self.replica] is self:
            self._kept = frozenset()  # whoever was given up may have been replaced meanwhile
            group.members.append(self)
            group.share_out()
            self._broker.lock.notify_all()

    def _check(self) -> None:
        self._check_replica()
        if self._waiting and self._held is not None:
            self._held = None
            self._positions = {p: at for p, at in self._positions.items() if p in self._kept}
            raise Rebalanced("the group's members changed", self._kept)
        for number, position in self._positions.items():
            partition = self._broker.partitions[number]
            if not partition.first <= position <= partition.end:
                self._again()
                raise Rebalanced(f"partition {number}: offset {position} is not there (any more)")

    def _check_replica(self) -> None:
        if self._broker.group(self.group).replicas[self.replica] is not self:
            raise Fenced("another process runs with this replica id: give each replica its own")

    def _let_go(self) -> None:
        self._held, self._kept = None, frozenset()
        self._positions.clear()

    def _again(self) -> None:
        """Hand the same partitions out once more."""
        self._let_go()
        self._waiting = True

    def _take(self, max_records: int) -> list[Records]:
        found = []
        for number, position in sorted(self._positions.items()):
            if max_records <= 0:
                break
            partition = self._broker.partitions[number]
            position, end = self._pass(partition, position)
            index = bisect_left(partition.records, position, key=attrgetter("offset"))
            until = bisect_left(partition.records, end, key=attrgetter("offset"))
            batch = partition.records[index : min(index + max_records, until)]
            max_records -= len(batch)
            self._positions[number] = position
            if batch:
                found.append(_records(number, batch))
                self._positions[number] = batch[-1].offset + 1
            if index + len(batch) == until and max_records > 0:
                self._positions[number] = end  # what has no record is passed over
        return found

    def _pass(self, partition: _Partition, position: int) -> tuple[int, int]:
        """The position behind what cannot be read, and how far there is nothing else of it."""
        while (damaged := partition.damage_from(position)) is not None:
            if damaged.first > position:
                return position, damaged.first
            if damaged.reason is Reason.CORRUPT and not self._skip_corrupt:
                raise TemporaryError(f"offset {position} of partition {damaged.partition} cannot be read")
            self._damaged.append(replace(damaged, first=position))
            position = damaged.next
        return position, partition.end

    def take_damaged(self) -> list[Damaged]:
        """See ``Log.take_damaged``."""
        taken, self._damaged = self._damaged, []
        return [damaged for damaged in taken if damaged.partition in self._positions]

    def take_assignment(self) -> frozenset[int] | None:
        """See ``Log.take_assignment``."""
        with self._broker.lock:
            if not self._waiting or self._held is not None:  # whoever holds another is told by the next poll first
                return None
            self._waiting = False
            self._held, self._kept = self._generation, self.owned
            return self.owned

    def place_of(self, key: bytes, partitions: int) -> int:
        """See ``Log.place_of``."""
        return partition_of(key, partitions)

    def describe(self) -> tuple[str, int]:
        """See ``Log.describe``."""
        with self._broker.lock:
            return self._broker.topic_id, len(self._broker.partitions)

    def again(self) -> None:
        """See ``Log.again``."""
        with self._broker.lock:
            self._again()

    def positions(self) -> dict[int, int]:
        """See ``Log.positions``."""
        return dict(self._positions)

    def bounds(self, partition: int) -> tuple[int, int]:
        """See ``Log.bounds``."""
        with self._broker.lock:
            found = self._broker.partitions[partition]
            return found.first, found.end

    def ends(self) -> dict[int, tuple[int, int]]:
        """See ``Log.ends``."""
        return {partition: self.bounds(partition) for partition in range(len(self._broker.partitions))}

    def offset_at(self, partition: int, time_ms: int) -> int:
        """See ``Log.offset_at``."""
        with self._broker.lock:
            found = self._broker.partitions[partition]
            return next((record.offset for record in found.records if record.timestamp >= time_ms), found.end)

    def committed(self, partition: int) -> Committed | None:
        """See ``Log.committed``."""
        with self._broker.lock:
            return self._broker.group(self.group).offsets.get(partition)

    def group_offsets(self) -> dict[int, int | None]:
        """See ``Log.group_offsets``."""
        with self._broker.lock:
            offsets = self._broker.group(self.group).offsets
            numbers = range(len(self._broker.partitions))
            return {number: offsets[number].offset if number in offsets else None for number in numbers}

    def read_state(self, partition: int, beat: Callable[[], None] = quiet) -> dict[bytes, bytes]:
        """See ``Log.read_state``."""
        beat()
        with self._broker.lock:
            return dict(self._broker.group(self.group).state[partition])

    def commands(self, offset: int, timeout_s: float) -> Commands:
        """See ``Log.commands``."""
        deadline = time.monotonic() + timeout_s
        with self._broker.lock:
            topic = self._broker.group(self.group).commands
            while topic.end == offset and (left := deadline - time.monotonic()) > 0:
                self._broker.lock.wait(left)
            if not topic.first <= offset <= topic.end:
                self._again()
                raise Rebalanced(f"command {offset} is not there (any more)")
            found = topic.records[bisect_left(topic.records, offset, key=attrgetter("offset")) :]
            return Commands([(record.offset, record.value) for record in found], topic.end)

    def commands_bounds(self) -> tuple[int, int]:
        """See ``Log.commands_bounds``."""
        with self._broker.lock:
            topic = self._broker.group(self.group).commands
            return topic.first, topic.end

    def start(self, partition: int, offset: int) -> None:
        """See ``Log.start``."""
        with self._broker.lock:
            if self._held is None or partition not in self._kept:
                self._again()
                raise Rebalanced(f"partition {partition} is not owned")
            self._positions[partition] = offset

    def halt(self, partition: int) -> None:
        """See ``Log.halt``."""
        with self._broker.lock:
            self._positions.pop(partition, None)

    def commit(self, transaction: Transaction, watch: Watch = unwatched) -> None:
        """See ``Log.commit``."""
        if not transaction:
            return
        if not transaction.offsets:
            raise ValueError("a transaction needs offsets: by them the broker checks the member's right to commit")
        for step in (Step.BEGUN, Step.SENT, Step.OFFSETS, Step.ACKNOWLEDGED):
            watch(step)
        with self._broker.lock:
            self._check_replica()
            group = self._broker.group(self.group)
            if self._held != group.generation or self not in group.members:
                self._let_go()
                raise Rebalanced("the group's members changed")
            group.write(transaction)
            self._broker.alerts += transaction.alerts
            self._broker.dead_letters += transaction.dead_letters
            self._broker.scores += transaction.scores
        watch(Step.COMMITTED)

    def close(self) -> None:
        """See ``Log.close``."""
        self._broker.evict(self)


def _records(partition: int, records: list[_Record]) -> Records:
    return Records(
        partition,
        [record.offset for record in records],
        [record.timestamp for record in records],
        [record.key for record in records],
        [record.value for record in records],
    )
