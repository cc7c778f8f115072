"""The season of a group of streams: the period after which they repeat themselves, found in the data, and its context.

The period is where the autocorrelation of the channels peaks. A day and a week come first, being what people live by;
then any other lag. The context is made by the detector's own memory, so that training sees what will be served.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.adapters.overflow import chunks, empty
from detector.engine.seasons import Seasons, fields
from detector.engine.segments import Segments
from detector.engine.state import State
from schemas.errors import SettingsError
from schemas.manifest import Season
from schemas.moment import SECOND_NS, parse_duration
from trainer.scaling import Scaling

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Levels that are remembered of a period, at most: what the budget of the detector's state allows.
BINS = 48

#: Periods shorter than this many readings are for the window to see.
SHORTEST = 16

CALENDAR_S = (86_400.0, 604_800.0)

#: How often a period must be seen, and its autocorrelation averaged over the channels, to be believed: a day or a week
#: is likely beforehand, any other period is not (a random walk shows some long "period" nearly always).
LEAST_PERIODS, LEAST_CORRELATION = 2.5, 0.1
LEAST_PERIODS_FOUND, LEAST_CORRELATION_FOUND = 5, 0.3

#: A stream whose readings are so few intervals is not searched.
MOST_SPARSE = 20

#: Intervals of a stream that are searched: the transforms of twice as many numbers take some 200 MB.
LONGEST = 1 << 21

#: A lag of which fewer pairs were observed, as a share of the readings, says nothing.
LEAST_PAIRS = 0.05

#: Distances from what is usual count so many scales at most, and a channel's are this many at least (the root of the
#: error's floor: what is less is not told apart).
WILD, NOISE = 10.0, 0.1

#: A multiple of a period fits as well as the period: the shortest lag this near to the best one is taken.
NEAR = 0.9


def season_of(
    times: Ints, z: Floats, observed: Bools, learned: Bools, stream: Ints, interval_ns: int, wanted: str
) -> Season | None:
    """The season of rows ``[R, C]`` (scaled) at ``times`` ``[R]``, by what is ``learned`` from ``[R]`` alone.

    ``wanted``: auto, none, or a duration that is taken as it is.
    """
    if wanted == "none":
        return None
    interval_s = interval_ns / SECOND_NS
    if wanted != "auto":
        period_s = parse_duration(wanted)
        if period_s < 2 * interval_s:
            raise SettingsError(
                f"setting 'context': a period of {wanted} holds no two readings, one every {interval_s:g} s"
            )
        return _season(period_s, interval_s)
    period = period_of(autocorrelation(_grids(times, z, observed, learned, stream, interval_ns)), interval_s)
    return None if period is None else _season(period, interval_s)


def _season(period_s: float, interval_s: float) -> Season:
    return Season(period_s=period_s, bins=max(min(BINS, round(period_s / interval_s)), 1))


@dataclass(frozen=True, slots=True)
class Grid:
    """What was learned of a stream, laid out by time, one row for each interval: n of them.

    Rows of a stream that pauses at night would otherwise repeat themselves after a working day.
    """

    z: Floats
    """``[m, C]``."""
    observed: Bools
    """``[m, C]``."""
    place: Ints
    """``[m]``, ascending: the interval of each row."""

    def __len__(self) -> int:
        return int(self.place[-1]) + 1

    def columns(self) -> Iterator[Floats]:
        """Each channel ``[n]``, NaN where nothing was observed. One at a time, as all may be more than memory holds."""
        for c in range(self.z.shape[1]):
            column = np.full(len(self), np.nan, np.float32)
            column[self.place] = np.where(self.observed[:, c], self.z[:, c], np.nan)
            yield column


def _grids(times: Ints, z: Floats, observed: Bools, learned: Bools, stream: Ints, interval_ns: int) -> list[Grid]:
    """The streams that are searched, each in the newest LONGEST intervals of what was learned, which comes first."""
    grids = []
    bounds = np.searchsorted(stream, np.arange(int(stream[-1]) + 2)) if len(stream) else np.zeros(1, np.int64)
    for start, stop in itertools.pairwise(bounds.tolist()):
        stop = start + int(learned[start:stop].sum())
        if start == stop:
            continue
        since = max(int(times[stop - 1]) - (LONGEST - 1) * interval_ns, int(times[start]))
        start += int(np.searchsorted(times[start:stop], since))
        place = np.rint((times[start:stop] - times[start]) / interval_ns).astype(np.int64)
        if place[-1] < MOST_SPARSE * len(place):  # else mostly pauses: what repeats itself is not seen
            grids.append(Grid(z[start:stop], observed[start:stop], place))
    return grids


def autocorrelation(grids: list[Grid]) -> NDArray[np.float64]:
    """Mean over channels and streams of the autocorrelation at lags 0, 1, … up to half of the longest stream.

    By the Fourier transform (Wiener-Khinchin), each lag divided by how many of its pairs were observed; a channel that
    does not move has none, nor has a lag without pairs. Long streams count for more, in proportion to their length.
    """
    half = max(map(len, grids), default=0) // 2
    total, weight = np.zeros(half), np.zeros(half)
    for grid in grids:
        n = len(grid)
        for column in grid.columns():
            there = ~np.isnan(column)
            count = int(there.sum())
            if count < 2:
                continue
            moving = np.where(there, column - column[there].mean(dtype=np.float64), 0.0)
            variance = float(np.square(moving).sum()) / count
            if variance < 1e-6:
                continue
            lags = min(half, n // 2)
            pairs = np.rint(_products(there.astype(np.float64), lags))
            seen = pairs >= LEAST_PAIRS * count
            total[:lags][seen] += n * _products(moving, lags)[seen] / variance / pairs[seen]
            weight[:lags][seen] += n
    return total / np.maximum(weight, 1)


def _products(values: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """The sums Σ v(t)·v(t + lag) for lags 0 to ``lags`` - 1."""
    size = 1 << math.ceil(math.log2(max(2 * len(values), 2)))
    products: NDArray[np.float64] = np.fft.irfft(np.square(np.abs(np.fft.rfft(values, size))), size)[:lags]
    return products


def period_of(correlation: NDArray[np.float64], interval_s: float) -> float | None:
    """Seconds of the period, or None where nothing repeats itself. The data are twice as long as ``correlation``."""
    rows = 2 * len(correlation)
    for calendar in CALENDAR_S:
        lag = round(calendar / interval_s)
        if lag * LEAST_PERIODS <= rows and _peaks(correlation, lag, LEAST_CORRELATION, given=True):
            return calendar
    longest = rows // LEAST_PERIODS_FOUND
    high = correlation[SHORTEST:longest] >= LEAST_CORRELATION_FOUND  # looked at first: lags may be a million
    likely = (SHORTEST + np.flatnonzero(high)).tolist()
    lags = [lag for lag in likely if _peaks(correlation, lag, LEAST_CORRELATION_FOUND, given=False)]
    best = max((correlation[lag] for lag in lags), default=0.0)
    first = next((lag for lag in lags if correlation[lag] >= NEAR * best), None)
    return None if first is None else _refined(correlation, first) * interval_s


def _refined(correlation: NDArray[np.float64], lag: int) -> float:
    """The period in readings, to a fraction of one: by its multiples, where what a lag is off by adds up."""
    period, times = float(lag), 1
    while 2 * times * period + times < len(correlation):
        times *= 2
        middle = round(times * period)
        nearby = correlation[middle - times : middle + times + 1]
        period = (middle - times + int(nearby.argmax())) / times
    return period


def _peaks(correlation: NDArray[np.float64], lag: int, least: float, *, given: bool) -> bool:
    """The correlation peaks at ``lag``: high, the highest nearby, and higher than half a period away.

    ``given``: the lag is known beforehand, and may miss the top by a fiftieth.
    """
    around, close = max(lag // 10, 2), max(lag // 50, 1)
    if lag < SHORTEST or lag + 1 >= len(correlation):
        return False
    here = correlation[lag - close : lag + close + 1].max()
    nearby = correlation[lag - around : lag + around + 1].max()
    half, width = lag // 2, max(lag // 10, 1)
    valley = correlation[half - width : half + width + 1].min()
    if not (here >= least and here >= nearby and here > valley + least / 2):
        return False
    return given or bool(correlation[lag] == here)


def context_of(season: Season, times: Ints, values: Floats, stream: Ints, scaling: Scaling) -> Floats:
    """What was usual at the time of each row ``[R, C]``, engineering units, as the detector would have said it.

    Rows stream by stream, in time order within each; however they are cut, the memory says the same.
    """
    memory = State({"season": fields(season, values.shape[1])})
    memory.grow(len(scaling.loc))
    seasons = Seasons(season)
    context: Floats = empty(values.shape, np.float32)
    for part in chunks(*values.shape):
        segments = Segments.of(stream[part])
        slots = segments.slots
        context[part] = seasons.follow(
            memory, segments, times[part], values[part], scaling.loc[slots], scaling.scale[slots]
        )
    return context


def noise_of(values: Floats, context: Floats | None, stream: Ints, scaling: Scaling) -> Floats:
    """Root mean square of rows ``[R, C]`` from what was usual at their time ``[R, C]``, in scales, ``[C]``.

    Without a context from their level: less than 1 is what hardly moves, whose scale is a floor. At least NOISE, and at
    most 1: a channel is no further from what is usual at its time than from its level.
    """
    total, count = (np.zeros(values.shape[1]) for _ in range(2))
    for part in chunks(*values.shape):
        usual = scaling.loc[stream[part]] if context is None else context[part]
        off = np.clip((values[part] - usual) / scaling.scale[stream[part]], -WILD, WILD).astype(np.float64)
        total += np.nansum(off**2, axis=0)
        count += (~np.isnan(off)).sum(axis=0)
    noise = np.sqrt(np.divide(total, count, out=np.ones_like(total), where=count > 0))
    return np.clip(noise, NOISE, 1).astype(np.float32)
