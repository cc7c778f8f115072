"""Feedback: what operators think of incidents, as JSON on the feedback topic.

The topic is compacted and the key is the incident's id: the newest word about an incident counts, and a record without
a value takes it back. Feedback teaches; what has to take effect at once is a command (``schemas.command``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import orjson
from pydantic import Field, ValidationError, field_validator

from schemas.frozen import Frozen
from schemas.moment import parse_time

FEEDBACK_VERSION: Final = 1


class Verdict(StrEnum):
    """What an incident was, in an operator's eyes."""

    CONFIRMED = "confirmed"
    """A fault: nothing like it may be learned."""
    REJECTED = "rejected"
    """A false alarm: what it was about is normal, and may be learned."""


class Feedback(Frozen):
    """What an operator thinks of an incident."""

    version: Literal[1] = FEEDBACK_VERSION
    incident: str = Field(min_length=1, max_length=100, description="its id, as in the alerts")
    stream: str = Field(min_length=1, max_length=1024, description="the stream that it was about")
    verdict: Verdict = Field(description="confirmed: it was a fault; rejected: it was none")
    time: str | None = Field(None, description="when it was said, RFC 3339; decides nothing")
    by: str | None = Field(None, max_length=200, description="who said it")
    note: str = Field("", max_length=2000, description="why")

    @field_validator("time")
    @classmethod
    def _a_time(cls, time: str | None) -> str | None:
        if time is not None:
            parse_time(time)
        return time

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Feedback:
        """Raises ValueError, in one line, where it is no feedback."""
        try:
            return cls.model_validate_json(value or b"")
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from error

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8; what was not said is absent."""
        return orjson.dumps(self.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
