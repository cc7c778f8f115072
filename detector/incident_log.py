"""The incidents of the past, put together from the events that were published about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.alert import Alert, Ended, EventType, Kind, Severity
from schemas.feedback import Feedback, Verdict
from schemas.moment import parse_time


@dataclass(frozen=True, slots=True)
class PastIncident:
    """One incident of a stream; times in nanoseconds since 1970."""

    incident: str
    stream: str
    kind: Kind
    """What it was in the end: what began as an anomaly may have become a shift."""
    began: int
    """Of its first reading that was off."""
    ended: int | None
    """Of its last event; None: it is open."""
    why: Ended | None
    """Why it is over."""
    verdict: Verdict | None = None
    """What an operator thinks of it; None: nobody has said."""
    severity: Severity = Severity.MINOR
    """By its worst score."""

    @property
    def moved(self) -> bool:
        """It ended with another normal: what came after it is no fault, nor was it like what came before."""
        new = self.why is Ended.ACCEPTED or (self.kind is Kind.SHIFT and self.why is Ended.REBASELINED)
        return new and self.verdict is not Verdict.CONFIRMED


def past_incidents(alerts: Iterable[Alert], feedback: Mapping[str, Feedback]) -> list[PastIncident]:
    """Incidents in the order in which they began. ``feedback``: the newest word about each, by the incident's id.

    Events may come in any order and more than once, and the first ones may be missing where retention deleted them:
    each event says what is known of its incident by then, so the newest decides.
    """
    newest: dict[str, tuple[int, Alert]] = {}
    for alert in alerts:
        number = int(alert.id.rpartition("-")[2])
        known = newest.get(alert.data.incident)
        if known is None or known[0] < number:
            newest[alert.data.incident] = number, alert
    found = [_incident(alert, feedback.get(name)) for name, (_, alert) in newest.items()]
    return sorted(found, key=lambda one: (one.began, one.stream, one.kind, one.incident))


def _incident(alert: Alert, feedback: Feedback | None) -> PastIncident:
    data, over = alert.data, alert.type is EventType.RESOLVED
    return PastIncident(
        data.incident,
        alert.subject,
        data.kind,
        parse_time(data.began or data.opened),
        parse_time(alert.time) if over else None,
        data.ended if over else None,
        feedback.verdict if feedback is not None else None,
        data.severity,
    )
