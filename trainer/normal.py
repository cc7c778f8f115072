"""Normal data: what of a stretch of readings may be learned, and how much of it may not, and why.

In this order, the first reason that holds for a reading counts:

1. *confirmed*: a fault, from the first to the last incident about it that an operator called one, with margins: between
   them it was only not loud enough. Where the readings are still away when the last incident is over, or its level
   became the baseline, the fault goes on unseen: nothing more is learned of the stream until its readings are back
   where they were before the fault, it moves again (another incident that ends so), or an operator accepts its level.
2. *incident*: any other incident, with margins, unless an operator rejected it: then it was normal.
3. *silenced*, *planned*: the silences and the calendars of the stream.
4. *empty*: no channel has a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.texts import coded
from detector.incident_log import PastIncident
from detector.spans import Spans
from schemas.alert import Ended
from schemas.feedback import Verdict
from schemas.moment import LATEST_NS, SECOND_NS


class Drop(StrEnum):
    """Why a reading is not learned from."""

    CONFIRMED = "confirmed"
    INCIDENT = "incident"
    SILENCED = "silenced"
    PLANNED = "planned"
    OFF = "machine off"
    EMPTY = "empty"
    TRIMMED = "standing out"


#: Of one stream: where each reason holds.
Reasons = Mapping[Drop, Spans]


@dataclass(frozen=True, slots=True)
class Normal:
    """What is left to learn from."""

    table: Table
    kept: NDArray[np.int64]
    """``[K]``: the rows that are left, as places in the table they were taken from."""
    dropped: Mapping[Drop, int]
    """Readings by reason."""
    by_stream: Mapping[str, Mapping[Drop, int]]
    """The same for each stream that lost any."""

    @property
    def share(self) -> float:
        """Part of the readings that is left, of those of machines that were on."""
        there = len(self.kept) + sum(count for drop, count in self.dropped.items() if drop is not Drop.OFF)
        return len(self.kept) / max(there, 1)


#: (stream, when its fault began, when its last incident was over) → when its readings were back, ns; LATEST_NS: they
#: are still away; None: nobody can tell, since they were not away.
Back = Callable[[str, int, int], int | None]

#: Incidents that ended so left the stream at another level, which counts as its own.
MOVED = (Ended.REBASELINED, Ended.ACCEPTED)

#: Confirmed incidents of a stream that are nearer to each other than this, ns, are about one fault.
ONE_FAULT_NS = 3 * 86_400 * SECOND_NS


def faults_of(incidents: Iterable[PastIncident]) -> list[PastIncident]:
    """The faults that operators confirmed, each as the one incident that it is to who looks back: with the id of its
    first, from the first one's beginning to the last one's end; in the order in which they began.
    """
    found: list[PastIncident] = []
    last: dict[str, int] = {}
    for one in sorted(incidents, key=lambda one: one.began):
        if one.verdict is not Verdict.CONFIRMED:
            continue
        before = found[last[one.stream]] if one.stream in last else None
        if before is not None and (before.ended is None or one.began - before.ended < ONE_FAULT_NS):
            ended = None if before.ended is None or one.ended is None else max(before.ended, one.ended)
            found[last[one.stream]] = replace(before, ended=ended)
        else:
            last[one.stream] = len(found)
            found.append(one)
    return found


def of_incidents(
    incidents: Iterable[PastIncident], margin: int, back: Back = lambda *_: None
) -> dict[str, dict[Drop, Spans]]:
    """By stream, where incidents forbid learning. ``margin``: nanoseconds before each begins and after it is over."""
    by_stream: dict[str, list[PastIncident]] = {}
    for incident in incidents:
        by_stream.setdefault(incident.stream, []).append(incident)
    return {
        stream: _of_stream(sorted(own, key=lambda one: one.began), margin, back) for stream, own in by_stream.items()
    }


def _of_stream(incidents: Sequence[PastIncident], margin: int, back: Back) -> dict[Drop, Spans]:
    pairs = {
        Drop.CONFIRMED: [(fault.began, _over(fault, incidents, back)) for fault in faults_of(incidents)],
        Drop.INCIDENT: [
            (one.began, LATEST_NS if one.ended is None else one.ended) for one in incidents if one.verdict is None
        ],
    }
    return {drop: Spans.of(found).widened(margin, margin) for drop, found in pairs.items() if found}


def _over(fault: PastIncident, incidents: Sequence[PastIncident], back: Back) -> int:
    """When a stream is normal again after a confirmed fault; between its incidents it was not, either."""
    if fault.ended is None:
        return LATEST_NS
    came = back(fault.stream, fault.began, fault.ended)
    own = [one for one in incidents if one.verdict is Verdict.CONFIRMED and fault.began <= one.began <= fault.ended]
    unseen = [one.began for one in own if one.why is Ended.REBASELINED]  # from here on it may have gone on unseen
    if came is None and not unseen:
        return fault.ended
    since = fault.ended if came is not None else unseen[-1]
    again = (
        one.ended for one in incidents
        if one not in own and one.began >= since and one.why in MOVED and one.ended is not None
    )  # fmt: skip
    return max(fault.ended, min(next(again, LATEST_NS), LATEST_NS if came is None else came))


def normal(table: Table, reasons: Callable[[str], Reasons]) -> Normal:
    """The readings of a table for which no reason holds; ``reasons``: those of a stream."""
    found = coded(table.streams)
    which = np.full(len(table), -1, np.int64)
    order = list(Drop)
    for code, stream in enumerate(found.names):
        rows, held = np.flatnonzero(found.codes == code), reasons(stream)
        for number, drop in reversed(list(enumerate(order))):
            if drop in held:
                which[rows[held[drop].hold(table.times[rows])]] = number
    empty = np.isnan(table.values).all(axis=1) & (which < 0)
    which[empty] = order.index(Drop.EMPTY)
    kept = np.flatnonzero(which < 0)
    counts = Counter(zip(found.codes[which >= 0].tolist(), which[which >= 0].tolist(), strict=True))
    by_stream: dict[str, dict[Drop, int]] = {}
    for (code, number), count in sorted(counts.items()):
        by_stream.setdefault(found.names[code], {})[order[number]] = count
    total = Counter({drop: sum(own.get(drop, 0) for own in by_stream.values()) for drop in order})
    left = table.rows(kept)
    return Normal(left, kept, dict(+total), by_stream)
