"""Readings written to a topic, many a second, by whoever is no detector, and beside them what is told of them."""

from __future__ import annotations

import time
from contextlib import suppress

from kafka import errors as vendor

from detector.adapters.kafka_clients import BATCH_BYTES, Clients
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_rights import WRITE, check_rights
from detector.adapters.kafka_topics import look_up, make_topic
from detector.adapters.partitioner import partition_of
from schemas.errors import BrokerUnavailable, ResidualError, TopicError

#: Milliseconds that a batch waits for more records.
LINGER_MS = 20


class Feed:
    """Writes to one topic, and what is told to another; made by ``open_feed``."""

    def __init__(self, clients: Clients, topic: str, partitions: int, truth: str | None, patience_s: float) -> None:
        self._topic, self._partitions, self._truth, self._patience_s = topic, partitions, truth, patience_s
        self._failed: Exception | None = None
        self._producer = clients.writer(
            time.monotonic() + patience_s, linger_ms=LINGER_MS, batch_size=BATCH_BYTES, compression_type="lz4",
            retry_backoff_ms=50,
        )  # fmt: skip

    def send(self, key: bytes, value: bytes, timestamp_ms: int | None = None) -> None:
        """One record; waits while too many are on their way. Raises what the brokers said of an earlier one.

        ``timestamp_ms`` None: now, since brokers delete what is old by it, and refuse what lies ahead.
        """
        self._put(self._topic, key, value, partition_of(key, self._partitions), timestamp_ms)

    def tell(self, key: bytes, value: bytes) -> None:
        """One record of the truth."""
        assert self._truth is not None
        self._put(self._truth, key, value, 0)

    def _put(self, topic: str, key: bytes, value: bytes, partition: int, timestamp_ms: int | None = None) -> None:
        if self._failed is not None:
            raise self._said(self._failed, topic)
        try:
            future = self._producer.send(topic, value=value, key=key, partition=partition, timestamp_ms=timestamp_ms)
        except VENDOR as error:
            raise self._said(error, topic) from error
        future.add_errback(self._note)

    def _note(self, error: Exception) -> None:
        self._failed = self._failed or error

    def _said(self, error: Exception, topic: str) -> ResidualError:
        if isinstance(error, vendor.KafkaTimeoutError):
            return BrokerUnavailable(f"writing to {topic}: no broker has confirmed what was sent: see whether they run")
        return translate(error, f"writing to {topic}")

    def flush(self) -> None:
        """Wait until the brokers have everything. Raises what they said of it."""
        try:
            self._producer.flush(timeout=self._patience_s)
        except VENDOR as error:
            raise self._said(error, self._topic) from error
        if self._failed is not None:
            raise self._said(self._failed, self._topic)

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(Exception):  # it waits for what it could not send; that has been said
            self._producer.close(timeout=1)


def open_feed(clients: Clients, topic: str, truth: str | None, make: int | None, patience_s: float) -> Feed:
    """``make``: partitions of the readings' topic where there is none yet; None: it is not made. That of the truth is.

    Raises TopicError where there is no such topic, AccessError where the broker refuses, BrokerUnavailable where none
    answers within ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    with clients.administering(deadline, f"looking for the topic {topic}") as admin:
        partitions = look_up(admin, topic) if make is None else make_topic(admin, topic, make)
        if partitions is None:
            raise TopicError(f"there is no topic {topic}: name another, or have it made with --partitions N")
        if truth is not None:
            make_topic(admin, truth, 1)
        check_rights(admin, {name: (WRITE,) for name in (topic, truth) if name is not None})
    return Feed(clients, topic, partitions, truth, patience_s)
