"""Drift: a channel of a stream, or its scores, are no longer distributed as they were; as JSON on the drift topic."""

from __future__ import annotations

from typing import Final, Literal

import orjson
from pydantic import Field

from schemas.frozen import Frozen

DRIFT_VERSION: Final = 1


class Drift(Frozen):
    """The newest day of a stream beside the days before it, normal readings only."""

    version: Literal[1] = DRIFT_VERSION
    group: str = Field(description="model group")
    stream: str
    channel: str | None = Field(description="null: the champion's scores")
    start: str = Field(description="of the newest day, RFC 3339")
    end: str
    statistic: float = Field(description="Kolmogorov-Smirnov: the largest distance of the distributions, 0 to 1")
    p_value: float = Field(description="of a distance as large, if nothing had changed; of readings far apart")
    was: float = Field(description="median of the days before, engineering units; of scores in thresholds")
    now: float = Field(description="median of the newest day")

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS)
