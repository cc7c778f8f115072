"""The alerts topic as `detector notify` reads it: all partitions, one reader, and what it remembers in a topic beside.

One transaction holds what is remembered, what is set aside and the offsets of the group. The transactional id is the
group's: whoever opens the inbox later fences off the one before, so there is one reader at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as vendor
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from detector.adapters.kafka_clients import Clients, await_answer, discard, left_out, read_from, root_of
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_rights import READ, WRITE, check_rights
from detector.adapters.kafka_state import StateTopic
from detector.adapters.kafka_topics import STATE_SEGMENT_BYTES, look_up, make_topic
from schemas.errors import BrokerUnavailable, Fenced, ResidualError, TopicError

log = logging.getLogger(__name__)

#: Seconds that a transaction may take: afterwards the broker ends it.
TRANSACTION_S = 30.0

#: Records of a poll.
MOST = 1000

#: Seconds that silences are waited for.
PATIENCE_S = 5.0

#: Seconds after which new partitions of the alerts topic are looked for.
LOOK_S = 60.0


class Names(NamedTuple):
    """Topics and group."""

    alerts: str
    state: str
    dead_letters: str
    silences: str
    group: str


class Letter(NamedTuple):
    """What is set aside."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Item(NamedTuple):
    """A record of the alerts topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Inbox:
    """Made by ``open_inbox``."""

    def __init__(
        self, clients: Clients, names: Names, reader: KafkaConsumer, silences: KafkaConsumer, producer: KafkaProducer
    ) -> None:
        self._clients, self._names = clients, names
        self._reader, self._silences, self._producer = reader, silences, producer
        self._next: dict[int, int] = {}
        self._moved = False
        self._looked = 0.0
        self._found_silences: dict[bytes, bytes] = {}

    # -- reading -----------------------------------------------------------------------------------------------------

    def restore(self, patience_s: float) -> dict[bytes, bytes]:
        """Entries of the state topic by their keys; afterwards ``poll`` begins where the group has come to."""
        state_reader = self._clients.consumer(time.monotonic() + patience_s)
        topic = StateTopic(
            state_reader, self._names.state, self._names.group,
            lambda tp: int(state_reader.end_offsets([tp])[tp]), patience_s,
        )  # fmt: skip
        try:
            entries = topic.read(0, lambda: None)
        except VENDOR as error:
            raise translate(error, f"reading {self._names.state}") from error
        finally:
            topic.close(2000)
        self.look()
        return entries

    def look(self) -> None:
        """For partitions that are new. Raises our errors."""
        self._looked = time.monotonic()
        try:
            found = self._reader.partitions_for_topic(self._names.alerts) or set()
            new = sorted(found - self._next.keys())
            if not new:
                return
            tps = [TopicPartition(self._names.alerts, number) for number in new]
            first = self._reader.beginning_offsets(tps)
            self._reader.assign([TopicPartition(self._names.alerts, number) for number in sorted(found)])
            for tp in tps:
                committed = self._reader.committed(tp)
                self._next[tp.partition] = first[tp] if committed is None else max(committed, first[tp])
            for number, offset in self._next.items():
                read_from(self._reader, TopicPartition(self._names.alerts, number), offset)
        except VENDOR as error:
            raise translate(error, f"reading {self._names.alerts}") from error
        log.info("reads %d partitions of %s", len(self._next), self._names.alerts)

    def poll(self, timeout_s: float) -> list[Item]:
        """Records in the order of each partition."""
        if time.monotonic() - self._looked > LOOK_S:
            self.look()
        items: list[Item] = []
        try:
            for tp, records in self._reader.poll(timeout_ms=int(1000 * timeout_s), max_records=MOST).items():
                items += [Item(tp.partition, record.offset, record.key, record.value) for record in records]
            for number, offset in self._next.items():
                tp = TopicPartition(self._names.alerts, number)
                # asked for, not computed: control records move it without a record
                position = self._reader.position(tp, timeout_ms=1) or offset
                self._moved |= position > offset
                self._next[number] = max(position, offset)
        except vendor.OffsetOutOfRangeError as error:
            raise TopicError(f"{self._names.alerts} does not reach back to where the group stands: {error}") from error
        except VENDOR as error:
            raise translate(error, f"reading {self._names.alerts}") from error
        return items

    def lag(self) -> int:
        """Records that are there and were not polled."""
        try:
            ends = self._reader.end_offsets([TopicPartition(self._names.alerts, number) for number in self._next])
        except VENDOR as error:
            raise translate(error, f"reading {self._names.alerts}") from error
        return int(sum(max(ends[tp] - self._next[tp.partition], 0) for tp in ends))

    def silences(self) -> list[bytes]:
        """All silences as they are now; none where there is no topic of them."""
        tp = TopicPartition(self._names.silences, 0)
        try:
            if not self._silences.assignment():
                if not self._silences.partitions_for_topic(self._names.silences):
                    return []
                self._silences.assign([tp])
                read_from(self._silences, tp, self._silences.beginning_offsets([tp])[tp])
            end, deadline = self._silences.end_offsets([tp])[tp], time.monotonic() + PATIENCE_S
            while (self._silences.position(tp, timeout_ms=50) or 0) < end and time.monotonic() < deadline:
                for record in self._silences.poll(timeout_ms=50).get(tp, []):
                    if record.value is None:
                        self._found_silences.pop(record.key or b"", None)
                    else:
                        self._found_silences[record.key or b""] = record.value
        except VENDOR as error:
            log.warning("silences cannot be read, and stay as they were: %s", translate(error, self._names.silences))
        return list(self._found_silences.values())

    # -- writing -----------------------------------------------------------------------------------------------------

    def commit(self, changes: Mapping[bytes, bytes | None], letters: Sequence[Letter] = ()) -> None:
        """All of it and the offsets, or nothing. Raises Fenced where another reader has taken over."""
        if not changes and not letters and not self._moved:
            return
        names, producer = self._names, self._producer
        deadline = time.monotonic() + TRANSACTION_S
        try:
            producer.begin_transaction()
            sent = [
                producer.send(names.state, key=key, value=value, partition=0)
                for key, value in [(b"owner", names.group.encode()), *changes.items()]
            ]
            sent += [
                producer.send(names.dead_letters, key=one.key, value=one.value, headers=list(one.headers))
                for one in letters
            ]
            manager = producer._transaction_manager
            offsets = {
                TopicPartition(names.alerts, number): OffsetAndMetadata(offset, "", -1)
                for number, offset in self._next.items()
            }
            if offsets:
                group = ConsumerGroupMetadata(names.group, -1, "", None)
                await_answer(producer, manager.send_offsets_to_transaction(offsets, group), deadline)
            for future in sent:
                future.get(timeout=TRANSACTION_S)
            await_answer(producer, manager.begin_commit(), deadline)
        except Exception as error:
            discard(producer)
            ours = translate(root_of(producer, error), "remembering what was told")
            if isinstance(ours, Fenced):
                raise Fenced(
                    f"another `detector notify` of the group {names.group} has taken over: stop one"
                ) from error
            raise ours from error
        self._moved = False

    def close(self) -> None:
        """Let go of the connections."""
        for reader in (self._reader, self._silences):
            with suppress(Exception):
                reader.close(autocommit=False, timeout_ms=2000)
        with suppress(Exception):
            self._producer.close(timeout=2)


def open_inbox(clients: Clients, names: Names, patience_s: float) -> Inbox:
    """Makes the state and the dead letters' topic where they are missing.

    Raises TopicError where there is no alerts topic, AccessError where the broker refuses, BrokerUnavailable where none
    answers within ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    compacted = {"cleanup.policy": "compact", "segment.bytes": str(STATE_SEGMENT_BYTES)}
    with clients.administering(deadline, f"looking for the topic {names.alerts}") as admin:
        if look_up(admin, names.alerts) is None:
            raise TopicError(
                f"there is no topic {names.alerts}: a detector makes it at its start; name another with --alerts-topic"
            )
        if make_topic(admin, names.state, 1, compacted) != 1:
            raise TopicError(f"the state topic {names.state} must have one partition: name another with --state-topic")
        make_topic(admin, names.dead_letters, 1)
        check_rights(
            admin, {names.alerts: (READ,), names.state: (READ, WRITE), names.dead_letters: (WRITE,)}
        )  # fmt: skip
    opened: list[KafkaConsumer] = []
    try:
        opened.append(clients.consumer(deadline, passes=left_out, group_id=names.group))
        opened.append(clients.consumer(deadline, passes=left_out))
        producer = clients.producer(deadline, f"{names.group}-notify", int(1000 * TRANSACTION_S))
    except Exception as error:
        for reader in opened:
            with suppress(Exception):
                reader.close(autocommit=False, timeout_ms=1000)
        if isinstance(error, ResidualError):
            raise
        if isinstance(error, VENDOR):
            raise translate(error, "starting `detector notify`") from error
        raise BrokerUnavailable(f"starting `detector notify`: {error}") from error
    return Inbox(clients, names, opened[0], opened[1], producer)
