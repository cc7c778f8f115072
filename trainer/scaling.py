"""Level and spread of each channel of each stream, from the fit part alone.

Mean and standard deviation, not median and quartiles: robust scaling was measured to gain nothing, and it makes a
channel that is constant most of the time infinitely sensitive. What makes this robust:

* The scale is at least ``scale_floor`` of the channel's normal range over the group (the catalogue's, else largest
  minus smallest), so a channel that hardly moves in one stream is judged by how it moves in its sisters. A channel that
  is constant everywhere gets ``scale_floor · max(|value|, 1)``: nothing is known about how it moves.
* Missing values do not count. A channel of a stream with fewer than ``LEAST`` values takes the group's level and
  spread, and one that nobody ever observed takes 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.manifest import Channel

#: Values below which a stream's own mean and deviation are guesses.
LEAST = 30

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scaling:
    """``loc``, ``scale`` float32 ``[S, C]``; ``group_loc``, ``group_scale``, ``low``, ``high`` float32 ``[C]``.

    ``low`` and ``high``: the normal range, NaN where nothing was observed.
    """

    loc: Floats
    scale: Floats
    group_loc: Floats
    group_scale: Floats
    low: Floats
    high: Floats


def scaling_of(
    values: Floats, stream: NDArray[np.int64], streams: int, floor: float, catalogue: Sequence[Channel] | None = None
) -> Scaling:
    """Scaling from rows ``[n, C]`` (NaN where missing) of ``streams`` streams; ``stream`` ``[n]``, ascending: whose."""
    C = values.shape[1]
    count, loc, std = (np.zeros((streams, C)) for _ in range(3))
    bounds = np.searchsorted(stream, np.arange(streams + 1))
    for s in range(streams):
        count[s], loc[s], std[s] = _moments(values[bounds[s] : bounds[s + 1]])
    seen = count.sum(axis=0)
    weight = count / np.maximum(seen, 1)
    group_loc = (weight * loc).sum(axis=0)
    group_std = np.sqrt((weight * (std**2 + (loc - group_loc) ** 2)).sum(axis=0))

    low, high = _range(values, catalogue)
    span = np.where(high > low, high - low, np.maximum(np.abs(group_loc), 1.0))
    least = np.where(seen > 0, floor * span, 1.0)
    guess = count < LEAST
    loc = np.where(guess, group_loc, loc)
    scale = np.maximum(np.where(guess, group_std, std), least)
    single = [a.astype(np.float32) for a in (loc, scale, group_loc, np.maximum(group_std, least), low, high)]
    return Scaling(*single)


def _moments(values: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean and standard deviation ``[C]`` of what is observed; 0 where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis=0).astype(np.float64)
    safe = np.maximum(count, 1)
    mean = np.where(there, values, 0).sum(axis=0, dtype=np.float64) / safe
    square = np.where(there, values - mean, 0) ** 2  # float64, about the mean: no cancellation
    return count, mean, np.sqrt(square.sum(axis=0) / safe)


def _range(values: Floats, catalogue: Sequence[Channel] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest value ``[C]``, NaN where nothing is observed; the catalogue's word counts more."""
    there = ~np.isnan(values)
    low = np.where(there, values, np.inf).min(axis=0, initial=np.inf).astype(np.float64)
    high = np.where(there, values, -np.inf).max(axis=0, initial=-np.inf).astype(np.float64)
    low, high = np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high)
    for c, channel in enumerate(catalogue or ()):
        low[c] = low[c] if channel.min is None else channel.min
        high[c] = high[c] if channel.max is None else channel.max
    return low, high
