"""Scores of readings on the scores topic, for dashboards: what `scores.csv` says of a reading, as JSON."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from schemas.frozen import Frozen

SCORE_VERSION: Final = 1


class Share(Frozen):
    """A channel's part of the error."""

    name: str
    share: float = Field(description="0 to 1")


class Score(Frozen):
    """One reading that was scored. The record's key is the stream."""

    stream: str
    timestamp: str = Field(description="event time, RFC 3339")
    score: float = Field(description="in thresholds: above 1 is anomalous")
    p_value: float = Field(description="how often normal calibration data scored at least this high")
    alert: bool = Field(description="an incident of the stream is open after this reading")
    channels: tuple[Share, ...] = Field(description="the three largest parts, largest first")
