"""The topics that the detector needs: the readings' must be there, its own are made where they are missing."""

from __future__ import annotations

import logging
from typing import Any

from kafka import KafkaAdminClient
from kafka import errors as vendor

from detector.adapters.kafka_errors import VENDOR, translate
from schemas.errors import BrokerUnavailable, ResidualError, TopicError

log = logging.getLogger(__name__)

#: Dead letters and checkpoints: a record of 1.9 MB with its headers, a chunk of 0.5 MB many times over.
MAX_MESSAGE_BYTES = 2_097_152

#: The smallest that Kafka 4 takes; small segments are compacted soon, so that a restore reads little twice.
STATE_SEGMENT_BYTES = 1_048_576


def ensure_topics(
    client: dict[str, Any], readings: str, alerts: str, dead_letters: str, state: str, timeout_s: float
) -> int:
    """The number of partitions of the readings topic, once every topic is there.

    Raises TopicError where the readings topic is missing or the state topic has another number of partitions,
    BrokerUnavailable where nobody answers for ``timeout_s``, AccessError where the broker refuses.
    """
    timeout_ms = int(timeout_s * 1000)
    try:
        admin = KafkaAdminClient(**client, bootstrap_timeout_ms=timeout_ms)
    except VENDOR as error:
        raise unreachable(error, client, timeout_s) from error
    try:
        return _ensure(admin, readings, alerts, dead_letters, state)
    except VENDOR as error:
        raise translate(error, "looking for the topics") from error
    finally:
        admin.close()


def unreachable(error: BaseException, client: dict[str, Any], timeout_s: float) -> ResidualError:
    """What a start that got no answer says."""
    translated = translate(error, f"connecting to {','.join(client['bootstrap_servers'])}")
    if isinstance(translated, BrokerUnavailable):
        return BrokerUnavailable(
            f"no broker answered at {','.join(client['bootstrap_servers'])} within {timeout_s:g} s: "
            "check --bootstrap-servers, or start the broker"
        )
    return translated


def partition_count(admin: KafkaAdminClient, topic: str) -> int | None:
    """How many partitions a topic has; None where there is no such topic."""
    if topic not in admin.list_topics():
        return None
    (description,) = admin.describe_topics([topic])
    return len(description["partitions"])


def missing(topic: str) -> TopicError:
    """What to say where the readings topic is not there: it is never made, since a typo would make another."""
    return TopicError(
        f"there is no topic {topic}: name another with --readings-topic, or make it, for example with "
        f"kafka-topics.sh --create --topic {topic} --partitions 6"
    )


def _ensure(admin: KafkaAdminClient, readings: str, alerts: str, dead_letters: str, state: str) -> int:
    partitions = partition_count(admin, readings)
    if partitions is None:
        raise missing(readings)
    wanted: dict[str, dict[str, str]] = {
        alerts: {},
        dead_letters: {"max.message.bytes": str(MAX_MESSAGE_BYTES)},
        state: {
            "cleanup.policy": "compact",
            "segment.bytes": str(STATE_SEGMENT_BYTES),
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
            "min.cleanable.dirty.ratio": "0.2",
        },
    }
    for topic, configs in wanted.items():
        count = partition_count(admin, topic)
        if count is None:
            _create(admin, topic, partitions, configs)
            count = partition_count(admin, topic) or partitions
        if topic == state and count != partitions:
            raise TopicError(
                f"the state topic {state} has {count} partitions and {readings} has {partitions}: they must be equal; "
                "name another with --state-topic, or use another --group-id"
            )
    return partitions


def _create(admin: KafkaAdminClient, topic: str, partitions: int, configs: dict[str, str]) -> None:
    try:
        admin.create_topics({topic: {"num_partitions": partitions, "configs": configs}}, wait_for_metadata=True)
        log.info("made the topic %s with %d partitions", topic, partitions)
    except vendor.TopicAlreadyExistsError:  # another replica was faster
        admin.wait_for_topics([topic])
