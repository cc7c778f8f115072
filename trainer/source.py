"""Where readings to learn from come from, and what they are called there: settings that every such command shares."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from schemas.security import Security
from schemas.settings import Duration, Texts


class SourceSettings(Security):
    """Of files, or of a topic written as ``kafka://HOST:PORT/TOPIC``."""

    stream: str = Field("default", min_length=1, max_length=1024, description="stream of a file that names none")
    channels: str | None = Field(None, description="TOML file with a [[channel]] each: name, unit, min, max, weight …")
    streams: Texts = Field((), description="kafka://… only: patterns of streams, with ; between; others are left out")
    span: Duration = Field(
        "14d", gt=0, validate_default=True, description="kafka://… only: how far back from the newest reading"
    )
    startup_timeout: Duration = Field(60, description="kafka://… only: how long to try to reach the broker")
    stream_field: str = Field("stream", min_length=1, description="kafka://… only: name of a reading's stream field")
    timestamp_field: str = Field("timestamp", min_length=1, description="kafka://… only: … timestamp field")
    values_field: str = Field("values", min_length=1, description="kafka://… only: … values field")
    records: Literal["json", "images"] = Field("json", description="kafka://… only: what a record of the topic holds")
    frame: str | None = Field(
        None, description="kafka://… of raw images only: HEIGHTxWIDTHxBANDS; else the first picture's"
    )

    @field_validator("frame")
    @classmethod
    def _a_frame(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}x[1-9]\d{0,2}", text):
            raise ValueError("HEIGHTxWIDTHxBANDS, such as 480x640x3")
        return text
