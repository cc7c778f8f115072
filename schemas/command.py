"""Commands: what operators tell the detectors of a consumer group, as JSON on their commands topic."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import orjson
from pydantic import Field, ValidationError, field_validator

from schemas.frozen import Frozen
from schemas.moment import parse_time

COMMAND_VERSION: Final = 1


class Verb(StrEnum):
    """What an operator can say about a stream."""

    ACCEPT = "accept"
    """This level is normal now: it becomes the baseline at once, and what is open because of it is over."""
    CONFIRM = "confirm"
    """Still wrong: what is open must not become the baseline; where it already has, that is taken back."""


class Command(Frozen):
    """One thing that an operator says. It takes effect once, however often it arrives: its ``id`` tells."""

    version: Literal[1] = COMMAND_VERSION
    id: str = Field(min_length=1, max_length=100, description="a name that no other command has, such as a UUID")
    command: Verb = Field(description="accept: this is normal now; confirm: it is still wrong")
    stream: str = Field(min_length=1, max_length=1024, description="the stream that is meant")
    channels: tuple[str, ...] = Field((), max_length=10_000, description="the channels that are meant; none: all")
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
    def from_bytes(cls, value: bytes | None) -> Command:
        """Raises ValueError, in one line, where it is no command."""
        try:
            return cls.model_validate_json(value or b"")
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from error

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8; what was not said is absent."""
        return orjson.dumps(self.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
