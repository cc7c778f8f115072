"""Alert events: CloudEvents 1.0 in structured mode, as canonical JSON."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import orjson
from pydantic import Field

from schemas.frozen import Frozen
from schemas.machine import MachineState
from schemas.moment import format_time

ALERT_VERSION = 1


class EventType(StrEnum):
    """What happened to an incident."""

    OPENED = "residual.incident.opened"
    UPDATED = "residual.incident.updated"
    RESOLVED = "residual.incident.resolved"


class Kind(StrEnum):
    """What an incident is about. At most one of each is open at a stream."""

    ANOMALY = "anomaly"
    """The score stayed above the threshold."""
    SHIFT = "shift"
    """What began as an anomaly and persists: the stream has moved to another level or spread."""
    DRIFT = "drift"
    """A channel's level has crept further than its baseline may follow."""
    STUCK = "stuck"
    """A channel repeats one value for longer than it ever did."""
    MISSING = "missing"
    """A channel that used to report is absent."""
    RANGE = "range"
    """A channel is outside of what is physically possible."""
    CLOCK = "clock"
    """The stream's clock was set back: its readings are dropped until it has caught up."""
    SILENT = "silent"
    """The stream sends nothing while others of its partition do."""


class Severity(StrEnum):
    """How urgent, in three of the words of ITU-T X.733."""

    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"


class Ended(StrEnum):
    """Why an incident is over."""

    QUIET = "quiet"
    """What it was about is gone."""
    REBASELINED = "re-baselined"
    """It persisted; what it moved to is the new baseline."""
    ACCEPTED = "accepted"
    """An operator said that this is normal now."""
    EXPIRED = "expired"
    """It was open for as long as an incident may be."""
    SWITCHED_OFF = "switched off"
    """The machine was switched off: its readings say nothing of the incident any more."""
    FORGOTTEN = "forgotten"
    """The stream is no longer followed there: others needed its place, or it has moved to another partition."""


class ChannelShare(Frozen):
    """How much one channel contributed to the score, and what it should have been."""

    name: str
    share: float = Field(description="part of the newest reading's error, 0 to 1")
    observed: float | None = Field(description="engineering units; null where the value was missing")
    expected: float | None = Field(description="engineering units")
    unit: str | None = Field(None, description="absent where none is known")
    observed_window: tuple[float | None, ...] | None = Field(
        None, description="the readings up to this one, the newest last; absent in images and once it is over"
    )
    expected_window: tuple[float | None, ...] | None = Field(None, description="what was expected of each, likewise")


class ImagePeak(Frozen):
    """Where in an image the error is largest, and a picture of the errors of all pixels."""

    x: int = Field(ge=0, description="column of the pixel, from the left")
    y: int = Field(ge=0, description="row of the pixel, from the top")
    error: float = Field(description="its error, in units of what is normal for it")
    map: str = Field(
        description="PNG of the errors, base64: black, red, yellow, white; it may be smaller than the image"
    )


class AlertData(Frozen):
    """What an operator wants to know."""

    incident: str
    kind: Kind = Field(description="what it is about; what opened as 'anomaly' becomes 'shift' where it persists")
    summary: str = Field("", description="one plain sentence: what, where, since when, how rare")
    severity: Severity = Field(Severity.MINOR, description="from the return period, or by the kind")
    opened: str = Field(description="event time of the reading that opened the incident, RFC 3339")
    began: str = Field("", description="event time of its first reading that was off, at or before `opened`, RFC 3339")
    ended: Ended | None = Field(None, description="why it is over; absent while it is open")
    score: float | None = Field(description="in thresholds: above 1 is anomalous; null where the reading has none")
    p_value: float | None = Field(description="how often normal calibration data scored at least this high")
    return_period_s: float | None = Field(
        None, description="seconds between episodes of normal data that reach the incident's worst score; null: unknown"
    )
    reopened: int = Field(0, description="how often the stream's incidents of this kind have come back lately")
    channels: tuple[ChannelShare, ...] = Field(description="the largest contributions, largest first")
    machine_state: MachineState | None = Field(
        None, description="what the stream's machine was doing; absent where no setting says how to know"
    )
    model: str = Field(description="SHA-256 of the graph that scored")
    image: ImagePeak | None = Field(None, description="absent where the stream is no camera")


class Alert(Frozen):
    """One event of an incident. The same readings and model give the same bytes, wherever they are scored."""

    specversion: str = "1.0"
    type: EventType
    source: str = Field(description="/residual/<model group>")
    subject: str = Field(description="the stream")
    time: str = Field(description="event time of the reading that caused the event, RFC 3339")
    id: str = Field(description="<incident>-<N>, N counting the incident's events from 0")
    datacontenttype: str = "application/json"
    dataschema: str = f"urn:residual:alert:{ALERT_VERSION}"
    data: AlertData

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, shortest floats, UTF-8; what is not known of a channel is absent."""
        document = self.model_dump()
        data = document["data"]
        for name in ("image", "ended", "machine_state"):
            if data[name] is None:
                del data[name]
        for channel in data["channels"]:
            for name in ("unit", "observed_window", "expected_window"):
                if channel[name] is None:
                    del channel[name]
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def incident_id(group: str, stream: str, kind: str, opened_ns: int) -> str:
    """A name for an incident that any replica would give it: 16 hex digits of a SHA-256."""
    text = orjson.dumps([group, stream, kind, format_time(opened_ns)])
    return hashlib.sha256(text).hexdigest()[:16]
