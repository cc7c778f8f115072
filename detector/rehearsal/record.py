"""What one run of an engine did with the readings of a table: what the page is made from.

Columns go with the table's rows, in memory or on disk as the table itself; of incidents only what the page shows is
kept. So memory is bounded whatever the data are, and any stretch of any stream can be drawn once all is known.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.overflow import chunks, empty
from detector.engine.engine import Engine, Scored
from detector.engine.incidents import Policy
from detector.rehearsal.sent import Incident, Sent
from schemas.alert import Kind
from schemas.manifest import Manifest
from schemas.moment import SECOND_NS
from schemas.settings import DetectorSettings

WEEK_S = 7 * 86_400.0

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tally:
    """Of each of S streams, ``[S]``: rows, those with a score, those under alarm, the highest score (NaN: none)."""

    readings: Ints
    scored: Ints
    alarmed: Ints
    highest: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Readings of a stream in order of time: ``times``, ``score`` ``[n]``, ``observed``, ``expected`` ``[n, K]``."""

    times: Ints
    score: NDArray[np.float32]
    observed: NDArray[np.float32]
    expected: NDArray[np.float32]


class Record:
    """Follows a run: ``add`` each batch, then ask. ``traced``: expected values are kept, for pictures of incidents."""

    def __init__(self, engine: Engine, settings: DetectorSettings, table: Table, *, traced: bool = True) -> None:
        self.settings, self.table = settings, table
        self.sent = Sent()
        self.counts: Counter[str] = Counter()
        self._engine = engine
        n, C = len(table), len(engine.model.manifest.channels)
        self._slot = empty((n,), np.int32)
        self._score = empty((n,), np.float32)
        self._alert = empty((n,), np.bool_)
        self._expected = empty((n, C if traced else 0), np.float32)

    def add(self, arrived: Ints, scored: Scored, rows: Ints | None = None) -> None:
        """What became of some rows of the table. ``arrived``: those that came, in the order in which they were
        processed; ``rows`` ``[N]``: those that ``scored`` is about, -1: none of the table; None: the same.
        """
        self._slot[arrived] = scored.arrived
        ours = np.arange(len(scored.score))
        if rows is None:
            rows = arrived
        else:  # what came may wait
            self._score[arrived], self._alert[arrived], self._expected[arrived] = np.nan, False, np.nan
            ours = np.flatnonzero(rows >= 0)
            rows = rows[ours]
        self._score[rows] = scored.score[ours]
        self._alert[rows] = scored.alert[ours]
        if self._expected.shape[1]:
            self._expected[rows] = scored.expected[ours]
        self.counts += scored.counts
        for published in scored.published:
            self.sent.add(published.alert)

    @property
    def policy(self) -> Policy:
        """When its incidents opened and resolved."""
        return self._engine.policy

    @property
    def waiting(self) -> int:
        """Readings that still wait for later ones."""
        return self._engine.waiting

    @property
    def manifest(self) -> Manifest:
        """The model's."""
        return self._engine.model.manifest

    @cached_property
    def names(self) -> tuple[str, ...]:
        """S streams, those of the history too."""
        return tuple(self._engine.streams.names)

    @cached_property
    def _slot_of(self) -> dict[str, int]:
        return {name: slot for slot, name in enumerate(self.names)}

    @cached_property
    def tally(self) -> Tally:
        """What there is to count of each stream."""
        S = len(self.names)
        readings, scored, alarmed = np.zeros(S, np.int64), np.zeros(S, np.int64), np.zeros(S, np.int64)
        highest = np.full(S, np.nan)
        for part in chunks(len(self.table), 1):
            slot, score = self._slot[part], self._score[part]
            readings += np.bincount(slot, minlength=S)
            scored += np.bincount(slot[~np.isnan(score)], minlength=S)
            alarmed += np.bincount(slot[self._alert[part]], minlength=S)
            np.fmax.at(highest, slot, score)
        return Tally(readings, scored, alarmed, highest)

    @cached_property
    def kinds(self) -> dict[str, Counter[Kind]]:
        """Incidents by kind of each stream that had any."""
        found: dict[str, Counter[Kind]] = {}
        for incident in self.sent.incidents:
            found.setdefault(incident.stream, Counter())[incident.kind] += 1
        return found

    @cached_property
    def ranked(self) -> list[int]:
        """Slots of the streams that are in the data or had an incident, the noisiest first."""
        counts = np.array([self.kinds[name].total() if name in self.kinds else 0 for name in self.names], np.int64)
        there = np.flatnonzero((self.tally.readings > 0) | (counts > 0))
        highest = np.nan_to_num(self.tally.highest, nan=0, posinf=np.inf)
        order = np.lexsort((there, -highest[there], -self.tally.alarmed[there], -counts[there]))
        return [int(slot) for slot in there[order]]

    @cached_property
    def span(self) -> tuple[int, int]:
        """First and last event time, nanoseconds; both 0 where there is no reading."""
        times = self.table.times
        return (int(times.min()), int(times.max())) if len(times) else (0, 0)

    def weeks(self, slot: int | None = None) -> float:
        """Stream-weeks watched: scored readings, each an interval long; of one stream, or of all."""
        scored = self.tally.scored.sum() if slot is None else self.tally.scored[slot]
        return float(scored) * self.manifest.interval_s / WEEK_S

    def maxima(self, slots: list[int], most: int) -> NDArray[np.float32]:
        """The highest score of each of B equal parts of the span, ``[len(slots), B]``; NaN: there is none.

        B is at most ``most``, and so that a part is never shorter than one and a half intervals.
        """
        start, stop = self.span
        bins = int(min(max((stop - start) / SECOND_NS / self.manifest.interval_s / 1.5, 1), most))
        row_of = np.full(len(self.names), -1)
        row_of[slots] = np.arange(len(slots))
        found = np.full((len(slots), bins), np.nan, np.float32)
        for part in chunks(len(self.table), 1):
            row = row_of[self._slot[part]]
            mine = np.flatnonzero(row >= 0)
            since = self.table.times[part][mine] - start
            place = np.minimum((since.astype(np.float64) / max(stop - start, 1) * bins).astype(np.int64), bins - 1)
            np.fmax.at(found, (row[mine], place), self._score[part][mine])
        return found

    def trace(self, incident: Incident, channels: list[int], lead: int, most: int) -> Trace:
        """The readings around an incident: from ``lead`` intervals before it began, ``most`` readings at most."""
        interval = max(round(self.manifest.interval_s * SECOND_NS), 1)
        begin = max(incident.began, incident.opened - most // 2 * interval) - lead * interval
        end = min(self.span[1] if incident.ended is None else incident.ended + lead * interval, begin + most * interval)
        slot, times = self._slot_of.get(incident.stream, -1), self.table.times
        rows = np.concatenate([
            np.empty(0, np.int64),
            *(
                part.start
                + np.flatnonzero((self._slot[part] == slot) & (times[part] >= begin) & (times[part] <= end))[:most]
                for part in chunks(len(self.table), 1)
            ),
        ])[:most]  # fmt: skip
        rows = rows[np.argsort(times[rows], kind="stable")]
        observed = self.table.values[rows][:, channels]
        return Trace(times[rows], self._score[rows], observed, self._expected[rows][:, channels])
