"""Where a service starts, what it restores, and what it does when the log is not what it was."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import orjson
import pytest
from pipeline import MODEL_CHANNELS, POLICY, fill, offline, produce, rows, serve
from tiny_model import tiny_model

from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.port import Committed, Transaction
from detector.checkpoints import Progress
from detector.decoding.json_readings import JsonDecoder
from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.monitor import Monitor
from detector.observer import Observer
from detector.service import Service
from schemas.errors import Fenced, ModelError
from schemas.manifest import Manifest
from schemas.settings import DetectorSettings

MODEL = tiny_model(threshold=1.0)


def types(broker: MemoryBroker) -> list[str]:
    return [orjson.loads(value)["type"].rpartition(".")[2] for _, value in broker.alerts]


def test_an_incident_is_opened_and_resolved_once() -> None:
    broker = MemoryBroker()
    fill(broker, rows(), 1)
    serve(MODEL, broker)
    assert types(broker) == ["opened", "resolved"]
    assert [value for _, value in broker.alerts] == sorted(
        offline(MODEL, rows(), 1), key=lambda v: orjson.loads(v)["id"]
    )
    assert {key for key, _ in broker.alerts} == {b"a"}
    serve(MODEL, broker)  # a second run has nothing to add
    assert types(broker) == ["opened", "resolved"]


@pytest.mark.parametrize(("start", "expected"), [("earliest", 2), ("latest", 0), ("1970-01-01T00:00:35Z", 0)])
def test_where_nothing_is_committed_from_says_where_to_start(start: str, expected: int) -> None:
    broker = MemoryBroker()
    for stream, t, values in rows():
        reading = {
            "stream": stream,
            "timestamp": t * 1000,
            "values": dict(zip(MODEL_CHANNELS, values, strict=True)),
        }
        broker.produce(orjson.dumps(reading), timestamp_ms=t * 1000)
    serve(MODEL, broker, start=start)
    assert len(broker.alerts) == expected
    fill(broker, rows(start=50, loud=range(70, 80), stop=100), 1)
    serve(MODEL, broker, start="earliest")  # counts no more: there is a commit
    assert len(broker.alerts) == expected + 2


def test_an_offset_of_somebody_else_starts_cold_there() -> None:
    broker = MemoryBroker()
    fill(broker, rows(), 1)
    serve(MODEL, broker)
    log = MemoryLog(broker, "residual")
    while log.take_assignment() is None:
        log.poll(0, 1)
    log.commit(Transaction(offsets={0: Committed(0, None)}))  # an operator reset the group
    log.close()
    serve(MODEL, broker)
    assert types(broker) == ["opened", "resolved"] * 2


def test_records_that_retention_deleted_are_counted_and_are_a_gap() -> None:
    broker = MemoryBroker()
    fill(broker, rows(loud=range(0)), 1)
    serve(MODEL, broker)
    fill(broker, rows(start=50, loud=range(0), stop=80), 1)
    broker.trim(0, 60)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor)
        assert (
            monitor.metrics.registry.get_sample_value("residual_records_lost_total", {"needed_for": "unscored"}) == 10
        )
        assert monitor.metrics.registry.get_sample_value("residual_readings_scored_total") == 20 - 3


def test_a_topic_made_anew_starts_cold() -> None:
    broker = MemoryBroker()
    fill(broker, rows(), 1)
    serve(MODEL, broker)
    anew = MemoryBroker()
    anew._groups = broker._groups
    fill(anew, rows()[:40], 1)
    serve(MODEL, anew)
    assert types(anew) == ["opened", "resolved"]


def test_an_open_incident_outlives_a_change_of_settings() -> None:
    broker = MemoryBroker()
    fill(broker, rows(stop=25), 1)
    serve(MODEL, broker)
    assert types(broker) == ["opened"]
    fill(broker, rows(start=25, stop=50), 1)
    never = Policy(k=60, n=60, quiet=3, unseen=20)
    serve(MODEL, broker, policy=never)  # under these it would not have opened
    assert types(broker) == ["opened", "resolved"]
    first, second = (orjson.loads(value) for _, value in broker.alerts)
    assert first["data"]["incident"] == second["data"]["incident"]


def test_what_a_replay_would_have_opened_is_not_invented() -> None:
    broker = MemoryBroker()
    fill(broker, rows(stop=22), 1)
    serve(MODEL, broker, policy=Policy(k=60, n=60, quiet=3), checkpoint_age=1000)  # no checkpoints: all is replayed
    assert types(broker) == []
    fill(broker, rows(start=22, loud=range(0), stop=40), 1)
    serve(MODEL, broker, policy=POLICY, checkpoint_age=1000)  # would have opened at second 21
    assert "resolved" not in types(broker) or types(broker) == ["opened", "resolved"]
    assert all(orjson.loads(value)["data"]["opened"] >= "1970-01-01T00:00:22Z" for _, value in broker.alerts)


def test_two_members_share_and_the_survivor_takes_over() -> None:
    broker = MemoryBroker(2)
    everything = [row for t in range(0, 300, 50) for s in "ab" for row in rows(s, t, range(t + 20, t + 30), t + 50)]
    fill(broker, everything[:300], 2)
    stops = [threading.Event(), threading.Event()]
    endless = {"stop_at_end": False, "group_id": "g"}
    logs = [MemoryLog(broker, "g"), MemoryLog(broker, "g")]
    threads = [
        threading.Thread(target=serve, args=(MODEL, broker, log), kwargs={"stop": stop, **endless})
        for log, stop in zip(logs, stops, strict=True)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(broker.alerts) >= 8)
    broker.evict(logs[0])  # thrown out, and not told: its commits must be refused
    fill(broker, everything[300:], 2)
    wait_until(lambda: len(broker.alerts) >= len(offline(MODEL, everything, 2)))
    for stop, thread in zip(stops, threads, strict=True):
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(value for _, value in broker.alerts) == offline(MODEL, everything, 2)


def test_the_same_replica_id_twice_fences_the_first() -> None:
    broker = MemoryBroker()
    failed = []

    def first() -> None:
        try:
            serve(MODEL, broker, MemoryLog(broker, "g", "one"), stop_at_end=False, group_id="g")
        except Fenced as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    time.sleep(0.3)
    second = MemoryLog(broker, "g", "one")
    second.poll(0, 1)
    thread.join(10)
    assert failed
    second.close()


def test_a_batch_waits_no_longer_than_it_may() -> None:
    broker = MemoryBroker()
    stop = threading.Event()
    thread = threading.Thread(
        target=serve, args=(MODEL, broker), kwargs={"stop": stop, "stop_at_end": False, "batch_latency": 50}
    )
    thread.start()
    fill(broker, rows(stop=25), 1)
    wait_until(lambda: types(broker) == ["opened"])
    stop.set()
    thread.join(10)


def test_checkpoints_are_written_while_nothing_arrives() -> None:
    broker = MemoryBroker()
    stop = threading.Event()
    fill(broker, rows(), 1)
    thread = threading.Thread(
        target=serve, args=(MODEL, broker), kwargs={"stop": stop, "stop_at_end": False, "checkpoint_age": 0.3}
    )
    thread.start()
    log = MemoryLog(broker, "residual")
    wait_until(lambda: (c := log.committed(0)) is not None and c.replay_from == 50)
    stop.set()
    thread.join(10)


def test_10_000_malformed_records_among_good_ones_change_nothing_else() -> None:
    import random

    rng = random.Random(7)
    good = [row for s in ("a", "b") for row in rows(s, 0, range(20, 30), 1000)]
    broker, bad = MemoryBroker(), 0
    for row in good:
        fill(broker, [row], 1)
        for _ in range(rng.randint(4, 6)):
            if bad < 10_000:
                broker.produce(malformed(rng), b"a", timestamp_ms=10**12, partition=0)
                bad += 1
    assert bad >= 9_000
    serve(MODEL, broker)
    assert sorted(value for _, value in broker.alerts) == offline(MODEL, good, 1)
    assert len(broker.dead_letters) == bad
    assert all(letter.reason for letter in broker.dead_letters)
    assert len({letter.offset for letter in broker.dead_letters}) == bad


def malformed(rng) -> bytes | None:
    reading = {"stream": "a", "timestamp": rng.randrange(10**6), "values": {"c0": 1, "c1": 2.0, "c2": None}}
    match rng.randrange(12):
        case 0:
            return rng.choice([None, b"", b" ", b"null"])
        case 1:
            return rng.randbytes(rng.randint(1, 40)).replace(b"0", b"\xff") + b"\xff"
        case 2:
            return orjson.dumps(reading)[: -rng.randint(1, 40)]
        case 3:
            reading["stream"] = rng.choice([None, 5, "", [], True])
        case 4:
            reading["timestamp"] = rng.choice(["", "soon", None, -1, 1e300, True, {}, "2300-01-01T00:00:00Z", 10**13])
        case 5:
            reading["values"] = rng.choice([None, [], 3, "c0", {}, {"z": 1}])
        case 6:
            reading["values"]["c1"] = rng.choice(["1", True, [1], {}, 1e39, -1e39, 10**40])
            return __import__("json").dumps(reading).encode()
        case 7:
            return orjson.dumps(reading).replace(
                b"2.0", rng.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"0x1"])
            )
        case 8:
            del reading["values"]
        case 9:
            return orjson.dumps(rng.choice([1, "x", True, 1.5, [1], ["a"], [None]]))
        case 10:
            return b"[" * rng.randint(1, 5000)
        case _:
            return orjson.dumps(reading) + orjson.dumps(reading)
    return orjson.dumps(reading)


def wait_until(what, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


def test_produce_helper_makes_lists() -> None:
    broker = MemoryBroker()
    produce(broker, "a", [{"stream": "a", "timestamp": 1, "values": {"c0": 1}}] * 2, 1)
    serve(MODEL, broker)
    assert not broker.dead_letters


class StopAfter(Observer):
    """Asks the service to stop at the n-th turn of a loop, wherever that is."""

    def __init__(self, turns: int) -> None:
        self.stop, self._left = threading.Event(), turns

    def beat(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.stop.set()


@pytest.mark.parametrize("turns", range(1, 8))
def test_a_stop_during_the_restore_commits_nothing_and_loses_nothing(turns: int) -> None:
    broker = MemoryBroker(2)
    everything = [row for s in "ab" for row in rows(s)]
    fill(broker, everything, 2)
    serve(MODEL, broker, checkpoint_age=1000)  # no checkpoints: all is replayed
    before = list(broker.alerts)
    observer = StopAfter(turns)
    serve(MODEL, broker, observer=observer, stop=observer.stop, batch_size=10, checkpoint_age=1000)
    assert broker.alerts == before
    fill(broker, [row for s in "ab" for row in rows(s, 50, range(70, 80), 100)], 2)
    serve(MODEL, broker)
    everything += [row for s in "ab" for row in rows(s, 50, range(70, 80), 100)]
    assert sorted(value for _, value in broker.alerts) == offline(MODEL, everything, 2)


def test_a_busy_partition_does_not_starve_the_checkpoints_of_the_others() -> None:
    log = MemoryLog(MemoryBroker(3))
    engine = Engine(MODEL)
    settings = DetectorSettings.load({"checkpoint_age": 0, "checkpoint_bytes": 25 * len(engine.dump(0, 0))})
    service = Service(log, engine, JsonDecoder(MODEL_CHANNELS, "readings"), settings)
    service._progress = {partition: Progress(0) for partition in range(3)}
    buckets, saved = np.arange(BUCKETS), Counter[int]()
    for second in range(40):  # every bucket changes every second, and a second's budget is for a few
        for partition in range(3):
            service._progress[partition].touch(buckets, np.full(BUCKETS, second), now=float(second))
        service._committed_at = second
        transaction = Transaction()
        service._add_checkpoints(transaction, dict.fromkeys(range(3), second), now=second + 1.0)
        saved.update(record.partition for record in transaction.state)
    assert sum(saved.values()) > BUCKETS
    assert set(saved) == {0, 1, 2}, saved
    assert min(p.replay_from(40) for p in service._progress.values()) > 0, "R moves on everywhere"


def test_a_model_of_other_channels_than_the_groups_is_refused() -> None:
    broker = MemoryBroker()
    fill(broker, rows(), 1)
    serve(MODEL, broker)
    fill(broker, rows(start=50, stop=60), 1)
    other = MODEL.manifest.model_dump()
    for channel in other["channels"]:
        channel["name"] *= 2
    manifest = Manifest.model_validate({**other, "graph_sha256": "1" * 64})
    with pytest.raises(ModelError, match="another --group-id"):
        serve(replace(MODEL, manifest=manifest), broker)
