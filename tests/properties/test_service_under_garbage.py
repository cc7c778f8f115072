"""The whole service over a log of garbage: everything is accounted for, and the good streams do not notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from garbage import Grammar, Sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline import MODEL_CHANNELS, POLICY, CrashError, CrashingLog, serve
from thorough import examples
from tiny_model import tiny_model

from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.partitioner import partition_of
from detector.adapters.port import Committed, Records
from detector.decoding.json_readings import JsonDecoder
from detector.engine.engine import Engine
from detector.monitor import Monitor
from detector.service import LETTER_BYTES, LETTERS, Service
from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import TemporaryError
from schemas.settings import DetectorSettings

MODEL = tiny_model(threshold=1.0)
PARTITIONS = 3


def produce(broker: MemoryBroker, samples: Sequence[Sample]) -> dict[tuple[int, int], Sample]:
    """The records by partition and offset."""
    places = {}
    for sample in samples:
        partition = partition_of(sample.key or b"", PARTITIONS)
        offset = broker.produce(sample.value, sample.key, sample.stamp_ms, partition)
        places[partition, offset] = sample
    return places


class Ledger:
    """What a run has counted."""

    def __init__(self, monitor: Monitor) -> None:
        self._get = monitor.metrics.registry.get_sample_value

    def total(self, name: str, **labels: str) -> int:
        return int(self._get(f"residual_{name}_total", labels) or 0)

    def check_readings(self, received: int) -> None:
        """Each reading that was received is scored, or is counted for the one reason why it is not."""
        dropped = [self.total("readings_dropped", reason=reason) for reason in ("late", "duplicate")]
        unscored = [self.total("engine_events", kind=kind) for kind in ("warming_up", "all_missing", "overflowed")]
        assert self.total("readings_received") == received
        assert self.total("readings_scored") + sum(dropped) + sum(unscored) == received


def check_letters(places: dict[tuple[int, int], Sample], letters: Sequence[DeadLetter]) -> int:
    """The elements that were set aside are those of the truth; returns how many readings there must have been."""
    found: dict[tuple[int, int], Counter[Reason]] = {place: Counter() for place in places}
    for letter in letters:
        found[letter.partition, letter.offset][letter.reason] += letter.elements
        if letter.index < 0:
            assert letter.value == places[letter.partition, letter.offset].value
    for place, sample in places.items():
        assert sample.bad is None or found[place] == sample.bad, sample
        assert found[place].total() <= sample.elements
    return sum(sample.elements - found[place].total() for place, sample in places.items())


@settings(max_examples=examples(15), suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([1, 50, 2000]))
def test_everything_is_accounted_for(seed: int, garbage: float, size: int) -> None:
    broker = MemoryBroker(PARTITIONS)
    places = produce(broker, list(Grammar(MODEL_CHANNELS, seed).any(400, garbage)))
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, batch_size=size)
        ledger = Ledger(monitor)
    assert ledger.total("records_received") == len(places)
    ledger.check_readings(check_letters(places, broker.dead_letters))
    by_reason: Counter[Reason] = Counter()
    for letter in broker.dead_letters:
        by_reason[letter.reason] += letter.elements
    assert {reason: ledger.total("dead_letters", reason=reason.value) for reason in by_reason} == by_reason
    for key, value in broker.alerts:
        assert orjson.loads(value)["subject"].encode() == key


def test_records_of_a_megabyte_and_more() -> None:
    broker = MemoryBroker(PARTITIONS)
    grammar = Grammar(MODEL_CHANNELS, 3)
    samples = [make() for make in grammar.bad.values() for _ in range(6)] + list(grammar.normal(200))
    grammar.rng.shuffle(samples)
    places = produce(broker, samples)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor)
        Ledger(monitor).check_readings(check_letters(places, broker.dead_letters))


def test_the_good_streams_do_not_notice() -> None:
    """The alerts are the same, byte for byte, with as much garbage between the readings as there are readings."""
    alerts = []
    for garbage in (False, True):
        broker, grammar = MemoryBroker(PARTITIONS), Grammar(MODEL_CHANNELS, 5, streams=4)
        other = Grammar(MODEL_CHANNELS, 6)
        bad = [name for name in other.bad if name not in ("elements", "constants_in_a_list")]
        for n in range(400):
            loud = 40.0 if 100 <= n < 160 or 300 <= n < 330 else 0.0
            made = grammar.reading(values=dict.fromkeys(MODEL_CHANNELS, loud + grammar.rng.gauss(0, 0.1)))
            produce(broker, [grammar.sample("reading", made, 1)])
            if garbage:
                produce(broker, [other.bad[other.rng.choice(bad)]()])
        serve(MODEL, broker, batch_size=50)
        alerts.append(sorted(broker.alerts))
    assert alerts[0] == alerts[1]
    assert len(alerts[0]) >= 16


@settings(max_examples=examples(10), suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.lists(st.sampled_from([None, "before", "after"]), max_size=8))
def test_dead_letters_are_neither_lost_nor_sent_twice(seed: int, fate: list[str | None]) -> None:
    broker = MemoryBroker(PARTITIONS)
    places = produce(broker, list(Grammar(MODEL_CHANNELS, seed).any(150, 0.5)))
    broker.damage(0, 5, 9)
    lost = {(0, offset) for offset in range(5, 9)} & places.keys()
    fates = iter(fate)
    for _ in range(len(fate) + 1):
        log = CrashingLog(broker, "g", lambda: next(fates, None), skip_corrupt=True)
        try:
            serve(MODEL, broker, log, group_id="g", batch_size=20)
            break
        except CrashError:
            broker.evict(log)
    damaged = [letter for letter in broker.dead_letters if letter.reason is Reason.CORRUPT]
    assert [(d.partition, d.offset, d.until) for d in damaged] == ([(0, 5, 9)] if lost else [])
    rest = [letter for letter in broker.dead_letters if letter.reason is not Reason.CORRUPT]
    check_letters({place: sample for place, sample in places.items() if place not in lost}, rest)
    keys = [(letter.partition, letter.offset, letter.index) for letter in rest]
    assert len(keys) == len(set(keys))


def test_dead_letters_wait_for_each_other_until_they_are_many() -> None:
    broker = MemoryBroker()
    for _ in range(2 * LETTERS + 10):
        broker.produce(b"bad", b"k", 0, 0)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, batch_size=LETTERS // 5, commit_interval=3600)
        assert Ledger(monitor).total("transactions") == 3
    assert len(broker.dead_letters) == 2 * LETTERS + 10
    long = b"x" * (LETTER_BYTES // 4)
    for _ in range(8):
        broker.produce(long, b"k", 0, 0)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, batch_size=1, commit_interval=3600)
        assert Ledger(monitor).total("transactions") == 2


# -- what nobody can read --------------------------------------------------------------------------------------------


def readings(broker: MemoryBroker, count: int) -> None:
    for sample in Grammar(MODEL_CHANNELS, 1, streams=1).normal(count):
        broker.produce(sample.value, sample.key, sample.stamp_ms, 0)


@pytest.mark.parametrize(("reason", "skip"), [(Reason.CORRUPT, True), (Reason.TOO_LONG, False), (Reason.UNREADABLE, 0)])
def test_a_range_that_nobody_can_read_is_one_dead_letter(reason: Reason, skip: bool) -> None:
    broker = MemoryBroker()
    readings(broker, 40)
    broker.damage(0, 10, 20, reason, b"as it lies there")
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, MemoryLog(broker, skip_corrupt=bool(skip)), observer=monitor)
        ledger = Ledger(monitor)
    assert ledger.total("records_received") == 30
    assert ledger.total("offsets_unreadable", reason=reason.value) == 10
    assert ledger.total("dead_letters", reason=reason.value) == 1
    (letter,) = broker.dead_letters
    assert (letter.value, letter.key, letter.reason, letter.partition) == (b"as it lies there", None, reason, 0)
    headers = dict(letter.headers())
    assert (headers["residual-offset"], headers["residual-until"]) == (b"10", b"20")
    assert broker.group("residual").offsets[0] == Committed(40, 40)
    serve(MODEL, broker, MemoryLog(broker, skip_corrupt=True), checkpoint_age=3600)
    assert len(broker.dead_letters) == 1


def test_what_is_damaged_stops_the_process_before_it_and_nothing_is_lost() -> None:
    broker = MemoryBroker()
    readings(broker, 40)
    broker.damage(0, 10, 20)
    for _ in range(2):
        with pytest.raises(TemporaryError):
            serve(MODEL, broker)
        assert broker.group("residual").offsets[0] == Committed(10, 10)
    assert broker.dead_letters == []
    broker.partitions[0].damaged.clear()  # another copy was put in its place
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor)
        assert Ledger(monitor).total("readings_received") == 30


def test_a_replay_passes_over_it_again_and_says_nothing() -> None:
    broker = MemoryBroker()
    readings(broker, 30)
    broker.damage(0, 10, 20)
    serve(MODEL, broker, MemoryLog(broker, skip_corrupt=True), checkpoint_age=3600)
    committed = broker.group("residual").offsets[0]
    assert committed == Committed(30, 0), "so that the next one has to read it all again"
    readings(broker, 5)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, MemoryLog(broker, skip_corrupt=True), observer=monitor, checkpoint_age=3600)
        assert Ledger(monitor).total("offsets_unreadable", reason="corrupt") == 0
    assert len(broker.dead_letters) == 1


class SlowLog(MemoryLog):
    """Three records arrive at a time."""

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        return super().poll(timeout_s, min(max_records, 3))


def test_a_batch_is_full_by_its_bytes_too() -> None:
    """2000 records of a megabyte would be 2 GB, and what is made of them many times that."""
    broker = MemoryBroker()
    for _ in range(60):
        broker.produce(b"x" * (DetectorSettings().batch_bytes // 10), b"k", 0, 0)
    batches = []

    class Noted(Monitor):
        def decoded(self, records: int, *more: Any) -> None:
            batches.append(records)
            super().decoded(records, *more)

    chosen = DetectorSettings.load({"stop_at_end": True, "commit_interval": 0, "batch_latency": 60_000})
    decoder = JsonDecoder(MODEL_CHANNELS, broker.topic)
    with Noted(None, 60) as monitor:
        Service(SlowLog(broker), Engine(MODEL, POLICY), decoder, chosen, monitor).run()
    assert sum(batches) == 60
    assert max(batches) <= 11  # as many as fit, by the size of the last ones
