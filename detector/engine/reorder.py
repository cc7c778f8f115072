"""The reorder buffer: readings as they arrive become readings in the order of time, each stream's for itself.

A reading waits until its stream's newest time is ``lateness`` past it. The rule, one reading of a stream at a time, its
time ``a``, the newest released time ``T`` (which is what was scored), the newest time of all ``M``:

1. ``a`` at or before ``T`` comes too late: it goes on at once, to be counted and dropped by whoever judges it.
2. ``a`` as another one that waits is a duplicate: it is counted and dropped here; the first one stays.
3. Any other waits, and ``M`` becomes ``a`` where that is later.
4. Then, in the order of time, everything that waits goes on that is not after ``M - lateness`` and, where more still
   wait than the buffer may hold, the oldest of them: they are *released early*.

So what goes on depends on the stream's own readings, in the order of their arrival, and on nothing else. Over all
streams readings go on in the order of the arrivals that release them, and of their times where one releases several.
Whatever is told of a reading is told ``lateness`` later than without the buffer, and no sooner than the stream's next
reading; the newest readings of a stream that says nothing more wait for ever.

A batch is done at once: rule 1 needs no look at what the batch itself releases. A reading that is not after what was
released before it is not after ``M - lateness`` either, so by rule 4 it would go on at once all the same. Only a stream
that has too many waiting is followed reading by reading.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER, Times, running_max
from detector.engine.segments import Ints, Segments
from schemas.errors import ModelError

#: Readings of a stream that may wait, at most.
MOST_READINGS = 4096

#: Numbers of a stream that may wait, at most: 16 MB of them. Few sensors get there, images do.
MOST_NUMBERS = 1 << 22

#: Number of a reading that waited already when the state was restored: nobody knows its place any more.
UNKNOWN = -1

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields(width: int, values: int) -> Fields:
    """The saved arrays of one stream with room for K readings of V values: name to (shape, type, empty value)."""
    return {
        "wait_time": ((width,), np.dtype("<i8"), NEVER),
        "wait_value": ((width, values), np.dtype("<f4"), np.nan),
    }


def passing_fields(width: int) -> Fields:
    """Likewise those that are not saved: they follow from the others, or mean something to this process alone."""
    return {"wait_number": ((width,), np.dtype("<i8"), UNKNOWN), "wait_count": ((), np.dtype("<i4"), 0)}


def capacity(lateness_ns: int, interval_ns: int, values: int) -> int:
    """Readings of a stream that may wait: twice what arrives in time, and two; fewer where they are large."""
    most = max(min(MOST_READINGS, MOST_NUMBERS // max(values, 1)), 2)
    return min(2 * -(-lateness_ns // interval_ns) + 2, most)


def longest_ns(interval_ns: int, values: int) -> int:
    """The lateness up to which a stream that sends one reading an interval never has too many waiting."""
    most = max(min(MOST_READINGS, MOST_NUMBERS // max(values, 1)), 2)
    return (most - 1) * interval_ns


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's. Places are taken in no particular order."""

    time: Times
    """``[S]``: the newest time that was released and scored."""
    gate_time: Times
    """``[S]``: the newest one that was released and passed over, see ``gates``."""
    wait_time: Times
    """``[S, K]``: times of the readings that wait; NEVER: a free place."""
    wait_value: Floats
    """``[S, K, V]``; of free places anything."""
    wait_number: Ints
    """``[S, K]``: the number that each was given on arrival."""
    wait_count: NDArray[np.int32]
    """``[S]``: how many wait."""

    def widen(self, width: int) -> None:
        """Make room for so many readings of each stream."""


@dataclass(frozen=True, slots=True)
class Released:
    """M readings that go on, in this order, and what was counted: duplicates that were dropped, early releases.

    ``known`` ``[M]``: the newest time of the stream, of those that wait too, when the reading went on.
    """

    slots: Ints
    times: Times
    values: Floats
    number: Ints
    known: Times
    duplicates: int
    early: int


@dataclass(slots=True)
class _Arrivals:
    """N readings sorted by stream, beside what waits at their U streams."""

    segments: Segments
    times: Times
    newest: Times
    """``[U]``: the newest released time."""
    waiting: Times
    """``[U, K]``."""
    before: Times
    """``[N]``: the stream's newest time before each arrival."""
    due: Times
    """``[N]``: up to where, after each arrival, what waits goes on."""


@dataclass(slots=True)
class _Plan:
    """With which arrival, by its row, everything goes on: ``cause`` ``[N]`` of the arrivals, N where one waits, and
    ``held_cause`` ``[H]`` of those that waited before and go on, of ``segment`` and ``place`` ``[H]``.
    """

    cause: Ints
    segment: Ints
    place: Ints
    held_cause: Ints


def reorder(
    memory: Memory, slots: Ints, times: Times, values: Floats, number: Ints, *, lateness_ns: int, capacity: int
) -> Released:
    """What goes on after readings ``[N]`` have arrived, in this order; the memory then knows those that wait."""
    order = np.argsort(slots, kind="stable")
    arrived = _arrivals(memory, Segments.of(slots[order]), times[order], lateness_ns)
    plan, early = _plan(arrived), 0
    ranked, duplicate = _ranked(arrived, plan, order)
    full = _overflowing(memory, arrived, plan, duplicate, capacity)
    if len(full):
        early = _follow(arrived, plan, full, lateness_ns, capacity)
        ranked, duplicate = _ranked(arrived, plan, order)
    held = len(plan.held_cause)
    goes_on = np.concatenate([np.ones(held, bool), (plan.cause < len(order)) & ~duplicate])
    stays = np.flatnonzero((plan.cause == len(order)) & ~duplicate)
    released = ranked[goes_on[ranked]]
    taken = _taken(memory, arrived, plan, released, order, values, number)
    _free(memory, arrived.segments, plan)
    _keep(memory, arrived, stays, values[order[stays]], number[order[stays]], capacity)
    cause = np.concatenate([plan.held_cause, plan.cause])[released]
    known = arrived.due[cause] + np.int64(lateness_ns)
    return Released(*taken, known, duplicates=int(duplicate.sum()), early=early)


def _arrivals(memory: Memory, segments: Segments, times: Times, lateness_ns: int) -> _Arrivals:
    waiting = memory.wait_time[segments.slots]
    newest = np.maximum(memory.time[segments.slots], memory.gate_time[segments.slots])
    # (what is dropped raises no newest time: it is never after it)
    before = np.maximum(newest, waiting.max(axis=1, initial=NEVER))
    highest = running_max(segments, times, before)
    # the difference cannot overflow, as a sum of time and lateness could
    return _Arrivals(
        segments, times, newest, waiting, segments.previous(highest, before), highest - np.int64(lateness_ns)
    )


def _plan(arrived: _Arrivals) -> _Plan:
    """By the rule without a limit to what may wait."""
    segments, times, due = arrived.segments, arrived.times, arrived.due
    of, last, n = segments.of_row, segments.last, len(times)
    late = times <= arrived.newest[of]
    cause = np.where(late, np.arange(n), n)
    later = np.flatnonzero((times <= due[last][of]) & ~late)
    cause[later] = _first(due, times[later], later, last[of[later]])
    segment, place = np.nonzero((arrived.waiting != NEVER) & (arrived.waiting <= due[last][:, None]))
    held = _first(due, arrived.waiting[segment, place], segments.first[segment], last[segment])
    return _Plan(cause, segment, place, held)


def _first(due: Times, times: Times, low: Ints, high: Ints) -> Ints:
    """The first row between ``low`` and ``high`` ``[n]`` whose ``due`` reaches each time: at ``high`` it does, and
    between them it never falls. A bisection of all at once.
    """
    while (low < high).any():
        middle = (low + high) >> 1
        reached = due[middle] >= times
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return low


def _ranked(arrived: _Arrivals, plan: _Plan, order: Ints) -> tuple[Ints, Bools]:
    """Everything, first the H held and then the N arrivals, in the order in which it goes on, what waits at the end;
    and which arrivals ``[N]`` are duplicates of others that wait.
    """
    n, held = len(arrived.times), len(plan.held_cause)
    of = arrived.segments.of_row
    times = np.concatenate([arrived.waiting[plan.segment, plan.place], arrived.times])
    cause = np.concatenate([plan.held_cause, plan.cause])
    waits = cause == n
    key = order[np.where(waits, 0, cause)] if n else cause
    key[waits] = n + of[np.flatnonzero(waits) - held]
    ranked = np.lexsort((times, key))  # stable: of equal times the first that came is in front
    # of one stream and time go on with the same arrival: the first, and those that came while it waited
    again = (times[ranked[1:]] == times[ranked[:-1]]) & (key[ranked[1:]] == key[ranked[:-1]])
    duplicate = np.zeros(held + n, bool)
    duplicate[ranked[1:][again]] = True
    duplicate = duplicate[held:]
    # what neither goes on yet nor is newer than all that wait may be there already
    rows = np.flatnonzero(waits[held:] & (arrived.times <= arrived.before))
    duplicate[rows] |= (arrived.waiting[of[rows]] == arrived.times[rows, None]).any(axis=1)
    return ranked, duplicate


def _overflowing(memory: Memory, arrived: _Arrivals, plan: _Plan, duplicate: Bools, capacity: int) -> Ints:
    """The segments in which more wait, after some arrival, than may."""
    segments, n = arrived.segments, len(arrived.times)
    count = memory.wait_count[segments.slots].astype(np.int64)
    if not (count + segments.counts > capacity).any():
        return np.empty(0, np.int64)
    causes = np.concatenate([plan.held_cause, plan.cause[(plan.cause < n) & ~duplicate]])
    change = np.cumsum((~duplicate).astype(np.int64) - np.bincount(causes, minlength=n))
    start = np.where(segments.first > 0, change[segments.first - 1], 0)
    over = count[segments.of_row] + change - start[segments.of_row] > capacity
    return np.unique(segments.of_row[over])


def _follow(arrived: _Arrivals, plan: _Plan, full: Ints, lateness_ns: int, capacity: int) -> int:
    """Put into the plan what the rule says of these segments, reading by reading; how many were released early."""
    kept = ~np.isin(plan.segment, full)
    held = [(plan.segment[kept], plan.place[kept], plan.held_cause[kept])]
    early = 0
    for u in full.tolist():
        first, count = int(arrived.segments.first[u]), int(arrived.segments.counts[u])
        places = np.flatnonzero(arrived.waiting[u] != NEVER)
        causes, hurried = _one_by_one(
            arrived.waiting[u, places].tolist(), arrived.times[first : first + count].tolist(),
            int(arrived.newest[u]), lateness_ns, capacity,
        )  # fmt: skip
        early += hurried
        found = np.array([-1 if cause is None else first + cause for cause in causes], np.int64)
        waited, came = found[: len(places)], found[len(places) :]
        plan.cause[first : first + count] = np.where(came < 0, len(arrived.times), came)
        gone = waited >= 0
        held.append((np.full(int(gone.sum()), u), places[gone], waited[gone]))
    plan.segment, plan.place, plan.held_cause = (np.concatenate(parts) for parts in zip(*held, strict=True))
    return early


def _one_by_one(
    waiting: list[int], arriving: list[int], released: int, lateness_ns: int, capacity: int
) -> tuple[list[int | None], int]:
    """The rule as it is written above, of one stream: with which arrival each goes on, first those that ``waiting``
    says, None: it waits; and how many were released early. A duplicate goes the way of the one that it repeats.
    """
    causes: list[int | None] = [None] * (len(waiting) + len(arriving))
    members = {time: [place] for place, time in enumerate(waiting)}
    heap = sorted(waiting)
    newest, early = max([released, *heap[-1:]]), 0
    for row, time in enumerate(arriving):
        if time <= released:
            causes[len(waiting) + row] = row
        elif time in members:
            members[time].append(len(waiting) + row)
        else:
            members[time] = [len(waiting) + row]
            heapq.heappush(heap, time)
        newest = max(newest, time)
        while heap and (heap[0] <= newest - lateness_ns or len(heap) > capacity):
            early += heap[0] > newest - lateness_ns
            released = heapq.heappop(heap)
            for place in members.pop(released):
                causes[place] = row
    return causes, early


def _taken(
    memory: Memory, arrived: _Arrivals, plan: _Plan, released: Ints, order: Ints, values: Floats, number: Ints
) -> tuple[Ints, Times, Floats, Ints]:
    """Slots, times, values and numbers of what goes on; ``released`` ``[M]``: which, by its place in ``_ranked``."""
    slots, held = arrived.segments.slots, len(plan.held_cause)
    fresh = released >= held
    row, old = released[fresh] - held, released[~fresh]
    at, place = slots[plan.segment[old]], plan.place[old]
    index = order[row]
    new = (slots[arrived.segments.of_row[row]], arrived.times[row], number[index])
    known = (at, memory.wait_time[at, place], memory.wait_number[at, place])
    found = tuple(np.empty(len(released), np.int64) for _ in new)
    for column, ours, theirs in zip(found, new, known, strict=True):
        column[fresh], column[~fresh] = ours, theirs
    taken = np.empty((len(released), values.shape[1]), np.float32)
    taken[fresh], taken[~fresh] = values[index], memory.wait_value[at, place]
    return found[0], found[1], taken, found[2]


def _free(memory: Memory, segments: Segments, plan: _Plan) -> None:
    """The places of what goes on."""
    at = segments.slots[plan.segment]
    memory.wait_time[at, plan.place] = NEVER
    memory.wait_number[at, plan.place] = UNKNOWN
    gone = np.bincount(plan.segment, minlength=len(segments.slots))
    memory.wait_count[segments.slots] -= gone.astype(np.int32)


def _keep(memory: Memory, arrived: _Arrivals, stays: Ints, values: Floats, number: Ints, capacity: int) -> None:
    """Arrivals ``stays`` take free places of their streams."""
    if not len(stays):
        return
    segments = Segments.of(arrived.segments.slots[arrived.segments.of_row[stays]])
    slots = segments.slots
    memory.wait_count[slots] += segments.counts.astype(np.int32)
    needed, width = int(memory.wait_count[slots].max()), memory.wait_time.shape[1]
    if needed > width:
        memory.widen(max(needed, min(2 * width, capacity)))
    free = memory.wait_time[slots] == NEVER
    chosen = free & (np.cumsum(free, axis=1) <= segments.counts[:, None])
    segment, place = np.nonzero(chosen)  # by segment, as those that stay are
    at = slots[segment]
    memory.wait_time[at, place] = arrived.times[stays]
    memory.wait_value[at, place] = values
    memory.wait_number[at, place] = number


# -- saving --------------------------------------------------------------------------------------------------------


def saved(memory: Memory, slots: Ints) -> dict[str, NDArray[Any]]:
    """What waits at these streams, by the names of ``fields``: in the order of time, with room for the most that wait
    at one of them; nothing where nothing waits. Which places were taken does not show.
    """
    width = int(memory.wait_count[slots].max(initial=0))
    if not width:
        return {}
    times = memory.wait_time[slots]
    free = times == NEVER
    order = np.lexsort((times, free), axis=1)[:, :width]
    values = memory.wait_value[slots[:, None], order]
    values[np.take_along_axis(free, order, axis=1)] = np.nan
    return {"wait_time": np.take_along_axis(times, order, axis=1), "wait_value": values}


def restore(memory: Memory, slots: Ints, found: dict[str, NDArray[Any]]) -> None:
    """Make what was saved what waits at these streams. Raises ModelError where the readings have other values."""
    memory.wait_time[slots], memory.wait_number[slots] = NEVER, UNKNOWN
    memory.wait_count[slots] = 0
    if not found:
        return
    times, values = found["wait_time"], found["wait_value"]
    if values.shape[2] != memory.wait_value.shape[2]:
        raise ModelError(
            f"the saved state has readings of {values.shape[2]} values that wait, the model wants "
            f"{memory.wait_value.shape[2]}: this consumer group ran another model; use another --group-id or the model "
            "it ran"
        )
    width = times.shape[1]
    if width > memory.wait_time.shape[1]:
        memory.widen(width)
    memory.wait_time[slots, :width], memory.wait_value[slots, :width] = times, values
    memory.wait_count[slots] = (times != NEVER).sum(axis=1)
