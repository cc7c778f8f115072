"""Events on a topic of their own, written by whoever is no detector: once they are acknowledged they are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import errors as vendor
from kafka.admin import NewTopic

from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_topics import look_up
from schemas.errors import BrokerUnavailable


def publish_events(clients: Clients, topic: str, events: Sequence[tuple[bytes, bytes]], patience_s: float) -> None:
    """Write keys and values in order to a topic, which is made where it is missing, and wait until they are there.

    Raises AccessError where the broker refuses, BrokerUnavailable where none answers within ``patience_s``.
    """
    if not events:
        return
    deadline = time.monotonic() + patience_s
    _make(clients, topic, deadline)
    producer = clients.writer(deadline)
    try:
        sent = [producer.send(topic, key=key, value=value, partition=0) for key, value in events]
        for future in sent:
            future.get(timeout=max(deadline - time.monotonic(), 1.0))
    except vendor.KafkaTimeoutError as error:
        raise BrokerUnavailable(f"writing to {topic}: no broker has confirmed it within {patience_s:g} s") from error
    except VENDOR as error:
        raise translate(error, f"writing to {topic}") from error
    finally:
        with suppress(Exception):  # it waits for what it could not send; that has been said
            producer.close(timeout=1)


def _make(clients: Clients, topic: str, deadline: float) -> None:
    admin = clients.admin(deadline)
    try:
        if look_up(admin, topic) is None:
            with suppress(vendor.TopicAlreadyExistsError):  # by somebody else, at the same time
                admin.create_topics([NewTopic(topic, 1, -1)])  # (-1: as many copies as the broker's default says)
    except VENDOR as error:
        raise translate(error, f"making the topic {topic}") from error
    finally:
        with suppress(Exception):
            admin.close()
