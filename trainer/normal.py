"""Normal data: what of a stretch of readings may be learned, and how much of it may not, and why.

In this order, the first reason that holds for a reading counts:

1. *confirmed*: an incident that an operator called a fault, with margins. Where it ended because its level became the
   baseline, the fault went on unseen: nothing more is learned of the stream until it moves again (another incident
   that ends so), an operator accepts its level, or its readings are back where they were before the fault.
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


#: (stream, when its fault began, when the incident was over) → when it was back, ns, where one can tell.
Back = Callable[[str, int, int], int | None]

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
    pairs: dict[Drop, list[tuple[int, int]]] = {Drop.CONFIRMED: [], Drop.INCIDENT: []}
    faults = faults_of(incidents)
    for place, incident in enumerate(incidents):
        if incident.verdict is Verdict.REJECTED:
            continue
        end = LATEST_NS if incident.ended is None else incident.ended
        if incident.verdict is Verdict.CONFIRMED:
            if incident.why is Ended.REBASELINED:
                again = _moved_again(incidents[place + 1 :])
                fault = next(fault for fault in reversed(faults) if fault.began <= incident.began)
                came = back(incident.stream, fault.began, end)
                end = max(end, again if came is None else min(again, came))
            pairs[Drop.CONFIRMED].append((incident.began, end))
        else:
            pairs[Drop.INCIDENT].append((incident.began, end))
    return {drop: Spans.of(found).widened(margin, margin) for drop, found in pairs.items() if found}


def _moved_again(later: Iterable[PastIncident]) -> int:
    """When a stream left the level that a fault had brought it to."""
    ends = (one.ended for one in later if one.why in (Ended.REBASELINED, Ended.ACCEPTED) and one.ended is not None)
    return next(ends, LATEST_NS)


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
