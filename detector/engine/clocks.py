"""A stream's clock that was set back: its readings are dropped, and nobody would know.

The rule: ``AFTER`` readings in a row come late while their times rise. It ends with the next reading that is accepted.
Duplicates, and late readings sent twice, count for neither side. Readings that a sender repeats look the same until it
goes on, and an operator wants to know of them as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER, Fate
from detector.engine.segments import Ints, Segments

#: Late readings in a row, their times rising, that are no accident of delivery.
AFTER = 5

Bools = NDArray[np.bool_]
Times = NDArray[np.int64]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields() -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met)."""
    i32, i64 = np.dtype("<i4"), np.dtype("<i8")
    return {"clock_late": ((), i32, 0), "clock_first": ((), i64, NEVER), "clock_newest": ((), i64, NEVER)}


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

    clock_late: NDArray[np.int32]
    """``[S]``: late readings in a row up to the newest, their times rising."""
    clock_first: Times
    """``[S]``: time of the first of them; NEVER where there are none."""
    clock_newest: Times
    """``[S]``: time of the newest of them, likewise."""


@dataclass(frozen=True, slots=True)
class ClockMark:
    """What the rule says after each of N readings as they came, those dropped among them.

    ``on`` ``[N]``: an incident is to be open; ``off`` ``[N]``: it is to be over; neither: as before. ``back`` ``[N]``:
    by how many nanoseconds the clock was set back, at least; meaningful where ``on``.
    """

    on: Bools
    off: Bools
    back: Times


def follow(memory: Memory, segments: Segments, times: Times, fate: Fate, newest: Times) -> ClockMark:
    """What the rule says after each reading, ``times`` ``[N]`` of ``segments`` in order of arrival within each.

    ``fate``: what became of them; ``newest`` ``[U]``: each stream's newest accepted time before. The memory then knows
    them.
    """
    on, back = np.zeros(len(times), dtype=bool), np.zeros(len(times), dtype=np.int64)
    if not fate.late.any():
        caught_up = segments.slots[segments.of_row[fate.accepted]]
        memory.clock_late[caught_up] = 0
        memory.clock_first[caught_up] = memory.clock_newest[caught_up] = NEVER
        return ClockMark(on, fate.accepted, back)
    rows = np.flatnonzero(fate.late | fate.accepted)
    late, first, own = _follow(memory, segments.slots[segments.of_row[rows]], times[rows], fate.late[rows])
    place = rows[own]
    on[place] = late >= AFTER
    accepted = segments.latest(fate.accepted)
    since = np.where(accepted >= 0, times[accepted], newest[segments.of_row])
    back[place] = since[place] - first
    return ClockMark(on, fate.accepted, back)


def _follow(memory: Memory, slots: Ints, times: Times, late: Bools) -> tuple[Ints, Times, Ints]:
    """(late readings in a row, time of the first of them, place) of each reading that counts, of ``times`` ``[M]``."""
    segments = Segments.of(slots)
    # a late reading sent twice does not count: equal neighbours among the late ones
    was_late = segments.previous(late, memory.clock_late[segments.slots] > 0)
    own = np.flatnonzero(~(late & was_late & (times == segments.previous(times, memory.clock_newest[segments.slots]))))
    slots, times, late = slots[own], times[own], late[own]
    segments = Segments.of(slots)
    before = memory.clock_late[segments.slots]
    was_late = segments.previous(late, before > 0)
    was_at = segments.previous(times, memory.clock_newest[segments.slots])
    start = segments.latest(~late | ~was_late | (times < was_at))
    inside = start >= 0
    count = np.where(inside, np.arange(len(own)) - start, before[segments.of_row] + segments.rank()) + 1
    first = np.where(inside, times[start], memory.clock_first[segments.slots][segments.of_row])
    count, first, newest = np.where(late, count, 0), np.where(late, first, NEVER), np.where(late, times, NEVER)
    slots, last = segments.slots, segments.last
    memory.clock_late[slots] = np.minimum(count[last], np.iinfo(np.int32).max)
    memory.clock_first[slots], memory.clock_newest[slots] = first[last], newest[last]
    return count, first, own
