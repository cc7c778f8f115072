"""The commands topic: operators write to it, and every replica of the group reads it, each for itself."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as vendor

from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_rights import WRITE, check_rights
from detector.adapters.kafka_topics import COMMANDS_PARTITIONS, look_up
from detector.adapters.port import Commands, Damaged
from schemas.command import Command
from schemas.dead_letter import Reason
from schemas.errors import BrokerUnavailable, TopicError

log = logging.getLogger(__name__)

# Milliseconds that a broker holds a fetch of commands while there is none: one is nearly always on its way, so that a
# look finds what has come since the last one without waiting; and a request in two seconds costs nothing.
FETCH_WAIT_MS = 2000

# Records of one look. Operators say less in a year; a program that says more has to wait its turn.
MOST = 500


def left_out(damaged: Damaged) -> bool:
    """Whether to pass over what nobody can read, with a word in the log: where it came like that it is no command."""
    if damaged.reason is Reason.CORRUPT:
        return False
    log.warning("commands %d to %d cannot be read and are ignored: %s", damaged.first, damaged.next - 1, damaged.why)
    return True


class CommandsTopic:
    """Reads the commands topic; belongs to no group, since where to go on is written in the state."""

    def __init__(self, reader: KafkaConsumer, topic: str) -> None:
        self.topic = topic
        self._reader, self._tp = reader, TopicPartition(topic, 0)
        self._position: int | None = None
        reader.assign([self._tp])

    def bounds(self, timeout_ms: int) -> tuple[int, int]:
        """(first retained offset, next offset to be written as a ``read_committed`` reader sees it)."""
        first = int(self._reader.beginning_offsets([self._tp], timeout_ms)[self._tp])
        return first, max(int(self._reader.end_offsets([self._tp], timeout_ms)[self._tp]), first)

    def read(self, offset: int, timeout_s: float) -> Commands:
        """See ``Log.commands``. Raises the client's errors, except those that it gets over by itself."""
        if offset != self._position:
            self._reader.seek(self._tp, offset)
            self._position = offset
        try:
            found = self._reader.poll(timeout_ms=int(timeout_s * 1000), max_records=MOST).get(self._tp, [])
        except vendor.RetriableError as error:
            log.debug("reading %s: %s", self.topic, error)
            return Commands([], offset)
        # asked for, not computed: control records, of those who write in transactions, move it without a record
        self._position = max(self._reader.position(self._tp, timeout_ms=1) or offset, offset)
        return Commands([(record.offset, record.value) for record in found], self._position)

    def close(self, timeout_ms: int) -> None:
        """Let go of the connection."""
        self._reader.close(autocommit=False, timeout_ms=timeout_ms)


def publish(clients: Clients, topic: str, command: Command, patience_s: float) -> None:
    """Write a command and wait until the brokers have it.

    Raises TopicError where there is no such topic, AccessError where the broker refuses, BrokerUnavailable where none
    answers within ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    _check(clients, topic, deadline)
    producer = clients.writer(deadline)
    try:
        sent = producer.send(topic, value=command.to_bytes(), key=command.stream.encode(), partition=0)
        sent.get(timeout=max(deadline - time.monotonic(), 1.0))
    except vendor.KafkaTimeoutError as error:
        raise BrokerUnavailable(
            f"writing to {topic}: no broker has confirmed it, so it may or may not be there; say it again with "
            f"--id {command.id}, which counts once"
        ) from error
    except VENDOR as error:
        raise translate(error, f"writing to {topic}") from error
    finally:
        with suppress(Exception):  # it waits for what it could not send; that has been said
            producer.close(timeout=1)


def _check(clients: Clients, topic: str, deadline: float) -> None:
    with clients.administering(deadline, f"looking for the topic {topic}") as admin:
        check_rights(admin, {topic: (WRITE,)})
        count = look_up(admin, topic)
    if count is None:
        raise TopicError(
            f"there is no topic {topic}: a detector makes it at its start; name that detector's --group-id, or its "
            "--commands-topic"
        )
    if count != COMMANDS_PARTITIONS:
        raise TopicError(f"{topic} has {count} partitions, so it is no commands topic: name another --commands-topic")
