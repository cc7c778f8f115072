"""The result: of each kind of fault how much of it is caught at each size, and the least that is caught reliably."""

from __future__ import annotations

from pydantic import Field

from schemas.frozen import Frozen

#: Share of the faults of a size from which on it counts as caught.
CAUGHT = 0.9


class Level(Frozen):
    """Faults of one kind and size."""

    size: float = Field(description="see the kind's unit")
    planted: int = Field(description="that could be told: seen by anybody, and nothing was open yet")
    caught: int
    delay: float | None = Field(description="readings from the first faulty one to the incident, median; None: none")

    @property
    def share(self) -> float:
        """Of those planted; NaN without any."""
        return self.caught / self.planted if self.planted else float("nan")


class KindResult(Frozen):
    """One kind of fault."""

    kind: str
    unit: str = Field(description="of the sizes: deviations, readings, times as fast")
    lasts: int | None = Field(description="readings of each fault; None: its size is how long it lasts")
    levels: tuple[Level, ...] = Field(description="from small to large")

    @property
    def smallest(self) -> Level | None:
        """From which on all sizes are caught; None: even the largest is not."""
        found = None
        for level in reversed([level for level in self.levels if level.planted]):
            if level.share < CAUGHT:
                break
            found = level
        return found


class ChannelResult(Frozen):
    """Faults in one channel, of all kinds and sizes."""

    channel: str
    planted: dict[str, int] = Field(description="by kind")
    caught: dict[str, int]


class Detectability(Frozen):
    """Measured on normal readings that the model has not learned from, with faults in one channel at a time."""

    start: str = Field(description="of the readings, RFC 3339")
    end: str
    false_alarms: str = Field(description="the promise under which incidents open")
    episodes: int = Field(description="incidents on the readings without any fault")
    promised: float = Field(description="how many the promise allows there")
    stream_days: float
    kinds: tuple[KindResult, ...]
    channels: tuple[ChannelResult, ...] = Field(description="those that were planted into")
    truncated: bool = Field(False, description="fewer faults were planted than wanted: the readings are few")

    def of(self, kind: str) -> KindResult | None:
        """One kind's result."""
        return next((one for one in self.kinds if one.kind == kind), None)
