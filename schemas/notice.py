"""Notices: what `detector notify` tells people, as JSON; the body of a webhook, and what a template is given."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import orjson
from pydantic import Field

from schemas.alert import Severity
from schemas.frozen import Frozen

NOTICE_VERSION: Final = 1


class About(StrEnum):
    """What a notice is about."""

    INCIDENT = "incident"
    """One incident of one stream."""
    FLEET = "fleet"
    """Many streams whose incidents opened together."""
    DIGEST = "digest"
    """What was told to nobody by itself on one day."""


class Happened(StrEnum):
    """What happened to it."""

    OPENED = "opened"
    UPDATED = "updated"
    RESOLVED = "resolved"


class NoticeChannel(Frozen):
    """A channel that gave an incident away."""

    name: str
    share: float = Field(description="part of the error, 0 to 1")
    observed: float | None = Field(None, description="engineering units; null where the value was missing")
    expected: float | None = None
    unit: str | None = None


class Notice(Frozen):
    """One thing that somebody is told. Told again after a crash it has the same id."""

    version: Literal[1] = NOTICE_VERSION
    id: str = Field(description="of this notice; the same where it is told again: told twice, it counts once")
    about: About
    event: Happened
    subject: str = Field(description="id of the incident or the fleet incident; of a digest the day")
    stream: str | None = Field(None, description="of an incident")
    model_group: str = ""
    kind: str = Field(description="what the incident is about, such as anomaly or stuck; fleet; digest")
    severity: Severity
    summary: str = Field(description="one plain sentence")
    opened: str = Field(description="RFC 3339, event time; of a digest when its day began")
    ended: str | None = Field(None, description="RFC 3339, where it is over")
    why_ended: str | None = None
    score: float | None = Field(None, description="in thresholds")
    channels: tuple[NoticeChannel, ...] = ()
    members: tuple[str, ...] = Field((), description="of a fleet incident: its streams; of a digest: a line each")
    count: int = Field(1, description="incidents that it stands for")
    url: str | None = Field(None, description="page to look at")

    @property
    def line(self) -> str:
        """What is printed."""
        return f"{self.event.value.upper():8} {self.severity.value:8} {self.summary}"

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8; what is not known is absent."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True), option=orjson.OPT_SORT_KEYS)
