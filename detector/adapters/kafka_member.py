"""This process as a member of the consumer group: what it owns, and as whom it may commit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import IllegalStateError
from kafka.structs import ConsumerGroupMetadata

from detector.adapters.kafka_batches import CheckedConsumer, Record
from detector.adapters.kafka_clients import read_from
from detector.adapters.port import Damaged
from schemas.errors import Rebalanced

#: What the client raises where a partition was taken away a moment ago.
GONE = (IllegalStateError, ValueError, KeyError)


class Member:
    """Watches the group for a consumer.

    The client joins on its own thread, at any time. So the member's identity (generation and member id) is noted when
    an assignment is taken and compared after every poll. A commit is made under the noted one: where the group has
    moved on since, the broker refuses it (KIP-447). Under an identity that was lost (generation -1) the broker would
    not look at all.

    Partitions change hands one by one (KIP-429): those that nobody takes away go on as they are. That is safe although
    the client may be ahead of what was noted here: between the generation in which a partition is taken away and the
    one in which another gets it lies one in which nobody has it, and we have to have joined that.
    """

    def __init__(self, consumer: CheckedConsumer, topic: str) -> None:
        self.consumer = consumer
        self.started: set[int] = set()
        self._topic = topic
        self._listener = _Listener(consumer)
        self._owned: frozenset[int] = frozenset()
        self._kept: frozenset[int] = frozenset()  # taken, and ours ever since
        self._waiting = False  # whether ``take`` has something to hand out
        self._identity: ConsumerGroupMetadata | None = None  # None until it has
        self._refused: ConsumerGroupMetadata | None = None  # as whom we were told that the group has moved on
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
        if self._moved_on():
            self._give_back(found)
            raise Rebalanced("the group's members changed", self._kept)
        if self._identity is None:
            self._give_back(found)
            return {}
        return {tp: records for tp, records in found.items() if tp.partition in self.started}

    def _moved_on(self) -> bool:
        """Take in what happened to the group; True where the holder of an assignment has to know."""
        now = self.consumer.group_metadata()  # first: whatever led to this generation is in the notes by then
        lost, gained = self._listener.noted()
        self._owned = (self._owned - lost) | gained
        held, kept = self._identity, self._kept
        known = held or self._refused
        changed = bool(lost or gained) or (known is not None and now[:4] != known[:4])
        if not changed:
            return False
        self._waiting, self._refused = True, None
        self._identity = None
        self._kept = kept - lost if _valid(now) else frozenset()
        self.started &= self._kept
        self._forget_passed(lambda damaged: damaged.partition not in self._kept)
        if not self._kept:
            self._stop_all()
        return held is not None or self._kept != kept

    def _give_back(self, found: Mapping[TopicPartition, list[Any]]) -> None:
        """Records that nobody will see now are delivered again."""
        for tp, records in found.items():
            if records and tp.partition in self.started:
                again = records[0].offset
                with suppress(*GONE):  # no longer ours: the next poll says so
                    self.consumer.seek(tp, again)
                self._forget_passed(lambda d, p=tp.partition, at=again: d.partition == p and d.first >= at)  # type: ignore[misc]

    def take_damaged(self) -> list[Damaged]:
        """What was passed over in started partitions, once; of those that are halted and kept, when they go on."""
        passed = self.consumer.passed
        self.consumer.passed = deque(damaged for damaged in passed if damaged.partition not in self.started)
        return [damaged for damaged in passed if damaged.partition in self.started]

    def _forget_passed(self, which: Callable[[Damaged], bool]) -> None:
        """It will be met again, by whoever reads there."""
        self.consumer.passed = deque(damaged for damaged in self.consumer.passed if not which(damaged))

    def take(self) -> frozenset[int] | None:
        """The partitions owned, once after each change; those not kept are stopped."""
        if not self._waiting:
            return None
        now = self.consumer.group_metadata()
        if not _valid(now) or self._listener.waits() or self._joins():  # the next poll finds out
            return None
        self._waiting = False
        self._identity, self._kept = now, self._owned
        return self._owned

    def _joins(self) -> bool:
        """The client is on its way into a generation, and has not taken in what it gets there.

        It goes on with that in polls alone: a join that is answered while nobody polls is thrown away, and begun anew,
        for the whole group where we are its leader (kafka-python 3.0.12). So nobody restores anything meanwhile.
        """
        return bool(self.consumer._coordinator.rejoin_needed)

    def start(self, partition: int, offset: int) -> None:
        """Deliver an owned partition from an offset on. Raises Rebalanced where it is not owned."""
        tp = TopicPartition(self._topic, partition)
        try:
            if self._identity is None or partition not in self._kept:
                raise IllegalStateError("not held")
            read_from(self.consumer, tp, offset)
            self._forget_passed(lambda damaged: damaged.partition == partition and damaged.first >= offset)
        except GONE:
            self.again()
            raise Rebalanced(f"partition {partition} is not owned") from None
        self.started.add(partition)

    def halt(self, partition: int) -> None:
        """Deliver nothing of a partition until it is started again."""
        tp = TopicPartition(self._topic, partition)
        self.started.discard(partition)
        with suppress(*GONE):
            self.consumer.pause(tp)

    def positions(self) -> dict[int, int]:
        """Next offset of each started partition. Raises Rebalanced where one is not ours any more.

        Each was started at an offset, so none has to be looked up: the client's own method asks for committed offsets
        and leaders first, a millisecond for each partition.
        """
        held = self.consumer._subscription.assignment
        try:
            return {p: held[TopicPartition(self._topic, p)].position.offset for p in sorted(self.started)}
        except (*GONE, AttributeError):  # (AttributeError: given back meanwhile, without a position)
            self.again()
            raise Rebalanced("a partition is not owned any more") from None

    def again(self) -> None:
        """Stop everything and hand the same partitions out once more, the group being as it was."""
        self._let_go()
        self._waiting = True

    def outdated(self) -> None:
        """Stop everything; the broker has said that the group moved on, and a later poll will find out to what.

        The next heartbeat gets the same answer, and then the client joins anew.
        """
        self._refused = self._identity
        self._let_go()
        self._waiting = False

    def _let_go(self) -> None:
        self._identity, self._kept = None, frozenset()
        self.consumer.passed.clear()
        self._stop_all()

    def _stop_all(self) -> None:
        self.started.clear()
        for tp in self.consumer.assignment():
            with suppress(*GONE):
                self.consumer.pause(tp)


def _valid(identity: ConsumerGroupMetadata) -> bool:
    return identity.generation_id >= 0 and bool(identity.member_id)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's thread, so it only stops what was assigned and leaves a note."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._lock = threading.Lock()
        self._changed = False
        self._lost: set[int] = set()
        self._gained: set[int] = set()

    def waits(self) -> bool:
        """Whether there are notes that nobody has read."""
        with self._lock:
            return self._changed

    def noted(self) -> tuple[frozenset[int], frozenset[int]]:
        """What was taken away and what was given since the last look; what was both is in both."""
        with self._lock:
            lost, gained = frozenset(self._lost), frozenset(self._gained)
            self._lost.clear()
            self._gained.clear()
            self._changed = False
            return lost, gained

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._note(revoked, ())

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._note(lost, ())

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for tp in assigned:
            self._consumer.pause(tp)
            # any position at all: without one the client would look for a committed offset and, finding none, raise
            self._consumer.seek(tp, 0)
        self._note((), assigned)

    def _note(self, lost: Collection[TopicPartition], gained: Collection[TopicPartition]) -> None:
        taken, given = {tp.partition for tp in lost}, {tp.partition for tp in gained}
        with self._lock:
            self._changed = True
            self._lost |= taken
            self._gained = (self._gained - taken) | given
