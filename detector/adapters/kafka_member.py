"""This process as a member of the consumer group: what it owns, and as whom it may commit."""

from __future__ import annotations

import threading
from collections.abc import Collection

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from detector.adapters.kafka_batches import CheckedConsumer, Record
from detector.adapters.port import Damaged
from schemas.errors import Rebalanced


class Member:
    """Watches the group for a consumer.

    The partitions change hands inside ``KafkaConsumer.poll`` only, but the member's identity (generation and member
    id) may be lost at any time, by a heartbeat on the client's own thread. So the identity is noted when an assignment
    is taken and compared after every poll. A commit is made under the noted one: where the group has moved on since,
    the broker refuses it (KIP-447). Under an identity that was lost (generation -1) the broker would not look at all.
    """

    def __init__(self, consumer: CheckedConsumer, topic: str) -> None:
        self.consumer = consumer
        self.started: set[int] = set()
        self._topic = topic
        self._listener = _Listener(consumer)
        self._owned: frozenset[int] | None = None  # None while the group is being shared out
        self._waiting: frozenset[int] | None = None  # what the next ``take`` hands out
        self._identity: ConsumerGroupMetadata | None = None  # None until it has
        consumer.subscribe([topic], listener=self._listener)
        consumer.partitions_for_topic(topic)  # a leader that does not know them yet would first share out nothing

    @property
    def identity(self) -> ConsumerGroupMetadata:
        """As whom to commit. Raises Rebalanced where no assignment is held."""
        if self._identity is None:
            raise Rebalanced("the group has moved on and no partitions are held")
        return self._identity

    def poll(self, timeout_s: float, max_records: int) -> dict[TopicPartition, list[Record]]:
        """Records of started partitions; raises Rebalanced once where the group changed since the last ``take``."""
        found = self.consumer.poll(timeout_ms=max(int(timeout_s * 1000), 0), max_records=max_records)
        now = self.consumer.group_metadata()
        held = self._identity
        changed = self._listen()
        if held is not None and (changed or now[:4] != held[:4]):
            self._let_go()
            raise Rebalanced("the group's members changed")
        return {tp: records for tp, records in found.items() if tp.partition in self.started}

    def take_damaged(self) -> list[Damaged]:
        """What was passed over in started partitions, once."""
        passed = [self.consumer.passed.popleft() for _ in range(len(self.consumer.passed))]
        return [damaged for damaged in passed if damaged.partition in self.started]

    def take(self) -> frozenset[int] | None:
        """The partitions owned, once after each change; all of them stopped."""
        if self._waiting is None:
            return None
        now = self.consumer.group_metadata()
        if now.generation_id < 0 or not now.member_id:  # lost again: the next poll joins anew
            return None
        taken, self._waiting = self._waiting, None
        self.started.clear()
        self._identity = now
        return taken

    def start(self, partition: int, offset: int) -> None:
        """Deliver an owned partition from an offset on. Raises Rebalanced where it is not owned."""
        tp = TopicPartition(self._topic, partition)
        if self._identity is None or tp not in self.consumer.assignment():
            raise Rebalanced(f"partition {partition} is not owned")
        self.consumer.seek(tp, offset)
        self.consumer.resume(tp)
        self.started.add(partition)

    def halt(self, partition: int) -> None:
        """Deliver nothing of a partition until it is started again."""
        tp = TopicPartition(self._topic, partition)
        self.started.discard(partition)
        if tp in self.consumer.assignment():
            self.consumer.pause(tp)

    def again(self) -> None:
        """Stop everything and hand the same partitions out once more, the group being as it was."""
        self._listen()
        self._let_go()
        self._waiting = self._owned

    def outdated(self) -> None:
        """Stop everything; the broker has said that the group moved on, and a later poll will find out to what.

        The next heartbeat gets the same answer, and then the client joins anew.
        """
        self._listen()
        self._let_go()

    def _let_go(self) -> None:
        self._identity = None
        self.started.clear()
        self.consumer.pause(*self.consumer.assignment())

    def _listen(self) -> bool:
        """Take in what the listener has noted; True where the group changed."""
        changed, owned = self._listener.noted()
        if changed:
            self._owned = self._waiting = owned
        return changed


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's thread, so it only stops what was assigned and leaves a note."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._lock = threading.Lock()
        self._changed = False
        self._owned: frozenset[int] | None = None

    def noted(self) -> tuple[bool, frozenset[int] | None]:
        """Whether the group changed since the last look, and what is owned now (None: not shared out yet)."""
        with self._lock:
            changed, self._changed = self._changed, False
            return changed, self._owned

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002
        self._note(None)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:  # noqa: ARG002
        self._note(None)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for tp in assigned:
            self._consumer.pause(tp)
            # any position at all: without one the client would look for a committed offset and, finding none, raise
            self._consumer.seek(tp, 0)
        self._note(frozenset(tp.partition for tp in assigned))

    def _note(self, owned: frozenset[int] | None) -> None:
        with self._lock:
            self._changed, self._owned = True, owned
