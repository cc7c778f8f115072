"""What a partition is restored to where something of its past is gone, and what is said about it."""

from __future__ import annotations

import logging
import threading
from collections import Counter

import orjson
import pytest
from pipeline import MODEL_CHANNELS, POLICY, fill, offline, rows, serve
from tiny_model import tiny_model

from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.partitioner import partition_of
from detector.adapters.port import Committed, Step
from detector.decoding.json_readings import JsonDecoder
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.monitor import Monitor
from detector.service import Service
from schemas.errors import ModelError
from schemas.settings import DetectorSettings

MODEL = tiny_model(threshold=1.0)
LOUD = range(20, 10**6)


def events(broker: MemoryBroker) -> list[tuple[str, str, str | None]]:
    """(stream, type, why it ended) of every alert."""
    found = []
    for key, value in broker.alerts:
        event = orjson.loads(value)
        found.append((key.decode(), event["type"].rpartition(".")[2], event["data"].get("ended")))
    return found


def metric(monitor: Monitor, name: str, **labels: str) -> float:
    return monitor.metrics.registry.get_sample_value(f"residual_{name}", labels) or 0.0


def run(broker: MemoryBroker, **settings: object) -> float:
    """Serve to the end; how many partitions started cold."""
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, **settings)
        return metric(monitor, "cold_starts_total")


def watched(loud: range = LOUD) -> MemoryBroker:
    """Readings 0 to 50 of a stream are scored; loud from 20 on: an incident is open."""
    broker = MemoryBroker()
    fill(broker, rows("a", 0, loud, 50), 1)
    assert run(broker) == 0
    return broker


def test_a_state_topic_that_was_lost_means_a_cold_start_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    broker = watched()
    broker.lose_state()
    fill(broker, rows("a", 50, range(60, 70), 90), 1)
    assert run(broker) == 1
    assert "the state topic has lost its state; starting cold at 50" in caplog.text
    # as offline from there on: what was open before is not known any more
    assert sorted(value for _, value in broker.alerts[1:]) == offline(MODEL, rows("a", 50, range(60, 70), 90), 1)
    assert run(broker) == 0, "from then on it has a past again"


@pytest.mark.parametrize("back_to", [0, 30])
def test_an_offset_that_an_operator_reset(back_to: int, caplog: pytest.LogCaptureFixture) -> None:
    broker = watched()
    broker.group("residual").offsets[0] = Committed(back_to, None)
    assert run(broker) == 1
    assert f"offset {back_to} was committed by another program; starting cold at {back_to}" in caplog.text
    assert events(broker)[1] == ("a", "resolved", "forgotten"), "what was open is not left open for ever"
    assert sorted(v for _, v in broker.alerts[2:]) == offline(MODEL, rows("a", back_to, LOUD, 50), 1)
    assert run(broker) == 0


def test_a_topic_made_anew_is_read_from_its_first_record(caplog: pytest.LogCaptureFixture) -> None:
    broker = watched()
    broker.remake()
    again = rows("a", 1000, range(1020, 1030), 1080)  # more records than before: the offset alone would not show it
    fill(broker, again, 1)
    assert run(broker) == 1
    assert "the topic was made anew; starting cold at 0" in caplog.text
    assert events(broker)[1] == ("a", "resolved", "forgotten")
    assert sorted(value for _, value in broker.alerts[2:]) == offline(MODEL, again, 1)


def test_a_topic_made_anew_under_a_running_service_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.service.LAG_S", 0.05)
    broker, stop = watched(range(0)), threading.Event()
    again = rows("a", 1000, range(1020, 1030), 1080)

    def remake() -> None:
        broker.remake()
        fill(broker, again, 1)

    turns = iter(range(10**6))

    class Turns(Monitor):
        def beat(self) -> None:
            turn = next(turns)
            if turn == 5:
                remake()
            if turn > 5 and len(broker.alerts) >= 2:
                stop.set()
            assert turn < 500
            super().beat()

    with Turns(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, stop=stop, stop_at_end=False, batch_latency=1)
        assert metric(monitor, "cold_starts_total") == 1
    assert sorted(value for _, value in broker.alerts) == offline(MODEL, again, 1)


def test_offsets_that_expired_leave_a_state_that_nobody_can_place(caplog: pytest.LogCaptureFixture) -> None:
    broker = watched()
    broker.group("residual").offsets.clear()
    assert run(broker, start="latest") == 1
    assert "nothing is committed any more; starting cold at 50" in caplog.text
    assert events(broker)[1:] == [("a", "resolved", "forgotten")]


def test_state_that_cannot_be_read_stops_the_start_unless_told_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    broker = watched()
    fill(broker, rows("a", 50, range(60, 70), 90), 1)
    state = broker.group("residual").state[0]
    key = next(key for key in state if key.split(b"/")[1].isdigit())
    state[key] = state[key][:-3]
    with pytest.raises(ModelError, match="damaged"):
        run(broker)
    assert len(broker.alerts) == 1
    assert run(broker, unreadable_state="cold") == 1
    assert "its state cannot be read" in caplog.text
    assert events(broker)[1] == ("a", "resolved", "forgotten")
    assert sorted(value for _, value in broker.alerts[2:]) == offline(MODEL, rows("a", 50, range(60, 70), 90), 1)


def test_another_model_of_the_same_channels_keeps_the_readings_and_what_is_open() -> None:
    broker = watched()
    serve(MODEL, broker, checkpoint_bytes=10**9)
    fill(broker, rows("a", 50, range(50, 55), 90), 1)
    other = tiny_model(threshold=1.0, window=MODEL.manifest.window + 2)
    assert other.manifest.graph_sha256 != MODEL.manifest.graph_sha256
    serve(other, broker)
    assert events(broker) == [("a", "opened", None), ("a", "resolved", "quiet")]


# -- partitions come and go ------------------------------------------------------------------------------------------


def produce(broker: MemoryBroker, stream: str, seconds: int, value: float) -> None:
    reading = {"stream": stream, "timestamp": seconds * 1000, "values": dict.fromkeys(MODEL_CHANNELS, value)}
    broker.produce(orjson.dumps(reading), stream.encode(), timestamp_ms=seconds * 1000)


def test_a_topic_that_grows_takes_its_streams_along() -> None:
    """A stream whose key goes elsewhere begins anew there, and is neither silent nor open for ever where it was."""
    policy = Policy(k=2, n=3, quiet=3, unseen=0, silent_after=20)
    broker, streams = MemoryBroker(1), [f"s{n}" for n in range(8)]
    moved = [s for s in streams if partition_of(s.encode(), 3) != 0]
    assert 2 <= len(moved) <= 6
    loud = moved[0]
    for t in range(100):
        for stream in streams:
            produce(broker, stream, t, 9.0 * (-1) ** t if stream == loud and t > 80 else 0.1)
    serve(MODEL, broker, policy=policy)
    assert events(broker) == [(loud, "opened", None)]
    broker.grow(3)
    for t in range(100, 300):
        for stream in streams:
            produce(broker, stream, t, 9.0 * (-1) ** t if stream == loud and t < 130 else 0.1)
    serve(MODEL, broker, policy=policy)
    kinds = Counter(events(broker))
    assert kinds == Counter(
        [(loud, "opened", None), (loud, "resolved", "forgotten"), (loud, "opened", None), (loud, "resolved", "quiet")]
    )


def test_who_gets_a_new_partition_does_not_overlook_that_the_topic_has_grown() -> None:
    """The look at the topic compared with what the newest restore had seen, and what was kept learned of nothing."""
    policy = Policy(k=2, n=3, quiet=3, unseen=0, silent_after=20)
    broker, streams, stop = MemoryBroker(1), [f"s{n}" for n in range(8)], threading.Event()
    for t in range(50):
        for stream in streams:
            produce(broker, stream, t, 0.1)
    turns = iter(range(10**6))

    class Turns(Monitor):
        def beat(self) -> None:
            turn = next(turns)
            if turn == 10:
                broker.grow(3)  # and everybody gets what there is at once, before anybody looks at the topic
                for t in range(50, 200):
                    for stream in streams:
                        produce(broker, stream, t, 0.1)
            if turn > 10 and all(o >= p.end for o, p in zip(offsets(), broker.partitions, strict=True)):
                stop.set()
            assert turn < 500
            super().beat()

    def offsets() -> list[int]:
        found = broker.group("residual").offsets
        return [found[p].offset if p in found else -1 for p in range(3)]

    with Turns(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, stop=stop, stop_at_end=False, batch_latency=1, policy=policy)
    assert events(broker) == []


@pytest.mark.parametrize("anew", [False, True])
def test_who_starts_at_the_end_sees_all_of_a_partition_that_comes_into_being_later(anew: bool) -> None:
    broker, stop = MemoryBroker(1), threading.Event()
    fill(broker, rows("old", 0, LOUD, 50), 1)
    turns = iter(range(10**6))

    class Turns(Monitor):
        def beat(self) -> None:
            turn = next(turns)
            if turn == 10:
                if anew:
                    broker.remake()
                broker.grow(3)
                fill(broker, [row for s in "abcd" for row in rows(s, 0, LOUD, 50)], 3)
            if metric(self, "readings_received_total") >= 200:
                stop.set()
            assert turn < 100
            super().beat()

    with Turns(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, stop=stop, stop_at_end=False, batch_latency=1, start="latest")
    assert sorted(events(broker)) == [(s, "opened", None) for s in "abcd"]


def test_records_that_retention_took_are_counted_once() -> None:
    broker = watched(range(0))
    fill(broker, rows("a", 50, range(0), 90), 1)
    broker.trim(0, 70)
    fill(broker, rows("a", 90, range(0), 91), 1)
    lost = []
    for _ in range(3):
        stop = threading.Event()

        def watch(step: Step, stop: threading.Event = stop) -> None:
            if step is Step.RESTORED:  # before any record is read
                stop.set()

        settings = DetectorSettings(commit_interval=0)
        decoder = JsonDecoder(MODEL.manifest.channel_names, broker.topic)
        with Monitor(None, 60) as monitor:
            Service(MemoryLog(broker), Engine(MODEL, POLICY), decoder, settings, monitor, stop, watch=watch).run()
            lost.append(metric(monitor, "records_lost_total", needed_for="unscored"))
    assert lost == [20, 0, 0]


def test_readings_that_still_lie_in_the_old_partition_are_not_missed_later() -> None:
    policy = Policy(k=2, n=3, quiet=3, unseen=0, silent_after=20)
    broker, streams = MemoryBroker(1), [f"s{n}" for n in range(8)]
    for t in range(100):
        for stream in streams:
            produce(broker, stream, t, 0.1)
        if t == 50:
            serve(MODEL, broker, policy=policy)
    broker.grow(3)  # fifty readings of each stream are not read yet
    for t in range(100, 300):
        for stream in streams:
            produce(broker, stream, t, 0.1)
    serve(MODEL, broker, policy=policy)
    assert events(broker) == []


def test_streams_placed_by_other_keys_stay_where_they_are() -> None:
    policy = Policy(k=2, n=3, quiet=3, unseen=0, silent_after=20)
    broker, streams = MemoryBroker(2), [f"s{n}" for n in range(8)]

    def send(start: int, stop: int) -> None:
        for t in range(start, stop):
            for stream in streams:
                loud = stream == "s1" and t > 80
                value = dict.fromkeys(MODEL_CHANNELS, 9.0 * (-1) ** t if loud else 0.1)
                reading = {"stream": stream, "timestamp": t * 1000, "values": value}
                broker.produce(orjson.dumps(reading), b"site", timestamp_ms=t * 1000, partition=1)

    send(0, 100)
    serve(MODEL, broker, policy=policy)
    broker.grow(5)
    send(100, 110)
    serve(MODEL, broker, policy=policy)
    assert [(stream, what) for stream, what, _ in events(broker)] == [("s1", "opened")]


def test_a_stream_met_in_two_partitions_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker(2)
    for partition in (0, 1):
        for n, stream in enumerate(("shared", f"own-{partition}")):
            reading = {"stream": stream, "timestamp": n, "values": dict.fromkeys(MODEL_CHANNELS, 0.1)}
            broker.produce(orjson.dumps(reading), b"x", timestamp_ms=n, partition=partition)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor)
        assert metric(monitor, "streams_in_several_partitions") == 1
    assert caplog.text.count("met in several partitions") == 1
    assert "'shared'" in caplog.text


def test_what_a_member_keeps_is_not_restored_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broker = MemoryBroker(4)
    fill(broker, [row for s in "abcd" for row in rows(s, 0, range(20, 30), 50)], 4)
    loaded: list[Step] = []
    stop, second = threading.Event(), []

    def watch(step: Step) -> None:
        loaded.append(step)
        if step is Step.COMMITTED and not second:
            second.append(MemoryLog(broker))
            second[0].poll(0, 1)  # joins
        if step is Step.DROPPED:
            fill(broker, [row for s in "abcd" for row in rows(s, 50, range(70, 80), 100)], 4)
        if loaded.count(Step.DROPPED) and loaded.count(Step.COMMITTED) > 6:
            stop.set()

    settings = DetectorSettings(commit_interval=0, checkpoint_age=0, batch_latency=0, batch_size=10)
    decoder = JsonDecoder(MODEL.manifest.channel_names, broker.topic)
    Service(MemoryLog(broker), Engine(MODEL, POLICY), decoder, settings, None, stop, watch=watch).run()
    assert loaded.count(Step.LOADED) == 4, "each partition once, at the start"
    assert "what was not committed of partitions" in caplog.text
    second[0].close()
    serve(MODEL, broker)
    wanted = [row for s in "abcd" for row in rows(s, 0, range(20, 30), 50)]
    wanted += [row for s in "abcd" for row in rows(s, 50, range(70, 80), 100)]
    assert sorted(value for _, value in broker.alerts) == offline(MODEL, wanted, 4)


def test_a_batch_is_full_at_so_many_bytes() -> None:
    broker, sizes = MemoryBroker(), []
    fill(broker, rows("a", 0, range(0), 200), 1)

    class Sizes(Monitor):
        def decoded(self, records, decoded) -> None:
            sizes.append(records)
            super().decoded(records, decoded)

    with Sizes(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, batch_bytes=1000, batch_size=100)
    length = len(broker.partitions[0].records[0].value or b"")
    assert sum(sizes) == 200
    assert max(sizes[1:]) * length <= 1000 + 5 * length
