"""Trimming: what still stands out of the readings that are left was hardly normal, whoever forgot to say so.

Every stream is compared with itself, by two measures: the scores of a model, and how far the channel that is farthest
away lies from its median, in the mean of some readings (a model of windows calls a level normal that stays). The
logarithms of each have a bulk, median and median absolute deviation; what lies far above it is left out, with a margin.
Never more than a share of a stream: where more stands out, that is no outlier but another normal, and the stream is
left as it is, and named. Where it is known that a stream moved to another normal, before and after are each compared
with themselves: a level that came with a patch would stand out from weeks of the old one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.orders import NORMAL_MAD
from detector.engine.readings import Readings
from trainer.data import rows_by_stream

#: Robust standard deviations of the logarithm above the median from which on a reading stands out; and from which on
#: one does where most of its neighbours do. Normal extremes are as far away as mild faults, but only for a moment, and
#: thresholds fitted without them would be too low.
FAR, FAR_FOR_LONG = 5.0, 3.0

#: Readings before and after what stands out that go, too.
MARGIN = 12

#: Scored readings of a stream below which nothing is said about its bulk.
LEAST = 200

#: Nothing is re-baselined and nothing follows: scores are compared over the whole stretch.
STILL = Policy(drift_after=0, shift_after=0, unseen=0)

BATCH = 4096


@dataclass(frozen=True)
class Trimmed:
    """What is left, and what was left out."""

    table: Table
    kept: NDArray[np.int64]
    """``[K]``: the rows that are left."""
    by_stream: dict[str, int]
    """Readings left out of each stream that lost any."""
    unsettled: tuple[str, ...]
    """Streams of which more stands out than may be left out."""


def trim(table: Table, model: Model, most: float, moved: Mapping[str, Sequence[int]] = MappingProxyType({})) -> Trimmed:
    """Leave out what stands out, at most the share ``most`` of each stream's readings.

    ``moved``: by stream, when it went over to another normal, ns, in the order of time.
    """
    engine = Engine(model, STILL)
    gone = np.zeros(len(table), bool)
    unsettled: list[str] = []
    by_stream: dict[str, int] = {}
    for stream, rows in rows_by_stream(table).items():
        ordered = rows[np.argsort(table.times[rows], kind="stable")]
        score = scores_of(engine, stream, table, ordered)
        cuts = np.searchsorted(table.times[ordered], moved.get(stream, ()))
        far = np.concatenate([
            _far(score[part]) | _far(_away(table.values[ordered[part]]))
            for part in map(slice, [0, *cuts.tolist()], [*cuts.tolist(), len(ordered)])
        ])  # fmt: skip
        if far.mean() > most:
            unsettled.append(stream)
        elif far.any():
            gone[ordered[far]] = True
            by_stream[stream] = int(far.sum())
    kept = np.flatnonzero(~gone)
    left = table.rows(kept)
    return Trimmed(left, kept, by_stream, tuple(unsettled))


def scores_of(engine: Engine, stream: str, table: Table, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores in thresholds of a stream's readings, in the order of time ``[N]``; NaN in warm-up."""
    parts = []
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        parts.append(engine.process([Readings(0, [stream] * len(part), table.times[part], table.values[part])]).score)
    return np.concatenate(parts)


def _away(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far the farthest channel is from its median, in its own deviations, ``[N]``; NaN: nothing is known.

    In the mean of the readings around each; missing ones do not count.
    """
    there = ~np.isnan(values)
    if not there.any():
        return np.full(len(values), np.nan)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # channels that are never there
        middle = np.nanmedian(values, axis=0)
        spread = NORMAL_MAD * np.nanmedian(np.abs(values - middle), axis=0)
    off = np.where(there & (spread > 0), (values - middle) / np.where(spread > 0, spread, 1), 0.0)
    total, count = (_around(array.astype(np.float64)) for array in (off, there))
    mean = np.abs(np.divide(total, count, out=np.full(off.shape, np.nan), where=count > 0))
    farthest: NDArray[np.float64] = np.nan_to_num(mean).max(axis=1)
    return np.where(count.max(axis=1) > 0, farthest, np.nan)


def _around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the readings around each ``[N, C]``."""
    padded = np.pad(np.cumsum(np.pad(values, ((MARGIN + 1, 0), (0, 0))), axis=0), ((0, MARGIN), (0, 0)), mode="edge")
    sums: NDArray[np.float64] = padded[2 * MARGIN + 1 :] - padded[: -(2 * MARGIN + 1)]
    return sums


def _far(score: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Readings that stand out, with their margins ``[N]``."""
    known = ~np.isnan(score)
    if known.sum() < LEAST:
        return np.zeros(len(score), bool)
    logs = np.log(np.maximum(score[known], 1e-9))
    middle = np.median(logs)
    spread = NORMAL_MAD * np.median(np.abs(logs - middle))
    away = np.full(len(score), -np.inf)
    away[known] = (logs - middle) / max(spread, 1e-6)
    rather = away > FAR_FOR_LONG
    out = (away > FAR) | (rather & (_neighbours(rather) > MARGIN))
    # what lies in a moving average of them, and what led to them
    return _neighbours(out) > 0


def _neighbours(which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the readings around each, itself among them ``[N]``."""
    count = np.convolve(which.astype(np.int64), np.ones(2 * MARGIN + 1, np.int64), mode="full")
    around: NDArray[np.int64] = count[MARGIN : MARGIN + len(which)]
    return around
