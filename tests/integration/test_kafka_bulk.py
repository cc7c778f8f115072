"""Records sent in bulk are what the client's own ``send`` would have written, in the same transaction or not at all."""

from __future__ import annotations

import random
import time

import pytest
from broker import Broker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka_cluster import create_topic, read_all, unique

from detector.adapters import kafka_bulk
from detector.adapters.kafka_clients import BATCH_BYTES, Clients

pytestmark = pytest.mark.kafka

HEADERS = [("residual-reason", b"not-json"), ("residual-offset", b"7"), ("empty", b"")]


def producer_of(broker: Broker) -> KafkaProducer:
    return Clients(broker.bootstrap, "bulk").producer(time.monotonic() + 30, unique("id"), 30_000)


def read(bootstrap: str, topic: str) -> list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes]]]]:
    """(partition, offset, key, value, headers), as the client's own consumer has it."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    try:
        parts = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(parts)
        consumer.seek_to_beginning()
        ends, found = consumer.end_offsets(parts), []
        while any(consumer.position(tp) < ends[tp] for tp in parts):
            for records in consumer.poll(200).values():
                found += [(r.partition, r.offset, r.key, r.value, list(r.headers)) for r in records]
        return sorted(found, key=lambda row: row[:2])
    finally:
        consumer.close()


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=300),
            st.none() | st.binary(max_size=3000),
            st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=300)), max_size=7),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_packed_as_the_client_packs(rows: list[kafka_bulk.Row]) -> None:
    theirs, ours = MemoryRecordsBuilder(2, 0, 1 << 30), MemoryRecordsBuilder(2, 0, 1 << 30)
    for key, value, headers in rows:
        theirs.append(1234, key, value, headers)
    kafka_bulk._fill(ours, [kafka_bulk.pack(number, *row) for number, row in enumerate(rows)], 1234)
    assert ours.next_offset() == theirs.next_offset()
    theirs.close()
    ours.close()
    assert bytes(ours.buffer()) == bytes(theirs.buffer())


def test_all_of_a_transaction_or_nothing(broker: Broker) -> None:
    topic, other = create_topic(broker.bootstrap, unique("bulk"), 2), create_topic(broker.bootstrap, unique("other"))
    producer = producer_of(broker)
    large = b"x" * (BATCH_BYTES + 1)
    rows: dict[int, list[kafka_bulk.Row]] = {
        0: [(b"k", b"%d" % n, HEADERS) for n in range(5000)],
        1: [(None, large, []), (b"k", None, HEADERS), (b"", b"", HEADERS)],
        5: [(b"k", b"five", [])],
    }
    for committed in (False, True, True):
        producer.begin_transaction()
        assert kafka_bulk.send(producer, topic, {}, BATCH_BYTES) == []
        sent = [*kafka_bulk.send(producer, topic, rows, BATCH_BYTES), producer.send(other, b"beside")]
        for one in sent:
            one.get(timeout=30)
        producer.commit_transaction() if committed else producer.abort_transaction()
    producer.close()
    found = read(broker.bootstrap, topic)
    assert [row[2:] for row in found if row[0] == 0] == [(b"k", b"%d" % n, HEADERS) for n in range(5000)] * 2
    beside = [(None, large, []), (b"k", None, HEADERS), (b"", b"", HEADERS), (b"k", b"five", [])]
    assert [row[2:] for row in found if row[0] == 1] == beside * 2
    assert [value for _, _, value in read_all(broker.bootstrap, other)] == [b"beside"] * 2


def test_it_fails_where_the_topic_takes_less(broker: Broker) -> None:
    topic = create_topic(broker.bootstrap, unique("bulk"), 1, max_message_bytes="1000")
    producer = producer_of(broker)
    producer.begin_transaction()
    futures = kafka_bulk.send(producer, topic, {0: [(b"k", random.Random(0).randbytes(10_000), [])]}, BATCH_BYTES)
    with pytest.raises(KafkaError):
        futures[0].get(timeout=30)
    producer.close(timeout=1)


def test_a_batch_that_is_too_long_is_split_and_every_record_arrives(broker: Broker) -> None:
    topic = create_topic(broker.bootstrap, unique("bulk"), 1, max_message_bytes="20000")
    producer = producer_of(broker)
    values = [random.Random(n).randbytes(1000) for n in range(100)]  # which do not pack
    producer.begin_transaction()
    (sent,) = kafka_bulk.send(producer, topic, {0: [(None, value, HEADERS) for value in values]}, BATCH_BYTES)
    sent.get(timeout=30)
    assert len(sent._futures()) >= 5, "it was split, and split again"
    producer.commit_transaction()
    producer.close()
    assert [value for _, _, value in read_all(broker.bootstrap, topic)] == values


def test_nothing_of_a_producer_that_was_fenced_arrives(broker: Broker) -> None:
    topic, name = create_topic(broker.bootstrap, unique("bulk"), 1), unique("id")
    first = Clients(broker.bootstrap, "bulk").producer(time.monotonic() + 30, name, 30_000)
    first.begin_transaction()
    second = Clients(broker.bootstrap, "bulk").producer(time.monotonic() + 30, name, 30_000)
    futures = kafka_bulk.send(first, topic, {0: [(b"k", b"ghost", [])]}, BATCH_BYTES)
    with pytest.raises(KafkaError):
        futures[0].get(timeout=30)
    second.begin_transaction()
    kafka_bulk.send(second, topic, {0: [(b"k", b"heir", [])]}, BATCH_BYTES)[0].get(timeout=30)
    second.commit_transaction()
    second.close()
    first.close(timeout=0)
    assert [value for _, _, value in read_all(broker.bootstrap, topic)] == [b"heir"]
