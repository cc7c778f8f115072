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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.adapters.overflow import chunks
from schemas.manifest import Channel

#: Values below which a stream's own mean and deviation are guesses.
LEAST = 30

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


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
    values: Floats,
    stream: NDArray[np.int64],
    streams: int,
    floor: float,
    catalogue: Sequence[Channel] | None = None,
    learned: NDArray[np.bool_] | None = None,
) -> Scaling:
    """Scaling from rows ``[n, C]`` (NaN where missing) of ``streams`` streams; ``stream`` ``[n]``, ascending: whose.

    ``learned`` ``[n]``: the rows that count; None: all. The rows may be more than memory holds.
    """
    C = values.shape[1]
    count, loc, std = (np.zeros((streams, C)) for _ in range(3))
    least, most = np.full(C, np.inf), np.full(C, -np.inf)
    bounds = np.searchsorted(stream, np.arange(streams + 1))
    for s in range(streams):
        rows = _Rows(values, learned, int(bounds[s]), int(bounds[s + 1]))
        count[s], loc[s], std[s] = _moments(rows, C)
        for part in rows:
            there = ~np.isnan(part)
            least = np.minimum(least, np.where(there, part, np.inf).min(axis=0, initial=np.inf))
            most = np.maximum(most, np.where(there, part, -np.inf).max(axis=0, initial=-np.inf))
    seen = count.sum(axis=0)
    weight = count / np.maximum(seen, 1)
    group_loc = (weight * loc).sum(axis=0)
    group_std = np.sqrt((weight * (std**2 + (loc - group_loc) ** 2)).sum(axis=0))

    low, high = _range(least, most, catalogue)
    span = np.where(high > low, high - low, np.maximum(np.abs(group_loc), 1.0))
    least = np.where(seen > 0, floor * span, 1.0)
    guess = count < LEAST
    loc = np.where(guess, group_loc, loc)
    scale = np.maximum(np.where(guess, group_std, std), least)
    single = [a.astype(np.float32) for a in (loc, scale, group_loc, np.maximum(group_std, least), low, high)]
    return Scaling(*single)


class _Rows:
    """The rows that count of those from ``start`` to ``stop``, part by part, as often as they are gone through."""

    def __init__(self, values: Floats, learned: NDArray[np.bool_] | None, start: int, stop: int) -> None:
        self._values, self._learned, self._start, self._stop = values, learned, start, stop

    def __iter__(self) -> Iterator[Floats]:
        for part in chunks(self._stop - self._start, self._values.shape[1]):
            here = slice(self._start + part.start, self._start + part.stop)
            yield self._values[here] if self._learned is None else self._values[here][self._learned[here]]


def _moments(rows: _Rows, C: int) -> tuple[Doubles, Doubles, Doubles]:
    """Count, mean and standard deviation ``[C]`` of what is observed; 0 where nothing is."""
    count, total, squares = np.zeros(C), np.zeros(C), np.zeros(C)
    for part in rows:
        there = ~np.isnan(part)
        count += there.sum(axis=0)
        total += np.where(there, part, 0).sum(axis=0, dtype=np.float64)
    safe = np.maximum(count, 1)
    mean = total / safe
    for part in rows:
        square = np.where(np.isnan(part), 0, part - mean) ** 2  # float64, about the mean: no cancellation
        squares += square.sum(axis=0)
    return count, mean, np.sqrt(squares / safe)


def _range(low: Doubles, high: Doubles, catalogue: Sequence[Channel] | None) -> tuple[Doubles, Doubles]:
    """Least and largest value ``[C]``, NaN where nothing was observed; the catalogue's word counts more."""
    low, high = np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high)
    for c, channel in enumerate(catalogue or ()):
        low[c] = low[c] if channel.min is None else channel.min
        high[c] = high[c] if channel.max is None else channel.max
    return low, high
