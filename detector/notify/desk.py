"""The desk: which incidents are told, when, and as what. No I/O; ``run`` hands in events and the time.

1. An incident that opens **waits** (``wait``), and until all alerts that are there have been read: what is over by then
   wakes nobody and goes into the digest.
2. Where ``fleet_streams`` streams of a model group open within ``fleet_window`` of event time, they are one **fleet**
   incident; those who join later belong to it, too.
3. A silence or a planned stop **mutes**: looked at by the clock when an incident is due, and again every ``MUTED_S``;
   what is still open when it ends is told then.
4. Each incident or fleet that is told takes one of the day's **budget**: minor ones may use half of it, major ones
   three quarters, critical ones all. What finds none left is in the **digest**, told once when the day ends, and is
   looked at again when it becomes more severe.
5. Of what was told, updates and the end are told, too; they take nothing of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from detector.notify.heard import Heard
from detector.notify.ledger import CASE, DAY, FLEET, PARCEL, Case, Day, Entry, Fleet, Parcel, Stage, read
from schemas.alert import EventType, Severity
from schemas.moment import SECOND_NS, format_time
from schemas.notice import About, Happened, Notice

DAY_S = 86_400

#: Seconds after which a muted incident is looked at again.
MUTED_S = 15.0

#: Lines of a digest, and streams of a fleet that a notice names.
MOST_LINES, MOST_MEMBERS = 50, 50

#: Seconds after which what was over before anybody was told is history, and no news for a digest.
NEWS_S = 2 * DAY_S

ORDER = {Severity.MINOR: 0, Severity.MAJOR: 1, Severity.CRITICAL: 2}

#: Share of the day's budget that incidents of a severity may use.
SHARE = {Severity.MINOR: 0.5, Severity.MAJOR: 0.75, Severity.CRITICAL: 1.0}


@dataclass(frozen=True)
class Rules:
    """See ``schemas.notify``. Durations in seconds."""

    places: tuple[str, ...]
    """Who is told: names of sinks."""
    wait_s: float = 10.0
    budget: int | None = None
    day_start_s: int = 0
    fleet_streams: int = 5
    fleet_window_s: float = 300.0
    page_url: str | None = None


class Desk:
    """Knows what is open, and what is on its way. ``muted``: whether a stream is at a moment, ns."""

    def __init__(self, rules: Rules, muted: Callable[[str, int], bool] = lambda _stream, _ns: False) -> None:
        self.rules, self._muted = rules, muted
        self.cases: dict[str, Case] = {}
        self.fleets: dict[str, Fleet] = {}
        self.parcels: dict[int, Parcel] = {}
        self.day = Day()
        self._changed: dict[str, Entry | None] = {}
        self._now = 0.0

    # -- what is remembered ------------------------------------------------------------------------------------------

    def restore(self, entries: Mapping[bytes, bytes]) -> None:
        """As it was. Raises TopicError where an entry cannot be read."""
        for raw, value in entries.items():
            key = raw.decode(errors="replace")
            if key.startswith(CASE):
                self.cases[key[len(CASE) :]] = read(Case, key, value)
            elif key.startswith(FLEET):
                self.fleets[key[len(FLEET) :]] = read(Fleet, key, value)
            elif key.startswith(PARCEL):
                self.parcels[int(key[len(PARCEL) :])] = read(Parcel, key, value)
            elif key == DAY:
                self.day = read(Day, key, value)
        self.parcels = dict(sorted(self.parcels.items()))

    def changes(self) -> dict[bytes, bytes | None]:
        """Entries that have changed since the last call; None: it is no more."""
        found = {
            key.encode(): None if entry is None else entry.model_dump_json().encode()
            for key, entry in self._changed.items()
        }
        self._changed.clear()
        return found

    def _keep(self, entry: Case | Fleet | Day) -> None:
        match entry:
            case Case():
                self._changed[CASE + entry.incident] = entry
            case Fleet():
                self._changed[FLEET + entry.id] = entry
            case Day():
                self._changed[DAY] = entry

    # -- events ------------------------------------------------------------------------------------------------------

    def take(self, event: Heard, now: float) -> None:
        """An event of the alerts topic, in the order of its stream."""
        self._now = now
        self._turn_day()
        case = self.cases.get(event.data.incident)
        number = int(tail) if (tail := event.id.rpartition("-")[2]).isdecimal() else 0
        if case is not None and number <= case.events:
            return  # it was heard before
        if event.type is EventType.RESOLVED:
            if case is not None:
                self._update(case, event, number)
                self._over(case, event)
        elif case is None:
            self._open(event, number)
        else:
            self._update(case, event, number)
            self._worse(case)

    def _open(self, event: Heard, number: int) -> None:
        case = Case(
            incident=event.data.incident, stream=event.subject, group=event.group, kind=event.data.kind,
            severity=event.data.severity, summary=event.data.summary,
            opened=event.data.opened, opened_ns=event.opened_ns, score=event.data.score,
            channels=tuple(channel.told for channel in event.data.channels), events=number,
            due=self._now + self.rules.wait_s,
        )  # fmt: skip
        self.cases[case.incident] = case
        if not self._muted(case.stream, round(self._now * SECOND_NS)):
            self._gather(case)
        self._keep(case)

    def _update(self, case: Case, event: Heard, number: int) -> None:
        data = event.data
        case.kind, case.severity, case.events = data.kind, data.severity, number
        case.summary, case.score = data.summary or case.summary, data.score
        if data.channels:
            case.channels = tuple(channel.told for channel in data.channels)
        self._keep(case)

    def _worse(self, case: Case) -> None:
        """After an update."""
        if case.stage is Stage.TOLD and not self._is_muted(case):
            self._tell_case(case, Happened.UPDATED)
        elif case.stage is Stage.DIGEST and ORDER[case.severity] > ORDER[case.told_severity or Severity.MINOR]:
            case.stage, case.due = Stage.WAITING, self._now
        elif case.stage is Stage.MEMBER and case.fleet in self.fleets:
            fleet = self.fleets[case.fleet]
            fleet.severity = max(fleet.severity, case.severity, key=ORDER.__getitem__)
            self._keep(fleet)

    def _over(self, case: Case, event: Heard) -> None:
        if case.stage is Stage.TOLD:
            self._tell_case(case, Happened.RESOLVED, ended=event.time, why=str(event.data.ended or ""))
        elif case.stage is Stage.WAITING and self._is_news(case):
            self._into_digest(case.severity, f"{case.opened} {case.summary} (over before anybody was told)")
        del self.cases[case.incident]
        self._changed[CASE + case.incident] = None
        fleet = self.fleets.get(case.fleet or "")
        if fleet is not None:
            fleet.open.pop(case.incident, None)
            self._keep(fleet)
            if not fleet.open:
                self._end_fleet(fleet, event.time)

    def _is_news(self, case: Case) -> bool:
        recent = self._now - case.opened_ns / SECOND_NS < NEWS_S
        return recent and not self._muted(case.stream, case.opened_ns)

    # -- fleets ------------------------------------------------------------------------------------------------------

    def _gather(self, case: Case) -> None:
        """Into a fleet incident, where there is one or this makes one."""
        window_ns = round(self.rules.fleet_window_s * SECOND_NS)
        if not self.rules.fleet_streams:
            return
        for fleet in self.fleets.values():
            if fleet.group == case.group and abs(case.opened_ns - fleet.newest_ns) <= window_ns:
                self._join(fleet, [case])
                return
        near = [
            other for other in self.cases.values()
            if other.group == case.group and other.fleet is None and other.stage is not Stage.MUTED
            and abs(case.opened_ns - other.opened_ns) <= window_ns
        ]  # fmt: skip
        if len({other.stream for other in near}) < self.rules.fleet_streams:
            return
        first = min(near, key=lambda one: (one.opened_ns, one.incident))
        fleet = Fleet(
            id=f"fleet-{first.incident}", group=case.group, open={}, members=[], first_ns=first.opened_ns,
            newest_ns=case.opened_ns, severity=case.severity, due=min(other.due for other in near),
        )  # fmt: skip
        self.fleets[fleet.id] = fleet
        self._join(fleet, near)

    def _join(self, fleet: Fleet, cases: Iterable[Case]) -> None:
        for case in cases:
            case.fleet = fleet.id
            if case.stage is not Stage.TOLD:  # who was told of it by itself is told of its end, too
                case.stage = Stage.MEMBER
            fleet.open[case.incident] = case.stream
            if case.stream not in fleet.members:
                fleet.members.append(case.stream)
            fleet.newest_ns = max(fleet.newest_ns, case.opened_ns)
            fleet.severity = max(fleet.severity, case.severity, key=ORDER.__getitem__)
            self._keep(case)
        self._keep(fleet)

    def _end_fleet(self, fleet: Fleet, time: str) -> None:
        if fleet.told:
            self._tell_fleet(fleet, Happened.RESOLVED, ended=time)
        elif not fleet.by_digest:
            self._into_digest(fleet.severity, f"{self._fleet_said(fleet)} (over before anybody was told)")
        del self.fleets[fleet.id]
        self._changed[FLEET + fleet.id] = None

    # -- time --------------------------------------------------------------------------------------------------------

    def tick(self, now: float, caught_up: bool) -> None:
        """Tell what is due. ``caught_up``: all alerts that are there have been taken."""
        self._now = now
        self._turn_day()
        if not caught_up:
            return
        for fleet in list(self.fleets.values()):
            self._tick_fleet(fleet)
        for case in [case for case in self.cases.values() if case.due <= now]:
            if case.stage in (Stage.WAITING, Stage.MUTED):
                self._tick_case(case)

    def _tick_case(self, case: Case) -> None:
        if self._is_muted(case):
            case.stage, case.due = Stage.MUTED, self._now + MUTED_S
        elif self._affords(case.severity):
            case.stage = Stage.TOLD
            self._tell_case(case, Happened.OPENED)
        else:
            case.stage, case.told_severity = Stage.DIGEST, case.severity
            self._into_digest(case.severity, f"{case.opened} {case.summary}")
        self._keep(case)

    def _tick_fleet(self, fleet: Fleet) -> None:
        worse = ORDER[fleet.severity] > ORDER[fleet.told_severity or Severity.MINOR]
        if fleet.told and (worse or len(fleet.members) >= 2 * fleet.told):
            self._tell_fleet(fleet, Happened.UPDATED)
        elif not fleet.told and fleet.due <= self._now and (not fleet.by_digest or worse):
            if self._affords(fleet.severity):
                self._tell_fleet(fleet, Happened.OPENED)
            else:
                if not fleet.by_digest:
                    self._into_digest(fleet.severity, self._fleet_said(fleet))
                fleet.by_digest, fleet.told_severity = True, fleet.severity
                self._keep(fleet)

    def _is_muted(self, case: Case) -> bool:
        return self._muted(case.stream, round(self._now * SECOND_NS))

    # -- budget and digest -------------------------------------------------------------------------------------------

    def _affords(self, severity: Severity) -> bool:
        """Whether the day's budget has one left for it; takes it."""
        budget = self.rules.budget
        if budget is not None and self.day.told >= math.ceil(budget * SHARE[severity]):
            return False
        self.day.told += 1
        self._keep(self.day)
        return True

    def _into_digest(self, severity: Severity, line: str) -> None:
        self.day.lines = [*self.day.lines, line][-MOST_LINES:]
        self.day.count += 1
        self.day.severities = {**self.day.severities, severity: self.day.severities.get(severity, 0) + 1}
        self._keep(self.day)

    def _turn_day(self) -> None:
        number = int((self._now - self.rules.day_start_s) // DAY_S)
        if number == self.day.number:
            return
        if self.day.count:
            self._tell_digest()
        self.day = Day(number=number, next_parcel=self.day.next_parcel)
        self._keep(self.day)

    # -- notices -----------------------------------------------------------------------------------------------------

    def _tell_case(self, case: Case, event: Happened, ended: str | None = None, why: str | None = None) -> None:
        self._send(self.notice_of(case, event, ended, why or None))
        case.told_severity = case.severity
        self._keep(case)

    def notice_of(self, case: Case, event: Happened, ended: str | None = None, why: str | None = None) -> Notice:
        """What is told of an incident."""
        return Notice(
            id=f"{case.incident}-{case.events}-{event.value}", about=About.INCIDENT, event=event,
            subject=case.incident, stream=case.stream, model_group=case.group, kind=case.kind, severity=case.severity,
            summary=case.summary or f"{case.stream}: {case.kind}", opened=case.opened, ended=ended, why_ended=why,
            score=case.score, channels=case.channels, url=self._link(case.incident),
        )  # fmt: skip

    def _tell_fleet(self, fleet: Fleet, event: Happened, ended: str | None = None) -> None:
        fleet.updates += event is Happened.UPDATED
        fleet.told, fleet.told_severity = max(len(fleet.members), 1), fleet.severity
        self._send(self.notice_of_fleet(fleet, event, ended))
        self._keep(fleet)

    def notice_of_fleet(self, fleet: Fleet, event: Happened, ended: str | None = None) -> Notice:
        """What is told of a fleet incident."""
        return Notice(
            id=f"{fleet.id}-{fleet.updates}-{event.value}", about=About.FLEET, event=event, subject=fleet.id,
            model_group=fleet.group, kind="fleet", severity=fleet.severity, summary=self._fleet_said(fleet),
            opened=format_time(fleet.first_ns), ended=ended, members=tuple(sorted(fleet.members)[:MOST_MEMBERS]),
            count=len(fleet.members), url=self._link(""),
        )  # fmt: skip

    def _fleet_said(self, fleet: Fleet) -> str:
        names = sorted(fleet.members)
        some = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        return f"{len(names)} streams of {fleet.group} broke together from {format_time(fleet.first_ns)}: {some}"

    def _tell_digest(self) -> None:
        day = self.day
        began_s = day.number * DAY_S + self.rules.day_start_s
        counts = ", ".join(f"{day.severities[one]} {one.value}" for one in reversed(ORDER) if one in day.severities)
        worst = max(day.severities, key=ORDER.__getitem__)
        name = format_time(began_s * SECOND_NS)
        self._send(Notice(
            id=f"digest-{name}", about=About.DIGEST, event=Happened.OPENED, subject=f"digest-{name}", kind="digest",
            severity=worst, summary=f"{day.count} incidents of the day from {name} were told to nobody: {counts}",
            opened=name, members=tuple(day.lines), count=day.count, url=self._link(""),
        ))  # fmt: skip

    def _link(self, incident: str) -> str | None:
        page = self.rules.page_url
        return page and (f"{page}/#incident={incident}" if incident else page)

    # -- what is on its way ------------------------------------------------------------------------------------------

    def _send(self, notice: Notice) -> None:
        number = self.day.next_parcel
        self.day.next_parcel = number + 1
        self._keep(self.day)
        self.parcels[number] = Parcel(notice=notice, left=list(self.rules.places), since=self._now)
        self._changed[f"{PARCEL}{number}"] = self.parcels[number]

    def delivered(self, number: int, place: str) -> None:
        """A place has it, or will never: its notice goes no further there."""
        parcel = self.parcels[number]
        parcel.left = [other for other in parcel.left if other != place]
        if parcel.left:
            self._changed[f"{PARCEL}{number}"] = parcel
        else:
            del self.parcels[number]
            self._changed[f"{PARCEL}{number}"] = None

    def pending(self, place: str) -> list[int]:
        """Numbers of the parcels that a place does not have yet, the oldest first."""
        return [number for number, parcel in self.parcels.items() if place in parcel.left]

    @property
    def told(self) -> list[Notice]:
        """Of everything that is open and was told."""
        cases = [self.notice_of(case, Happened.OPENED) for case in self.cases.values() if case.stage is Stage.TOLD]
        return cases + [self.notice_of_fleet(one, Happened.OPENED) for one in self.fleets.values() if one.told]
