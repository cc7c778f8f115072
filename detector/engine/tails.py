"""The tail: how often normal data reach a level, in false-alarm episodes per stream and day.

A table of levels and rates, which the trainer fits (``trainer.tails``) and extends far beyond what its data reach, so
that the detector needs no distribution: between two levels the logarithm of the rate is a straight line. Levels are raw
scores divided by the stream's factor: a group of streams shares one tail, and each stream stretches it by its own
factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.engine.calibration import FLOOR
from schemas.promise import DAY_S

#: Episodes per stream and day below which rates are not told apart: one in about three million years.
RAREST = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """``levels`` ``[K]`` ascending; ``rates`` ``[K]`` descending, above 0. K is 0 (nothing is known) or at least 2."""

    levels: Floats
    rates: Floats

    def level(self, rate: float) -> float:
        """The level that normal data reach ``rate`` times a day; the table's first or last one for rates beyond it.

        A rate beyond the last one is rarer than the data can tell. Infinite where nothing is known.

        >>> tail = Tail(np.array([0.0, 1.0, 3.0]), np.array([100.0, 10.0, 1.0]))
        >>> round(tail.level(10**0.5), 6), tail.level(0.001)
        (2.0, 3.0)
        """
        if not len(self.levels):
            return float("inf")
        return float(np.interp(-np.log(rate), -np.log(self.rates), self.levels))

    def rate(self, levels: Floats) -> Floats:
        """Episodes per stream and day at levels ``[N]``; beyond the table the last slope goes on. NaN stays NaN."""
        if not len(self.levels):
            return np.full(np.shape(levels), np.nan)
        log = np.log(self.rates)
        last = (log[-1] - log[-2]) / (self.levels[-1] - self.levels[-2])
        beyond = log[-1] + last * np.maximum(levels - self.levels[-1], 0)
        inside = np.interp(levels, self.levels, log)
        return np.exp(np.maximum(np.where(levels > self.levels[-1], beyond, inside), np.log(RAREST)))

    def return_period_s(self, levels: Floats) -> Floats:
        """Seconds between two episodes of one stream that reach the level, ``[N]``."""
        return DAY_S / self.rate(levels)

    def threshold(self, rate: float, factor: Floats, floor: float = FLOOR) -> Floats:
        """The raw score that counts as 1, for streams of these factors ``[S]``, ``[S]``."""
        return np.maximum(factor * self.level(rate), floor)


#: Of a model that is not calibrated.
UNKNOWN = Tail(np.empty(0), np.empty(0))
