"""The season of a group of streams: the period after which they repeat themselves, found in the data, and its context.

The period is where the autocorrelation of the channels peaks. A day and a week come first, being what people live by;
then any other lag. The context is made by the detector's own memory, so that training sees what will be served.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detector.engine.seasons import Seasons, fields
from detector.engine.segments import Segments
from detector.engine.state import State
from schemas.errors import SettingsError
from schemas.manifest import Season
from schemas.moment import SECOND_NS, parse_duration
from trainer.scaling import Scaling

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Levels that are remembered of a period, at most: what the budget of the detector's state allows.
BINS = 48

#: Periods shorter than this many readings are for the window to see.
SHORTEST = 16

CALENDAR_S = (86_400.0, 604_800.0)

#: How often a period must be seen, and its autocorrelation averaged over the channels, to be believed: a day or a week
#: is likely beforehand, any other period is not (a random walk shows some long "period" nearly always).
LEAST_PERIODS, LEAST_CORRELATION = 2.5, 0.1
LEAST_PERIODS_FOUND, LEAST_CORRELATION_FOUND = 5, 0.3

#: A multiple of a period fits as well as the period: the shortest lag this near to the best one is taken.
NEAR = 0.9


def season_of(z: Floats, learned: NDArray[np.bool_], stream: Ints, interval_ns: int, wanted: str) -> Season | None:
    """The season of rows ``[R, C]`` (scaled, 0 where missing), by what is ``learned`` from ``[R]`` alone.

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
    correlation = autocorrelation([z[learned & (stream == s)] for s in np.unique(stream)])
    period = period_of(correlation, interval_s)
    return None if period is None else _season(period, interval_s)


def _season(period_s: float, interval_s: float) -> Season:
    return Season(period_s=period_s, bins=max(min(BINS, round(period_s / interval_s)), 1))


def autocorrelation(stretches: list[Floats]) -> NDArray[np.float64]:
    """Mean over channels and stretches of the autocorrelation at lags 0, 1, … up to half of the longest stretch.

    By the Fourier transform (Wiener-Khinchin), each lag divided by the number of its pairs; a channel that does not
    move has none. Long stretches count for more, in proportion to their length.
    """
    half = max(map(len, stretches)) // 2
    total, weight = np.zeros(half), np.zeros(half)
    for z in stretches:
        n = len(z)
        moving = z - z.mean(axis=0, dtype=np.float64)
        size = 1 << math.ceil(math.log2(max(2 * n, 2)))
        power = np.square(np.abs(np.fft.rfft(moving, size, axis=0)))
        products = np.fft.irfft(power, size, axis=0)[: min(half, n // 2)]  # [lags, C]
        variance = np.square(moving).sum(axis=0)
        pairs = (n - np.arange(len(products))) / n
        there = variance > 1e-6 * n
        if not there.any():
            continue
        mean = (products[:, there] / variance[there]).mean(axis=1) / pairs
        total[: len(mean)] += n * mean
        weight[: len(mean)] += n
    return total / np.maximum(weight, 1)


def period_of(correlation: NDArray[np.float64], interval_s: float) -> float | None:
    """Seconds of the period, or None where nothing repeats itself. The data are twice as long as ``correlation``."""
    rows = 2 * len(correlation)
    for calendar in CALENDAR_S:
        lag = round(calendar / interval_s)
        if lag * LEAST_PERIODS <= rows and _peaks(correlation, lag, LEAST_CORRELATION, given=True):
            return calendar
    longest = rows // LEAST_PERIODS_FOUND
    lags = [lag for lag in range(SHORTEST, longest) if _peaks(correlation, lag, LEAST_CORRELATION_FOUND, given=False)]
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
    """What was usual at the time of each row ``[R, C]``, engineering units, as the detector would have said it."""
    C = values.shape[1]
    context = np.empty_like(values)
    for s in np.unique(stream):
        rows = np.flatnonzero(stream == s)
        memory = State({"season": fields(season, C)})
        memory.grow(1)
        segments = Segments.of(np.zeros(len(rows), np.int64))
        place = slice(s, s + 1)
        context[rows] = Seasons(season).follow(
            memory, segments, times[rows], values[rows], scaling.loc[place], scaling.scale[place]
        )
    return context
