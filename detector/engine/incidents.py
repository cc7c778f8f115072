"""Incidents: from what single readings say to what an operator sees opened, updated and resolved.

Each kind of incident follows marks of its readings: *on* opens one, enough *calm* readings in a row resolve it. What
lies between is hysteresis. At most one incident of each kind is open at a stream; what opened as an anomaly and was
re-baselined goes on as a shift.

* Opening, for anomalies: when at least ``k`` of the last ``n`` readings, the newest among them, are above the threshold
  and not all of these fade. ``k = n`` is a minimum length.
* Resolving: after ``quiet`` calm readings in a row. An incident that comes back within ``flap_after`` of the last one's
  end needs twice as many calm readings each time, at most eight times as many, so that a flapping stream opens few.
* An update: where the score is ``worse`` times the worst told so far or another channel has come to the front, no
  sooner than ``update_after`` after the last event; each one doubles that time for the next.
* Expiring: an incident that was open for ``expire_after`` ends, unless an operator confirmed it; it opens again only
  after it was over, or where it gets ``worse`` times as bad as it ever was.

Everything is in event time or in readings; what arrives in which batch never shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from detector.engine.assembly import NEVER, Times
from detector.engine.segments import Ints, Segments
from schemas.alert import Ended, EventType, Kind
from schemas.frozen import Frozen
from schemas.machine import OffWhen
from schemas.moment import SECOND_NS

#: Flags of readings. CALM: below the release level before smoothing. FADING: calm, but what came before it keeps the
#: smoothed score above the threshold.
NORMAL, ANOMALOUS, UNSCORED, CALM, FADING = 0, 1, 2, 3, 4

#: The kinds that have a life of their own, in the order in which they lie in the state.
KINDS = (Kind.ANOMALY, Kind.DRIFT, Kind.STUCK, Kind.MISSING, Kind.RANGE, Kind.CLOCK, Kind.SILENT)

#: Channels named in an alert: more than three nobody reads at night.
TOP_CHANNELS = 3

#: What an incident is in, beside open or not.
PLAIN, MOVED, EXPIRED = 0, 1, 2

#: Doublings of the calm readings that a flapping stream needs, at most.
MOST_FLAPS = 3

#: Doublings of the time between two updates of an incident, at most: from half an hour to some five days.
MOST_PATIENCE = 8

#: Row of a change that no reading brought.
OUTSIDE = -1

#: Calm readings of a mark that is over at once.
OVER = 2**30

#: Flags of the newest readings that are remembered of each stream: as many as ``n`` may ask for.
REMEMBERED = 64

Flags = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


class Policy(Frozen):
    """When an incident opens, is updated and resolves, and when a baseline follows. Durations in seconds."""

    k: int = Field(1, ge=1, le=REMEMBERED, description="anomalous readings that open an incident …")
    n: int = Field(1, ge=1, le=REMEMBERED, description="… among this many newest ones")
    quiet: int = Field(3, ge=1, le=64, description="calm readings in a row that resolve it")
    release: float = Field(0.7, gt=0, le=1, description="a reading is calm below this share of the threshold")
    unseen: int = Field(300, ge=0, description="first readings of a stream never seen that publish nothing")
    worse: float = Field(2.0, gt=1, description="an update is due at this many times the worst score told")
    update_after: float = Field(
        1800, ge=0, description="before an incident's first update; each next one waits twice as long"
    )
    flap_after: float = Field(3600, ge=0, description="an incident that comes back sooner needs more calm to end")
    expire_after: float = Field(7 * 86_400, gt=0, description="an incident that nobody confirmed ends after this long")
    shift_after: float = Field(6 * 3600, ge=0, description="an anomaly that persists this long is a shift; 0: never")
    trial_after: float = Field(86_400, ge=0, description="the level before a shift is not forgotten for this long")
    drift_after: float = Field(3 * 86_400, ge=0, description="time constant of a slowly moving baseline; 0: none moves")
    drift_limit: float = Field(3.0, gt=0, description="spreads that a baseline may move slowly before it is a drift")
    silent_after: float | None = Field(
        None, ge=0, description="a stream is silent after this; 0: never; null: as learned"
    )
    off_when: OffWhen | None = Field(
        None, description="a machine is off where this holds; '': none is; null: as in training"
    )
    settle: float | None = Field(
        None, ge=0, le=1e9, description="a machine that was off is not judged for this long; null: as in training"
    )
    lateness: float = Field(0, ge=0, le=1e9, description="a reading waits until its stream is so far past it")

    @model_validator(mode="after")
    def _can_be_reached(self) -> Policy:
        if self.k > self.n:
            raise ValueError(f"{self.k} of {self.n} readings can never be anomalous")
        return self

    @classmethod
    def usual(cls, smoothing_span: float, k: int | None = None, n: int | None = None, **named: Any) -> Policy:
        """The policy for scores smoothed over so many readings, but for what is named.

        A smoothed score is a mean of the newest readings already: waiting for a second one only delays the alert.
        Where each stands for itself, as images do, it takes two of three.

        >>> [(p.k, p.n) for p in (Policy.usual(8), Policy.usual(1), Policy.usual(1, k=5), Policy.usual(8, n=4))]
        [(1, 1), (2, 3), (5, 5), (1, 4)]
        """
        usual_k, usual_n = (1, 1) if smoothing_span > 1 else (2, 3)
        k = (usual_k if n is None else min(usual_k, n)) if k is None else k
        return cls(k=k, n=max(usual_n, k) if n is None else n, **named)


def fields() -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met); see ``Memory``."""
    f32, i64, i32, i16, u8 = (np.dtype(name) for name in ("<f4", "<i8", "<i4", "<i2", "u1"))
    K = len(KINDS)
    return {
        "opened": ((K,), i64, NEVER),
        "events": ((K,), i32, 0),
        "began": ((K,), i64, NEVER),
        "worst": ((K,), f32, 0),
        "told": ((K,), i64, NEVER),
        "named": ((K, TOP_CHANNELS), i16, -1),
        "phase": ((K,), u8, PLAIN),
        "flaps": ((K,), u8, 0),
        "ended": ((K,), i64, NEVER),
    }


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's, column ``KINDS.index(kind)`` a kind's."""

    opened: Times
    """``[S, K]``: event time of the open incident's opening, ns; NEVER: none is open."""
    events: NDArray[np.int32]
    """``[S, K]``: its events so far."""
    began: Times
    """``[S, K]``: event time of its first reading that was off."""
    worst: NDArray[np.float32]
    """``[S, K]``: its largest strength."""
    told: Times
    """``[S, K]``: event time of its last event."""
    named: NDArray[np.int16]
    """``[S, K, TOP_CHANNELS]``: channels named so far, -1: none."""
    phase: Flags
    """``[S, K]``: PLAIN, MOVED, EXPIRED."""
    flaps: Flags
    """``[S, K]``: how often it came back soon."""
    base_hold: Flags
    """``[S]``: not 0 where an operator said that it is still wrong."""
    ended: Times
    """``[S, K]``: event time at which the last one ended."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What readings ``[n]``, sorted by stream, say about one kind of incident."""

    kind: Kind
    on: Bools
    """An incident opens with the reading, if none is open."""
    calm: Ints
    """Calm readings in a row up to and with this one."""
    quiet: int
    """Calm readings that resolve; where a stream flaps, more."""
    strength: NDArray[np.float32]
    """What the worst is told of: the score, or how many channels it is about."""
    began: Times
    """Event time of the first reading of the run that this one is in."""
    channels: Callable[[int], NDArray[np.int16]]
    """The channels at the front of a reading, ``[TOP_CHANNELS]``, -1: none. Worked out for those that are told of."""
    news: NDArray[np.int16]
    """``[n]``: the channel whose coming to the front is worth an update, -1: none."""
    away: Bools | None = None
    """``[n, C]``: the channel is far from where it usually is: an incident that names it is not over."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Streams ``[U]`` whose open incident was re-baselined just before their first reading, ``which`` ``[U]``, and
    the ``channels`` ``[U, TOP_CHANNELS]`` that moved most, -1: none.
    """

    which: Bools
    channels: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Change:
    """An event of an incident, as it stands after it."""

    row: int
    kind: Kind
    opening_kind: Kind
    type: EventType
    number: int
    opened: int
    began: int
    worst: float
    reopened: int
    named: tuple[int, ...]
    """Channels named so far, those that it opened with first."""
    ended: Ended | None = None


def follow(
    policy: Policy, marks: Marks, segments: Segments, times: Times, memory: Memory, moved: Moved | None = None
) -> tuple[Bools, list[Change]]:
    """Whether an incident is open after each reading ``[n]``, and what happened to it.

    Loops over streams with an incident or a reading that is on: they are few.
    """
    k = KINDS.index(marks.kind)
    was_open = memory.opened[segments.slots, k] != NEVER
    touched = was_open | (memory.phase[segments.slots, k] == EXPIRED)
    if marks.on.any():
        touched[segments.of_row[marks.on]] = True
    is_open = np.zeros(len(times), bool)
    changes: list[Change] = []
    for u in np.flatnonzero(touched).tolist():
        life = _Life(policy, marks, times, memory, int(segments.slots[u]), k, is_open)
        first = int(segments.first[u])
        if moved is not None and moved.which[u]:
            changes += life.move(first, moved.channels[u])
        changes += life.run(first, first + int(segments.counts[u]))
    return is_open, changes


class _Life:
    """One stream's incidents of one kind, from event to event through its readings of a batch."""

    def __init__(
        self, policy: Policy, marks: Marks, times: Times, memory: Memory, slot: int, k: int, is_open: Bools
    ) -> None:
        self._policy, self._marks, self._times = policy, marks, times
        self._memory, self._at, self._is_open = memory, (slot, k), is_open

    def move(self, row: int, channels: NDArray[np.int16]) -> Iterator[Change]:
        """The open incident was re-baselined before a row, because of ``channels`` ``[TOP_CHANNELS]``, -1: none."""
        memory, at = self._memory, self._at
        if memory.opened[at] != NEVER:
            memory.phase[at] = MOVED
            if channels[0] >= 0:
                memory.named[at] = channels
            yield self._change(row, EventType.UPDATED, news=False)

    def run(self, start: int, stop: int) -> Iterator[Change]:
        """The changes between two rows."""
        memory, at = self._memory, self._at
        row = start
        while row < stop:
            if memory.opened[at] == NEVER:
                opens = self._next_opening(row, stop)
                if opens is None:
                    return
                yield self._open(opens)
                row = opens + 1
                self._is_open[opens] = True
            else:
                ends, why = self._next_end(row, stop)
                update = self._next_update(row, ends)
                if update is not None:  # which may name other channels, and with them when it is over
                    self._is_open[row : update + 1] = True
                    yield self._change(update, EventType.UPDATED)
                    row = update + 1
                    continue
                self._is_open[row:ends] = True
                if why is not None:
                    yield self._resolve(ends, why)
                row = ends + 1

    def _next_opening(self, row: int, stop: int) -> int | None:
        memory, marks, at = self._memory, self._marks, self._at
        if memory.phase[at] == EXPIRED:
            worse = marks.on[row:stop] & (marks.strength[row:stop] >= self._policy.worse * max(memory.worst[at], 1.0))
            over = np.flatnonzero((marks.calm[row:stop] >= marks.quiet) | worse)
            if not len(over):
                return None
            memory.phase[at] = PLAIN
            row += int(over[0])
        on = np.flatnonzero(marks.on[row:stop])
        return row + int(on[0]) if len(on) else None

    def _open(self, row: int) -> Change:
        memory, marks, at = self._memory, self._marks, self._at
        time = int(self._times[row])
        soon = memory.ended[at] != NEVER and time - int(memory.ended[at]) <= self._policy.flap_after * SECOND_NS
        # other streams' readings tell of silence: what a stream's own readings restore must not know of the last one
        again = soon and marks.kind is not Kind.SILENT
        memory.flaps[at] = min(int(memory.flaps[at]) + 1, MOST_FLAPS) if again else 0
        memory.opened[at], memory.events[at] = time, 0
        memory.began[at] = min(int(marks.began[row]), time)
        if soon and again:  # what was told to be over is over, however slowly the smoothed score comes down
            memory.began[at] = max(int(memory.began[at]), int(memory.ended[at]))
        memory.worst[at], memory.phase[at] = 0, PLAIN
        memory.named[at] = -1
        return self._change(row, EventType.OPENED)

    def _next_end(self, row: int, stop: int) -> tuple[int, Ended | None]:
        """The row with which the incident ends and why, or ``stop`` and None."""
        memory, marks, at = self._memory, self._marks, self._at
        needed = marks.quiet << int(memory.flaps[at])
        over = marks.calm[row:stop] >= needed
        if marks.away is not None and memory.phase[at] != MOVED:
            named = [c for c in memory.named[at].tolist() if c >= 0]
            over &= ~marks.away[row:stop, named].any(axis=1)
        calm = np.flatnonzero(over)
        limit = int(memory.opened[at]) + round(self._policy.expire_after * SECOND_NS)
        held = marks.kind is Kind.ANOMALY and memory.base_hold[at[0]] > 0  # an operator knows of it, and waits
        old = np.flatnonzero(self._times[row:stop] >= limit) if not held else np.empty(0, np.int64)
        first_calm = row + int(calm[0]) if len(calm) else stop
        first_old = row + int(old[0]) if len(old) else stop
        if first_calm < stop and first_calm <= first_old:
            return first_calm, Ended.REBASELINED if memory.phase[at] == MOVED else Ended.QUIET
        return (first_old, Ended.EXPIRED) if first_old < stop else (stop, None)

    def _next_update(self, row: int, stop: int) -> int | None:
        memory, marks, at = self._memory, self._marks, self._at
        # each update makes the next one wait twice as long: what alternates for days is no news
        patience = self._policy.update_after * SECOND_NS * 2 ** min(max(int(memory.events[at]) - 1, 0), MOST_PATIENCE)
        due = int(memory.told[at]) + round(patience)
        worse = marks.strength[row:stop] >= self._policy.worse * memory.worst[at]
        news = marks.news[row:stop]
        other = (news >= 0) & ~np.isin(news, memory.named[at])
        found = np.flatnonzero((worse | other) & (self._times[row:stop] >= due))
        return row + int(found[0]) if len(found) else None

    def _resolve(self, row: int, why: Ended) -> Change:
        memory, at = self._memory, self._at
        change = self._change(row, EventType.RESOLVED, why)
        memory.phase[at] = EXPIRED if why is Ended.EXPIRED else PLAIN
        memory.opened[at], memory.ended[at] = NEVER, self._times[row]
        return change

    def _change(self, row: int, what: EventType, why: Ended | None = None, *, news: bool = True) -> Change:
        memory, marks, at = self._memory, self._marks, self._at
        if what is not EventType.RESOLVED and news:
            memory.worst[at] = max(float(memory.worst[at]), float(np.nan_to_num(marks.strength[row])))
            front = [c for c in marks.channels(row).tolist() if c >= 0]
            known = [c for c in memory.named[at].tolist() if c >= 0]  # what it opened with stays in front
            front = [c for c in front if c not in known]
            memory.named[at] = (known + front + [-1] * TOP_CHANNELS)[:TOP_CHANNELS]
        return _event(memory, *at, marks.kind, row, int(self._times[row]), what, why)


def close(memory: Memory, slot: int, kind: Kind, time: int, why: Ended, *, wait: bool) -> Change:
    """End an open incident from outside at event time ``time``; ``wait``: it opens again only after it was over."""
    k = KINDS.index(kind)
    change = _event(memory, slot, k, kind, OUTSIDE, time, EventType.RESOLVED, why)
    memory.opened[slot, k], memory.ended[slot, k] = NEVER, time
    memory.phase[slot, k] = EXPIRED if wait else PLAIN
    return change


def note(memory: Memory, slot: int, kind: Kind, time: int) -> Change:
    """An open incident goes on as it began, whatever it was taken for."""
    k = KINDS.index(kind)
    memory.phase[slot, k] = PLAIN
    return _event(memory, slot, k, kind, OUTSIDE, time, EventType.UPDATED)


def _event(
    memory: Memory, slot: int, k: int, kind: Kind, row: int, time: int, what: EventType, why: Ended | None = None
) -> Change:
    """Count an event of the open incident of a kind, at event time ``time``, and say how the incident stands."""
    at = slot, k
    memory.told[at] = time
    memory.events[at] += 1
    return Change(
        row=row,
        kind=Kind.SHIFT if memory.phase[at] == MOVED else kind,
        opening_kind=kind,
        type=what,
        number=int(memory.events[at]) - 1,
        opened=int(memory.opened[at]),
        began=int(memory.began[at]),
        worst=float(memory.worst[at]),
        reopened=int(memory.flaps[at]),
        named=tuple(c for c in memory.named[at].tolist() if c >= 0),
        ended=why,
    )


def run_lengths(segments: Segments, marked: Bools, before: Ints) -> Ints:
    """Marked readings in a row up to and with each ``[n]``; ``before`` ``[U]``: those before a stream's first one."""
    broken = segments.latest(~marked)
    rank = segments.rank()
    whole = before[segments.of_row] + rank + 1
    return np.where(broken >= 0, np.arange(len(marked)) - broken, whole)
