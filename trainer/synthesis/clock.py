"""What a generator is told of a reading besides noise: the time of day and of the week, and the group of its stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.moment import SECOND_NS

Floats = NDArray[np.float32]

DAY_S, WEEK_S = 86_400, 604_800

#: How often a period must be there before it is believed.
LEAST_PERIODS = 2

#: Waves of a day that are told, the shortest of eight hours.
HARMONICS = 3


@dataclass(frozen=True)
class Clock:
    """Context of readings, K numbers each."""

    daily: bool
    weekly: bool
    groups: int

    @classmethod
    def of(cls, span_s: float, interval_s: float, groups: int) -> Clock:
        """For readings over ``span_s``, one every ``interval_s``."""
        daily = interval_s <= DAY_S / 4 and span_s >= LEAST_PERIODS * DAY_S
        return cls(daily, interval_s <= DAY_S and span_s >= LEAST_PERIODS * WEEK_S, groups)

    @property
    def size(self) -> int:
        """K."""
        return 2 * HARMONICS * self.daily + 2 * self.weekly + (self.groups if self.groups > 1 else 0)

    def context(self, times: NDArray[np.int64], group: int) -> Floats:
        """``[n, K]`` of readings at ``times`` ``[n]``, ns, of a stream of a group (its number)."""
        columns: list[NDArray[np.float64]] = []
        seconds = times / SECOND_NS
        if self.daily:
            columns += _waves(seconds % DAY_S / DAY_S, HARMONICS)
        if self.weekly:
            columns += _waves(seconds % WEEK_S / WEEK_S, 1)
        if self.groups > 1:
            columns += [np.full(len(times), float(group == number)) for number in range(self.groups)]
        return np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((len(times), 0), np.float32)


def _waves(phase: NDArray[np.float64], harmonics: int) -> list[NDArray[np.float64]]:
    angles = [2 * np.pi * n * phase for n in range(1, harmonics + 1)]
    return [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
