"""What every adapter of ``detector.adapters.port.Log`` has to do, over each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from log_cluster import (
    PARTITIONS,
    KafkaCluster,
    LogCluster,
    MemoryCluster,
    assignment,
    commands_until,
    poll_until,
    shared_out,
    start_all,
    values_of,
)

from detector.adapters.port import Committed, Log, Records, StateRecord, Transaction
from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import Fenced, Rebalanced, TemporaryError


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def cluster(request: pytest.FixtureRequest) -> Iterator[LogCluster]:
    if request.param == "memory":
        made: LogCluster = MemoryCluster()
    else:
        broker = request.getfixturevalue("broker")
        made = KafkaCluster(broker.bootstrap, broker.folder / "data", startup_timeout_s=30, session_timeout_s=6)
    yield made
    made.close()


def at_end(log: Log) -> bool:
    ends = log.ends()
    return all(position == ends[partition][1] for partition, position in log.positions().items())


def alert(text: bytes, offset: int = 1) -> Transaction:
    return Transaction(alerts=[(b"stream", text)], offsets={0: Committed(offset, 0)})


# -- the group -------------------------------------------------------------------------------------------------------


def test_an_assignment_is_handed_out_once_and_nothing_is_delivered_before_its_start(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a"])
    log = cluster.member()
    assert log.take_assignment() is None
    assert assignment(log) == frozenset(range(PARTITIONS))
    assert log.take_assignment() is None
    assert log.poll(0.3, 10) == []
    assert log.positions() == {}
    log.start(1, 0)
    assert log.poll(0.3, 10) == []
    assert log.positions() == {1: 0}


def test_a_second_member_takes_its_share(cluster: LogCluster) -> None:
    for partition in range(PARTITIONS):
        cluster.produce(partition, [b"a", b"b", b"c"])
    first = cluster.member()
    everything = start_all(first)
    poll_until(first, lambda: at_end(first))
    second, reached = cluster.member(), first.positions()
    mine, other = shared_out(first, second, held={0: everything})
    assert mine | other == frozenset(range(PARTITIONS))
    assert mine
    assert other
    assert not mine & other
    assert first.positions() == {p: reached[p] for p in mine}, "what it keeps goes on where it was"
    for partition in range(PARTITIONS):
        cluster.produce(partition, [b"d"])
    found, kept = [], []
    while not found or not at_end(first):  # the group may go through another round; nothing of what is kept is lost
        try:
            found += first.poll(0.1, 10)
        except Rebalanced as moved:
            kept.append(moved.kept)
        first.take_assignment()
        with suppress(Rebalanced):
            second.poll(0.1, 10)
        second.take_assignment()
    assert all(one == mine for one in kept)
    assert {(r.partition, value) for r in found for value in r.values} == {(p, b"d") for p in mine}
    first.commit(Transaction(offsets={p: Committed(at, 0) for p, at in first.positions().items()}))
    second.close()
    assert shared_out(first, held={0: mine}) == [everything]
    assert set(first.positions()) == mine, "what it gets is stopped until it is started"


def test_a_partition_that_was_halted_goes_on_though_others_were_read_meanwhile(cluster: LogCluster) -> None:
    """kafka-python parked what it had fetched of one, and never fetched more where another's records came between."""
    for partition in range(PARTITIONS):
        cluster.produce(partition, [b"%d" % n for n in range(300)])
    log = cluster.member()
    start_all(log)
    for turn in range(20):
        for records in log.poll(0.2, 7 + turn):
            at = log.positions()[records.partition]
            log.halt(records.partition)
            poll_until(log, lambda: True)
            log.poll(0.02, 11)
            log.start(records.partition, at)
    for partition in range(PARTITIONS):
        log.start(partition, log.bounds(partition)[0])
    poll_until(log, lambda: at_end(log))


def test_a_large_state_is_read_whole_by_a_member_that_has_just_begun(cluster: LogCluster) -> None:
    """The look at the owner's records left a partition parked, so that it was never read."""
    first = cluster.member()
    start_all(first)
    for partition in range(PARTITIONS):
        records = [StateRecord(partition, b"k%d" % n, b"v" * 500) for n in range(230 + partition)]
        first.commit(Transaction(state=records, offsets={partition: Committed(0, 0)}))
    first.close()
    second = cluster.member()
    for partition in range(PARTITIONS):
        assert len(second.read_state(partition)) == 230 + partition


def test_what_was_kept_is_said(cluster: LogCluster) -> None:
    first = cluster.member()
    everything, second = start_all(first), cluster.member()
    deadline = time.monotonic() + 60
    kept = everything
    while kept == everything:
        assert time.monotonic() < deadline
        second.take_assignment()
        with suppress(Rebalanced):
            second.poll(0.1, 10)
        try:
            first.poll(0.1, 10)
            first.take_assignment()
        except Rebalanced as moved:
            kept = moved.kept
    assert kept
    assert kept < everything


def test_what_is_asked_for_again_is_handed_out_once_more_and_stopped(cluster: LogCluster) -> None:
    log = cluster.member()
    everything = start_all(log)
    log.again()
    assert assignment(log) == everything
    assert log.positions() == {}
    assert log.take_assignment() is None


def test_the_topic_is_described(cluster: LogCluster) -> None:
    first, second = cluster.member().describe(), cluster.member().describe()
    assert first == second
    assert first[1] == PARTITIONS
    assert len(first[0]) == 36


def test_a_member_that_was_given_up_cannot_commit(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a", b"b"])
    zombie = cluster.member()
    start_all(zombie)
    poll_until(zombie, lambda: at_end(zombie))
    cluster.evict(zombie)
    heir = cluster.member()
    everything = start_all(heir)
    assert everything == frozenset(range(PARTITIONS))
    with pytest.raises(Rebalanced):
        zombie.commit(alert(b"zombie"))
    assert cluster.alerts() == []
    assert heir.committed(0) is None
    heir.commit(alert(b"heir"))
    assert cluster.alerts() == [(b"stream", b"heir")]
    shares = shared_out(zombie, heir, held={1: everything})  # it joins again
    assert all(shares)


def test_nothing_of_a_refused_commit_comes_with_the_next(cluster: LogCluster) -> None:
    """kafka-python 3.0.12 keeps the offsets of a refused commit, and sent them again with the next one."""
    cluster.produce(0, [b"a", b"b"])
    log = cluster.member()
    start_all(log)
    cluster.evict(log)
    refused = Transaction(
        alerts=[(b"stream", b"refused")],
        state=[StateRecord(2, b"key", b"refused")],
        offsets={partition: Committed(0, 0) for partition in range(PARTITIONS)},
    )
    with pytest.raises(Rebalanced):
        log.commit(refused)
    start_all(log)
    log.commit(alert(b"good"))
    assert [log.committed(partition) for partition in range(PARTITIONS)] == [Committed(1, 0), None, None]
    assert cluster.alerts() == [(b"stream", b"good")]
    assert log.read_state(2) == {}


def test_a_member_without_an_assignment_cannot_commit(cluster: LogCluster) -> None:
    log = cluster.member()
    with pytest.raises(Rebalanced):
        log.commit(alert(b"early"))
    assignment(log)
    log.commit(alert(b"right"))
    assert cluster.alerts() == [(b"stream", b"right")]


def test_the_same_replica_id_fences_the_first_off(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a", b"b"])
    first = cluster.member("one")
    start_all(first)
    first.commit(alert(b"first"))
    second = cluster.member("one")
    start_all(second)
    with pytest.raises(Fenced):
        first.commit(alert(b"late", 2))
    second.commit(alert(b"second", 2))
    assert cluster.alerts() == [(b"stream", b"first"), (b"stream", b"second")]


def test_a_member_can_be_closed_twice_and_the_next_goes_on(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a", b"b"])
    first = cluster.member()
    start_all(first)
    first.commit(alert(b"first"))
    first.close()
    first.close()
    second = cluster.member()
    assert start_all(second) == frozenset(range(PARTITIONS))
    assert values_of(poll_until(second, lambda: at_end(second))) == [b"b"]


# -- records and positions -------------------------------------------------------------------------------------------


def test_records_come_in_order_and_no_more_than_asked_for(cluster: LogCluster) -> None:
    wanted = {partition: [b"%d-%d" % (partition, number) for number in range(50)] for partition in range(PARTITIONS)}
    for partition, values in wanted.items():
        cluster.produce(partition, values[:20], [1_000 + number for number in range(20)])
        cluster.produce(partition, values[20:], [1_020 + number for number in range(30)])
    log = cluster.member()
    start_all(log)
    found = poll_until(log, lambda: at_end(log), max_records=7)
    for partition, values in wanted.items():
        own = [records for records in found if records.partition == partition]
        assert values_of(own) == values
        offsets = [offset for records in own for offset in records.offsets]
        assert offsets == [*range(20), *range(21, 51)]  # a control record in between
        assert [stamp for records in own for stamp in records.timestamps] == list(range(1_000, 1_050))
        assert {key for records in own for key in records.keys} == {b"key"}
    assert max(len(records.values) for records in found) <= 7


def test_positions_pass_over_control_records(cluster: LogCluster) -> None:
    for partition in range(PARTITIONS):
        cluster.produce(partition, [b"a"])
    log = cluster.member()
    start_all(log)
    poll_until(log, lambda: at_end(log))
    assert log.positions() == dict.fromkeys(range(PARTITIONS), 2)
    assert log.ends() == dict.fromkeys(range(PARTITIONS), (0, 2))


def test_a_partition_starts_where_it_is_told_again_and_again(cluster: LogCluster) -> None:
    cluster.produce(1, [b"a", b"b", b"c"])
    log = cluster.member()
    assignment(log)
    for offset, wanted in ((1, [b"b", b"c"]), (2, [b"c"]), (0, [b"a", b"b", b"c"])):
        log.start(1, offset)
        assert log.positions() == {1: offset}
        assert values_of(poll_until(log, lambda: at_end(log))) == wanted


def test_a_partition_goes_on_although_others_were_read_while_it_was_halted(cluster: LogCluster) -> None:
    """kafka-python 3.0.12 keeps what it had fetched of a halted partition, and did not find it again: nothing of the
    partition was ever delivered any more, while the others flowed.
    """
    cluster.produce(0, [b"%d" % n for n in range(20)])
    log = cluster.member()
    start_all(log)
    found = poll_until(log, lambda: log.positions()[0] > 0, max_records=5)
    at = log.positions()[0]
    log.halt(0)
    cluster.produce(1, [b"a", b"b"])
    assert values_of(poll_until(log, lambda: log.positions()[1] >= 2)) == [b"a", b"b"]
    log.start(0, at)
    cluster.produce(1, [b"c"])
    found += [records for records in poll_until(log, lambda: at_end(log)) if records.partition == 0]
    assert values_of(found) == [b"%d" % n for n in range(20)]


def test_bounds_of_empty_and_of_trimmed_partitions(cluster: LogCluster) -> None:
    cluster.produce(1, [b"a", b"b", b"c"])
    cluster.produce(2, [b"a", b"b", b"c"])
    cluster.trim(1, 2)
    cluster.trim(2, 4)
    log = cluster.member()
    assert log.ends() == {0: (0, 0), 1: (2, 4), 2: (4, 4)}
    assert [log.bounds(partition) for partition in range(PARTITIONS)] == [(0, 0), (2, 4), (4, 4)]
    start_all(log)
    assert values_of(poll_until(log, lambda: at_end(log))) == [b"c"]


def test_records_deleted_ahead_of_a_reader_make_it_restore(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a", b"b", b"c"])
    log = cluster.member()
    assignment(log)
    cluster.trim(0, 2)
    log.start(0, 0)
    with pytest.raises(Rebalanced):
        poll_until(log, lambda: False)
    assert assignment(log) == frozenset(range(PARTITIONS))
    log.start(0, log.bounds(0)[0])
    assert values_of(poll_until(log, lambda: at_end(log))) == [b"c"]


def test_offset_at_a_time(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a", b"b", b"c"], [1_000, 3_000, 5_000])
    log = cluster.member()
    assert [log.offset_at(0, moment) for moment in (-1, 1_000, 1_001, 5_000)] == [0, 0, 1, 2]
    assert log.offset_at(0, 5_001) in (3, 4)  # Kafka's control records have a time of their own
    assert log.offset_at(1, 1_000) == 0


# -- what cannot be read ---------------------------------------------------------------------------------------------


def three_batches(cluster: LogCluster) -> None:
    """Offsets 0, 1, 3, 4 and 6, 7 of partition 0 and as many of partition 1; of the first, those in the middle gone."""
    for partition in (0, 1):
        for number in range(3):
            cluster.produce(partition, [b"%d-%d" % (number, step) for step in range(2)])
    cluster.damage(0, 3, 5)


def test_what_is_damaged_ends_the_process_and_nothing_of_it_is_passed_over(cluster: LogCluster) -> None:
    three_batches(cluster)
    log = cluster.member()
    start_all(log)
    found: list[Records] = []

    def beyond() -> bool:
        found.extend(log.poll(0.1, 100))
        return log.positions()[0] > 3

    with pytest.raises(TemporaryError, match="cannot be read"):
        poll_until(log, beyond, 1)
    assert [values_of([r]) for r in found if r.partition == 0] == [[b"0-0", b"0-1"]]
    assert log.take_damaged() == []


@pytest.mark.parametrize("at_once", [1, 100])
def test_what_is_damaged_is_passed_over_where_the_log_was_told_to(cluster: LogCluster, at_once: int) -> None:
    three_batches(cluster)
    log = cluster.member(skip_corrupt=True)
    start_all(log)
    found, passed = [], []
    deadline = time.monotonic() + 30
    while not at_end(log):
        assert time.monotonic() < deadline
        found += log.poll(0.1, at_once)
        passed += log.take_damaged()
        behind = log.positions()[0] > 3
        assert len(passed) == behind, "it is told of with the position behind it"
    (damaged,) = passed
    assert (damaged.partition, damaged.first, damaged.reason) == (0, 3, Reason.CORRUPT)
    assert damaged.next in (5, 6)  # Kafka's control record may go with it
    assert damaged.why
    own = [r for r in found if r.partition == 0]
    assert values_of(own) == [b"0-0", b"0-1", b"2-0", b"2-1"]
    assert [offset for r in own for offset in r.offsets] == [0, 1, 6, 7]
    assert len(values_of([r for r in found if r.partition == 1])) == 6
    assert log.take_damaged() == []


def test_what_is_damaged_is_passed_over_again_from_wherever_one_starts(cluster: LogCluster) -> None:
    three_batches(cluster)
    log = cluster.member(skip_corrupt=True)
    assignment(log)
    for start in (0, 4, 3):
        log.start(0, start)
        passed = []
        deadline = time.monotonic() + 30
        while not at_end(log):
            assert time.monotonic() < deadline
            log.poll(0.1, 100)
            passed += log.take_damaged()
        assert [damaged.first for damaged in passed] == [max(start, 3)]
    log.start(0, 0)
    deadline = time.monotonic() + 30
    while log.positions()[0] <= 3:
        assert time.monotonic() < deadline
        log.poll(0.1, 100)
    log.halt(0)
    assert log.take_damaged() == [], "of partitions that are started only"


# -- transactions ----------------------------------------------------------------------------------------------------


def letter(value: bytes | None, key: bytes | None) -> DeadLetter:
    return DeadLetter(value, key, Reason.EMPTY, "", "readings", 0, 0, -1)


def test_a_commit_shows_all_of_it_to_the_next_owner(cluster: LogCluster) -> None:
    cluster.produce(0, [b"a", b"b"])
    log = cluster.member()
    assignment(log)
    assert [log.committed(partition) for partition in range(PARTITIONS)] == [None, None, None]
    assert log.group_offsets() == {0: None, 1: None, 2: None}
    log.commit(Transaction())
    log.commit(
        Transaction(
            alerts=[(b"s", b"1"), (b"s", b"2")],
            dead_letters=[letter(b"bad", b"k"), letter(b"bad", None), letter(None, None), letter(None, b"k")],
            state=[StateRecord(0, b"x", b"0"), StateRecord(2, b"x", b"2")],
            offsets={0: Committed(2, 1), 1: Committed(0, None)},
        )
    )
    assert cluster.alerts() == [(b"s", b"1"), (b"s", b"2")]
    assert sorted(value or b"" for value in cluster.dead_letters()) == [b"", b"", b"bad", b"bad"]
    log.close()
    heir = cluster.member()
    assignment(heir)
    committed = [heir.committed(partition) for partition in range(PARTITIONS)]
    assert committed == [Committed(2, 1), Committed(0, None), None]
    assert heir.group_offsets() == {0: 2, 1: 0, 2: None}
    assert [heir.read_state(partition) for partition in range(PARTITIONS)] == [{b"x": b"0"}, {}, {b"x": b"2"}]


def test_state_is_the_newest_of_each_key(cluster: LogCluster) -> None:
    log = cluster.member()
    assignment(log)
    offsets = {0: Committed(0, 0)}
    large = bytes(range(256)) * 2_000  # half a megabyte
    log.commit(Transaction(state=[StateRecord(0, b"x", b"1"), StateRecord(0, b"y", b"1")], offsets=offsets))
    log.commit(Transaction(state=[StateRecord(0, b"x", large), StateRecord(0, b"y", None)], offsets=offsets))
    log.commit(Transaction(state=[StateRecord(0, b"z", b"1"), StateRecord(0, b"z", b"2")], offsets=offsets))
    assert log.read_state(0) == {b"x": large, b"z": b"2"}
    log.commit(Transaction(state=[StateRecord(0, b"z", None)], offsets=offsets))
    assert log.read_state(0) == {b"x": large}
    assert log.read_state(1) == {}


def test_a_transaction_without_offsets_is_refused(cluster: LogCluster) -> None:
    log = cluster.member()
    assignment(log)
    with pytest.raises(ValueError, match="offsets"):
        log.commit(Transaction(alerts=[(b"s", b"1")]))
    assert cluster.alerts() == []


# -- commands --------------------------------------------------------------------------------------------------------


def test_every_member_reads_the_commands_from_where_it_likes(cluster: LogCluster) -> None:
    logs = [cluster.member(), cluster.member()]
    for log in logs:
        assert log.commands_bounds() == (0, 0)
        assert log.commands(0, 0.2).found == []
    cluster.tell([b"a", b"b"])
    cluster.tell([b"c"])
    for log in logs:
        assert log.commands_bounds() == (0, 5)
        assert commands_until(log, 0, 5) == [(0, b"a"), (1, b"b"), (3, b"c")]
        assert commands_until(log, 1, 5) == [(1, b"b"), (3, b"c")]
        assert log.commands(5, 0).found == []
    cluster.tell([b"d"])
    for log in logs:
        assert commands_until(log, 5, 7) == [(5, b"d")]


def test_a_look_at_the_commands_does_not_wait(cluster: LogCluster) -> None:
    log = cluster.member()
    began = time.monotonic()
    for _ in range(200):
        log.commands(0, 0)
    assert time.monotonic() - began < 10  # a wait of a tenth of a second each would take 20
    cluster.tell([b"a"])
    deadline = time.monotonic() + 10
    while not log.commands(0, 0).found:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_command_that_is_gone_makes_a_member_restore(cluster: LogCluster) -> None:
    log = cluster.member()
    everything = start_all(log)
    cluster.tell([b"a", b"b", b"c"])
    cluster.trim_commands(2)
    with pytest.raises(Rebalanced):
        commands_until(log, 0, 4)
    assert log.positions() == {}
    assert assignment(log) == everything
    first, end = log.commands_bounds()
    assert (first, end) == (2, 4)
    assert commands_until(log, first, end) == [(2, b"c")]
