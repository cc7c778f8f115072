"""What only a real Kafka has: topics and their settings, open transactions, outages."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from broker import Broker, free_port
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)
from kafka.structs import OffsetAndMetadata
from kafka_cluster import create_topic, produce, read_all, unique
from log_cluster import PARTITIONS, KafkaCluster, assignment, commands_until, poll_until, start_all, values_of
from thorough import few

from detector.adapters.kafka import KafkaLog
from detector.adapters.kafka_state import OWNER
from detector.adapters.port import Commands, Committed, StateRecord, Step, Transaction
from schemas.errors import AccessError, BrokerUnavailable, Rebalanced, SettingsError, TopicError

pytestmark = [
    pytest.mark.kafka,
    # the client leaves it to the garbage collector to close sockets of connections that failed
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _sockets_closed_here() -> Iterator[None]:
    """So that those sockets are not found during another test."""
    yield
    gc.collect()


@pytest.fixture
def cluster(broker: Broker) -> Iterator[KafkaCluster]:
    made = KafkaCluster(broker.bootstrap, startup_timeout_s=30, session_timeout_s=6)
    yield made
    made.close()


@contextmanager
def open_transaction(bootstrap: str, topic: str, partition: int) -> Iterator[Callable[[], None]]:
    """A producer that wrote a record and fell silent; yields what its successor does to it."""
    name = unique("silent")

    def made() -> KafkaProducer:
        producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
        producer.init_transactions()
        return producer

    silent = made()
    silent.begin_transaction()
    silent.send(topic, b"unseen", b"unseen", partition=partition).get(timeout=10)
    try:
        yield lambda: made().close()
    finally:
        silent.close(timeout=0)


# -- topics ----------------------------------------------------------------------------------------------------------


def test_own_topics_are_made_with_their_settings(cluster: KafkaCluster) -> None:
    threads = [threading.Thread(target=cluster.member) for _ in range(2)]  # two replicas that start at once
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cluster._members) == 2
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        names = [f"{cluster.group}-{name}" for name in ("alerts", "dead", "state", "commands")]
        assert [len(topic["partitions"]) for topic in admin.describe_topics(names)] == [PARTITIONS] * 3 + [1]
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found = admin.describe_configs(wanted)["topic"]
    configs = {name: {key: config["value"] for key, config in found[name].items()} for name in names}
    assert configs[names[0]].get("cleanup.policy", "delete") == "delete"
    assert int(configs[names[1]]["max.message.bytes"]) >= 2_000_000
    assert configs[names[2]]["cleanup.policy"] == "compact"
    assert int(configs[names[2]]["max.message.bytes"]) >= 2_000_000
    assert int(configs[names[2]]["segment.bytes"]) < 10_000_000
    assert configs[names[3]]["cleanup.policy"] == "delete"
    assert configs[names[3]]["retention.ms"] == "-1"


def test_a_missing_readings_topic_is_named_and_not_made(cluster: KafkaCluster) -> None:
    missing = unique("missing")
    with pytest.raises(TopicError, match=rf"no topic {missing}.*--create"):
        cluster.member(readings_topic=missing)
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        assert not {missing, f"{cluster.group}-state"} & set(admin.list_topics())


def test_a_state_topic_with_another_number_of_partitions(cluster: KafkaCluster) -> None:
    state = create_topic(cluster.bootstrap, unique("state"), PARTITIONS + 1)
    with pytest.raises(TopicError, match=r"has 4 partitions .* has 3"):
        cluster.member(state_topic=state)


def test_another_groups_state_topic_is_refused_at_the_start(cluster: KafkaCluster) -> None:
    log = cluster.member()
    assignment(log)
    log.commit(Transaction(state=[StateRecord(1, b"x", b"1")], offsets={1: Committed(0, 0)}))
    log.close()
    assert read_all(cluster.bootstrap, f"{cluster.group}-state") == [
        (1, OWNER, cluster.group.encode()),
        (1, b"x", b"1"),
    ]
    with pytest.raises(TopicError, match=f"belongs to the consumer group {cluster.group}"):
        cluster.member(group_id=unique("other"))
    again = cluster.member()
    assert again.read_state(1) == {b"x": b"1"}


def test_another_groups_state_is_refused_when_it_is_read(cluster: KafkaCluster) -> None:
    state = create_topic(cluster.bootstrap, unique("state"), PARTITIONS)
    produce(cluster.bootstrap, state, [(0, b"%d" % number, b"1") for number in range(1000)] + [(0, OWNER, b"others")])
    log = cluster.member(state_topic=state)
    with pytest.raises(TopicError, match="belongs to the consumer group others"):
        log.read_state(0)


def test_the_owner_is_written_once(cluster: KafkaCluster) -> None:
    for value in (b"1", b"2"):
        log = cluster.member()
        for partition in start_all(log):
            log.read_state(partition)
        for _ in range(2):
            log.commit(Transaction(state=[StateRecord(0, b"x", value)], offsets={0: Committed(0, 0)}))
        log.close()
    keys = [key for _, key, _ in read_all(cluster.bootstrap, f"{cluster.group}-state")]
    assert keys == [OWNER, b"x", b"x", b"x", b"x"]


# -- offsets and open transactions -----------------------------------------------------------------------------------


def test_an_offset_that_another_program_committed_has_no_replay_from(cluster: KafkaCluster) -> None:
    log = cluster.member()
    foreign = {"": 3, "seen": 3, "[]": 3, '{"v":1}': 3, '{"v":2,"replay_from":1}': 3, '{"v":1,"replay_from":9}': 3}
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        for metadata, offset in foreign.items():
            tp = TopicPartition(cluster.readings, 0)
            admin.alter_group_offsets(cluster.group, {tp: OffsetAndMetadata(offset, metadata, -1)})
            assert log.committed(0) == Committed(3, None), metadata
    assert log.group_offsets() == {0: 3, 1: None, 2: None}


def test_an_open_transaction_ends_what_can_be_seen_of_the_readings(cluster: KafkaCluster) -> None:
    produce(cluster.bootstrap, cluster.readings, [(0, b"k", b"seen")])
    with open_transaction(cluster.bootstrap, cluster.readings, 0) as end_it:
        produce(cluster.bootstrap, cluster.readings, [(0, b"k", b"behind")])
        log = cluster.member()
        start_all(log)
        assert log.bounds(0) == (0, 1)
        assert values_of(poll_until(log, lambda: log.positions()[0] == 1)) == [b"seen"]
        end_it()
        assert values_of(poll_until(log, lambda: log.positions()[0] == 4)) == [b"behind"]


def test_reading_the_state_waits_for_an_open_transaction(cluster: KafkaCluster) -> None:
    """Records behind a transaction that a dead process left open are not missed, and its own are not seen."""
    log = cluster.member()
    assignment(log)
    state = f"{cluster.group}-state"
    with open_transaction(cluster.bootstrap, state, 0) as end_it:
        log.commit(Transaction(state=[StateRecord(0, b"x", b"behind")], offsets={0: Committed(0, 0)}))
        began = time.monotonic()
        timer = threading.Timer(1.5, end_it)
        timer.start()
        assert log.read_state(0) == {b"x": b"behind"}
        assert time.monotonic() - began > 1.4
        timer.join()


# -- outages ---------------------------------------------------------------------------------------------------------


def test_nobody_answers() -> None:
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:\d+ within 2 s"):
        KafkaLog(
            bootstrap_servers=f"127.0.0.1:{free_port()}",
            readings_topic="r",
            alerts_topic="a",
            dead_letters_topic="d",
            state_topic="s",
            commands_topic="c",
            group_id="g",
            startup_timeout_s=2,
        )
    assert time.monotonic() - began < 15


def test_an_address_that_is_none(cluster: KafkaCluster) -> None:
    with pytest.raises(SettingsError, match=r"connecting to 127\.0\.0\.1:port"):
        cluster.member(bootstrap_servers="127.0.0.1:port")


def commit_whatever_happens(log: KafkaLog, value: bytes, offset: int = 1) -> int:
    """As the service does: after Rebalanced restore, and do again what is not committed. Returns the attempts."""
    for attempt in range(1, 20):
        try:
            log.commit(Transaction(alerts=[(b"s", value)], offsets={0: Committed(offset, 0)}))
            return attempt
        except Rebalanced:
            start_all(log)
            if log.committed(0) == Committed(offset, 0):  # the broker had done it
                return attempt
    raise AssertionError("never committed")


@pytest.fixture(scope="module")
def rough(broker: Broker) -> Iterator[Broker]:
    """A broker for the rough: it may be killed and frozen, obeys access rules, and has a door with a password."""
    assert broker  # skips or fails where there can be none
    port, controller, door = free_port(), free_port(), free_port()
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},DOOR://127.0.0.1:{door},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},DOOR://127.0.0.1:{door}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DOOR:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.door.plain.sasl.jaas.config": (
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_reader="right";'
        ),
        "residual.door": str(door),  # for the tests: Kafka ignores what it does not know
    }
    with Broker(port, settings) as own:
        yield own


def read_to_the_end(log: KafkaLog) -> list[bytes | None]:
    """What comes until every partition is at its end, whatever the group does meanwhile."""
    found: list[bytes | None] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            found += values_of(log.poll(0.1, 100))
            positions = log.positions()
            if len(positions) == PARTITIONS and all(at == log.bounds(p)[1] for p, at in positions.items()):
                return found
        except Rebalanced:
            start_all(log)
    raise AssertionError(found)


@pytest.mark.parametrize("trouble", few(["killed"], ["frozen for a moment", "frozen beyond the session", "killed"]))
def test_a_broker_in_trouble_during_a_commit_leaves_exactly_one_copy(rough: Broker, trouble: str) -> None:
    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=60, session_timeout_s=6, transaction_timeout_s=4)
    cluster.produce(0, [b"a"])
    log = cluster.member()
    start_all(log)
    if trouble == "killed":
        rough.kill()
        cure = threading.Timer(1.0, rough.start)
    else:
        rough.pause()
        cure = threading.Timer(8.0 if "beyond" in trouble else 1.0, rough.resume)
    cure.start()
    commit_whatever_happens(log, b"once")
    cure.join()
    assert log.committed(0) == Committed(1, 0)
    assert cluster.alerts() == [(b"s", b"once")]
    cluster.produce(0, [b"b"])
    assert b"b" in read_to_the_end(log)
    cluster.close()


def test_a_commit_whose_broker_goes_away_after_it_has_begun_is_given_up(own_broker: Broker) -> None:
    """kafka-python 3.0.12 loses the request for which it finds no connection to the coordinator, and whoever waits for
    its answer waited for ever.
    """
    cluster = KafkaCluster(own_broker.bootstrap, startup_timeout_s=60, session_timeout_s=6, transaction_timeout_s=4)
    cluster.produce(0, [b"a", b"b"])
    log = cluster.member()
    start_all(log)
    log.commit(Transaction(alerts=[(b"s", b"before")], offsets={0: Committed(1, 0)}))
    # (waits for its markers: a broker that is killed before it has written them may never do so, see docs/delivery.md)
    assert log.committed(0) == Committed(1, 0)
    cure = threading.Timer(1.0, own_broker.start)

    def strike(step: Step) -> None:
        if step is Step.BEGUN:
            own_broker.kill()
            cure.start()

    began = time.monotonic()
    with pytest.raises(Rebalanced):
        log.commit(Transaction(alerts=[(b"s", b"once")], offsets={0: Committed(2, 0)}), strike)
    assert time.monotonic() - began < 45  # of which the broker takes 5 to 30 to start
    cure.join()
    start_all(log)
    if log.committed(0) != Committed(2, 0):
        commit_whatever_happens(log, b"once", 2)
    assert sorted(cluster.alerts()) == [(b"s", b"before"), (b"s", b"once")]
    cluster.close()


@pytest.mark.parametrize("trouble", few(["frozen"], ["frozen", "killed"]))
def test_a_look_at_the_commands_waits_for_no_broker(rough: Broker, trouble: str) -> None:
    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=60, session_timeout_s=6)
    log = cluster.member()
    assert log.commands(0, 0.2) == Commands([], 0)
    if trouble == "killed":
        rough.kill()
    else:
        rough.pause()
    try:
        for _ in range(10):
            began = time.monotonic()
            assert log.commands(0, 0) == Commands([], 0)
            assert time.monotonic() - began < 3
            time.sleep(0.3)
    finally:
        if trouble == "killed":
            rough.start()
        else:
            rough.resume()
    cluster.tell([b"a"])
    assert commands_until(log, 0, 2) == [(0, b"a")]
    cluster.close()


def test_closing_a_log_whose_broker_is_frozen_does_not_hang(rough: Broker) -> None:
    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=60, session_timeout_s=6)
    log = cluster.member()
    start_all(log)
    rough.pause()
    try:
        began = time.monotonic()
        log.close()
        assert time.monotonic() - began < 15
    finally:
        rough.resume()


def deny(bootstrap: str, resource: ResourceType, name: str, operation: ACLOperation) -> None:
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        pattern = ResourcePattern(resource, name)
        admin.create_acls([ACL("User:ANONYMOUS", "*", operation, ACLPermissionType.DENY, pattern)])


def test_what_the_broker_refuses_is_an_access_error(rough: Broker) -> None:
    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=30, session_timeout_s=6)
    log = cluster.member()
    start_all(log)
    deny(rough.bootstrap, ResourceType.TOPIC, f"{cluster.group}-alerts", ACLOperation.WRITE)
    with pytest.raises(AccessError, match=r"publishing: this user lacks a right to a topic"):
        log.commit(Transaction(alerts=[(b"s", b"1")], offsets={0: Committed(0, 0)}))
    cluster.close()

    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=30, session_timeout_s=6)
    deny(rough.bootstrap, ResourceType.GROUP, cluster.group, ACLOperation.READ)
    with pytest.raises(AccessError):
        assignment(cluster.member())
    cluster.close()

    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=30, session_timeout_s=6)
    deny(rough.bootstrap, ResourceType.TOPIC, cluster.readings, ACLOperation.DESCRIBE)
    with pytest.raises(AccessError, match=cluster.readings):
        cluster.member()
    cluster.close()

    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=30, session_timeout_s=6)
    log = cluster.member()
    deny(rough.bootstrap, ResourceType.TOPIC, f"{cluster.group}-commands", ACLOperation.READ)
    with pytest.raises(AccessError, match=f"the end of {cluster.group}-commands"):
        log.commands_bounds()
    cluster.close()


def test_a_wrong_password_is_an_access_error(rough: Broker) -> None:
    cluster = KafkaCluster(rough.bootstrap, startup_timeout_s=30, session_timeout_s=6)
    properties = (rough.folder / "server.properties").read_text().splitlines()
    door = next(line.partition("=")[2] for line in properties if line.startswith("residual.door="))

    def member(password: str) -> KafkaLog:
        client = {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "reader",
            "sasl_plain_password": password,
        }
        return cluster.member(bootstrap_servers=f"127.0.0.1:{door}", client=client)

    began = time.monotonic()
    with pytest.raises(AccessError, match=r"refuses the login of reader .*check sasl_username"):
        member("wrong")
    assert time.monotonic() - began < 15
    log = member("right")
    start_all(log)
    log.commit(Transaction(alerts=[(b"s", b"1")], offsets={0: Committed(0, 0)}))
    assert cluster.alerts() == [(b"s", b"1")]
    cluster.close()


def test_a_plain_consumer_sees_no_aborted_alert(cluster: KafkaCluster) -> None:
    log = cluster.member()
    start_all(log)
    cluster.evict(log)
    with pytest.raises(Rebalanced):
        log.commit(Transaction(alerts=[(b"s", b"aborted")], offsets={0: Committed(0, 0)}))
    topic = f"{cluster.group}-alerts"
    assert read_all(cluster.bootstrap, topic) == []
    consumer = KafkaConsumer(bootstrap_servers=cluster.bootstrap, isolation_level="read_committed")
    tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    assert sum(consumer.end_offsets(tps).values()) >= 1  # it had been written, and the transaction has ended
    consumer.close()


def test_a_commit_refused_in_a_round_that_changes_nothing_for_the_member(broker: Broker) -> None:
    """The client had joined the new generation already, so that nothing more was to be seen of it: the member waited
    for a change that never came, with its partitions in hand.
    """
    cluster = KafkaCluster(broker.bootstrap, startup_timeout_s=60, session_timeout_s=20)
    cluster.readings = create_topic(broker.bootstrap, unique("readings"), 1)  # it stays with the first
    first = cluster.member()
    start_all(first)
    first.commit(Transaction(offsets={0: Committed(0, 0)}))
    second, done = cluster.member(), threading.Event()

    def join() -> None:
        while not done.is_set():
            with suppress(Rebalanced):
                second.poll(0.1, 10)
            second.take_assignment()

    joins = threading.Thread(target=join)
    joins.start()
    try:
        coordinator = first._consumer._coordinator
        generation, deadline = coordinator._generation.generation_id, time.monotonic() + 60
        while not coordinator.rejoining and coordinator._generation.generation_id == generation:
            assert time.monotonic() < deadline
            with suppress(Rebalanced):  # it was there already
                first.poll(0.0, 10)
            time.sleep(0.005)
        while coordinator._generation.generation_id == generation:  # a batch is scored; the client joins meanwhile
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with suppress(Rebalanced):
            first.commit(Transaction(offsets={0: Committed(0, 0)}))
        assert assignment(first) == {0}
    finally:
        done.set()
        joins.join()
        cluster.close()
