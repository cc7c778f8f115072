"""What happened, and what it means: faults, incidents, and which belongs to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from detector.engine.alerts import Published
from schemas.alert import ChannelShare
from schemas.moment import SECOND_NS, parse_time


@dataclass(frozen=True)
class Span:
    """A stretch of time, ns."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Provoked(Span):
    """A fault that was provoked; by ``calm`` its incident had resolved, or enough time had passed."""

    calm: int


@dataclass(frozen=True)
class Incident:
    """Times in ns; ``resolved`` None while it is open; ``score`` and ``channels`` as of its opening."""

    id: str
    opened: int
    resolved: int | None
    score: float | None
    channels: tuple[ChannelShare, ...]

    def seconds(self) -> float | None:
        """How long it was open."""
        return None if self.resolved is None else (self.resolved - self.opened) / SECOND_NS


class Incidents:
    """Incidents by their alerts."""

    def __init__(self) -> None:
        self._known: dict[str, Incident] = {}

    def add(self, published: Published) -> Incident:
        """Take an alert in; returns the incident as it is now."""
        data, time = published.alert.data, parse_time(published.alert.time)
        known = self._known.get(data.incident)
        incident = known or Incident(data.incident, parse_time(data.opened), None, data.score, data.channels)
        if published.resolved:
            incident = replace(incident, resolved=time)
        self._known[incident.id] = incident
        return incident

    def all(self) -> list[Incident]:
        """In the order of opening."""
        return sorted(self._known.values(), key=lambda incident: incident.opened)

    def open(self) -> bool:
        """Whether any is open now."""
        return any(incident.resolved is None for incident in self._known.values())


class Cause(Enum):
    """Why an incident opened."""

    FAULT = "fault"
    WAKE = "wake of a fault"
    SETTLING = "before the watching began"
    FALSE_ALARM = "false alarm"


@dataclass(frozen=True)
class Verdict:
    """``causes``: of each incident, with the fault's name; ``missed``: names of faults."""

    causes: dict[str, tuple[Cause, str]] = field(default_factory=dict)
    missed: tuple[str, ...] = ()

    @property
    def false_alarms(self) -> int:
        """How many incidents no fault caused."""
        return sum(cause is Cause.FALSE_ALARM for cause, _ in self.causes.values())

    @property
    def clean(self) -> bool:
        """Every fault caught, nothing else said."""
        return not self.missed and not self.false_alarms


def judge(faults: Sequence[Provoked], incidents: Sequence[Incident], watched_from: int, grace_s: float) -> Verdict:
    """Which fault was caught, and which incident was a false alarm.

    A fault is caught by an incident that opens from its start to ``grace_s`` past its end. From there to ``calm`` an
    incident is the fault's wake. One that opened and resolved before ``watched_from`` does not count; one that was
    still open then is a false alarm, as is any other.
    """
    causes = {incident.id: _cause(incident, faults, watched_from, grace_s) for incident in incidents}
    caught = {name for cause, name in causes.values() if cause is Cause.FAULT}
    return Verdict(causes, tuple(fault.name for fault in faults if fault.name not in caught))


def _cause(incident: Incident, faults: Sequence[Provoked], watched_from: int, grace_s: float) -> tuple[Cause, str]:
    for fault in faults:
        if fault.start <= incident.opened <= fault.end + grace_s * SECOND_NS:
            return Cause.FAULT, fault.name
        if fault.end < incident.opened <= fault.calm:
            return Cause.WAKE, fault.name
    if incident.resolved is not None and incident.resolved < watched_from:
        return Cause.SETTLING, ""
    return Cause.FALSE_ALARM, ""
