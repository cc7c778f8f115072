"""Events on a topic of their own, written by whoever is no detector: once they are acknowledged they are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import errors as vendor

from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.kafka_topics import make_topic
from schemas.errors import BrokerUnavailable


def publish_events(clients: Clients, topic: str, events: Sequence[tuple[bytes, bytes]], patience_s: float) -> None:
    """Write keys and values in order to a topic, which is made where it is missing, and wait until they are there.

    Raises AccessError where the broker refuses, BrokerUnavailable where none answers within ``patience_s``.
    """
    if not events:
        return
    deadline = time.monotonic() + patience_s
    with clients.administering(deadline, f"making the topic {topic}") as admin:
        make_topic(admin, topic, 1)
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
