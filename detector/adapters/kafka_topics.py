"""The topics that the detector needs: the readings' must be there, its own are made where they are missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka import errors as vendor
from kafka.admin import NewTopic

from detector.adapters.kafka_errors import VENDOR, translate
from schemas.errors import AccessError, BrokerUnavailable, TopicError

log = logging.getLogger(__name__)

#: Dead letters and checkpoints: a record of 1.9 MB with its headers, a chunk of 0.5 MB many times over.
MAX_MESSAGE_BYTES = 2_097_152

#: Commands are obeyed in the order in which they were given: that takes one partition.
COMMANDS_PARTITIONS = 1

#: The smallest that Kafka 4 takes; small segments are compacted soon, so that a restore reads little twice.
STATE_SEGMENT_BYTES = 1_048_576


# Seconds to look again before a topic counts as missing: one that was made a moment ago is not known to every broker
# yet, and "missing" tells a supervisor not to start again.
LOOK_S = 3.0


# Seconds for which a topic that was there has to be missing before it counts as deleted: that ends the process for
# good, and a broker that has just started may not know of it for a moment.
GONE_S = 15.0


#: What brokers and client say where a topic has no id.
NO_ID = ("None", "00000000-0000-0000-0000-000000000000", "")


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics of a detector."""

    readings: str
    alerts: str
    dead_letters: str
    state: str
    commands: str
    scores: str | None = None
    """None: scores are not published."""


def ensure_topics(admin: KafkaAdminClient, topics: Topics, deadline: float) -> dict[str, int]:
    """The number of partitions of each topic by name, once all are there; ``deadline`` in ``time.monotonic`` seconds.

    Raises TopicError where the readings topic is missing or the state or commands topic has another layout,
    AccessError where the broker refuses, BrokerUnavailable where new topics get no leader in time.
    """
    found = _look_for(admin, topics, {topics.readings})
    if topics.readings not in found:
        raise TopicError(
            f"there is no topic {topics.readings}: name another with --readings-topic, or make it, for example with "
            f"kafka-topics.sh --create --topic {topics.readings} --partitions 6"
        )
    partitions = found[topics.readings]
    missing = {name: wanted for name, wanted in _wanted(topics, partitions).items() if name not in found}
    if missing:
        _create(admin, missing)
        _wait(admin, list(missing), deadline)
        found = _look_for(admin, topics, set(missing))
    count = found.get(topics.state, 0)
    if count > partitions:
        raise TopicError(
            f"the state topic {topics.state} has {count} partitions and {topics.readings} has {partitions}: it may not "
            "have more; name another with --state-topic, or use another --group-id"
        )
    if count < partitions:  # the readings topic has grown while nobody watched
        grow_state(admin, topics.readings, topics.state, deadline)
    if found.get(topics.commands) != COMMANDS_PARTITIONS:
        raise TopicError(
            f"the commands topic {topics.commands} has {found.get(topics.commands)} partitions and must have "
            f"{COMMANDS_PARTITIONS}, so that commands have an order: name another with --commands-topic"
        )
    return found


def _look_for(admin: KafkaAdminClient, topics: Topics, names: set[str]) -> dict[str, int]:
    """Partitions by name, once all of ``names`` are among them, or ``LOOK_S`` have passed."""
    deadline = time.monotonic() + LOOK_S
    while not names <= (found := partition_counts(admin, topics)).keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def partition_counts(admin: KafkaAdminClient, topics: Topics) -> dict[str, int]:
    """Partitions by name, of those topics that exist. Makes none: a typo would make another topic."""
    return _counts(admin, [name for name in astuple(topics) if name is not None])


def describe(admin: KafkaAdminClient, name: str) -> tuple[str, int]:
    """Id (empty where the broker is too old to have one, before 2.8) and partitions of a topic that was there.

    Raises TopicError where it is gone.
    """
    deadline = time.monotonic() + GONE_S
    while True:
        found = admin.describe_topics([name])[0]  # one answer: another might come from a broker that has just started
        error = vendor.for_code(found["error_code"])
        if error is vendor.NoError and found["partitions"]:
            known = str(found["topic_id"])
            return known if known not in NO_ID else "", len(found["partitions"])
        if error not in (vendor.NoError, vendor.UnknownTopicOrPartitionError):
            raise translate(error(error.description), f"topic {name}")
        if time.monotonic() > deadline:
            raise TopicError(f"the topic {name} is gone: make it again, or name another with --readings-topic")
        time.sleep(0.2)


def grow_state(admin: KafkaAdminClient, readings: str, state: str, deadline: float) -> int:
    """Give the state topic as many partitions as the readings topic has; returns how many.

    Raises TopicError where it has more, AccessError where the broker refuses, BrokerUnavailable where new partitions
    get no leader before ``deadline`` (monotonic).
    """
    partitions = describe(admin, readings)[1]
    count = look_up(admin, state)
    if count is None or count > partitions:
        raise TopicError(f"the state topic {state} has {count or 'no'} partitions and {readings} has {partitions}")
    if count < partitions:
        try:
            admin.create_partitions({state: partitions})
        except vendor.InvalidPartitionsError:
            log.debug("another replica was faster")
        except VENDOR as error:
            ours = translate(error, f"giving {state} {partitions} partitions, as many as {readings} has now")
            raise AccessError(f"{ours}, or do it yourself") if isinstance(ours, AccessError) else ours from error
        _wait(admin, [state], deadline)
    return partitions


def look_up(admin: KafkaAdminClient, name: str) -> int | None:
    """Partitions of a topic, None where there is none; looks for a moment, since it may have just been made."""
    deadline = time.monotonic() + LOOK_S
    while (count := _counts(admin, [name]).get(name)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return count


def make_topic(admin: KafkaAdminClient, name: str, partitions: int, configs: Mapping[str, str] | None = None) -> int:
    """Partitions of a topic, which is made with so many, and these settings, where there is none."""
    if (found := look_up(admin, name)) is not None:
        return found
    with suppress(vendor.TopicAlreadyExistsError):  # by somebody else, at the same time
        # -1: as many copies as the broker's default says
        admin.create_topics([NewTopic(name, partitions, -1, topic_configs=dict(configs or {}))])
    return look_up(admin, name) or partitions


def _counts(admin: KafkaAdminClient, names: list[str]) -> dict[str, int]:
    found = {}
    for topic in admin.describe_topics(names):
        error = vendor.for_code(topic["error_code"])
        if error is vendor.UnknownTopicOrPartitionError:
            continue
        if error is not vendor.NoError and not topic["partitions"]:
            raise translate(error(error.description), f"topic {topic['name']}")
        found[topic["name"]] = len(topic["partitions"])
    return found


def _wanted(topics: Topics, partitions: int) -> dict[str, tuple[int, dict[str, str]]]:
    """Partitions and settings, by name, of the topics that are made where missing."""
    large = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    compacted = {
        "cleanup.policy": "compact",
        "segment.bytes": str(STATE_SEGMENT_BYTES),
        "min.cleanable.dirty.ratio": "0.2",
    }
    kept = {"cleanup.policy": "delete", "retention.ms": "-1"}  # few and small, and a detector may be away for long
    scores = {} if topics.scores is None else {topics.scores: (partitions, dict[str, str]())}
    return scores | {
        topics.alerts: (partitions, {}),
        topics.dead_letters: (partitions, large),
        topics.state: (partitions, large | compacted),
        topics.commands: (COMMANDS_PARTITIONS, kept),
    }


def _create(admin: KafkaAdminClient, missing: Mapping[str, tuple[int, Mapping[str, str]]]) -> None:
    """Make topics, with the broker's default for replication: an operator has set it to what the cluster bears."""
    wanted: dict[str, Any] = {
        name: {"num_partitions": partitions, "replication_factor": -1, "configs": configs}
        for name, (partitions, configs) in missing.items()
    }
    for topic in admin.create_topics(wanted, raise_errors=False)["topics"]:
        error = vendor.for_code(topic["error_code"])
        if error is vendor.NoError:
            log.info("made the topic %s with %d partitions", topic["name"], missing[topic["name"]][0])
        elif issubclass(error, vendor.AuthorizationError):
            name, count = topic["name"], missing[topic["name"]][0]
            raise AccessError(
                f"this user may not make the topic {name}: allow Create on it, or have it made with {count} partitions"
            )
        elif error is not vendor.TopicAlreadyExistsError:  # else another replica was faster
            raise translate(error(topic.get("error_message") or ""), f"creating the topic {topic['name']}")


def _wait(admin: KafkaAdminClient, names: list[str], deadline: float) -> None:
    """Until every partition of the new topics has a leader."""
    try:
        admin.wait_for_topics(names, timeout_ms=max(int(1000 * (deadline - time.monotonic())), 1))
    except vendor.KafkaTimeoutError as error:
        raise BrokerUnavailable(f"the new topics {', '.join(names)} found no leader in time: {error}") from error
