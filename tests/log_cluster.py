"""One harness per adapter, so that the contract of ``port.Log`` can be run over each: topics, members, and what befell.

Every cluster has names of its own, three partitions, and a control record after each ``produce`` and ``tell``. Commands
can be told once there is a member: the first one makes the topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from batches import flip, places, segment
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove
from kafka_cluster import create_topic, read_all, unique

from detector.adapters.kafka import KafkaLog
from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.port import Log, Records
from schemas.errors import Rebalanced

PARTITIONS = 3
PATIENCE_S = 120.0


class LogCluster(Protocol):
    def member(self, replica_id: str | None = None, *, skip_corrupt: bool = False) -> Log: ...
    def produce(self, partition: int, values: Sequence[bytes], timestamps: Sequence[int] | None = None) -> None: ...
    def trim(self, partition: int, first: int) -> None: ...
    def damage(self, partition: int, first: int, following: int) -> None:
        """Spoil the batch that one ``produce`` made: the offsets from ``first`` on, before ``following``."""

    def tell(self, values: Sequence[bytes]) -> None: ...
    def trim_commands(self, first: int) -> None: ...
    def evict(self, member: Any) -> None: ...
    def alerts(self) -> list[tuple[bytes, bytes]]: ...
    def dead_letters(self) -> list[bytes | None]: ...
    def close(self) -> None: ...


class MemoryCluster:
    def __init__(self) -> None:
        self.broker = MemoryBroker(PARTITIONS)

    def member(self, replica_id: str | None = None, *, skip_corrupt: bool = False) -> MemoryLog:
        return MemoryLog(self.broker, "group", replica_id, skip_corrupt)

    def produce(self, partition: int, values: Sequence[bytes], timestamps: Sequence[int] | None = None) -> None:
        for number, value in enumerate(values):
            self.broker.produce(value, b"key", timestamps[number] if timestamps else None, partition)
        self.broker.skip(partition)

    def trim(self, partition: int, first: int) -> None:
        self.broker.trim(partition, first)

    def damage(self, partition: int, first: int, following: int) -> None:
        self.broker.damage(partition, first, following)

    def tell(self, values: Sequence[bytes]) -> None:
        for value in values:
            self.broker.tell(value, "group")
        self.broker.skip_commands("group")

    def trim_commands(self, first: int) -> None:
        self.broker.trim_commands(first, "group")

    def evict(self, member: Any) -> None:
        self.broker.evict(member)

    def alerts(self) -> list[tuple[bytes, bytes]]:
        return self.broker.alerts

    def dead_letters(self) -> list[bytes | None]:
        return [letter.body() for letter in self.broker.dead_letters]

    def close(self) -> None:
        pass


class KafkaCluster:
    """``data``: the folder in which the broker keeps its partitions."""

    def __init__(self, bootstrap: str, data: Path | None = None, **settings: Any) -> None:
        self.bootstrap, self._data = bootstrap, data
        self.group = unique("group")
        self.readings = create_topic(bootstrap, unique("readings"), PARTITIONS)
        self.settings = settings
        self._members: list[KafkaLog] = []
        self._writer: KafkaProducer | None = None
        self._ends: KafkaConsumer | None = None

    def member(self, replica_id: str | None = None, **settings: Any) -> KafkaLog:
        names = {"alerts": "alerts", "dead": "dead_letters", "state": "state", "commands": "commands"}
        topics = {f"{setting}_topic": f"{self.group}-{name}" for name, setting in names.items()}
        wanted = {
            "readings_topic": self.readings,
            "group_id": self.group,
            "bootstrap_servers": self.bootstrap,
            **topics,
        }
        log = KafkaLog(replica_id=replica_id, **(wanted | self.settings | settings))
        self._members.append(log)
        return log

    def produce(self, partition: int, values: Sequence[bytes], timestamps: Sequence[int] | None = None) -> None:
        stamps = timestamps or [None] * len(values)
        self._write(self.readings, partition, list(zip(values, stamps, strict=True)))

    def tell(self, values: Sequence[bytes]) -> None:
        self._write(f"{self.group}-commands", 0, [(value, None) for value in values])

    def _write(self, topic: str, partition: int, records: Sequence[tuple[bytes, int | None]]) -> None:
        """In one transaction, which leaves a control record at the end; returns when ``read_committed`` sees it.

        The coordinator confirms a commit before its markers lie in the partitions: until then the end is not what it
        will be.
        """
        if self._writer is None:
            # what is written together is one batch, however slow this machine is; the commit does not wait for it
            config = {"transactional_id": unique("writer"), "linger_ms": 1000}
            self._writer = KafkaProducer(bootstrap_servers=self.bootstrap, **config)
            self._writer.init_transactions()
        self._writer.begin_transaction()
        sent = [
            self._writer.send(topic, value, b"key", partition=partition, timestamp_ms=stamp) for value, stamp in records
        ]
        self._writer.commit_transaction()
        if sent:
            self._await_end(TopicPartition(topic, partition), sent[-1].get(timeout=PATIENCE_S).offset + 2)

    def _await_end(self, partition: TopicPartition, end: int) -> None:
        if self._ends is None:
            self._ends = KafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level="read_committed")
        deadline = time.monotonic() + PATIENCE_S
        while self._ends.end_offsets([partition])[partition] < end:
            assert time.monotonic() < deadline, f"no marker before {end} in {partition}"
            time.sleep(0.01)

    def trim(self, partition: int, first: int) -> None:
        self._delete(TopicPartition(self.readings, partition), first)

    def damage(self, partition: int, first: int, following: int) -> None:
        assert self._data is not None
        file = segment(self._data, self.readings, partition)
        (place,) = [end - 1 for _, end, base in places(file.read_bytes()) if base == first]
        flip(file, place)

    def trim_commands(self, first: int) -> None:
        self._delete(TopicPartition(f"{self.group}-commands", 0), first)

    def _delete(self, partition: TopicPartition, first: int) -> None:
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as admin:
            admin.delete_records({partition: first})

    def evict(self, member: Any) -> None:
        """What the coordinator does after a session time-out, without the wait."""
        identity = member._member.identity
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as admin:
            admin.remove_group_members(self.group, [MemberToRemove(member_id=identity.member_id)])

    def alerts(self) -> list[tuple[bytes, bytes]]:
        return [(key, value) for _, key, value in read_all(self.bootstrap, f"{self.group}-alerts")]

    def dead_letters(self) -> list[bytes | None]:
        return [value for _, _, value in read_all(self.bootstrap, f"{self.group}-dead")]

    def close(self) -> None:
        for member in self._members:
            member.close()
        if self._writer is not None:
            self._writer.close(timeout=5)
        if self._ends is not None:
            self._ends.close(autocommit=False, timeout_ms=5000)


def assignment(log: Log) -> frozenset[int]:
    """Polls until an assignment is handed out; whatever is raised meanwhile is the group on its way."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        taken = log.take_assignment()
        if taken is not None:
            return taken
        try:
            assert log.poll(0.05, 100) == []
        except Rebalanced:
            continue
    raise AssertionError("no assignment was handed out")


def shared_out(*logs: Log, held: dict[int, frozenset[int]]) -> list[frozenset[int]]:
    """What each member owns once all partitions are shared out among these; ``held``: what some of them have taken."""
    owned = dict(held)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for number, log in enumerate(logs):
            try:
                log.poll(0.05, 1)
            except Rebalanced:
                owned.pop(number, None)
            taken = log.take_assignment()
            if taken is not None:
                assert number not in owned, "a member that held an assignment was given another without Rebalanced"
                owned[number] = taken
        shares = [partition for taken in owned.values() for partition in taken]
        if len(owned) == len(logs) and sorted(shares) == list(range(PARTITIONS)):
            return [owned[number] for number in range(len(logs))]
    raise AssertionError(f"the partitions were not shared out: {owned}")


def start_all(log: Log) -> frozenset[int]:
    """Take the assignment and start every partition at its first record, or where the group has come to."""
    taken = assignment(log)
    for partition in taken:
        committed = log.committed(partition)
        log.start(partition, committed.offset if committed else log.bounds(partition)[0])
    return taken


def poll_until(log: Log, enough: Callable[[], bool], max_records: int = 1000) -> list[Records]:
    """Polls, collecting what arrives, until ``enough``."""
    found: list[Records] = []
    deadline = time.monotonic() + PATIENCE_S
    while not enough():
        assert time.monotonic() < deadline, found
        found += log.poll(0.05, max_records)
    return found


def values_of(found: Sequence[Records]) -> list[bytes | None]:
    return [value for records in found for value in records.values]


def commands_until(log: Log, offset: int, end: int) -> list[tuple[int, bytes | None]]:
    """Reads commands from an offset on until the end is reached."""
    found: list[tuple[int, bytes | None]] = []
    deadline = time.monotonic() + PATIENCE_S
    while offset < end:
        assert time.monotonic() < deadline, found
        commands = log.commands(offset, 0.05)
        assert commands.next >= offset
        found += commands.found
        offset = commands.next
    assert offset == end
    return found
