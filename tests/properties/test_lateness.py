"""Lateness: what the reorder buffer lets go on is what the rule says, one reading at a time, and everything after it
goes by that; no split into batches, no restart and no change of the lateness loses a reading or shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracle import OracleBuffer
from thorough import examples
from tiny_model import tiny_image_model, tiny_model

from detector.engine.assembly import NEVER
from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.engine.readings import Readings
from detector.engine.reorder import MOST_NUMBERS, MOST_READINGS, capacity, longest_ns, reorder
from detector.engine.state import Saved, State, layout
from detector.engine.streams import bucket_of
from schemas.alert import Kind
from schemas.errors import ModelError
from schemas.frame import Frame
from schemas.manifest import Season
from schemas.moment import SECOND_NS, parse_time

C = 3
#: Saved in one bucket with another stream, of which more or fewer readings may wait.
BESIDE = next(name for n in range(10**6) if bucket_of(name := f"c{n}", BUCKETS) == bucket_of("a", BUCKETS))
NAMES = ("a", "b", BESIDE, "never-seen")
PARTITION = {"a": 0, "b": 0, BESIDE: 0, "never-seen": 1}
MODELS = {
    "plain": tiny_model(span=2),
    "seasonal": tiny_model(span=2, season=Season(period_s=40, bins=4)),
    "images": tiny_image_model(Frame(1, C, 1)),
}
#: Everything that a month brings, within minutes.
POLICY = Policy(
    k=2, n=4, quiet=3, unseen=20, worse=1.5, update_after=3, flap_after=20, expire_after=60, shift_after=24,
    trial_after=24, drift_after=15, drift_limit=0.8, silent_after=15,
)  # fmt: skip
LATEST = 2**63 - 1

#: Logs are made of seeds, and a smaller seed is no smaller log.
SLOW = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)

# -- the buffer --------------------------------------------------------------------------------------------------------


def put_through(
    state: State, slots: list[int], times: list[int], first: int, lateness: int, most: int
) -> tuple[list[tuple[int, int, int]], int, int]:
    """(slot, time, number) of what goes on, duplicates and early ones; the state's newest times become known."""
    numbers = np.arange(first, first + len(slots))
    values = np.repeat(numbers[:, None], 2, axis=1).astype(np.float32)
    out = reorder(state, np.array(slots), np.array(times), values, numbers, lateness_ns=lateness, capacity=most)
    np.testing.assert_array_equal(out.values[:, 0], out.number.astype(np.float32))
    np.maximum.at(state.time, out.slots, out.times)
    return (
        list(zip(out.slots.tolist(), out.times.tolist(), out.number.tolist(), strict=True)),
        out.duplicates,
        out.early,
    )


moments = st.integers(0, 40) | st.integers(LATEST - 40, LATEST) | st.sampled_from([0, LATEST])
latenesses = st.integers(0, 15) | st.sampled_from([0, 10**18])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), moments), max_size=60),
    st.sets(st.integers(0, 60), max_size=12),
    st.dictionaries(st.integers(0, 60), st.tuples(latenesses, st.integers(2, 8)), max_size=3),
    latenesses,
    st.integers(2, 8),
)
def test_what_goes_on_is_what_the_rule_says(
    arrivals: list[tuple[int, int]], cuts: set[int], changes: dict[int, tuple[int, int]], lateness: int, most: int
) -> None:
    state = State(layout(0, 2, 1, 1))
    state.grow(4)
    oracles = [OracleBuffer(lateness, most) for _ in range(4)]
    edges = sorted({0, len(arrivals), *(cut for cut in (*cuts, *changes) if cut < len(arrivals))})
    for start, stop in pairwise(edges):
        lateness, most = changes.get(start, (lateness, most))
        for oracle in oracles:
            oracle.lateness, oracle.capacity = lateness, most
        before = sum(o.duplicates for o in oracles), sum(o.early for o in oracles)
        slots, times = (list(column) for column in zip(*arrivals[start:stop], strict=True))
        wanted = []
        for number, (slot, time) in enumerate(arrivals[start:stop], start):
            wanted += [(slot, when, what) for when, what in oracles[slot].take(time, number)]
        found, duplicates, early = put_through(state, slots, times, start, lateness, most)
        assert found == wanted
        assert duplicates == sum(o.duplicates for o in oracles) - before[0]
        assert early == sum(o.early for o in oracles) - before[1]
        for slot, oracle in enumerate(oracles):
            places = np.flatnonzero(state.wait_time[slot] != NEVER)
            held = dict(
                zip(state.wait_time[slot, places].tolist(), state.wait_number[slot, places].tolist(), strict=True)
            )
            assert held == oracle.waiting
            assert state.wait_count[slot] == len(oracle.waiting)


@pytest.mark.parametrize("values", [1, 38, 200_000, 10**7])
def test_what_is_kept_of_a_stream_has_a_bound(values: int) -> None:
    longest = longest_ns(SECOND_NS, values)
    most = capacity(longest, SECOND_NS, values)
    assert 2 <= most <= MOST_READINGS
    assert most == 2 or most * values <= MOST_NUMBERS
    assert most > longest // SECOND_NS  # in time and in order nothing is released early
    assert capacity(10**18, SECOND_NS, values) == capacity(2 * longest, SECOND_NS, values) >= most


# -- the engine behind it ----------------------------------------------------------------------------------------------


@dataclass
class Log:
    """Readings in order of arrival."""

    streams: list[str]
    times: NDArray[np.int64]
    values: NDArray[np.float32]

    def batch(self, rows: NDArray[np.int64]) -> list[Readings]:
        """These rows, one ``Readings`` of each partition."""
        found = []
        for partition in (0, 1):
            own = [row for row in rows.tolist() if PARTITION[self.streams[row]] == partition]
            found.append(Readings(partition, [self.streams[row] for row in own], self.times[own], self.values[own]))
        return found


def log_of(seed: int, steps: int, delay: float, trouble: float, burst: int = 1) -> Log:
    """Streams that send every second, ``burst`` readings where there are several, and are now and then loud or silent;
    a reading arrives up to ``delay`` seconds after its time, with ``trouble`` much later, twice, or not at all.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[float, str, int, NDArray[np.float64]]] = []
    for name in NAMES:
        away = 0.0
        for step in range(100 * burst, (100 + steps) * burst):
            second = step / burst
            if second < away:
                continue
            if rng.random() < trouble / 10 / burst:
                away = second + float(rng.integers(5, 40))
            row = rng.normal(size=C) * (4 if (int(second) // 10) % 4 == 0 else 0.5)
            for _ in range(2 if rng.random() < trouble / 3 else 1):
                late = 5 * delay + 3 if rng.random() < trouble / 3 else delay
                found.append((second + rng.uniform(0, late), name, round(second * SECOND_NS), row))
    found.sort(key=lambda reading: reading[0])
    return Log(
        [name for _, name, _, _ in found],
        np.array([time for _, _, time, _ in found], np.int64),
        np.array([row for _, _, _, row in found], np.float32).reshape(len(found), C),
    )


@dataclass
class Told:
    """What an engine says, by partition in the order in which it does: of each reading (stream, score, …), alerts."""

    rows: dict[int, list[tuple[object, ...]]] = field(default_factory=lambda: {0: [], 1: []})
    alerts: dict[int, list[bytes]] = field(default_factory=lambda: {0: [], 1: []})
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, engine: Engine, batches: list[Readings]) -> None:
        scored = engine.process(batches)
        assert len(scored.arrived) == sum(map(len, batches))
        for row, slot in enumerate(scored.slot.tolist()):
            said = [getattr(scored, name)[row].tobytes() for name in ("score", "p_value", "alert", "error", "expected")]
            self.rows[engine.streams.partitions[slot]].append((engine.streams.names[slot], *said))
        for event in scored.published:
            assert scored.slot[event.index] in range(len(engine.streams))
            self.alerts[event.partition].append(event.alert.to_bytes())
        self.counts.update(scored.counts)


def dumps(engine: Engine) -> list[bytes]:
    """The whole state."""
    return [engine.dump(partition, bucket) for partition in (0, 1) for bucket in range(BUCKETS)]


def restarted(engine: Engine, policy: Policy) -> Engine:
    """Another one that goes on from its saved state."""
    again = Engine(engine.model, policy)
    for n, data in enumerate(dumps(engine)):
        again.load(n // BUCKETS, data)
    return again


def play(
    log: Log, model: str, cuts: set[int], restarts: set[int], changes: dict[int, float], policy: Policy
) -> tuple[Told, Engine]:
    """Everything at once between the cuts; restarts and changes of the lateness before what follows some of them."""
    told = Told()
    engine = Engine(MODELS[model], policy)
    n = len(log.streams)
    for start, stop in pairwise(sorted({0, n, *(cut % n for cut in (*cuts, *restarts, *changes))})):
        if start in changes:
            policy = policy.model_copy(update={"lateness": changes[start]})
            if start not in restarts:
                engine.judge_by(policy)
        if start in restarts:
            engine = restarted(engine, policy)
        told.note(engine, log.batch(np.arange(start, stop)))
    return told, engine


def by_the_book(log: Log, model: str, changes: dict[int, float], policy: Policy) -> tuple[Told, list[OracleBuffer]]:
    """An engine without a lateness, given what the oracles let go on, one arrival at a time."""
    lateness = policy.lateness
    values, interval = MODELS[model].manifest.values, SECOND_NS
    oracles = {name: OracleBuffer(0, 2) for name in NAMES}
    order: list[int] = []
    for row, name in enumerate(log.streams):
        lateness = changes.get(row, lateness)
        ns = round(lateness * SECOND_NS)
        oracles[name].lateness, oracles[name].capacity = ns, capacity(ns, interval, values)
        order += [int(str(what)) for _, what in oracles[name].take(int(log.times[row]), row)]
    told = Told()
    told.note(Engine(MODELS[model], policy.model_copy(update={"lateness": 0.0})), log.batch(np.array(order, np.int64)))
    return told, list(oracles.values())


seeds, lengths = st.integers(0, 2**32 - 1), st.integers(5, 120)
places = st.sets(st.integers(0, 1000), max_size=20)
seconds = st.sampled_from([0.0, 0.5, 3.0, 10.0, 40.0])


@SLOW
@given(
    seeds, lengths, st.sampled_from([0.5, 3.0, 10.0]), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([1, 1, 5]),
    st.sampled_from(sorted(MODELS)), seconds, places, places, st.dictionaries(st.integers(0, 300), seconds, max_size=3),
    st.sampled_from([0.0, 15.0]),
)  # fmt: skip
def test_everything_goes_by_what_the_buffer_lets_go_on(
    seed: int, steps: int, delay: float, trouble: float, burst: int, model: str, lateness: float,
    cuts: set[int], restarts: set[int], changes: dict[int, float], silent_after: float,
) -> None:  # fmt: skip
    """However it is split, wherever it is restarted, whatever the lateness becomes on the way. (Who is silent is told
    by what waits, too.)
    """
    policy = POLICY.model_copy(update={"lateness": lateness, "silent_after": silent_after})
    log = log_of(seed, steps, delay, trouble, burst)
    n = len(log.streams)
    restarts = {place % n for place in restarts}
    changes = {place % n: late for place, late in changes.items()}
    wanted, oracles = by_the_book(log, model, changes, policy)
    found, engine = play(log, model, cuts, restarts, changes, policy)
    if not silent_after:
        assert found.rows == wanted.rows
        assert {p: sorted(said) for p, said in found.alerts.items()} == {
            p: sorted(said) for p, said in wanted.alerts.items()
        }
    assert found.counts["duplicate"] == wanted.counts["duplicate"] + sum(o.duplicates for o in oracles)
    assert found.counts["late"] == wanted.counts["late"]
    assert found.counts["released_early"] == sum(o.early for o in oracles)
    assert engine.waiting == sum(len(o.waiting) for o in oracles)
    counts = found.counts
    dropped = counts["late"] + counts["duplicate"]
    assert counts["received"] == n == counts["scored"] + counts["warming_up"] + dropped + engine.waiting
    whole, other = play(log, model, set(changes), set(), changes, policy)
    assert dumps(engine) == dumps(other)
    assert whole.rows == found.rows
    assert {p: sorted(said) for p, said in found.alerts.items()} == {
        p: sorted(said) for p, said in whole.alerts.items()
    }


@SLOW
@given(seeds, lengths, st.sampled_from([0.5, 3.0, 10.0]), st.sampled_from(sorted(MODELS)), places)
def test_disorder_within_the_lateness_does_not_show(
    seed: int, steps: int, delay: float, model: str, cuts: set[int]
) -> None:
    """Each stream's scores and alerts are those of its readings in the order of time; the newest alone wait."""
    log = log_of(seed, steps, delay, 0.0)
    quiet = POLICY.model_copy(update={"silent_after": 0.0})  # who is silent is told by the order among streams
    ordered = np.argsort(log.times, kind="stable")
    wanted, found, n = Told(), Told(), len(log.streams)
    wanted.note(Engine(MODELS[model], quiet), log.batch(ordered))
    engine = Engine(MODELS[model], quiet.model_copy(update={"lateness": delay}))
    for start, stop in pairwise(sorted({0, n, *(cut % n for cut in cuts)})):
        found.note(engine, log.batch(np.arange(start, stop)))
    assert engine.waiting <= len(NAMES) * (delay + 1)
    assert found.counts["received"] == found.counts["scored"] + found.counts["warming_up"] + engine.waiting
    for name in NAMES:
        rows = [row for row in found.rows[PARTITION[name]] if row[0] == name]
        assert rows == [row for row in wanted.rows[PARTITION[name]] if row[0] == name][: len(rows)]
    for partition, alerts in found.alerts.items():
        assert set(alerts) <= set(wanted.alerts[partition])


def test_there_is_everything_in_it() -> None:
    """Late readings, duplicates of both sorts, early releases, silence, set-back clocks and other incidents."""
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(12):
        log = log_of(seed, 120, 3.0, 0.5 if seed % 2 else 0.1, 5 if seed % 3 == 0 else 1)
        policy = POLICY.model_copy(update={"lateness": 3.0})
        told, oracles = by_the_book(log, "plain", {}, policy)
        waited, _ = play(log, "plain", set(), set(), {}, policy)
        counts += told.counts + Counter(early=sum(o.early for o in oracles), waited=sum(o.duplicates for o in oracles))
        for alerts in waited.alerts.values():
            kinds.update(alert.split(b'"kind":"')[1].split(b'"')[0].decode() for alert in alerts)
    assert min(counts[what] for what in ("late", "duplicate", "early", "waited", "scored")) >= 10
    assert {"anomaly", "shift", "silent", "clock"} <= set(kinds)


def feed(engine: Engine, seconds: list[float], stream: str = "a") -> tuple[list[int], Counter[str]]:
    """Numbers of the readings that went on, and the counts."""
    times = (np.array(seconds) * SECOND_NS).astype(np.int64)
    scored = engine.process([Readings(0, [stream] * len(times), times, np.zeros((len(times), C), np.float32))])
    return scored.number.tolist(), scored.counts


def late_by(lateness: float) -> Engine:
    return Engine(MODELS["plain"], POLICY.model_copy(update={"lateness": lateness}))


def test_readings_are_numbered_as_they_came() -> None:
    engine = late_by(2)
    assert feed(engine, [0, 2, 1]) == ([0], Counter(received=3, warm_ups=1, warming_up=1))
    assert feed(engine, [3, 4])[0] == [2, 1]
    again = restarted(engine, engine.policy)
    assert feed(again, [5, 6])[0] == [-1, -1]  # they came before
    assert feed(again, [7, 8])[0] == [0, 1]


def test_what_waits_when_the_lateness_ends_goes_on_with_the_next_reading_of_its_stream() -> None:
    engine = late_by(10)
    assert feed(engine, [0, 2, 1])[0] == []
    feed(engine, [5], "b")
    for one in (engine, restarted(engine, POLICY)):
        one.judge_by(POLICY)
        assert one.waiting == 4
        assert feed(one, [6], "b")[0][-1] >= 0
        assert one.waiting == 3
        number, counts = feed(one, [2])  # a duplicate, but a reading
        assert (len(number), counts["duplicate"], one.waiting) == (3, 1, 0)
    assert feed(engine, [1, 3])[1]["late"] == 1


def test_readings_of_other_values_that_wait_belong_to_another_model() -> None:
    engine, narrow = late_by(10), State(layout(4, 2, 1, 1))
    feed(engine, [0, 1, 2])
    saved = Saved.parse(engine.dump(0, bucket_of("a", BUCKETS)))
    narrow.grow(1)
    with pytest.raises(ModelError, match="3 values that wait, the model wants 2"):
        narrow.load(saved, np.array([0]))


def test_a_state_in_which_nothing_waits_has_no_room_for_it() -> None:
    waits, none = late_by(10), late_by(0)
    feed(none, [0, 1, 2])
    bucket = int(none.streams.bucket(np.array([0]))[0])
    before = none.dump(0, bucket)
    feed(waits, [0, 1, 2])
    assert len(waits.dump(0, bucket)) > len(before)
    waits.judge_by(POLICY)
    feed(waits, [0])
    assert b'"reorder":{}' in before
    assert b'"reorder":{}' in waits.dump(0, bucket)
    assert waits.waiting == 0


def fleet(stops: int) -> Log:
    """Two streams that send every five seconds, and one every minute, up to a time."""
    found = [(second, name) for second in range(0, 1500, 5) for name in ("a", "b")]
    found = sorted(found + [(second, BESIDE) for second in range(2, stops, 60)])
    times = np.array([second for second, _ in found], np.int64) * SECOND_NS
    return Log([name for _, name in found], times, np.zeros((len(found), C), np.float32))


@pytest.mark.parametrize("lateness", [0.0, 1.0, 20.0, 70.0])
@pytest.mark.parametrize("batch", [1, 7, 10**6])
def test_a_stream_that_sends_seldom_is_not_silent_because_its_newest_reading_waits(lateness: float, batch: int) -> None:
    """As long as its pauses are within the limit, which is one and a half of them; where it stops, that is told."""
    for stops in (1500, 700):
        log = fleet(stops)
        engine = Engine(MODELS["plain"], POLICY.model_copy(update={"silent_after": 90.0, "lateness": lateness}))
        alerts = []
        for start in range(0, len(log.streams), batch):
            rows = np.arange(start, min(start + batch, len(log.streams)))
            alerts += [event.alert for event in engine.process(log.batch(rows)).published]
        silent = [alert for alert in alerts if alert.data.kind is Kind.SILENT]
        assert [alert.subject for alert in silent] == ([] if stops == 1500 else [BESIDE])
        for alert in silent:  # its newest reading is of 662
            assert parse_time(alert.data.began) // SECOND_NS == 662
            assert 662 + 90 <= parse_time(alert.time) // SECOND_NS <= 662 + 90 + lateness + 10
