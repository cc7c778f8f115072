"""The ground of a contest: the same normal readings, the same planted faults and the same past faults for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.engine.assembly import NEVER
from detector.engine.model import Model
from detector.engine.readings import Readings
from detector.incident_log import PastIncident
from detector.spans import Spans
from schemas.alert import Alert, EventType
from schemas.moment import SECOND_NS, parse_time
from schemas.promise import DAY_S
from trainer.data import rows_by_stream
from trainer.faults import KINDS, Fault, draw, plant
from trainer.retrain.promised import DAY_NS
from trainer.track import Runner, Track, feed, laps_at_once, new_engine

#: Different plantings of the same kinds of fault; faults of each kind in one, where there is room.
PLANTINGS, PER_KIND = 6, 2

#: Readings after a fault in which it may still be found, and that lie between one and the next.
MARGIN = 24

#: Streams that faults are planted into, and past faults that are looked at, the newest of them.
STREAMS, FAULTS = 8, 20

#: Normal readings before a past fault that are shown first.
BEFORE = 2000

#: Days by which they are moved at most, whole ones for the sake of a daily rhythm, to end where the incident begins.
MOVED_DAYS = 60

#: Readings that may be missing between them and the incident.
MISSING = 2

#: For so long after a stream has gone over to another normal, what a model says of it is no false alarm: it was said
#: when it happened, and is said again on the ground, from which the readings of that time are left out.
SETTLING_NS = DAY_NS

Ints = NDArray[np.int64]

NONE: Ints = np.empty(0, np.int64)


@dataclass(frozen=True)
class Planting:
    """The held-out readings with faults in them."""

    values: NDArray[np.float32]
    """``[N, C]``, in the order of time."""
    faults: tuple[tuple[str, Fault], ...]
    """Those that can be seen, each with its stream, in whose readings it begins and lasts."""


@dataclass
class Run:
    """What one model said of all that."""

    model: Model
    episodes: dict[str, int] = field(default_factory=dict)
    """Incidents on normal readings, by stream."""
    days: dict[str, float] = field(default_factory=dict)
    """Of scored normal readings, by stream."""
    found: list[tuple[int, int, str, bool]] = field(default_factory=list)
    """Planting, kind, stream and whether it was found, of each fault at which nothing was open yet."""
    delays: list[int] = field(default_factory=list)
    confirmed: list[tuple[str, bool]] = field(default_factory=list)
    """Stream, and whether it was found, of each past fault."""


class Ground:
    """Made once, and gone over by every model.

    ``history``: normal readings that come first and are not judged; ``held_out``: those that are; ``past``: everything
    that there is, for the faults that were ``confirmed``; ``moved``: by stream, when it had gone over to another
    normal, ns.
    """

    def __init__(
        self,
        history: Table,
        held_out: Table,
        past: Table,
        confirmed: Sequence[PastIncident],
        seed: int = 0,
        moved: Mapping[str, Sequence[int]] = MappingProxyType({}),
    ) -> None:
        self.track, self._past = Track(history, held_out), past
        self._settling = {
            stream: Spans.of((moment, moment + SETTLING_NS) for moment in moments) for stream, moments in moved.items()
        }
        self.times, self.streams = self.track.times, self.track.streams
        self._all = rows_by_stream(past)
        self._normal_tables = [(history, self.track.before), (held_out, rows_by_stream(held_out))]
        known = [one for one in confirmed if one.stream in self._all]
        self._confirmed = sorted(known, key=lambda one: one.began)[-FAULTS:]
        chosen = np.unique(np.linspace(0, max(len(self.streams) - 1, 0), STREAMS).astype(np.int64))
        self._planted_into = [self.streams[n] for n in chosen] if self.streams else []
        self.plantings = [self._plant(seed * PLANTINGS + number) for number in range(PLANTINGS)]

    @property
    def can_plant(self) -> bool:
        """There was room for faults that can be seen."""
        return any(planting.faults for planting in self.plantings)

    def _plant(self, seed: int) -> Planting:
        track = self.track
        values, kept = track.values.copy(), []
        for number, stream in enumerate(self._planted_into):
            rows, unit = track.rows[stream], track.spread(stream)
            normal = track.values[rows]
            faults = draw(normal, unit, seed=[seed, number], per_kind=PER_KIND, margin=MARGIN)
            planted = plant(normal, faults, unit, seed=[seed, number])
            values[rows] = planted.values
            kept += [(stream, fault) for fault, seen in zip(faults, planted.changed, strict=True) if seen]
        return Planting(values, tuple(kept))

    def run(self, model: Model, beat: Callable[[str], None] = lambda _: None) -> Run:
        """Go over it with a model, under its own promise. ``beat``: told what is being done."""
        run = Run(model)
        beat("normal readings")
        self._normal(Runner(self.track, model), run)
        beat("planted faults")
        laps = laps_at_once(self.track, model, [planting.values for planting in self.plantings])
        for number, (planting, alert) in enumerate(zip(self.plantings, laps, strict=True)):
            self._faulty(number, planting, alert, run)
        beat("past faults")
        run.confirmed = [(one.stream, self._finds(model, one)) for one in self._confirmed]
        return run

    def _normal(self, runner: Runner, run: Run) -> None:
        run.episodes = dict.fromkeys(self.streams, 0)
        score = np.full(len(self.times), np.nan)
        for part, scored in runner.lap(self.track.values):
            score[part] = scored.score
            for event in scored.published:
                run.episodes[event.stream] += event.alert.type is EventType.OPENED and not self._settles(event.alert)
        day = runner.engine.interval_ns / SECOND_NS / DAY_S
        run.days = {stream: float((~np.isnan(score[rows])).sum()) * day for stream, rows in self.track.rows.items()}

    def _settles(self, alert: Alert) -> bool:
        """It is about a change that is known."""
        spans = self._settling.get(alert.subject)
        return spans is not None and bool(spans.hold(np.array([parse_time(alert.data.opened)]))[0])

    def _faulty(self, number: int, planting: Planting, alert: NDArray[np.bool_], run: Run) -> None:
        for stream, fault in planting.faults:
            own = alert[self.track.rows[stream]]
            if own[fault.start - 1]:  # something is open already: nobody can tell
                continue
            told = np.flatnonzero(own[fault.start : fault.start + fault.length + MARGIN])
            run.found.append((number, KINDS.index(fault.kind), stream, len(told) > 0))
            if len(told):
                run.delays.append(int(told[0]))

    def _finds(self, model: Model, incident: PastIncident) -> bool:
        """An incident opens in the time of one that was confirmed."""
        rows, table = self._all[incident.stream], self._past
        rows = rows[np.argsort(table.times[rows], kind="stable")]
        times, interval_ns = table.times[rows], round(model.manifest.interval_s * SECOND_NS)
        first = int(np.searchsorted(times, incident.began))
        margin = MARGIN * interval_ns
        end = len(times) if incident.ended is None else int(np.searchsorted(times, incident.ended + margin))
        shown = rows[first : min(end, first + BEFORE)]
        if not len(shown):
            return False
        engine = new_engine(model)
        feed(engine, self._normal_before(incident.stream, int(times[first]), interval_ns), incident.stream)
        engine.set_incidents(0, {})
        readings = Readings(0, [incident.stream] * len(shown), table.times[shown], table.values[shown])
        return bool(engine.process([readings]).alert.any())

    def _normal_before(self, stream: str, moment: int, interval_ns: int) -> Table:
        """Normal readings that end where an incident begins; where others lie between, moved by whole days.

        A fault that goes on has incidents of which each follows the fault: one that had already taken it for the
        stream's level would find none of them.
        """
        tables = [table.rows(rows.get(stream, NONE)) for table, rows in self._normal_tables]
        times = np.concatenate([table.times for table in tables])
        values = np.concatenate([table.values for table in tables])
        order = np.argsort(times, kind="stable")
        moments = moment - DAY_NS * np.arange(MOVED_DAYS)
        ends = np.searchsorted(times[order], moments)
        last = np.concatenate([[NEVER], times[order]])[ends]  # before each of the moments
        near = (ends > 0) & (moments - last <= (MISSING + 1) * interval_ns)
        days = int(near.argmax())  # 0 where no day fits
        rows = order[max(ends[days] - BEFORE, 0) : ends[days]]
        return Table(
            [stream] * len(rows),
            times[rows] + days * DAY_NS,
            values[rows],
            [""] * len(rows),
            self.track.history.channels,
        )
