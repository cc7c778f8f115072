"""Replay: the same log gives the same events byte for byte, however it was split, wherever the detector was restarted
in the middle of open incidents, and with what operators said in its place.

The logs are scripts: each stream goes from one trouble to the next, so that every kind of incident occurs in all of its
ways; the last test counts them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from thorough import examples
from tiny_model import tiny_image_model, tiny_model
from troubles import KNOWN, C, script

from detector.engine.alerts import Published
from detector.engine.baseline import Baselines, Turned
from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from detector.engine.segments import Ints
from detector.engine.state import State
from detector.engine.streams import bucket_of
from schemas.alert import Alert, Ended, EventType, Kind
from schemas.command import Command, Verb
from schemas.frame import Frame
from schemas.manifest import Season
from schemas.moment import SECOND_NS, parse_time

#: Silence takes three streams of a partition.
NAMES = ("a", "b", "c", "never-seen")
FRAME = Frame(1, C, 1)
MODEL = tiny_model(known=KNOWN, span=2)
SEASONAL = tiny_model(known=KNOWN, span=2, season=Season(period_s=40, bins=4))
IMAGES = tiny_image_model(FRAME)
MODELS = {"plain": MODEL, "seasonal": SEASONAL, "images": IMAGES}
#: Everything that a month brings, within minutes.
POLICY = Policy(
    k=2, n=4, quiet=3, unseen=20, worse=1.5, update_after=3, flap_after=20, expire_after=60, shift_after=24,
    trial_after=24, drift_after=15, drift_limit=0.8, silent_after=15,
)  # fmt: skip

Columns = dict[str, NDArray[np.generic]]


@dataclass
class Log:
    """Readings in order of arrival, and what operators say before the readings at these places."""

    streams: list[str]
    times: NDArray[np.int64]
    values: NDArray[np.float32]
    orders: list[tuple[int, Command]] = field(default_factory=list)

    def batch(self, start: int, stop: int) -> tuple[list[Readings], NDArray[np.int64]]:
        """One Readings per partition, and where each of their rows stands in the log."""
        found, places = [], []
        for partition in (0, 1):
            rows = np.array([r for r in range(start, stop) if partition_of(self.streams[r]) == partition], np.int64)
            places.append(rows)
            found.append(Readings(partition, [self.streams[r] for r in rows], self.times[rows], self.values[rows]))
        return found, np.concatenate(places)


def partition_of(stream: str) -> int:
    return int(stream == "never-seen")


def log_of(seed: int, steps: int, said: int) -> Log:
    """All streams through ``steps`` seconds, and ``said`` orders."""
    rng = np.random.default_rng(seed)
    scripts = {name: script(rng, steps) for name in NAMES}
    streams, times, values = [], [], []
    for step in range(steps):
        for name in rng.permutation(NAMES).tolist():
            if not np.isnan(scripts[name].times[step]):
                streams.append(name)
                times.append(int(scripts[name].times[step]) * SECOND_NS)
                values.append(scripts[name].values[step])
    places = np.sort(rng.integers(0, len(streams) + 1, said)).tolist()
    orders = [(place, order(rng, number)) for number, place in enumerate(places)]
    return Log(streams, np.array(times), np.array(values), orders)


def order(rng: np.random.Generator, number: int) -> Command:
    verb = Verb(rng.choice(["accept", "confirm", "confirm"]))
    channels = ("c1",) if rng.random() < 0.2 else ()
    return Command(id=str(number), command=verb, stream=str(rng.choice(NAMES)), channels=channels)


class Detector:
    """An engine with what a consumer group keeps of it: its state, and the records of open incidents."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.engine = Engine(model, POLICY)
        self.records: dict[tuple[int, str], bytes] = {}
        self.events: list[tuple[int, Alert]] = []
        """With the place in the log of what caused each."""
        self.interrupted: Counter[Kind] = Counter()
        """Incidents that were open at a restart."""

    def restart(self) -> None:
        """From the saved state; the incidents are those that were published."""
        used = {(partition_of(name), bucket_of(name, BUCKETS)) for name in NAMES}
        saved = [(partition, self.engine.dump(partition, bucket)) for partition, bucket in sorted(used)]
        self.engine = Engine(self.model, POLICY)
        for partition, data in saved:
            self.engine.load(partition, data)
        for partition in (0, 1):
            records = {stream: record for (p, stream), record in self.records.items() if p == partition}
            self.engine.set_incidents(partition, records)
        last = {alert.data.incident: alert for _, alert in self.events}
        self.interrupted.update(alert.data.kind for alert in last.values() if alert.type is not EventType.RESOLVED)

    def note(self, place: int, published: list[Published]) -> None:
        """What was published, and where in the log."""
        for event in published:
            self.events.append((place if event.index < 0 else event.index, event.alert))
            key = event.partition, event.stream
            self.records.pop(key, None)
            if event.record is not None:
                self.records[key] = event.record

    def take(self, log: Log, start: int, stop: int, out: Columns) -> None:
        """Readings of the log."""
        batches, places = log.batch(start, stop)
        scored = self.engine.process(batches)
        before = len(self.events)
        self.note(-1, scored.published)
        self.events[before:] = [(int(places[index]), alert) for index, alert in self.events[before:]]
        for name in ("score", "p_value", "alert", "error", "expected"):
            column = getattr(scored, name)
            out.setdefault(name, np.zeros((len(log.streams), *column.shape[1:]), column.dtype))[places] = column


def play(log: Log, model: Model, cuts: set[int], restarts: set[int]) -> tuple[Columns, Detector]:
    """All that comes out; restarts at some of the cuts, before what operators say there."""
    detector, out = Detector(model), {}
    edges = sorted({0, len(log.streams), *cuts, *restarts, *(place for place, _ in log.orders)})
    said = list(log.orders)
    for start, stop in pairwise([*edges, len(log.streams)]):
        if start in restarts:
            detector.restart()
        while said and said[0][0] == start:
            command = said.pop(0)[1]
            detector.note(start, detector.engine.apply(partition_of(command.stream), command))
        if start < stop:
            detector.take(log, start, stop, out)
    assert not said
    return out, detector


def text(detector: Detector) -> list[bytes]:
    """Each stream's events in their order."""
    return [alert.to_bytes() for _, alert in sorted(detector.events, key=lambda e: (e[1].subject, e[0]))]


def check_lives(log: Log, detector: Detector, alert: NDArray[np.generic]) -> None:
    """Incidents are well-formed, and the alert column says what the events say."""
    numbers: Counter[str] = Counter()
    over: set[str] = set()
    events = sorted(detector.events, key=lambda e: e[0])
    is_open: dict[str, set[str]] = {name: set() for name in NAMES}
    at = 0
    for row, stream in enumerate(log.streams):
        while at < len(events) and events[at][0] <= row:
            one = events[at][1]
            incident = one.data.incident
            assert one.id == f"{incident}-{numbers[incident]}"
            assert (numbers[incident] == 0) == (one.type is EventType.OPENED)
            assert incident not in over
            assert one.data.summary
            assert parse_time(one.data.began) <= parse_time(one.data.opened) <= parse_time(one.time)
            assert (one.data.ended is None) == (one.type is not EventType.RESOLVED)
            numbers[incident] += 1
            if one.type is EventType.RESOLVED:
                over.add(incident)
                is_open[one.subject].remove(incident)
            else:
                is_open[one.subject].add(incident)
            at += 1
        assert alert[row] == bool(is_open[stream]), (row, stream)


def same(one: Columns, other: Columns) -> None:
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name], err_msg=name)


#: Not shrunk: a log is a seed, and a smaller seed is no smaller log.
SLOW = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@SLOW
@given(
    st.integers(0, 2**32 - 1),
    st.integers(60, 240),
    st.integers(0, 4),
    st.sampled_from(sorted(MODELS)),
    st.sets(st.integers(0, 1000), max_size=20),
    st.sets(st.integers(0, 1000), min_size=1, max_size=8),
)
def test_the_same_log_twice(seed: int, steps: int, said: int, model: str, cuts: set[int], restarts: set[int]) -> None:
    log = log_of(seed, steps, said)
    n = len(log.streams)
    whole, once = play(log, MODELS[model], set(), set())
    check_lives(log, once, whole["alert"])
    split, again = play(log, MODELS[model], {c % n for c in cuts}, {r % n for r in restarts})
    assert text(once) == text(again)
    same(whole, split)


#: Everything that may happen to an incident: what the event is, the kind, why it ended.
LIVES: set[tuple[EventType, Kind, Ended | None]] = {
    *((EventType.OPENED, kind, None) for kind in Kind if kind is not Kind.SHIFT),
    *((EventType.RESOLVED, kind, Ended.QUIET) for kind in Kind if kind is not Kind.SHIFT),
    *((EventType.UPDATED, kind, None) for kind in (Kind.ANOMALY, Kind.SHIFT)),
    (EventType.RESOLVED, Kind.SHIFT, Ended.REBASELINED),
    (EventType.RESOLVED, Kind.ANOMALY, Ended.ACCEPTED),
    (EventType.RESOLVED, Kind.ANOMALY, Ended.EXPIRED),
}
#: Logs that have all of them.
SEEDS = 25
#: What may become of a shift on trial, or without an end.
TRIALS = {"returned", "settled", "relieved"}


def test_the_logs_have_everything_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each kind was open when the detector was restarted, but drift: it is over with the next reading."""
    seen: Counter[tuple[EventType, Kind, Ended | None]] = Counter()
    open_then: Counter[Kind] = Counter()
    trials: Counter[str] = Counter()
    _count_trials(monkeypatch, trials)
    for seed in range(SEEDS):
        log = log_of(seed, 200, 3)
        n = len(log.streams)
        _, detector = play(log, MODEL, set(), set(range(n // 8, n, n // 8)))
        seen.update((alert.type, alert.data.kind, alert.data.ended) for _, alert in detector.events)
        open_then += detector.interrupted
    assert LIVES - set(seen) == set()
    assert {*Kind} - {Kind.DRIFT} - set(open_then) == set()
    assert TRIALS - set(trials) == set()


def _count_trials(monkeypatch: pytest.MonkeyPatch, trials: Counter[str]) -> None:
    advance = Baselines.advance

    def counted(self: Baselines, memory: State, slots: Ints, *rest: Any) -> Turned:
        relief = memory.base_relief[slots].copy()
        turned = advance(self, memory, slots, *rest)
        trials["returned"] += int(turned.returned.sum())
        trials["settled"] += int(turned.settled.sum())
        trials["relieved"] += int((memory.base_relief[slots] > relief).sum())
        return turned

    monkeypatch.setattr(Baselines, "advance", counted)
