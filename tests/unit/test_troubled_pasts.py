"""Pasts that are gone in more ways than one, topics that grow while senders lag behind, floods: each was a bug once."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import orjson
import pytest
from obedience import said
from pipeline import MODEL_CHANNELS, POLICY, fill, rows, serve
from thorough import thorough
from tiny_model import tiny_model

from detector import checkpoints
from detector.adapters.kafka_topics import MAX_MESSAGE_BYTES
from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.partitioner import partition_of
from detector.adapters.port import Committed, Records, Transaction, Watch, unwatched
from detector.decoding.json_readings import JsonDecoder
from detector.engine.engine import Engine, Scored
from detector.engine.incidents import Policy
from detector.engine.readings import Readings
from detector.observer import Observer
from detector.service import Service
from schemas.settings import DetectorSettings

MODEL = tiny_model(threshold=1.0)
LOUD = range(20, 10**6)
SILENT = Policy(k=2, n=3, quiet=3, unseen=0, silent_after=20)


class Bounded(Observer):
    """Fails where the loop goes round for ever."""

    def __init__(self, turns: int = 300) -> None:
        self._left = turns

    def beat(self) -> None:
        self._left -= 1
        assert self._left > 0, "it goes round for ever"


def events(broker: MemoryBroker) -> list[tuple[str, str, str | None]]:
    found = [(key.decode(), orjson.loads(value)) for key, value in broker.alerts]
    return [(key, event["type"].rpartition(".")[2], event["data"].get("ended")) for key, event in found]


def send(
    broker: MemoryBroker, stream: str, seconds: int, partition: int | None = None, key: bytes | None = None
) -> None:
    reading = {"stream": stream, "timestamp": seconds * 1000, "values": dict.fromkeys(MODEL_CHANNELS, 0.1)}
    broker.produce(orjson.dumps(reading), key or stream.encode(), timestamp_ms=seconds * 1000, partition=partition)


def watched() -> MemoryBroker:
    """Readings 0 to 50 of a stream are scored; loud from 20 on: an incident is open."""
    broker = MemoryBroker()
    fill(broker, rows("a", 0, LOUD, 50), 1)
    serve(MODEL, broker)
    assert events(broker) == [("a", "opened", None)]
    return broker


def damage(broker: MemoryBroker) -> None:
    state = broker.group("residual").state[0]
    key = next(key for key in state if key.split(b"/")[1].isdigit())
    state[key] = state[key][:-3]


# -- cold starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["lost", "unreadable", "reset"])
def test_a_cold_start_where_retention_has_passed_the_place(gone: str) -> None:
    broker = watched()
    fill(broker, rows("a", 50, range(0), 90), 1)
    if gone == "lost":
        broker.lose_state()
    elif gone == "unreadable":
        damage(broker)
    else:
        broker.group("residual").offsets[0] = Committed(10, None)
    broker.trim(0, 60)
    serve(MODEL, broker, observer=Bounded(), unreadable_state="cold")
    assert broker.group("residual").offsets[0].offset == 90


def test_a_broker_that_lost_the_newest_records_is_no_new_topic() -> None:
    broker = MemoryBroker()
    fill(broker, rows("a", 0, range(20, 30), 60), 1)
    serve(MODEL, broker)
    before = list(broker.alerts)
    part = broker.partitions[0]
    part.records, part.end = part.records[:55], 55
    serve(MODEL, broker)
    assert broker.alerts == before, "nothing is read from the first record on again"


def test_a_topic_that_gets_an_id_is_the_same_topic() -> None:
    broker = MemoryBroker()
    broker.topic_id = ""  # before Kafka 2.8
    fill(broker, rows("a", 0, LOUD, 50), 1)
    serve(MODEL, broker)
    broker.topic_id = "8b4f5f0e-6a55-4d0b-9d35-2f8d3b1f1f10"
    fill(broker, rows("a", 50, range(0), 60), 1)
    serve(MODEL, broker)
    assert events(broker) == [("a", "opened", None), ("a", "resolved", "quiet")]


def test_what_was_open_ends_where_only_a_checkpoint_cannot_be_read() -> None:
    broker = watched()
    fill(broker, rows("b", 50, range(0), 90), 1)
    damage(broker)
    serve(MODEL, broker, unreadable_state="cold")
    assert events(broker)[1:] == [("a", "resolved", "forgotten")]


@pytest.mark.parametrize("verb", ["accept", "confirm"])
def test_a_command_about_a_stream_of_which_only_the_incident_is_known(verb: str) -> None:
    broker = MemoryBroker()
    fill(broker, rows("a", 0, LOUD, 50), 1)
    serve(MODEL, broker, checkpoint_age=3600)
    broker.trim(0, 50)
    fill(broker, rows("b", 50, range(0), 60), 1)
    serve(MODEL, broker, checkpoint_age=3600)
    broker.tell(said(verb, "a", "1"))
    fill(broker, rows("b", 60, range(0), 70), 1)
    serve(MODEL, broker, checkpoint_age=3600)
    opened, answer = (orjson.loads(value) for _, value in broker.alerts)
    assert answer["time"] >= opened["time"]


# -- topics that grow ------------------------------------------------------------------------------------------------


def test_a_sender_that_knew_of_the_new_partition_first() -> None:
    broker, streams = MemoryBroker(2), [f"sensor-{n}" for n in range(24)]
    for t in range(100):
        for stream in streams:
            send(broker, stream, t)
    early = next(s for s in streams if partition_of(s.encode(), 2) == 0 and partition_of(s.encode(), 3) == 1)
    send(broker, early, 100, partition=1)
    serve(MODEL, broker, policy=SILENT)
    broker.grow(3)
    for t in range(101, 300):
        for stream in streams:
            send(broker, stream, t)
    serve(MODEL, broker, policy=SILENT)
    assert events(broker) == []


def test_a_topic_that_grows_twice_and_a_sender_that_learned_late() -> None:
    broker, streams = MemoryBroker(1), [f"s{n}" for n in range(24)]
    for partitions, seconds in ((1, range(100)), (2, range(100, 200)), (4, range(200, 400))):
        broker.grow(partitions)
        for t in seconds:
            for stream in streams:
                send(broker, stream, t)
        if partitions == 2:
            send(broker, next(s for s in streams if partition_of(s.encode(), 2) == 1), 101, partition=0)
        serve(MODEL, broker, policy=SILENT)
        assert events(broker) == []


def test_an_empty_partition_says_nothing_about_keys() -> None:
    broker, streams = MemoryBroker(2), [f"s{n}" for n in range(8)]
    for t in range(50):
        for stream in streams:
            send(broker, stream, t, 0, b"site")
    serve(MODEL, broker, policy=SILENT)
    broker.grow(3)
    dead = next(s for s in streams if partition_of(s.encode(), 3) != 1)
    for t in range(200, 400):
        for stream in streams:
            if stream != dead or t <= 300:
                send(broker, stream, t, 1, b"site")
    serve(MODEL, broker, policy=SILENT)
    assert events(broker) == [(dead, "opened", None)]


# -- many streams ----------------------------------------------------------------------------------------------------


class Sizes(MemoryLog):
    """Notes the longest record of state."""

    most = 0

    def commit(self, transaction: Transaction, watch: Watch = unwatched) -> None:
        self.most = max([self.most, *(len(r.value or b"") + len(r.key) for r in transaction.state)])
        super().commit(transaction, watch)


@thorough
def test_streams_that_move_by_the_hundred_thousand_fit_records() -> None:
    broker = MemoryBroker(1)
    names = [f"plant-7/line-{n % 40:02d}/sensor-{n:06d}" for n in range(100_000)]
    for at in range(0, len(names), 1000):
        some = [{"stream": s, "timestamp": 0, "values": {"c0": 0.1}} for s in names[at : at + 1000]]
        broker.produce(orjson.dumps(some), b"k", timestamp_ms=0, partition=0)
    serve(MODEL, broker, checkpoint_age=3600, commit_interval=1)
    broker.grow(6)
    send(broker, next(s for s in names if partition_of(s.encode(), 6) == 0), 1, partition=0)
    log = Sizes(broker)
    serve(MODEL, broker, log, checkpoint_age=3600, commit_interval=1)
    assert 200_000 < log.most < MAX_MESSAGE_BYTES


def test_names_that_are_long_in_json_fit_records_when_they_move() -> None:
    broker = MemoryBroker(1)
    names = [f"{n:04d}" + "\x01" * 1000 for n in range(600)]
    for n, name in enumerate(names):
        send(broker, name, n, partition=0)
    serve(MODEL, broker, checkpoint_age=3600, commit_interval=1)
    broker.grow(6)
    send(broker, next(s for s in names if partition_of(s.encode(), 6) == 0), 1, partition=0)
    log = Sizes(broker)
    serve(MODEL, broker, log, checkpoint_age=3600, commit_interval=1)
    assert 200_000 < log.most < MAX_MESSAGE_BYTES


def test_a_flood_of_long_names_costs_the_journal_little() -> None:
    broker = MemoryBroker(1)
    for n in range(3000):
        send(broker, f"{n:04d}" + "x" * 1000, n, partition=0)
    serve(MODEL, broker, max_streams=600, batch_size=600, checkpoint_age=3600, commit_interval=1)
    entries = [value for key, value in broker.group("residual").state[0].items() if b"/journal/" in key]
    assert len(entries) >= 2400 // 60
    assert sum(map(len, entries)) < 100_000, "the names that were forgotten come to 2.4 MB"


def test_a_batch_of_many_new_names_is_cut_between_its_records() -> None:
    broker, largest = MemoryBroker(1), 0
    for record in range(20):
        some = [{"stream": f"s{record}-{n}", "timestamp": record, "values": {"c0": 0.1}} for n in range(50)]
        broker.produce(orjson.dumps(some), b"k", timestamp_ms=0, partition=0)
    engine = Engine(MODEL, POLICY)

    class Largest(Observer):
        def scored(self, scored: Scored, engine: Engine) -> None:
            nonlocal largest
            largest = max(largest, len(engine.streams))

    serve(MODEL, broker, observer=Largest(), engine=engine, max_streams=200, batch_size=1000)
    assert 200 < largest <= 250, "a record more than the ceiling and no more"
    assert set(engine.streams.of_partition(0)) >= {f"s19-{n}" for n in range(50)}


def test_one_long_name_costs_no_memory_when_others_give_way() -> None:
    engine = Engine(MODEL, POLICY)
    names = [f"s{n}" for n in range(100_000)] + ["x" * 1024]
    engine.process([Readings(0, names, np.zeros(len(names), np.int64), np.zeros((len(names), 3), np.float32))])
    tracemalloc.start()
    engine.unheard(0, *engine.longest_unheard(0, 5000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_streams_that_gave_way_do_not_come_back_in_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    due = checkpoints.Progress.due
    monkeypatch.setattr(checkpoints.Progress, "due", lambda self, before: [d for d in due(self, before) if d[1] % 2])
    broker = MemoryBroker(1)
    for n in range(5000):
        send(broker, f"junk-{n}", n, partition=0)
    flags = {"max_streams": 100, "batch_size": 50, "checkpoint_bytes": 10**9, "commit_interval": 0}
    serve(MODEL, broker, **flags)
    send(broker, "junk-5000", 5000, partition=0)
    engine, most = Engine(MODEL, POLICY), 0

    class Counts(Observer):
        def beat(self) -> None:
            nonlocal most
            most = max(most, len(engine.streams))

    serve(MODEL, broker, observer=Counts(), engine=engine, **{**flags, "checkpoint_age": 3600})
    assert most <= 200


# -- takeovers -------------------------------------------------------------------------------------------------------


class Scripted(MemoryLog):
    """A member whose group moves on by a script: partitions of each round, told at a poll."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self._group = broker.group("residual")
        self._group.share_out = lambda: None  # type: ignore[method-assign]
        self._group.members = [self]
        self.polls, self.rounds, self.stop = 0, 0, threading.Event()
        self.give({0})

    def give(self, partitions: set[int]) -> None:
        self._group.generation += 1
        self.assign(self._group.generation, frozenset(partitions))

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        self.polls += 1
        if self.polls == 4:
            self.give({0, 1})  # 1 is gained …
        if 1 in self.positions() and self.rounds < 2:
            self.rounds += 1
            self.give({0, 1} if self.rounds == 1 else {0})  # … a further round while it is replayed; and it is gone
        if self.polls > 40:
            self.stop.set()
        return super().poll(timeout_s, max_records)


def test_what_was_half_restored_is_not_started_when_it_is_gone() -> None:
    broker = MemoryBroker(2)
    for _ in range(5):
        broker.produce(b"{", b"k", partition=1)  # no stream is known of it
    fill(broker, rows("a", 0, range(0), 20), 1)
    serve(MODEL, broker, checkpoint_age=3600)
    offsets = broker.group("residual").offsets
    offsets[1] = Committed(offsets[1].offset, 0, offsets[1].topic_id)
    log, dropped = Scripted(broker), []

    class Drops(Observer):
        def rebalanced(self) -> None:
            dropped.append(1)

    settings = DetectorSettings(commit_interval=0, checkpoint_age=3600, batch_latency=0)
    decoder = JsonDecoder(MODEL.manifest.channel_names, broker.topic)
    Service(log, Engine(MODEL, POLICY), decoder, settings, Drops(), log.stop).run()
    assert log.rounds == 2
    assert len(dropped) < 6
