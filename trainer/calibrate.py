"""Calibration: the exported graph in the detector's own engine, over the stretch that nothing was fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.texts import take
from detector.engine.calibration import tail
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings, at_once
from detector.engine.smoothing import smoothing_weights
from schemas.errors import DataError
from schemas.manifest import Season
from schemas.moment import SECOND_NS
from schemas.promise import DAY_S, Promise
from trainer.data import rows_by_stream
from trainer.episodes import Peaks, opened, peaks_of
from trainer.factors import factors_of
from trainer.tails import Fitted, fit_tail, interval_of

#: Periods after which a season is known well enough for scores to be ordinary ones.
UNKNOWN_PERIODS = 3

#: Episodes that the calibration stretch lets expect under the promise, from which on it needs no other: what is left of
#: the fit in the fit stretch, slow series' own level above all, is then the larger error.
ENOUGH = 30.0

#: A threshold that no score reaches; a power of two, so that dividing by it loses nothing.
OUT_OF_REACH = 2.0**60

#: Time constants after which a slowly moving baseline is where it will be.
SETTLED = 3.0

#: Rates of which the uncertainty of the level is told.
BAND_POINTS = 16

#: Readings per call of the engine, at most; any number gives the same scores.
BATCH = 4096

Scores = NDArray[np.float64]
Ints = NDArray[np.int64]


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
class Band:
    """Least and most levels of R rates of episodes a day, the first of which is the promised one; in raw scores."""

    rates: Scores
    least: Scores
    most: Scores


@dataclass(frozen=True)
class Calibrated:
    """Thresholds, and the n scores of the calibration stretch (those of its readings that have one)."""

    rate: float
    """Episodes per stream and day that were promised."""
    group: float
    """Raw score that counts as 1 for a stream never seen."""
    threshold: Scores
    """``[S]``."""
    band: Band | None
    """Where levels lie in nine of ten cases; None: too little data to say."""
    factor: Scores
    """``[S]``: by which the group's tail is stretched for each."""
    tail_score: Scores
    tail_p: Scores
    times: Ints
    """``[n]``, ns; sorted by stream, then by time."""
    stream: Ints
    """``[n]``, which of the S."""
    score: Scores
    """``[n]``, raw, smoothed."""
    peaks: Peaks
    """Of the episodes that the tail was fitted on, those of earlier stretches among them where they may be."""
    fitted: Fitted
    """Its peaks are the same, the largest level first; ``order`` ``[P]`` says which."""
    order: Ints
    share: float
    """Part of all readings that the tail was fitted on."""
    policy: Policy
    """When an incident opens."""
    warnings: list[str]


def calibrate(
    draft: Model, table: Table, data: Split, false_alarms: str, *, whole: bool = False, policy: Policy | None = None
) -> Calibrated:
    """Thresholds that keep a promise of false-alarm episodes. ``draft``: thresholds of 1 throughout.

    ``whole``: the fit stretch is nearly as good as new, because the model has far fewer parameters than it has
    readings; where the calibration stretch is short for the promise, the tail is fitted on both. ``policy``: when an
    incident opens, the detector's default. Raises DataError where there is no score at all.
    """
    policy = policy or Policy.usual(draft.manifest.smoothing_span)
    rate = Promise.parse(false_alarms).per_day(len(data.names))
    whole = whole and _days(table, data) * rate < ENOUGH
    times, stream, score = _raw_scores(draft, table, data, whole, policy)
    late = times >= data.calibration_start[stream]
    if not late.any():
        raise DataError(
            f"no reading of the calibration stretch can be scored with a window of {data.window}: bring more data, or "
            "take a larger --set calibration_share"
        )
    gap = policy.quiet + round(draft.manifest.smoothing_span)  # until an incident is over, and its scores forgotten
    peaks = peaks_of(score, times, stream, len(data.names), data.interval_ns, gap, policy)
    factor = factors_of(peaks)
    in_units = score / factor[stream]
    level = peaks.strength / factor[peaks.stream]
    repeats = _repeats(in_units, stream, level, policy)
    fitted = fit_tail(level, float(peaks.days.sum()), peaks.gap_days, repeats)
    threshold = fitted.tail.threshold(rate, np.append(factor, 1.0))
    return Calibrated(
        rate=rate,
        group=float(threshold[-1]),
        threshold=threshold[:-1],
        band=_band(fitted, level, peaks, repeats, rate),
        factor=factor,
        **dict(zip(("tail_score", "tail_p"), tail(in_units[late]), strict=True)),
        times=times[late],
        stream=stream[late],
        score=score[late],
        peaks=peaks,
        fitted=fitted,
        order=np.argsort(-level, kind="stable"),
        share=len(score) / len(table),
        policy=policy,
        warnings=_warnings(fitted, peaks, rate, false_alarms),
    )


def _band(fitted: Fitted, level: Scores, peaks: Peaks, repeats: float, rate: float) -> Band | None:
    beyond = np.geomspace(fitted.fit.rate, min(rate, 1 / fitted.days) / 10, BAND_POINTS - 1)
    rates = np.concatenate([[rate], beyond])
    found = interval_of(fitted, level, peaks.blocks(), peaks.gap_days, repeats, rates)
    return None if found is None else Band(rates, found[0], found[1])


def _days(table: Table, data: Split) -> float:
    """Stream-days of the calibration stretch, about."""
    readings = sum(
        int((table.times[rows] >= start).sum())
        for rows, start in zip(rows_by_stream(table).values(), data.calibration_start, strict=True)
    )
    return readings * data.interval_ns / (DAY_S * SECOND_NS)


def _warnings(fitted: Fitted, peaks: Peaks, rate: float, false_alarms: str) -> list[str]:
    """What who is to rely on the thresholds should know."""
    said = []
    suspected = int(fitted.suspect.sum())
    if fitted.bulk:
        said.append(
            f"{suspected} episodes of the data that set the thresholds look like faults (the report shows them): the "
            f"thresholds go by the other {len(fitted.level) - suspected}; leave real faults out and fit again"
        )
    rarest = float(fitted.tail.rates[-1])
    if rate < rarest:
        said.append(
            f"{float(peaks.days.sum()):.3g} stream-days of data cannot carry a promise of {false_alarms}: the "
            f"threshold is that of one false alarm in {1 / rarest:.3g} days of a stream"
        )
    return said


def _repeats(score: Scores, stream: Ints, level: Scores, policy: Policy) -> float:
    """Incidents that open for each peak: of the same run several may, where the score goes up and down.

    Counted at levels that a twentieth to a fifth of the peaks exceed: at lower ones, runs flow into each other.
    """
    if len(level) < 100:
        return 1.0
    ranks = np.unique((len(level) * np.array([0.05, 0.1, 0.2])).astype(np.int64))
    ordered = np.sort(level)[::-1]
    count = sum(int(opened(score, stream, float(ordered[rank]), policy).sum()) for rank in ranks)
    return max(count / int(ranks.sum()), 1.0)


def unalarmed(draft: Model) -> Model:
    """The model with thresholds that nothing reaches: no incident opens, freezes a baseline or moves one at once."""
    calibration = draft.manifest.calibration.model_copy(update={"threshold": OUT_OF_REACH})
    threshold = np.full(len(draft.streams.names), OUT_OF_REACH)
    manifest = draft.manifest.model_copy(update={"calibration": calibration})
    return Model(manifest, draft.graph, replace(draft.streams, threshold=threshold))


def _raw_scores(draft: Model, table: Table, data: Split, whole: bool, policy: Policy) -> tuple[Ints, Ints, Scores]:
    """Times, streams and smoothed scores ``[n]`` of the calibration stretch, by stream and time.

    The newest readings before it go in first, so that its first reading is scored as any other, on a baseline that has
    settled; all of them where the model remembers a season. Baselines move slowly, as they do while no incident is
    open. ``whole``: of all stretches, but for the periods in which a season is still unknown.
    """
    history, unknown = data.window + len(smoothing_weights(draft.manifest.smoothing_span)), 0
    history += round(SETTLED * policy.drift_after * SECOND_NS / data.interval_ns)
    if draft.manifest.season is not None:
        history, unknown = len(table), round(UNKNOWN_PERIODS * draft.manifest.season.period_s * SECOND_NS)
    wanted, stream = np.zeros(len(table), bool), np.empty(len(table), np.int64)
    start = data.calibration_start.copy()
    for s, rows in enumerate(rows_by_stream(table).values()):
        times = table.times[rows]
        if whole:
            start[s] = min(int(times.min()) + unknown, start[s])
        stream[rows] = s
        wanted[rows[times >= start[s]]] = True
        wanted[rows[times < start[s]][-history:]] = True
    engine = Engine(unalarmed(draft), policy)
    rows = np.flatnonzero(wanted)
    score = np.full(len(rows), np.nan)
    size = at_once(BATCH, draft.manifest.values)
    for at in range(0, len(rows), size):
        part = slice(at, at + size)
        readings = Readings(0, take(table.streams, rows[part]), table.times[rows[part]], table.values[rows[part]])
        score[part] = engine.process([readings]).score * OUT_OF_REACH
    kept = np.flatnonzero((table.times[rows] >= start[stream[rows]]) & ~np.isnan(score))
    kept = kept[np.lexsort((table.times[rows[kept]], stream[rows[kept]]))]
    return table.times[rows[kept]], stream[rows[kept]], score[kept]
