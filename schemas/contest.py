"""contest.json of a version: how it did beside the champion and window PCA before it was promoted, or was not."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from schemas.frozen import Frozen

CONTEST_VERSION: Final = 1

Role = Literal["champion", "challenger", "baseline"]


class Row(Frozen):
    """How a model did on the streams of a group; ``""``: on all of them."""

    group: str = ""
    episodes: int = Field(description="incidents that opened on normal readings")
    stream_days: float = Field(description="of normal readings that were scored")
    promised: float = Field(description="false-alarm episodes that the promise allows in that time")
    keeps: bool = Field(description="so many episodes are no surprise under the promise (Poisson, 95 %)")
    found: dict[str, float] = Field(description="share of the planted faults that were found, by kind")
    planted: dict[str, int] = Field(description="planted faults that could be seen, by kind")
    delay: float | None = Field(None, description="readings until a planted fault is found, median; null: none was")
    confirmed: int = Field(0, description="past faults that an operator confirmed and that this model finds …")
    of_confirmed: int = Field(0, description="… of so many")

    @property
    def share(self) -> float:
        """Mean share over kinds."""
        return sum(self.found.values()) / len(self.found) if self.found else float("nan")


class Contender(Frozen):
    """A model of the contest."""

    role: Role
    model: str = Field(description="architecture")
    version: str | None = Field(None, description="where it is stored; null: nowhere")
    false_alarms: str
    rows: tuple[Row, ...] = Field(min_length=1, description="all streams first, then each group")


class Decision(Frozen):
    """What the contest says, and why."""

    promote: bool
    by_hand: bool = Field(False, description="whether an operator may decide otherwise with a good reason")
    reasons: tuple[str, ...]


class Contest(Frozen):
    """Champion, challengers and window PCA on the same readings."""

    version: Literal[1] = CONTEST_VERSION
    start: str = Field(description="of the held-out normal readings, RFC 3339")
    end: str
    plantings: int
    contenders: tuple[Contender, ...]
    winner: int = Field(description="the contender that was weighed against the champion, by its place")
    decision: Decision
