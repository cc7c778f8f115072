"""Silent streams: those that send nothing while others of their partition do.

A stream is *silent* while the partition's clock is more than ``limit`` past the stream's newest accepted time. That is
a function of a few times of each stream, kept and saved with it, so a restart at any point knows who is silent.

The partition's clock is told by *witnesses*: a stream is one while it has been sending for longer than the limit
without a pause as long as that. So after a night or an outage, when all of them come back one by one, nobody is silent
before the others have been there for a limit; and a single reading from the far future tells nothing. The clock is the
time of the second newest witness, so that one clock that runs ahead makes nobody silent; or the newest's, less
``ahead``, so that the last survivor still tells: further ahead than that no clock is believed at all.

A stream whose machine was off with its newest reading (see ``gates``) is not expected to send, however it is for the
clock.

Only a stream that has itself been a witness can fall silent: one that reports less often than the limit, or was there
for a moment, never was expected.

With a lateness a stream's newest time is that of its newest reading, not of the newest that was released: of one that
reports seldom, that is a whole pause older. It becomes known with the next release, and is then at most a lateness
behind: the limit is as much longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER
from detector.engine.segments import Ints, Segments
from schemas.moment import SECOND_NS

#: The limit where none is set: seconds, and intervals between readings; the larger of both.
LEAST_S, LEAST_INTERVALS = 3600.0, 10

Bools = NDArray[np.bool_]
Times = NDArray[np.int64]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields() -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met)."""
    i64 = np.dtype("<i8")
    return {
        "silence_newest": ((), i64, NEVER),
        "silence_since": ((), i64, NEVER),
        "silence_witness": ((), i64, NEVER),
    }


def limit_ns(told_s: float | None, learned_s: float | None, interval_ns: int) -> int:
    """The limit in nanoseconds: what is set (0: nobody is silent), else what was learned, else a guess."""
    if told_s is not None:
        return round(told_s * SECOND_NS)
    if learned_s is not None:
        return round(learned_s * SECOND_NS)
    return max(round(LEAST_S * SECOND_NS), LEAST_INTERVALS * interval_ns)


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

    time: Times
    """``[S]``: the newest time that was scored."""
    silence_newest: Times
    """``[S]``: the newest time that was known of at the last release; as good as ``time`` where that is later."""
    silence_since: Times
    """``[S]``: the first time after the newest pause."""
    silence_witness: Times
    """``[S]``: the newest time at which it was a witness; NEVER: it was none yet."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A stream fell silent, or is back.

    ``slot``: the stream; ``index``: the reading that showed it, by its place in the batch: of another stream where one
    fell silent, its own where it is back; ``time``: the partition's clock then, ns; ``newest``: the stream's own newest
    time, ns.
    """

    slot: int
    index: int
    time: int
    newest: int
    silent: bool


@dataclass(frozen=True, slots=True)
class _Stays:
    """Stretches of a batch in which a stream's newest time stays the same."""

    slots: Ints
    times: Times
    start: Ints
    """After how many readings of the batch it begins; 0: before the first."""
    stop: Ints
    """After how many it is still so: then comes the stream's next reading, or the end."""
    expected: Bools
    """The stream has been a witness."""


class Silences:
    """The rule, with its limit and how far ahead a clock may be, in nanoseconds. A limit of 0: nobody is silent."""

    def __init__(self, limit_ns: int, ahead_ns: int) -> None:
        self._limit, self._ahead = limit_ns, ahead_ns

    def follow(
        self,
        memory: Memory,
        members: Ints,
        slots: Ints,
        times: Times,
        index: Ints,
        told: Bools,
        off: Bools | None = None,
        were_off: Bools | None = None,
    ) -> list[Silence]:
        """Who fell silent or came back, in the order of the readings that showed it.

        Of one partition: ``members``, the slots of all of its streams; ``slots``, ``times`` and ``index`` ``[m]`` of
        the accepted readings, in order of arrival, and the place of each in the batch; the times are the newest known
        ones of their streams. ``told`` ``[S]``: who counts as silent at present. ``off`` ``[m]``: the machine was off
        with a reading; ``were_off`` ``[S]``: with the newest before the batch; None: none was. Call it before
        ``memory.time`` knows of these readings; its own arrays it brings up to date.
        """
        if not self._limit or not len(slots):
            return []
        clock = _Clock.of(members, memory.silence_witness[members])
        order = np.argsort(slots, kind="stable")
        segments = Segments.of(slots[order])
        known = memory.silence_witness[segments.slots] != NEVER
        newest = np.full(len(told), NEVER)
        newest[members] = np.maximum(memory.time[members], memory.silence_newest[members])
        grown = self._grow(memory, segments, times[order], newest)
        witness = np.empty(len(slots), dtype=bool)
        witness[order] = grown
        due = clock.after(slots, times, witness, self._ahead) - self._limit
        off = np.zeros(len(slots), bool) if off is None else off[order]
        were_off = np.zeros(len(told), bool) if were_off is None else were_off
        stays = _stays(
            memory, newest, members, segments, order, times[order], known & ~were_off[segments.slots],
            ((segments.latest(grown) >= 0) | known[segments.of_row]) & ~off, due, were_off,
        )  # fmt: skip
        falls = self._falls(stays, due)
        memory.silence_newest[segments.slots] = times[order][segments.last]
        open_ones = told[slots]
        if falls:
            open_ones = open_ones | np.isin(slots, [event.slot for event in falls])
        back = np.flatnonzero(open_ones & (due[1:] <= times))
        comes = [
            Silence(int(slots[at]), int(at), int(due[at + 1]) + self._limit, int(times[at]), silent=False)
            for at in back.tolist()
        ]
        return _alternating(sorted(falls + comes, key=lambda event: (event.index, event.slot)), index, told)

    def _grow(self, memory: Memory, segments: Segments, times: Times, newest: Times) -> Bools:
        """Which readings ``[m]``, sorted by stream, are of a witness; ``newest`` ``[S]``: each stream's before."""
        slots = segments.slots
        before = segments.previous(times, newest[slots])
        start = segments.latest((times - self._limit > before) | (before == NEVER))
        since = np.where(start >= 0, times[start], memory.silence_since[slots][segments.of_row])
        grown: Bools = times - self._limit > since
        newest = segments.latest(grown)[segments.last]
        memory.silence_since[slots] = since[segments.last]
        memory.silence_witness[slots] = np.where(newest >= 0, times[newest], memory.silence_witness[slots])
        return grown

    def _falls(self, stays: _Stays, due: Times) -> list[Silence]:
        """Who was in time when its stay began, and is not when it ends. Few, so a loop."""
        times = stays.times
        fell = np.flatnonzero(stays.expected & (due[stays.start] <= times) & (due[stays.stop] > times))
        after = np.searchsorted(due, times[fell], side="right")  # the clock never goes back
        return [
            Silence(int(stays.slots[at]), int(count) - 1, int(due[count]) + self._limit, int(times[at]), silent=True)
            for at, count in zip(fell.tolist(), after.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Clock:
    """The newest witness, its time, and the time of the second newest; NEVER where there is none."""

    leader: int
    newest: int
    second: int

    @classmethod
    def of(cls, members: Ints, witness: Times) -> _Clock:
        """By the witness times ``[P]`` of a partition's streams."""
        at = int(witness.argmax())
        second = max(witness[:at].max(initial=NEVER), witness[at + 1 :].max(initial=NEVER))
        return cls(int(members[at]), int(witness[at]), int(second))

    def after(self, slots: Ints, times: Times, witness: Bools, ahead: int) -> Times:
        """The partition's clock before the batch and after each of its readings, ``[m + 1]``."""
        slots, times = slots[witness], times[witness]
        newest = np.maximum.accumulate(np.concatenate([[self.newest], times]))
        leads = times > newest[:-1]
        leader = np.maximum.accumulate(np.where(leads, np.arange(1, len(times) + 1), 0))
        leaders = np.concatenate([[self.leader], slots])[np.concatenate([[0], leader])]
        # who leads only goes on, or says the same again; another that takes the lead makes the leader the second
        passed = np.where(leaders[:-1] == slots, NEVER, np.where(leads, newest[:-1], times))
        second = np.maximum.accumulate(np.concatenate([[self.second], passed]))
        counted: Ints = np.concatenate([[0], np.cumsum(witness)])
        clock: Times = np.maximum(second, newest - ahead)[counted]
        return clock


def _stays(
    memory: Memory,
    newest: Times,
    members: Ints,
    segments: Segments,
    place: Ints,
    times: Times,
    known: Bools,
    expected: Bools,
    due: Times,
    were_off: Bools,
) -> _Stays:
    """All stays of streams that may have fallen silent: of those in the batch, and of the others whose time is near.

    ``newest`` ``[S]``: each stream's newest time before the batch. Readings by stream: ``place`` ``[m]`` in order of
    arrival, ``times`` ``[m]``; ``expected`` ``[m]``: to send again after it; ``known`` ``[U]``: before the batch.
    """
    end = len(place)
    following = np.append(place[1:], end)
    following[segments.last] = end
    slots = segments.slots
    absent = members[(newest[members] >= due[0]) & (newest[members] < due[-1])]
    absent = absent[(memory.silence_witness[absent] != NEVER) & ~were_off[absent] & ~np.isin(absent, slots)]
    zeros, ends = np.zeros(len(absent), np.int64), np.full(len(absent), end)
    return _Stays(
        np.concatenate([slots[segments.of_row], slots, absent]),
        np.concatenate([times, newest[slots], newest[absent]]),
        np.concatenate([place + 1, np.zeros(len(slots), np.int64), zeros]),
        np.concatenate([following, place[segments.first], ends]),
        np.concatenate([expected, known, np.ones(len(absent), bool)]),
    )


def _alternating(events: list[Silence], index: Ints, told: Bools) -> list[Silence]:
    """Those that change what is told, with the places of their readings in the batch."""
    silent: dict[int, bool] = {}
    changed = []
    for event in events:
        if event.silent != silent.get(event.slot, bool(told[event.slot])):
            silent[event.slot] = event.silent
            changed.append(replace(event, index=int(index[event.index])))
    return changed
