"""Calibration: the exported graph in the detector's own engine, over the stretch that nothing was fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.texts import take
from detector.engine.calibration import FLOOR, needed, split_conformal, tail
from detector.engine.engine import Engine, smoothing_weights
from detector.engine.model import Model
from detector.engine.readings import Readings, at_once
from schemas.errors import DataError
from schemas.manifest import Season
from trainer.data import rows_by_stream

#: Readings per call of the engine, at most; any number gives the same scores.
BATCH = 4096

Scores = NDArray[np.float64]


class Split(Protocol):
    """Data of S streams, divided into stretches: what a manifest says of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """S streams."""

    @property
    def window(self) -> int:
        """W."""

    @property
    def interval_ns(self) -> int:
        """Between readings."""

    @property
    def season(self) -> Season | None:
        """What the context is made from."""

    @property
    def calibration_start(self) -> NDArray[np.int64]:
        """``[S]``, ns: readings from here on are of the calibration stretch."""


@dataclass(frozen=True)
class Calibrated:
    """Thresholds, and the n scores that set them (those readings of the calibration stretch that have one)."""

    group: float
    """Raw score that counts as 1 for a stream without enough scores of its own."""
    threshold: Scores
    """``[S]``."""
    own: NDArray[np.bool_]
    """``[S]``: the stream had enough scores for a threshold of its own."""
    tail_score: Scores
    tail_p: Scores
    times: NDArray[np.int64]
    """``[n]``, ns."""
    stream: NDArray[np.int64]
    """``[n]``, which of the S."""
    score: Scores
    """``[n]``, raw, smoothed."""
    warnings: list[str]


def calibrate(draft: Model, table: Table, data: Split, rate: float) -> Calibrated:
    """Thresholds at which a share ``rate`` of normal readings scores above 1. ``draft``: thresholds of 1 throughout.

    A stream with enough scores for the rate gets a threshold of its own, the others that of all scores together. Raises
    DataError where there is no score at all.
    """
    times, stream, score = _raw_scores(draft, table, data)
    if not len(score):
        raise DataError(
            f"no reading of the calibration stretch can be scored with a window of {data.window}: bring more data, or "
            "take a larger --set calibration_share"
        )
    group = split_conformal(score, rate, FLOOR)
    counts = np.bincount(stream, minlength=len(data.names))
    own = counts >= needed(rate)
    threshold = np.full(len(data.names), group)
    of_stream = np.split(score[np.argsort(stream, kind="stable")], np.cumsum(counts)[:-1])
    for s in np.flatnonzero(own):
        threshold[s] = split_conformal(of_stream[s], rate, FLOOR)
    warnings = []
    if len(score) < needed(rate):
        warnings.append(
            f"{len(score)} calibration scores are too few for a rate of {rate:g} ({needed(rate)} are needed): the "
            f"threshold is the largest of them, {score.max():.3g}, raised to {group:.3g} as if their tail were "
            "exponential"
        )
    return Calibrated(group, threshold, own, *tail(score / threshold[stream]), times, stream, score, warnings)


def _raw_scores(draft: Model, table: Table, data: Split) -> tuple[NDArray[np.int64], NDArray[np.int64], Scores]:
    """Times, streams and smoothed scores ``[n]`` of the calibration stretch.

    The newest readings before it go in first, so that its first reading is scored as any other; all of them where the
    model remembers a season.
    """
    history = data.window + len(smoothing_weights(draft.manifest.smoothing_span))
    if draft.manifest.season is not None:
        history = len(table)
    wanted, stream = np.zeros(len(table), bool), np.empty(len(table), np.int64)
    for s, (rows, start) in enumerate(zip(rows_by_stream(table).values(), data.calibration_start, strict=True)):
        stream[rows] = s
        wanted[rows[table.times[rows] >= start]] = True
        wanted[rows[table.times[rows] < start][-history:]] = True
    engine = Engine(draft)
    rows = np.flatnonzero(wanted)
    score = np.full(len(rows), np.nan)
    fresh = table.times[rows] >= data.calibration_start[stream[rows]]
    size = at_once(BATCH, draft.manifest.values)
    for at in range(0, len(rows), size):
        part = slice(at, at + size)
        readings = Readings(0, take(table.streams, rows[part]), table.times[rows[part]], table.values[rows[part]])
        score[part] = engine.process([readings]).score
    kept = fresh & ~np.isnan(score)
    return table.times[rows[kept]], stream[rows[kept]], score[kept]
