"""Helpers for tests against a real Apache Kafka; the fixtures ``broker`` and ``own_broker`` are in conftest.py."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic


def unique(prefix: str) -> str:
    """A name (of a topic, a group) that no other test uses: one broker serves the whole session."""
    return f"{prefix}-{uuid4().hex[:10]}"


def create_topic(bootstrap: str, name: str, partitions: int = 1, **config: str) -> str:
    """Create a topic; underscores in the names of ``config`` stand for dots. Returns its name.

    Nothing of it is deleted: what tests write is years old by its timestamps, and the broker looks every few minutes.
    """
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        settings = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in config.items()}
        admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
    finally:
        admin.close()
    return name


def produce(bootstrap: str, topic: str, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> None:
    """Write (partition, key, value) records, each acknowledged by the broker."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    try:
        futures = [producer.send(topic, value=value, key=key, partition=part) for part, key, value in records]
        for future in futures:
            future.get(timeout=30)
    finally:
        producer.close()


def read_all(
    bootstrap: str, topic: str, isolation: str = "read_committed"
) -> list[tuple[int, bytes | None, bytes | None]]:
    """Everything in a topic as (partition, key, value), by offset within a partition; a missing topic is empty."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level=isolation,
        enable_auto_commit=False,
        allow_auto_create_topics=False,
    )
    try:
        parts = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not parts:
            return []
        consumer.assign(parts)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(parts)
        found: dict[int, list[tuple[int, bytes | None, bytes | None]]] = {part.partition: [] for part in parts}
        while any(consumer.position(part) < ends[part] for part in parts):  # counts control records, which return none
            for part, records in consumer.poll(timeout_ms=200).items():
                found[part.partition] += [(part.partition, record.key, record.value) for record in records]
        return [record for number in sorted(found) for record in found[number]]
    finally:
        consumer.close()
