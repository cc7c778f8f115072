"""The log in Apache Kafka, by kafka-python.

What is guarded against here was seen to happen with the client (3.0.12):

* A commit can succeed although a record of the transaction was given up: every send's future is waited for first.
* The group's generation moves in the background: the member's identity is taken right after the poll that returned the
  records, and a commit is made with that one, so that the broker refuses it when the group has moved on (KIP-447).
* Rebalance listeners run on the client's own thread: ours only stops the new partitions and raises a flag.
* Offsets are never committed by the consumer: such a commit would check no ownership and drop the metadata.
* Control records move positions without a record: positions are asked for, never computed.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import orjson
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as vendor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata

from detector.adapters.kafka_errors import VENDOR, redo, translate
from detector.adapters.kafka_topics import MAX_MESSAGE_BYTES, ensure_topics, unreachable
from detector.adapters.port import Committed, Records, Transaction
from schemas.errors import BrokerUnavailable, Fenced, Rebalanced, TopicError

log = logging.getLogger(__name__)

#: Key of the record that says whose state a state topic holds.
OWNER = b"owner"

#: Version of what we write into an offset's metadata.
METADATA_VERSION = 1

# Milliseconds between retries: the coordinator still finishes the last transaction when the next begins, and the client
# waits a whole back-off then. 100 (the default) made 220 ms of the slowest commits, 5 made 20 to 40.
RETRY_BACKOFF_MS = 5

# The client's default of 30 s would leave a broker that is back unnoticed for that long.
RECONNECT_BACKOFF_MAX_MS = 1000

# Seconds to wait for a transaction that a dead process left open: its time-out (10 s) and the broker's look for such
# transactions, every 10 s by default, and as much again.
OPEN_TRANSACTION_S = 40.0

# Bytes of a fetch, per partition and in all: enough for thousands of readings, so that a backlog is read at full speed.
PARTITION_FETCH_BYTES = 4 * 1024 * 1024


class KafkaLog:
    """One member of a consumer group, its producer and the readers of its state. See ``port.Log``.

    Connects when it is made. Raises BrokerUnavailable where nobody answers within ``startup_timeout_s``, TopicError
    where the readings topic is missing or the state topic does not fit, AccessError where the broker refuses.
    ``client``: further settings of kafka-python for every connection (security).
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        readings_topic: str,
        alerts_topic: str,
        dead_letters_topic: str,
        state_topic: str,
        group_id: str,
        replica_id: str | None = None,
        startup_timeout_s: float = 60.0,
        # a dead member's partitions wait this long for their next owner; must exceed the longest batch
        session_timeout_s: float = 10.0,
        # an open transaction holds back read_committed readers this long; must exceed the longest commit
        transaction_timeout_s: float = 10.0,
        client: dict[str, Any] | None = None,
    ) -> None:
        self.topic = readings_topic
        self._alerts, self._dead_letters, self._state = alerts_topic, dead_letters_topic, state_topic
        self._group = group_id
        self._client = {
            "bootstrap_servers": bootstrap_servers.split(","),
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            **(client or {}),
        }
        self._open_transaction_s = OPEN_TRANSACTION_S + transaction_timeout_s
        self._closed = False
        deadline = time.monotonic() + startup_timeout_s
        count = ensure_topics(
            self._client, readings_topic, alerts_topic, dead_letters_topic, state_topic, startup_timeout_s
        )
        self._partitions = [TopicPartition(readings_topic, p) for p in range(count)]
        self._producer_config = {
            **self._client,
            "transactional_id": f"{group_id}-{replica_id or uuid.uuid4()}",
            "transaction_timeout_ms": int(transaction_timeout_s * 1000),
            "metrics_enabled": False,
            "acks": "all",
            "compression_type": "lz4",
            "linger_ms": 5,
            "max_request_size": MAX_MESSAGE_BYTES,
            "allow_auto_create_topics": False,
        }
        self._lock = threading.Lock()
        self._listener = _Listener(self)
        self._moved = False  # set by the listener: the group has changed hands since the last take_assignment
        self._assigned: frozenset[int] | None = None  # what take_assignment will hand out
        self._started: set[int] = set()
        self._member: Any = None  # the member's identity as of the poll that returned the newest records
        self._owned_state: set[int] = set()
        try:
            left_ms = max(int((deadline - time.monotonic()) * 1000), 1000)
            self._consumer = self._connect(
                left_ms,
                isolation_level="read_committed",
                group_id=group_id,
                group_instance_id=f"{group_id}-{replica_id}" if replica_id else None,
                session_timeout_ms=int(session_timeout_s * 1000),
                heartbeat_interval_ms=int(session_timeout_s * 1000 / 5),
                partition_assignment_strategy=[RangePartitionAssignor],
                enable_auto_commit=False,
                auto_offset_reset="none",
            )
            self._committed_reader = self._connect(left_ms, isolation_level="read_committed", enable_auto_commit=False)
            self._any_reader = self._connect(left_ms, isolation_level="read_uncommitted", enable_auto_commit=False)
            self._producer = self._new_producer(left_ms)
        except VENDOR as error:
            raise unreachable(error, self._client, startup_timeout_s) from error
        self._consumer.subscribe([readings_topic], listener=self._listener)

    def _connect(self, bootstrap_timeout_ms: int, **config: Any) -> KafkaConsumer:
        return KafkaConsumer(
            **self._client,
            **config,
            metrics_enabled=False,
            bootstrap_timeout_ms=bootstrap_timeout_ms,
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            fetch_max_wait_ms=100,
        )

    def _new_producer(self, bootstrap_timeout_ms: int) -> KafkaProducer:
        """A producer that has fenced off every earlier one with the same id and ended what it left open."""
        producer = KafkaProducer(**self._producer_config, bootstrap_timeout_ms=bootstrap_timeout_ms)
        producer.init_transactions()
        return producer

    # -- the group -------------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        """See ``Log.poll``."""
        try:
            found = self._consumer.poll(timeout_ms=max(int(timeout_s * 1000), 0), max_records=max_records)
            member = self._consumer.group_metadata()
        except vendor.OffsetOutOfRangeError as error:  # retention overtook us: restoring finds out what is left
            self._hand_out_again()
            raise Rebalanced(f"reading {self.topic}: {error}") from error
        except VENDOR as error:
            raise self._after(redo(error, f"reading {self.topic}")) from error
        with self._lock:
            moved = self._moved
        if moved or (self._member is not None and member[:4] != self._member[:4]):
            joined_before = self._member is not None
            self._started.clear()
            self._member = None
            if joined_before:
                raise Rebalanced("the group's members changed")
            return []
        return [self._records(tp.partition, batch) for tp, batch in found.items() if tp.partition in self._started]

    @staticmethod
    def _records(partition: int, batch: list[Any]) -> Records:
        return Records(
            partition,
            [record.offset for record in batch],
            [-1 if record.timestamp is None else record.timestamp for record in batch],
            [record.key for record in batch],
            [record.value for record in batch],
        )

    def take_assignment(self) -> frozenset[int] | None:
        """See ``Log.take_assignment``."""
        with self._lock:
            assigned, self._assigned = self._assigned, None
            if assigned is None:
                return None
            self._moved = False
        self._started.clear()
        self._member = self._consumer.group_metadata()
        return assigned

    def _hand_out_again(self) -> None:
        """Stop every partition still owned and have them restored, although the group did not change."""
        self._started.clear()
        owned = self._consumer.assignment()
        with suppress(*VENDOR):
            self._consumer.pause(*owned)
        with self._lock:
            if not self._moved:  # else the listener will hand out what comes of it
                self._assigned = frozenset(tp.partition for tp in owned)

    def positions(self) -> dict[int, int]:
        """See ``Log.positions``."""
        try:
            return {p: self._consumer.position(TopicPartition(self.topic, p), timeout_ms=5000) for p in self._started}
        except (*VENDOR, AssertionError, KeyError) as error:  # no longer ours
            raise self._after(redo(error, "asking for positions")) from error

    def start(self, partition: int, offset: int) -> None:
        """See ``Log.start``."""
        tp = TopicPartition(self.topic, partition)
        try:
            self._consumer.seek(tp, offset)
            self._consumer.resume(tp)
        except (*VENDOR, AssertionError, KeyError) as error:
            raise self._after(redo(error, f"starting partition {partition}")) from error
        self._started.add(partition)

    # -- what is there ---------------------------------------------------------------------------------------------

    def bounds(self, partition: int) -> tuple[int, int]:
        """See ``Log.bounds``."""
        return self._bounds([TopicPartition(self.topic, partition)])[partition]

    def ends(self) -> dict[int, tuple[int, int]]:
        """See ``Log.ends``."""
        return self._bounds(self._partitions)

    def _bounds(self, partitions: list[TopicPartition]) -> dict[int, tuple[int, int]]:
        try:
            first = self._committed_reader.beginning_offsets(partitions)
            end = self._committed_reader.end_offsets(partitions)
        except VENDOR as error:
            raise self._after(redo(error, f"asking for the ends of {self.topic}")) from error
        return {tp.partition: (first[tp], max(end[tp], first[tp])) for tp in partitions}

    def offset_at(self, partition: int, time_ms: int) -> int:
        """See ``Log.offset_at``."""
        tp = TopicPartition(self.topic, partition)
        try:
            found = self._committed_reader.offsets_for_times({tp: time_ms})[tp]
        except VENDOR as error:
            raise self._after(redo(error, f"looking for a time in {self.topic}")) from error
        return int(found.offset) if found is not None else self.bounds(partition)[1]

    def committed(self, partition: int) -> Committed | None:
        """See ``Log.committed``."""
        try:  # the consumer is read_committed, so this waits for open transactions (require_stable)
            found = self._consumer.committed(TopicPartition(self.topic, partition), metadata=True)
        except VENDOR as error:
            raise self._after(redo(error, "asking for the committed offset")) from error
        if found is None or found.offset < 0:
            return None
        return Committed(found.offset, _replay_from(found.metadata, found.offset))

    def group_offsets(self) -> dict[int, int | None]:
        """See ``Log.group_offsets``."""
        try:
            return {tp.partition: self._consumer.committed(tp) for tp in self._partitions}
        except VENDOR as error:
            raise self._after(redo(error, "asking for the group's offsets")) from error

    def read_state(self, partition: int) -> dict[bytes, bytes]:
        """See ``Log.read_state``.

        Reads up to the high watermark, not to the last stable offset: behind a transaction that a dead process left
        open there may be records of its successor, so the broker's ending of it is waited for.
        """
        tp = TopicPartition(self._state, partition)
        reader = self._committed_reader
        newest: dict[bytes, bytes] = {}
        try:
            end = self._any_reader.end_offsets([tp])[tp]
            reader.assign([tp])
            reader.seek_to_beginning(tp)
            deadline = time.monotonic() + self._open_transaction_s
            while reader.position(tp) < end:
                for batch in reader.poll(timeout_ms=200, max_records=5000).values():
                    for record in batch:
                        if record.value is None:
                            newest.pop(record.key, None)
                        else:
                            newest[record.key] = record.value
                    deadline = time.monotonic() + self._open_transaction_s
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"partition {partition} of {self._state}: a transaction stays open and hides what follows it"
                    )
            reader.unsubscribe()
        except VENDOR as error:
            raise self._after(redo(error, f"reading {self._state}")) from error
        owner = newest.pop(OWNER, None)
        if owner is not None:
            if owner != self._group.encode():
                raise TopicError(
                    f"the state topic {self._state} belongs to the consumer group {owner.decode(errors='replace')}: "
                    "name another with --state-topic"
                )
            self._owned_state.add(partition)
        return newest

    # -- transactions ----------------------------------------------------------------------------------------------

    def commit(self, transaction: Transaction) -> None:
        """See ``Log.commit``.

        1. begin, 2. send everything, 3. hand the offsets over under the identity that polled the records, 4. wait for
        every send, 5. commit. Whatever fails: abort, and the batch is done again from what is committed.
        """
        producer = self._producer
        try:
            producer.begin_transaction()  # 1
            futures = self._send(producer, transaction)  # 2
            offsets = {TopicPartition(self.topic, p): _metadata(c) for p, c in transaction.offsets.items()}
            if offsets:
                producer.send_offsets_to_transaction(offsets, self._member)  # 3
            for future in futures:  # 4
                future.get(timeout=60)
            producer.commit_transaction()  # 5
        except Exception as error:  # the client also raises plain RuntimeError and AssertionError for states of its own
            self._abort(error)
            raise self._after(redo(error, "publishing")) from error

    def _send(self, producer: KafkaProducer, transaction: Transaction) -> list[Any]:
        futures = [producer.send(self._alerts, value=value, key=key) for key, value in transaction.alerts]
        futures += [
            producer.send(self._dead_letters, value=letter.body(), key=_key_of(letter.key), headers=letter.headers())
            for letter in transaction.dead_letters
        ]
        for partition in sorted({record.partition for record in transaction.state} - self._owned_state):
            futures.append(producer.send(self._state, value=self._group.encode(), key=OWNER, partition=partition))
            self._owned_state.add(partition)
        futures += [
            producer.send(self._state, value=record.value, key=record.key, partition=record.partition)
            for record in transaction.state
        ]
        return futures

    def _abort(self, error: BaseException) -> None:
        """End the transaction; where the producer is past use, put another in its place."""
        self._owned_state.clear()  # written again, should the record have gone with the transaction
        log.warning("a transaction failed and is done again: %s: %s", type(error).__name__, error)
        if isinstance(translate(error, ""), Fenced):
            return
        try:
            self._producer.abort_transaction()
        except Exception as second:  # noqa: BLE001 — the client raises RuntimeError and AssertionError, too
            log.debug("abort failed: %s", second)
            with suppress(Exception):
                self._producer.close(timeout=1)
            try:
                self._producer = self._new_producer(30_000)
            except Exception as third:
                raise BrokerUnavailable(f"publishing: no new producer could be made: {third}") from third

    def _after(self, error: Exception) -> Exception:
        """What must be so before Rebalanced leaves the adapter: every partition still owned will be handed out."""
        if isinstance(error, Rebalanced):
            self._hand_out_again()
        return error

    def close(self) -> None:
        """See ``Log.close``."""
        if self._closed:
            return
        self._closed = True
        with suppress(Exception):  # leaving is a courtesy: the group finds out anyway
            self._consumer.close(autocommit=False, timeout_ms=5000)
        for reader in (self._committed_reader, self._any_reader):
            with suppress(Exception):
                reader.close(autocommit=False, timeout_ms=1000)
        with suppress(Exception):
            self._producer.close(timeout=5)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's thread, so it only raises flags and stops what was assigned."""

    def __init__(self, owner: KafkaLog) -> None:
        self._log = owner

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002
        with self._log._lock:
            self._log._moved = True
            self._log._assigned = None

    on_partitions_lost = on_partitions_revoked

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        consumer = self._log._consumer
        if assigned:
            consumer.pause(*assigned)
            for tp in assigned:
                # any position at all: without one the client would look for a committed offset and, finding none, raise
                consumer.seek(tp, 0)
        with self._log._lock:
            self._log._moved = True
            self._log._assigned = frozenset(tp.partition for tp in assigned)


def _metadata(committed: Committed) -> OffsetAndMetadata:
    metadata = orjson.dumps({"v": METADATA_VERSION, "replay_from": committed.replay_from}).decode()
    return OffsetAndMetadata(committed.offset, metadata, -1)


def _replay_from(metadata: str | bytes | None, offset: int) -> int | None:
    """R of an offset's metadata; None where somebody else wrote it."""
    try:
        found = orjson.loads(metadata or "")
        if found["v"] == METADATA_VERSION and 0 <= found["replay_from"] <= offset:
            return int(found["replay_from"])
    except (ValueError, TypeError, KeyError):
        pass
    return None


def _key_of(key: bytes | None) -> bytes | None:
    """A record needs a key or a value; one that had neither gets an empty key."""
    return key if key is not None else b""
