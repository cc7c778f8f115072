"""The rules for broken sensors against plain loops over single readings, and however the readings are split."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector.engine import clocks, sensors, silence
from detector.engine.assembly import NEVER, judge
from detector.engine.runs import Fields
from detector.engine.segments import Ints, Segments
from detector.engine.silence import Silence, Silences
from detector.engine.state import Saved, State
from schemas.manifest import Channel

C, S = 3, 5
CHANNELS = (
    Channel(name="a", stuck_after=3, missing_after=2, highest=2),
    Channel(name="b", stuck_after=0, missing_after=1, lowest=0.5),
    Channel(name="c", stuck_after=1),
)
LIMIT, AHEAD = 20, 10
TIME: Fields = {"time": ((), np.dtype("<i8"), NEVER)}
LAYOUT: dict[str, Fields] = {"tail": TIME, "sensors": sensors.fields(C) | clocks.fields() | silence.fields()}

SLOW = settings(max_examples=200, deadline=None)


@dataclass
class Log:
    """Readings of one partition in order of arrival; times in ns, so small that they are easily read."""

    slots: Ints
    times: Ints
    values: NDArray[np.float32]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Few values, so that they repeat; pauses, late readings and duplicates; streams that come, go and run ahead."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, streams = draw(st.integers(1, 150)), draw(st.integers(1, S))
    trouble, missing = draw(st.sampled_from([0.0, 0.1, 0.5])), draw(st.sampled_from([0.0, 0.2, 0.7]))
    slots, times = np.empty(n, np.int64), np.empty(n, np.int64)
    alive, now, offset = np.ones(streams, bool), 100, np.zeros(streams, np.int64)
    for row in range(n):
        if rng.random() < 0.05:
            alive = rng.random(streams) < 0.6
            offset = np.where(rng.random(streams) < trouble, rng.integers(-60, 60, streams), 0)
        slots[row] = rng.choice(np.flatnonzero(alive)) if alive.any() else rng.integers(0, streams)
        now += int(rng.choice([0, 1, 2, 3, 50 if rng.random() < 0.1 else 1]))
        jump = rng.choice([-30, -1, 0, 5]) if rng.random() < trouble else 0
        times[row] = max(now + offset[slots[row]] + jump, 0)
    values = rng.integers(0, draw(st.sampled_from([2, 4])), (n, C)).astype(np.float32)
    values[rng.random((n, C)) < missing] = np.nan
    return Log(slots, times, values)


def fresh() -> State:
    memory = State(LAYOUT)
    memory.grow(S)
    return memory


def restarted(memory: State) -> State:
    """What a restart in between makes of it."""
    names = [str(slot) for slot in range(S)]
    again = fresh()
    again.load(Saved.parse(memory.dump(names, np.arange(S), "0" * 64)), np.arange(S))
    return again


@dataclass
class Seen:
    """All that came out, in order of arrival; rows of dropped readings stay 0."""

    rows: dict[str, NDArray[Any]]
    silences: list[Silence] = field(default_factory=list)


def play(log: Log, edges: list[int], *, restart: bool = False) -> tuple[Seen, State]:
    """Batches as an engine would take them."""
    n, memory, told = len(log.times), fresh(), np.zeros(S, dtype=bool)
    rules, watch = sensors.Sensors(CHANNELS), Silences(LIMIT, AHEAD)
    seen = Seen({name: np.zeros((n, 3), bool) for name in ("on", "off")})
    seen.rows |= {name: np.zeros((n, 3, C), bool) for name in ("which",)}
    seen.rows |= {name: np.zeros(n, np.int64) for name in ("clock_on", "clock_off", "back")}
    for start, stop in pairwise(edges):
        if restart:
            memory = restarted(memory)
        order = np.argsort(log.slots[start:stop], kind="stable")
        slots, times = log.slots[start:stop][order], log.times[start:stop][order]
        segments = Segments.of(slots)
        newest = memory.time[segments.slots]
        fate = judge(segments, times, newest)
        mark = clocks.follow(memory, segments, times, fate, newest)
        place = start + order
        seen.rows["clock_on"][place], seen.rows["clock_off"][place] = mark.on, mark.off
        seen.rows["back"][place] = np.where(mark.on, mark.back, 0)

        kept = np.sort(order[fate.accepted])  # in order of arrival
        at = start + kept
        for event in watch.follow(memory, np.arange(S), log.slots[at], log.times[at], at, told):
            told[event.slot] = event.silent
            seen.silences.append(event)

        place, slots, times = place[fate.accepted], slots[fate.accepted], times[fate.accepted]
        segments = Segments.of(slots)
        marks = rules.follow(memory, segments, log.values[place])
        for rule, found in enumerate((marks.stuck, marks.missing, marks.outside)):
            seen.rows["on"][place, rule], seen.rows["off"][place, rule] = found.on, found.off
            seen.rows["which"][place, rule] = found.which
        memory.time[segments.slots] = times[segments.last]
    return seen, memory


def edges_of(log: Log, cuts: list[int]) -> list[int]:
    n = len(log.times)
    return sorted({0, n, *(cut % n for cut in cuts)})


@SLOW
@given(logs(), st.lists(st.integers(0, 1000), max_size=12), st.booleans())
def test_any_split_and_any_restart_give_the_same(log: Log, cuts: list[int], restart: bool) -> None:
    whole, memory = play(log, [0, len(log.times)])
    split, other = play(log, edges_of(log, cuts), restart=restart)
    for name, rows in whole.rows.items():
        np.testing.assert_array_equal(rows, split.rows[name], err_msg=name)
    assert whole.silences == split.silences
    for name in (*TIME, *LAYOUT["sensors"]):
        np.testing.assert_array_equal(getattr(memory, name)[:S], getattr(other, name)[:S], err_msg=name)


class Plain:
    """One stream, reading by reading, as the rules are written down."""

    def __init__(self) -> None:
        self.newest = NEVER
        self.late: list[int] = []
        self.runs: list[list[float]] = [[] for _ in range(C)]
        self.absent = [0] * C
        self.flags: list[list[str]] = [[], [], []]

    def take(self, time: int, values: NDArray[np.float32]) -> tuple[list[tuple[bool, bool, list[bool]]], Any]:
        """(on, off, which) of each rule, and (on, off, back) of the clock's; no rule of a dropped reading."""
        if time <= self.newest:
            return [], self.drop(time)
        self.newest, self.late = time, []
        return [self.stuck(values), self.missing(values), self.outside(values)], (False, True, 0)

    def drop(self, time: int) -> tuple[bool, bool, int]:
        if time == self.newest or (self.late and time == self.late[-1]):
            return False, False, 0
        self.late = [*self.late, time] if not self.late or time > self.late[-1] else [time]
        on = len(self.late) >= clocks.AFTER
        return on, False, self.newest - self.late[0] if on else 0

    def stuck(self, values: NDArray[np.float32]) -> tuple[bool, bool, list[bool]]:
        which = []
        for c, channel in enumerate(CHANNELS):
            if not np.isnan(values[c]):
                run = self.runs[c]
                self.runs[c] = [*run, values[c]] if run and run[-1] == values[c] else [values[c]]
            which.append(bool(channel.stuck_after) and len(self.runs[c]) > (channel.stuck_after or 0))
        self.flags[0].append("bad" if any(which) else "good")
        return any(which), self.quiet(0, sensors.STUCK_QUIET), which

    def missing(self, values: NDArray[np.float32]) -> tuple[bool, bool, list[bool]]:
        self.absent = [self.absent[c] + 1 if np.isnan(values[c]) else 0 for c in range(C)]
        limits = [channel.missing_after for channel in CHANNELS]
        which = [
            bool(limit) and gone > (limit or 0) and bool(run)
            for gone, limit, run in zip(self.absent, limits, self.runs, strict=True)
        ]
        return any(which), not any(which), which

    def outside(self, values: NDArray[np.float32]) -> tuple[bool, bool, list[bool]]:
        which = [bool(values[0] > 2), bool(values[1] < 0.5), False]
        flag = "bad" if any(which) else "good"
        self.flags[2].append("none" if np.isnan(values[:2]).all() else flag)
        on = flag == "bad" and self.flags[2][-sensors.RANGE_N :].count("bad") >= sensors.RANGE_K
        return on, self.quiet(2, sensors.RANGE_QUIET), which

    def quiet(self, rule: int, length: int) -> bool:
        return self.flags[rule][-length:] == ["good"] * length


@SLOW
@given(logs())
def test_each_stream_by_the_book(log: Log) -> None:
    seen, _ = play(log, [0, len(log.times)])
    streams = [Plain() for _ in range(S)]
    for row, (slot, time) in enumerate(zip(log.slots.tolist(), log.times.tolist(), strict=True)):
        rules, (on, off, back) = streams[slot].take(time, log.values[row])
        assert (seen.rows["clock_on"][row], seen.rows["clock_off"][row], seen.rows["back"][row]) == (on, off, back)
        for rule, (on, off, which) in enumerate(rules):
            assert (seen.rows["on"][row, rule], seen.rows["off"][row, rule]) == (on, off), (row, rule)
            assert seen.rows["which"][row, rule].tolist() == which, (row, rule)


@dataclass
class Partition:
    """Who is silent, asked of every stream after every reading."""

    newest: dict[int, int] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    witness: dict[int, int] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)

    @property
    def clock(self) -> int:
        times = sorted([NEVER, NEVER, *self.witness.values()])
        return max(times[-2], times[-1] - AHEAD)

    def silent(self, slot: int) -> bool:
        return self.clock - self.newest[slot] > LIMIT and slot in self.witness

    def take(self, row: int, slot: int, time: int) -> list[Silence]:
        if time <= self.newest.get(slot, NEVER):
            return []
        was = {other: self.silent(other) for other in self.newest}
        if slot not in self.newest or time - self.newest[slot] > LIMIT:
            self.since[slot] = time
        self.newest[slot] = time
        if time - self.since[slot] > LIMIT:
            self.witness[slot] = time
        found = []
        for other in sorted(self.newest):
            if other != slot and self.silent(other) and not was[other] and other not in self.told:
                self.told.add(other)
                found.append(Silence(other, row, self.clock, self.newest[other], silent=True))
        if slot in self.told and self.clock - time <= LIMIT:
            self.told.remove(slot)
            found.append(Silence(slot, row, self.clock, time, silent=False))
        return found


@SLOW
@given(logs())
def test_silence_by_the_book(log: Log) -> None:
    seen, _ = play(log, [0, len(log.times)])
    plain = Partition()
    rows = zip(log.slots.tolist(), log.times.tolist(), strict=True)
    wanted = [event for row, (slot, time) in enumerate(rows) for event in plain.take(row, slot, time)]
    assert sorted(seen.silences, key=lambda e: (e.index, e.slot)) == sorted(wanted, key=lambda e: (e.index, e.slot))


def test_the_state_keeps_its_budget() -> None:
    """Of 160 bytes per channel these rules take 8, and of a kilobyte per stream 64."""
    sizes = {
        name: int(np.prod(shape, dtype=int)) * dtype.itemsize for name, (shape, dtype, _) in LAYOUT["sensors"].items()
    }
    per_channel = sum(size for name, size in sizes.items() if name in ("sensor_value", "sensor_same", "sensor_absent"))
    assert per_channel <= 8 * C
    assert sum(sizes.values()) - per_channel <= 64
