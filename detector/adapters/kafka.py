"""The log in Apache Kafka, by kafka-python.

What is guarded against here was seen to happen with the client (3.0.12), or read in its source:

* A commit can succeed although a record of the transaction was given up: every send's future is waited for first.
* The group's generation moves in the background: the member's identity is taken with the assignment, compared after
  every poll, and a commit is made under it, so that the broker refuses it when the group has moved on (KIP-447).
* After a refused commit the producer still holds its offsets and would send them with the next: it is thrown away.
* Rebalance listeners run on the client's own thread: ours only stops the new partitions and leaves a note.
* Offsets are never committed by the consumer: such a commit would check no ownership and drop the metadata.
* Control records move positions without a record: positions are asked for, never computed.
* Commits and the handing over of offsets know no time-out: the process needs a watchdog.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as vendor
from kafka.admin import OffsetSpec

from detector.adapters.kafka_batches import Record
from detector.adapters.kafka_clients import RESTORE, Clients, patiently
from detector.adapters.kafka_commands import FETCH_WAIT_MS, CommandsTopic, left_out
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_member import Member
from detector.adapters.kafka_publisher import Outdated, Publisher, from_metadata
from detector.adapters.kafka_rights import check_rights, of_detector
from detector.adapters.kafka_state import StateTopic
from detector.adapters.kafka_topics import Topics, describe, ensure_topics, grow_state
from detector.adapters.partitioner import partition_of
from detector.adapters.port import Commands, Committed, Damaged, Records, Transaction, Watch, quiet, unwatched
from schemas.dead_letter import Reason
from schemas.errors import BrokerUnavailable, Rebalanced

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds that an open transaction may hold things up beyond its own time-out: the broker looks for such transactions
# every 10 s by default; and as much again for a busy one.
OPEN_TRANSACTION_S = 20.0

# Seconds between heartbeats, at most: a rebalance is noticed by its members no sooner. The client's default is 3.
HEARTBEAT_S = 1.0

# Seconds that leaving the group, and whatever else a connection still has to say, may take at the end.
CLOSE_S = 5.0


class KafkaLog:
    """One member of a consumer group, with its producer and the reader of its state. See ``port.Log``.

    Connects when it is made. Raises BrokerUnavailable where nobody answers within ``startup_timeout_s``, TopicError
    where the readings topic is missing or another does not fit, AccessError where the broker refuses. Later on a
    question to the brokers may take ``startup_timeout_s`` as well, then BrokerUnavailable is raised.
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
        commands_topic: str,
        group_id: str,
        scores_topic: str | None = None,
        replica_id: str | None = None,
        startup_timeout_s: float = 60.0,
        # a dead member's partitions wait this long for their next owner (the client's default: 45 s)
        session_timeout_s: float = 10.0,
        # an open transaction holds back read_committed readers this long (60 s); must exceed the longest commit
        transaction_timeout_s: float = 10.0,
        # a rebalance waits this long for a member that is busy, and a member that is busy for longer is thrown out
        max_poll_interval_s: float = 300.0,
        # what is damaged on the broker is passed over; else it ends the process
        skip_corrupt: bool = False,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        deadline = time.monotonic() + startup_timeout_s
        self.topic = readings_topic
        self._group = group_id
        self._patience_s = startup_timeout_s
        self._closed = False
        self._closers: list[Callable[[], None]] = []  # in the order of opening
        replica = replica_id or str(uuid.uuid4())
        topics = Topics(readings_topic, alerts_topic, dead_letters_topic, state_topic, commands_topic, scores_topic)
        self._clients = Clients(bootstrap_servers, f"residual-{replica}", client)
        try:
            self._admin = self._open_admin(deadline)
            rights = of_detector(topics)
            patiently(lambda: check_rights(self._admin, rights), "asking for the rights to the topics", 10)
            counts = patiently(lambda: ensure_topics(self._admin, topics, deadline), "looking for the topics", 10)
            patiently(lambda: check_rights(self._admin, rights), "asking for the rights to the topics", 10)
            self._partitions = [TopicPartition(readings_topic, p) for p in range(counts[readings_topic])]
            self._consumer = self._clients.consumer(
                deadline,
                # what a sender made unreadable is bad input like any other
                passes=lambda damaged: skip_corrupt or damaged.reason is not Reason.CORRUPT,
                advice=f"{RESTORE}, or pass over it with --skip-corrupt",
                group_id=group_id,
                # a lasting name keeps its partitions over a restart within the session's time-out (KIP-345)
                group_instance_id=replica_id,
                session_timeout_ms=int(session_timeout_s * 1000),
                heartbeat_interval_ms=int(min(HEARTBEAT_S, session_timeout_s / 3) * 1000),
                max_poll_interval_ms=int(max_poll_interval_s * 1000),
            )
            self._closers.append(self._leave)
            self._member = Member(self._consumer, readings_topic)
            wait_s = transaction_timeout_s + OPEN_TRANSACTION_S
            self._state = StateTopic(
                self._clients.consumer(deadline), state_topic, group_id, self._high_watermark, wait_s
            )
            self._closers.append(lambda: self._state.close(int(CLOSE_S * 1000)))
            with self._asking(f"reading {state_topic}"):
                self._state.peek(range(len(self._partitions)))
            self._commands = CommandsTopic(
                self._clients.consumer(deadline, FETCH_WAIT_MS, passes=left_out), commands_topic
            )
            self._closers.append(lambda: self._commands.close(int(CLOSE_S * 1000)))
            self._publisher = Publisher(
                self._clients,
                topics,
                self._state,
                transactional_id=f"{group_id}-{replica}",
                transaction_timeout_ms=int(transaction_timeout_s * 1000),
                named=replica_id is not None,
                patience_s=startup_timeout_s,
                deadline=deadline,
            )
            self._closers.append(lambda: self._publisher.close(CLOSE_S))
        except BaseException:
            self.close()
            raise

    def _open_admin(self, deadline: float) -> KafkaAdminClient:
        admin = self._clients.admin(deadline)
        self._closers.append(admin.close)
        return admin

    # -- the group -------------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        """See ``Log.poll``. Where retention has overtaken a position, Rebalanced is raised: restoring finds out."""
        with self._asking(f"reading {self.topic}"):
            try:
                found = self._member.poll(timeout_s, max_records)
            except vendor.RetriableError as error:  # the client goes on trying by itself
                log.warning("reading %s: %s", self.topic, error)
                time.sleep(min(timeout_s, 0.1))
                return []
        return [_records(tp.partition, records) for tp, records in found.items()]

    def take_damaged(self) -> list[Damaged]:
        """See ``Log.take_damaged``."""
        return self._member.take_damaged()

    def take_assignment(self) -> frozenset[int] | None:
        """See ``Log.take_assignment``. Where the topic has grown, the state topic grows with it."""
        taken = self._member.take()
        if taken and max(taken) >= len(self._partitions):
            self._grow()
        return taken

    def _grow(self) -> None:
        count = self._ask_admin(
            lambda: grow_state(self._admin, self.topic, self._state.topic, time.monotonic() + self._patience_s),
            f"growing {self._state.topic}",
        )
        log.info("the readings topic %s has %d partitions now, it had %d", self.topic, count, len(self._partitions))
        self._partitions = [TopicPartition(self.topic, p) for p in range(count)]
        self._publisher.renew()

    def start(self, partition: int, offset: int) -> None:
        """See ``Log.start``."""
        self._member.start(partition, offset)

    def halt(self, partition: int) -> None:
        """See ``Log.halt``."""
        self._member.halt(partition)

    def positions(self) -> dict[int, int]:
        """See ``Log.positions``."""
        with self._asking("asking for positions"):
            return self._member.positions()

    def again(self) -> None:
        """See ``Log.again``."""
        self._member.again()

    def place_of(self, key: bytes, partitions: int) -> int:
        """See ``Log.place_of``."""
        return partition_of(key, partitions)

    def describe(self) -> tuple[str, int]:
        """See ``Log.describe``."""
        return self._ask_admin(lambda: describe(self._admin, self.topic), f"looking for the topic {self.topic}")

    # -- what is there ---------------------------------------------------------------------------------------------

    def bounds(self, partition: int) -> tuple[int, int]:
        """See ``Log.bounds``."""
        return self._bounds([TopicPartition(self.topic, partition)])[partition]

    def ends(self) -> dict[int, tuple[int, int]]:
        """See ``Log.ends``."""
        return self._bounds(self._partitions)

    def _bounds(self, partitions: list[TopicPartition]) -> dict[int, tuple[int, int]]:
        with self._asking(f"asking for the ends of {self.topic}"):
            first = self._consumer.beginning_offsets(partitions, self._patience_ms)
            end = self._consumer.end_offsets(partitions, self._patience_ms)
        return {tp.partition: (first[tp], max(end[tp], first[tp])) for tp in partitions}

    def offset_at(self, partition: int, time_ms: int) -> int:
        """See ``Log.offset_at``."""
        tp = TopicPartition(self.topic, partition)
        with self._asking(f"looking for a time in {self.topic}"):
            found = self._consumer.offsets_for_times({tp: max(time_ms, 0)}, self._patience_ms)[tp]
        return int(found.offset) if found is not None else self.bounds(partition)[1]

    def committed(self, partition: int) -> Committed | None:
        """See ``Log.committed``."""
        tp = TopicPartition(self.topic, partition)
        with self._asking("asking for the committed offset"):
            # the consumer is read_committed: so this waits for open transactions (require_stable)
            try:
                found = self._consumer.committed(tp, metadata=True, timeout_ms=self._patience_ms)
            except vendor.KafkaTimeoutError as error:
                raise BrokerUnavailable(
                    f"no committed offset of partition {partition} within {self._patience_s:.0f} s: the brokers do not "
                    "answer, or a transaction of the group stays open: kafka-transactions.sh finds (find-hanging) and "
                    "ends it (abort)"
                ) from error
        return None if found is None or found.offset < 0 else from_metadata(found)

    def group_offsets(self) -> dict[int, int | None]:
        """See ``Log.group_offsets``."""
        found = self._ask_admin(
            lambda: self._admin.list_group_offsets({self._group: self._partitions})[self._group],
            "asking for the group's offsets",
        )
        offsets = {tp.partition: found[tp].offset if tp in found else -1 for tp in self._partitions}
        return {partition: offset if offset >= 0 else None for partition, offset in offsets.items()}

    def read_state(self, partition: int, beat: Callable[[], None] = quiet) -> dict[bytes, bytes]:
        """See ``Log.read_state``. Raises TopicError where the state is another consumer group's."""
        with self._asking(f"reading {self._state.topic}"):
            return self._state.read(partition, beat)

    def commands(self, offset: int, timeout_s: float) -> Commands:
        """See ``Log.commands``."""
        with self._asking(f"reading {self._commands.topic}"):
            return self._commands.read(offset, timeout_s)

    def commands_bounds(self) -> tuple[int, int]:
        """See ``Log.commands_bounds``."""
        with self._asking(f"asking for the end of {self._commands.topic}"):
            return self._commands.bounds(self._patience_ms)

    def _high_watermark(self, tp: TopicPartition) -> int:
        found = self._ask_admin(
            lambda: self._admin.list_partition_offsets({tp: OffsetSpec.LATEST}), f"asking for the end of {tp.topic}"
        )
        return int(found[tp].offset)

    def _ask_admin(self, question: Callable[[], T], what: str) -> T:
        return patiently(question, what, self._patience_s, self._renew_admin)

    def _renew_admin(self) -> None:
        """A fresh client knows no coordinator or leader of yesterday; this one would keep asking the old."""
        self._closers.remove(self._admin.close)
        self._admin.close()
        self._admin = self._open_admin(time.monotonic() + self._patience_s)

    @property
    def _patience_ms(self) -> int:
        return int(self._patience_s * 1000)

    # -- the end of a batch, and of the log --------------------------------------------------------------------------

    def commit(self, transaction: Transaction, watch: Watch = unwatched) -> None:
        """See ``Log.commit``."""
        if not transaction:
            return
        if not transaction.offsets:
            raise ValueError("a transaction needs offsets: by them the broker checks the member's right to commit")
        try:
            identity = self._member.identity
        except Rebalanced:
            self._member.again()
            raise
        try:
            self._publisher.publish(transaction, identity, watch)
        except Outdated:
            self._member.outdated()
            raise
        except Rebalanced:
            self._member.again()
            raise

    def close(self) -> None:
        """See ``Log.close``. Takes no longer than a few times ``CLOSE_S``."""
        if self._closed:
            return
        self._closed = True
        for close in self._closers:
            try:
                close()
            except Exception as error:  # noqa: BLE001 — the group and the broker find out anyway
                log.debug("closing: %s", error)

    def _leave(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_S * 1000))

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """The client's errors in our words; before Rebalanced leaves, what is owned is stopped and will be restored."""
        try:
            yield
        except Rebalanced:
            raise
        except VENDOR as error:
            ours = translate(error, what)
            if isinstance(ours, Rebalanced):
                self._member.again()
            raise ours from error


def _records(partition: int, records: list[Record]) -> Records:
    return Records(
        partition,
        [record.offset for record in records],
        [record.timestamp for record in records],
        [record.key for record in records],
        [record.value for record in records],
    )
