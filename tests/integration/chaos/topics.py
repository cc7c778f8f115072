"""What lies on the broker during a schedule and after it, read and written as anybody else would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import orjson
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove, NewTopic, OffsetSpec
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError, NoError
from kafka.structs import OffsetAndMetadata

from detector.adapters.kafka_topics import Topics, ensure_topics

T = TypeVar("T")

#: Seconds that something may take which works at once on a broker that is there: longer than any outage.
PATIENCE_S = 60.0

#: The state topic where it is compacted all the time: a segment is closed soon, and what is a second old is fair game.
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "300",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "1000",  # the reader of the journal has to have seen it
    "delete.retention.ms": "0",
    "max.message.bytes": "2097152",
}


class Found(NamedTuple):
    """A record as it lies there."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What a schedule's topics and its group are called."""

    group: str

    @property
    def topics(self) -> Topics:
        """The topics."""
        return Topics(*(f"{self.group}-{what}" for what in ("readings", "alerts", "dead", "state", "commands")))

    @property
    def settings(self) -> dict[str, str]:
        """The settings that name them."""
        topics = self.topics
        return {
            "group_id": self.group,
            "readings_topic": topics.readings,
            "alerts_topic": topics.alerts,
            "dead_letters_topic": topics.dead_letters,
            "state_topic": topics.state,
            "commands_topic": topics.commands,
        }


class Desk:
    """Where the schedule's director asks about topics and makes them; directly, through no proxy."""

    def __init__(self, bootstrap: str, names: Names) -> None:
        self.bootstrap, self.names = bootstrap, names
        self._admin: KafkaAdminClient | None = None

    def make(self, partitions: int, compacted: bool) -> None:
        """All topics; those that the detector would make itself, it makes here with the same hands."""
        topics = self.names.topics
        new = [NewTopic(topics.readings, partitions, 1, topic_configs={"retention.ms": "-1"})]
        if compacted:
            new.append(NewTopic(topics.state, partitions, 1, topic_configs=COMPACTED))
        self._ask(lambda admin: admin.create_topics(new, raise_errors=False))
        self._ask(lambda admin: ensure_topics(admin, topics, time.monotonic() + PATIENCE_S))

    def delete(self) -> None:
        """All topics."""
        topics = self.names.topics
        names = [topics.readings, topics.alerts, topics.dead_letters, topics.state, topics.commands]
        self._ask(lambda admin: admin.delete_topics(names))

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The end of each partition, open transactions included."""
        wanted = {TopicPartition(topic, p): OffsetSpec.LATEST for p in partitions}
        found = self._ask(lambda admin: admin.list_partition_offsets(wanted))
        return {tp.partition: int(one.offset) for tp, one in found.items()}

    def committed(self, partitions: int) -> dict[int, int]:
        """What the group has committed, by partition; nothing where nothing."""
        wanted = [TopicPartition(self.names.topics.readings, p) for p in range(partitions)]
        group = self.names.group
        found = self._ask(lambda admin: admin.list_group_offsets({group: wanted})[group])
        return {tp.partition: one.offset for tp, one in found.items() if one.offset >= 0}

    def is_an_end_lost(self, partitions: int) -> bool:
        """Whether the group's offsets wait for the end of a transaction, and none is open: it will never come."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.names.group, isolation_level="read_committed",
            enable_auto_commit=False,
        )  # fmt: skip
        try:
            for partition in range(partitions):
                consumer.committed(TopicPartition(self.names.topics.readings, partition), timeout_ms=5000)
        except KafkaError:
            states = ["Ongoing", "PrepareCommit", "PrepareAbort"]
            found = self._ask(lambda admin: admin.list_transactions(state_filters=states))
            return self.names.group not in str(found)
        finally:
            consumer.close(autocommit=False)
        return False

    def reset(self, back: Callable[[int], int], partitions: int) -> dict[int, int]:
        """As an operator does: the offsets of a group without members are set back; returns what they were."""
        before = self.committed(partitions)
        topic = self.names.topics.readings
        wanted = {TopicPartition(topic, p): OffsetAndMetadata(back(at), "", -1) for p, at in before.items()}
        deadline = time.monotonic() + PATIENCE_S
        while True:  # a named member stays one until its session ends
            said = self._ask(lambda admin: admin.alter_group_offsets(self.names.group, wanted))
            if all(error is NoError for error in said.values()):
                return before
            assert time.monotonic() < deadline, said
            time.sleep(0.3)

    def lose_state(self) -> None:
        """Delete whatever the state topic holds."""
        topic = self.names.topics.state
        keys = {(found.partition, found.key) for found in self.read(topic)}
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        for partition, key in keys:
            producer.send(topic, key=key, value=None, partition=partition)
        producer.flush()
        producer.close()

    def expel(self) -> None:
        """Remove whoever is a member of the group."""
        group = self.names.group
        found = self._ask(lambda admin: admin.describe_groups([group]))[group]
        members = [
            MemberToRemove(group_instance_id=member["group_instance_id"])
            if member["group_instance_id"]
            else MemberToRemove(member_id=member["member_id"])
            for member in found["members"]
        ]
        self._ask(lambda admin: admin.remove_group_members(group, members))

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic."""
        found = self._ask(lambda admin: admin.describe_topics([topic]))
        return [one["partition_index"] for one in found[0]["partitions"]]

    def read(self, topic: str) -> list[Found]:
        """Everything that is committed, by offset within a partition; waits until no transaction is open."""
        return self._ask(lambda _: _read(self.bootstrap, topic, self.ends(topic, self.partitions(topic))))

    def _ask(self, question: Callable[[KafkaAdminClient], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self._admin is None:
                    self._admin = KafkaAdminClient(
                        bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=5000, request_timeout_ms=5000
                    )
                return question(self._admin)
            except (KafkaError, OSError):
                if time.monotonic() > deadline:
                    raise
                self.close()
                time.sleep(0.2)

    def close(self) -> None:
        """Let go of the connection. May be called twice."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


def _consumer(bootstrap: str) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        fetch_max_wait_ms=100,
        reconnect_backoff_max_ms=500,
    )
    consumer._fetcher.PartitionRecords = _Compacted
    return consumer


class _Compacted(Fetcher.PartitionRecords):  # type: ignore[misc]
    """Where compaction has emptied the end of a transaction, kafka-python 3.0.12 breaks off. (The product's own reader
    does not, but passes over headers, which are compared here.)
    """

    def _contains_abort_marker(self, batch: Any) -> bool:
        return bool(batch._num_records > 0 and super()._contains_abort_marker(batch))


def _read(bootstrap: str, topic: str, ends: Mapping[int, int]) -> list[Found]:
    consumer = _consumer(bootstrap)
    try:
        parts = {TopicPartition(topic, partition): end for partition, end in ends.items() if end}
        found: list[Found] = []
        if parts:
            consumer.assign(list(parts))
            consumer.seek_to_beginning()
            deadline = time.monotonic() + PATIENCE_S
            while any((consumer.position(tp) or 0) < end for tp, end in parts.items()):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{topic}: a transaction stays open, or records cannot be read")
                for records in consumer.poll(timeout_ms=200).values():
                    found += map(_found, records)
        return sorted(found, key=lambda one: (one.partition, one.offset))
    finally:
        consumer.close()


def _found(record: Any) -> Found:
    headers = tuple((name, value) for name, value in record.headers or ())
    return Found(record.partition, record.offset, record.timestamp, record.key, record.value, headers)


def journal_key(record: Found) -> bytes | None:
    """What a record of the state topic is of the journal: b"cursor", or an entry's number; None where it is neither."""
    group, _, rest = (record.key or b"").partition(b"/journal/")
    return rest if rest and b"/" not in group else None


class StateReader(threading.Thread):
    """Reads the state topic from its beginning on, all the time: what is deleted or compacted later has been seen."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__(name="state-reader", daemon=True)
        self._servers, self._topic = bootstrap, topic
        self._partitions = range(partitions)
        self._until: dict[int, int] | None = None
        self._failed: Exception | None = None
        self.found: list[Found] = []

    def run(self) -> None:
        """See ``Thread.run``."""
        try:
            consumer = _consumer(self._servers)
            try:
                parts = [TopicPartition(self._topic, partition) for partition in self._partitions]
                consumer.assign(parts)
                consumer.seek_to_beginning()
                while not self._is_over(consumer):
                    self._poll(consumer)
            finally:
                consumer.close()
        except Exception as error:
            self._failed = error

    def _poll(self, consumer: KafkaConsumer) -> None:
        try:
            for records in consumer.poll(timeout_ms=100).values():
                self.found += map(_found, records)
        except KafkaError:
            time.sleep(0.1)  # an outage: it goes on by itself

    def _is_over(self, consumer: KafkaConsumer) -> bool:
        if self._until is None:
            return False
        return all((consumer.position(TopicPartition(self._topic, p)) or 0) >= end for p, end in self._until.items())

    def considered(self) -> dict[int, int]:
        """By partition, how far the group has come on the commands topic."""
        read = [record for record in list(self.found) if journal_key(record) == b"cursor"]
        newest = {record.partition: record.value for record in read if record.value is not None}
        return {partition: orjson.loads(value)["considered"] for partition, value in newest.items()}

    def finish(self, ends: Mapping[int, int]) -> list[Found]:
        """Everything up to these ends, by partition and offset."""
        self._until = dict(ends)
        self.join(PATIENCE_S)
        if self._failed is not None:
            raise self._failed
        if self.is_alive():
            raise AssertionError(f"{self._topic}: a transaction stays open, or records cannot be read")
        return sorted(self.found, key=lambda one: (one.partition, one.offset))
