"""A reading as JSON on the readings topic."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from schemas.frozen import Frozen

READING_VERSION = 1


class Reading(Frozen):
    """A stream, a time and the values of its channels.

    A record's value is one reading or a list of them. ``stream`` may be left out where the record's key names it, and
    ``timestamp`` where the record's own timestamp is meant. ``null`` is a missing value, as is a channel that is left
    out. The detector decodes this shape without building objects of it; a test holds the two together.
    """

    model_config = ConfigDict(extra="ignore")  # what a record says besides is its sender's business

    stream: str = Field("", min_length=1, max_length=1024, description="machine, camera, host …; absent: the key")
    timestamp: str | float = Field("", description="RFC 3339, or milliseconds since 1970; absent: the record's own")
    values: dict[str, float | None] = Field(description="value by channel, in engineering units; null is missing")


class FieldNames(Frozen):
    """What the fields of a reading are called in the user's own records."""

    stream: str = "stream"
    timestamp: str = "timestamp"
    values: str = "values"
