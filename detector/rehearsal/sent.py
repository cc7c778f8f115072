"""The events that would have been sent, as incidents: one each, with what the page says about it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from detector.engine.sentence import Facts, sentence
from schemas.alert import Alert, AlertData, Ended, EventType, Kind, Severity
from schemas.moment import parse_time

#: Incidents that are shown in full, with their picture.
IN_FULL = 50

RANK = {Severity.MINOR: 0, Severity.MAJOR: 1, Severity.CRITICAL: 2}

#: What began as an anomaly becomes a shift where it persists: between two settings these are one.
_SAME = {Kind.SHIFT: Kind.ANOMALY}


@dataclass(slots=True)
class Incident:
    """From its opening to its end, or to the end of the data."""

    stream: str
    kind: Kind
    severity: Severity
    opened: int
    """Event time, nanoseconds since 1970, as the next two."""
    began: int
    said: str
    """The sentence of its most severe event while it was open, the newest of several."""
    data: AlertData
    """Of the same event, without the windows."""
    score: float
    """The highest of its events; NaN: they have none."""
    events: int = 1
    ended: int | None = None
    reason: Ended | None = None
    last_said: str = ""
    """The sentence of its end."""

    @property
    def rank(self) -> tuple[float, ...]:
        """Larger is worse: severity, return period (none at all is the rarest of anomalies), score; then the older."""
        period, modelled = self.data.return_period_s, self.kind in (Kind.ANOMALY, Kind.SHIFT)
        rare = period if period is not None else math.inf if modelled else 0.0
        return RANK[self.severity], rare, -1.0 if math.isnan(self.score) else self.score, -self.opened


class Sent:
    """Incidents in the order in which they opened, and how many events they had."""

    def __init__(self) -> None:
        self._incidents: dict[str, Incident] = {}
        self._pictured: list[Incident] = []
        self.events = 0

    @property
    def incidents(self) -> Sequence[Incident]:
        """All of them."""
        return list(self._incidents.values())

    def add(self, alert: Alert) -> None:
        """Take in the next event."""
        data = alert.data
        self.events += 1
        score = math.nan if data.score is None else data.score
        known = self._incidents.get(data.incident)
        if known is None:
            opened = parse_time(data.opened)
            began = parse_time(data.began) if data.began else opened
            known = Incident(
                alert.subject, data.kind, data.severity, opened, began, _said(alert, began), _bare(data), score
            )
            self._incidents[data.incident] = known
            if data.image is not None:
                self._keep_pictures(known)
        else:
            known.events += 1
            if alert.type is not EventType.RESOLVED:
                known.score = max((s for s in (known.score, score) if not math.isnan(s)), default=math.nan)
                if RANK[data.severity] >= RANK[known.severity]:
                    known.severity, known.said, known.data = data.severity, _said(alert, known.began), _bare(data)
            known.kind = data.kind
        if alert.type is EventType.RESOLVED:
            known.ended, known.reason, known.last_said = parse_time(alert.time), data.ended, _said(alert, known.began)

    def _keep_pictures(self, newest: Incident) -> None:
        """Pictures are large: of more than can be shown only those of the worst incidents are kept."""
        self._pictured.append(newest)
        if len(self._pictured) > 4 * IN_FULL:
            self._pictured.sort(key=lambda incident: incident.rank, reverse=True)
            for incident in self._pictured[2 * IN_FULL :]:
                incident.data = incident.data.model_copy(update={"image": None})
            del self._pictured[2 * IN_FULL :]


def only_in(mine: Sequence[Incident], others: Sequence[Incident]) -> list[Incident]:
    """Those of mine at whose time none of the others was open at the same stream and of the same kind.

    Incidents of one stream and kind follow each other, so that the first one that ends late enough decides.
    """
    open_at: dict[tuple[str, Kind], tuple[list[float], list[int]]] = {}
    for other in sorted(others, key=lambda incident: incident.opened):
        ends, starts = open_at.setdefault(_about(other), ([], []))
        ends.append(_end(other))
        starts.append(other.opened)
    found = []
    for incident in mine:
        ends, starts = open_at.get(_about(incident), ([], []))
        place = bisect_left(ends, incident.opened)
        if place == len(ends) or starts[place] > _end(incident):
            found.append(incident)
    return found


def _about(incident: Incident) -> tuple[str, Kind]:
    return incident.stream, _SAME.get(incident.kind, incident.kind)


def _end(incident: Incident) -> float:
    return math.inf if incident.ended is None else incident.ended


def _said(alert: Alert, began: int) -> str:
    data = alert.data
    if data.summary:
        return data.summary
    ended = Ended.QUIET if alert.type is EventType.RESOLVED and data.ended is None else data.ended
    spot = (data.image.x, data.image.y) if data.image else None
    return sentence(
        Facts(
            alert.subject,
            data.kind,
            data.channels,
            began,
            parse_time(alert.time),
            data.return_period_s,
            ended,
            spot=spot,
        )
    )


def _bare(data: AlertData) -> AlertData:
    """Without the windows of its channels: the page draws more than they hold."""
    bare = tuple(c.model_copy(update={"observed_window": None, "expected_window": None}) for c in data.channels)
    return data.model_copy(update={"channels": bare})
