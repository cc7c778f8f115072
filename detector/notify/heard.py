"""Alert events as they are read again: what newer detectors add to them is passed over."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.alert import Ended, EventType, Severity
from schemas.moment import parse_time
from schemas.notice import NoticeChannel


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class HeardChannel(_Lenient):
    """See ``schemas.alert.ChannelShare``."""

    name: str
    share: float
    observed: float | None = None
    expected: float | None = None
    unit: str | None = None

    @property
    def told(self) -> NoticeChannel:
        """As it is told."""
        return NoticeChannel(**self.model_dump())


class HeardData(_Lenient):
    """See ``schemas.alert.AlertData``."""

    incident: str = Field(min_length=1, max_length=100)
    kind: str
    summary: str = ""
    severity: Severity = Severity.MINOR
    opened: str
    ended: Ended | str | None = None
    score: float | None = None
    channels: tuple[HeardChannel, ...] = ()


class Heard(_Lenient):
    """One event of an incident."""

    type: EventType
    source: str
    subject: str = Field(min_length=1, max_length=1024)
    time: str
    id: str
    data: HeardData

    @property
    def group(self) -> str:
        """The model group."""
        return self.source.rpartition("/")[2]

    @property
    def opened_ns(self) -> int:
        """Event time at which the incident opened."""
        return parse_time(self.data.opened)

    @classmethod
    def of(cls, value: bytes | None) -> Heard:
        """Raises ValueError, in one line, where it is no alert event."""
        try:
            heard = cls.model_validate_json(value or b"")
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from error
        parse_time(heard.time)
        _ = heard.opened_ns
        return heard
