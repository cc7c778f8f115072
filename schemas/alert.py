"""Alert events: CloudEvents 1.0 in structured mode, as canonical JSON."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import orjson
from pydantic import Field

from schemas.frozen import Frozen
from schemas.moment import format_time

ALERT_VERSION = 1


class EventType(StrEnum):
    """What happened to an incident."""

    OPENED = "residual.incident.opened"
    UPDATED = "residual.incident.updated"
    RESOLVED = "residual.incident.resolved"


class ChannelShare(Frozen):
    """How much one channel contributed to the score, and what it should have been."""

    name: str
    share: float = Field(description="part of the newest reading's error, 0 to 1")
    observed: float | None = Field(description="engineering units; null where the value was missing")
    expected: float | None = Field(description="engineering units")


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
    kind: str = Field(description="'anomaly' for a score above the threshold")
    opened: str = Field(description="event time of the reading that opened the incident, RFC 3339")
    score: float = Field(description="in thresholds: above 1 is anomalous")
    p_value: float = Field(description="how often normal calibration data scored at least this high")
    channels: tuple[ChannelShare, ...] = Field(description="the largest contributions, largest first")
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
        """Canonical JSON: sorted keys, no spaces, shortest floats, UTF-8."""
        document = self.model_dump()
        if self.data.image is None:
            del document["data"]["image"]
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def incident_id(group: str, stream: str, kind: str, opened_ns: int) -> str:
    """A name for an incident that any replica would give it: 16 hex digits of a SHA-256."""
    text = orjson.dumps([group, stream, kind, format_time(opened_ns)])
    return hashlib.sha256(text).hexdigest()[:16]
