"""Silences: stretches of time in which streams wake nobody and teach nothing, as JSON on the silences topic.

The topic is compacted and the key is the silence's id: a later record of that id replaces it, a record without a value
takes it back.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, Literal

import orjson
from pydantic import Field, ValidationError, model_validator

from schemas.frozen import Frozen
from schemas.moment import parse_time

SILENCE_VERSION: Final = 1


class Silence(Frozen):
    """One stretch of event time in which nothing of some streams is delivered or learned."""

    version: Literal[1] = SILENCE_VERSION
    id: str = Field(min_length=1, max_length=100, description="a name that no other silence has, such as a UUID")
    streams: str = Field(
        min_length=1, max_length=1024, description="the streams that are meant: a name, or a pattern with * and ?"
    )
    start: str = Field(description="event time from which on, RFC 3339")
    end: str = Field(description="event time at which it is over, RFC 3339")
    by: str | None = Field(None, max_length=200, description="who asked for it")
    note: str = Field("", max_length=2000, description="why")

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Silence:
        start, end = self.span
        if start >= end:
            raise ValueError(f"it ends ({self.end}) before it begins ({self.start})")
        return self

    @property
    def span(self) -> tuple[int, int]:
        """Nanoseconds since 1970 of start and end."""
        return parse_time(self.start), parse_time(self.end)

    def means(self, stream: str) -> bool:
        """Whether this stream is among those that are meant."""
        return fnmatchcase(stream, self.streams)

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Silence:
        """Raises ValueError, in one line, where it is no silence."""
        try:
            return cls.model_validate_json(value or b"")
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from error

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8; what was not said is absent."""
        return orjson.dumps(self.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
