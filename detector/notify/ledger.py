"""What `detector notify` remembers: entries of a compacted topic, written in the transaction that moves its offsets.

Keys: ``case/<incident>``, ``fleet/<id>``, ``parcel/<number>``, ``day``. Times are seconds since 1970 by this machine's
clock, but where they say ``_ns``: those are event time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.alert import Severity
from schemas.errors import TopicError
from schemas.notice import Notice, NoticeChannel

CASE, FLEET, PARCEL, DAY = "case/", "fleet/", "parcel/", "day"


class Entry(BaseModel):
    """The base of what is remembered."""

    model_config = ConfigDict(extra="ignore")  # written by a newer version: an older one goes on


class Stage(StrEnum):
    """How far an open incident has come."""

    WAITING = "waiting"
    """Nobody was told yet; it may be one of many."""
    MUTED = "muted"
    """A silence or a planned stop keeps it."""
    TOLD = "told"
    """By itself."""
    MEMBER = "member"
    """Of a fleet incident, which was told instead."""
    DIGEST = "digest"
    """The budget was used up: it is in the digest."""


class Case(Entry):
    """One open incident."""

    incident: str
    stream: str
    group: str
    kind: str
    severity: Severity
    told_severity: Severity | None = None
    """Of the last notice."""
    summary: str
    opened: str
    opened_ns: int
    score: float | None = None
    channels: tuple[NoticeChannel, ...] = ()
    events: int = 0
    """Number of the newest event."""
    stage: Stage = Stage.WAITING
    due: float
    """When to tell, or to look again."""
    fleet: str | None = None


class Fleet(Entry):
    """Incidents of many streams that opened together."""

    id: str
    group: str
    open: dict[str, str]
    """Streams by their incidents that are open."""
    members: list[str]
    """All streams that were in it."""
    first_ns: int
    newest_ns: int
    """When the newest member opened."""
    severity: Severity
    told: int = 0
    """Members at the last notice; 0: nobody was told yet."""
    told_severity: Severity | None = None
    updates: int = 0
    due: float
    by_digest: bool = False


class Parcel(Entry):
    """A notice on its way."""

    notice: Notice
    left: list[str]
    """Places that do not have it yet."""
    since: float


class Day(Entry):
    """The budget of a day, and what goes into its digest."""

    number: int = 0
    """Of the day: how many begin since 1970."""
    told: int = 0
    lines: list[str] = []
    """Newest last; the first ones are left out where they are too many."""
    count: int = 0
    """Of all that go into the digest."""
    severities: dict[Severity, int] = {}
    next_parcel: int = 0


E = TypeVar("E", bound=Entry)


def read(kind: type[E], key: str, value: bytes) -> E:
    """An entry again. Raises TopicError."""
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise TopicError(
            f"the state topic holds {key} that cannot be read ({first['loc']}: {first['msg']}): name another with "
            "--state-topic, or delete it; what is open is then told again"
        ) from error
