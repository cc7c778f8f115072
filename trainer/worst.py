"""The worst windows of the calibration stretch: what was observed, and what the served graph expected instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.engine.assembly import layout
from detector.engine.model import Model
from detector.engine.scorer import Scorer
from detector.engine.smoothing import smoothing_weights
from schemas.frozen import Frozen
from schemas.moment import SECOND_NS
from trainer.calibrate import Calibrated
from trainer.data import Given, Prepared, Windows, rows_by_stream

#: Windows that are shown, and channels of each.
SHOWN, TRACES = 3, 4

#: Readings drawn in a chart at least, where the stream has them: a window of two says nothing by itself.
LEAST_DRAWN = 40
#: Points of a line at most.
POINTS = 400

#: A window as the graph gives it back differs from what it was given by more than this many spreads where it is a
#: reconstruction: forecasters give back the past as it was.
GIVEN = 1e-3

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Trace(Frozen):
    """One channel, engineering units, the newest reading last; None where nothing was observed or expected."""

    channel: int
    share: float
    """Of the score: the channel's part of the errors that it was made from."""
    observed: list[float | None]
    expected: list[float | None]


class Worst(Frozen):
    """The readings up to one that scored high."""

    stream: str
    time: float
    """Of the newest reading, seconds since 1970."""
    score: float
    """In thresholds."""
    step: int
    """Readings from one drawn point to the next."""
    window: int
    """Drawn points that the window covers."""
    reconstructed: bool
    """Expected is the window that the graph gives back; else what it expected of each reading from those before it."""
    traces: list[Trace]


@dataclass(frozen=True)
class Place:
    """Where a score lies: ``at`` in what was calibrated, ``row`` in the rows of the prepared data."""

    at: int
    row: int


def worst_places(table: Table, data: Prepared, calibrated: Calibrated) -> list[Place]:
    """Readings with the largest scores, at least a window apart: of different streams first, then whatever is left."""
    score = calibrated.score / calibrated.threshold[calibrated.stream]
    order = np.argsort(-score, kind="stable")
    stream = calibrated.stream[order]
    firsts = np.sort(np.unique(stream, return_index=True)[1])  # the largest score of each stream
    rows = _Rows(table, data)
    apart = data.window * data.interval_ns
    places: list[Place] = []
    free = np.ones(len(order), bool)
    for candidates in (firsts, np.arange(len(order))):
        for number in candidates:
            if len(places) == SHOWN:
                break
            at = int(order[number])
            row = rows.of(int(calibrated.stream[at]), int(calibrated.times[at])) if free[number] else None
            if row is not None:
                near = (stream == stream[number]) & (np.abs(calibrated.times[order] - calibrated.times[at]) < apart)
                free &= ~near
                places.append(Place(at, row))
    return sorted(places, key=lambda place: -score[place.at])


class _Rows:
    """Finds the row of a reading; only the streams that are asked for are laid out again."""

    def __init__(self, table: Table, data: Prepared) -> None:
        self._table, self._data = table, data
        self._of_stream = list(rows_by_stream(table).values())
        self._times: dict[int, Ints] = {}

    def of(self, stream: int, time: int) -> int | None:
        """The row in which a whole window of the calibration stretch ends; None where there is none."""
        data = self._data
        if stream not in self._times:
            rows = self._of_stream[stream]
            self._times[stream] = layout(self._table.times[rows], data.interval_ns, data.window).times
        times = self._times[stream]
        place = int(np.searchsorted(times, time))
        row = int(np.searchsorted(data.stream, stream)) + place
        known = place < len(times) and times[place] == time and _among(np.array([row]), data.calibration_ends)[0]
        return row if known else None


def worst_windows(model: Model, data: Prepared, calibrated: Calibrated, places: list[Place]) -> list[Worst]:
    """What the page shows of each place, by the model's own graph."""
    scorer = Scorer(model.graph, model.manifest.batching)
    weights = smoothing_weights(model.manifest.smoothing_span)
    return [_worst(scorer, weights, data, calibrated, place) for place in places]


def _worst(scorer: Scorer, weights: NDArray[np.float64], data: Prepared, calibrated: Calibrated, place: Place) -> Worst:
    W, stream = data.window, int(calibrated.stream[place.at])
    first = int(np.searchsorted(data.stream, stream))
    rows = np.arange(max(place.row + 1 - max(2 * W, LEAST_DRAWN), first), place.row + 1)
    share = _shares(scorer, weights, data, place.row, first)
    expected, reconstructed = _expected(scorer, data, rows)
    top = [c for c in np.argsort(-share, kind="stable")[:TRACES] if share[c] > 0]
    step = -(-len(rows) // POINTS)
    drawn = slice((len(rows) - 1) % step, None, step)
    return Worst(
        stream=data.names[stream],
        time=float(calibrated.times[place.at]) / SECOND_NS,
        score=float(f"{calibrated.score[place.at] / calibrated.threshold[stream]:.5g}"),
        step=step,
        window=-(-W // step),
        reconstructed=reconstructed,
        traces=[
            Trace(
                channel=int(c), share=float(f"{share[c]:.4g}"), observed=_short(data.values[rows[drawn], c]),
                expected=_short(expected[drawn, c]),
            )
            for c in top
        ],
    )  # fmt: skip


def _shares(scorer: Scorer, weights: NDArray[np.float64], data: Prepared, row: int, first: int) -> NDArray[np.float64]:
    """Share of each channel in the errors that the smoothed score of ``row`` was made from, ``[C]``."""
    ends = np.arange(max(row + 1 - len(weights), first), row + 1)
    kept = _whole(data, ends)
    error = scorer.score(*Windows(data, ends[kept]).raw(slice(None)))[1].astype(np.float64)  # [n, C]
    total: NDArray[np.float64] = weights[-len(ends) :][kept] @ error  # [C]
    return total / max(float(total.sum()), 1e-30)


def _expected(scorer: Scorer, data: Prepared, rows: Ints) -> tuple[Floats, bool]:
    """What was expected of ``rows`` ``[n, C]``, NaN where nothing was, and whether it is the last window reconstructed.

    A forecaster's window is the past as it was given, so of each reading what was predicted of it is taken instead.
    """
    expected = np.full((len(rows), data.channels), np.nan, np.float32)
    given = Windows(data, rows[-1:]).raw(slice(None))
    window = scorer.window(*given)
    if _reconstructs(given, window):
        expected[-data.window :] = window[0][-len(rows) :]
        return expected, True
    kept = _whole(data, rows)
    expected[kept] = scorer.score(*Windows(data, rows[kept]).raw(slice(None)))[2]
    return expected, False


def _reconstructs(given: Given, window: Floats) -> bool:
    """The readings before the newest are not just what was given."""
    off = np.abs(window - given.x)[:, :-1] / given.scale[:, None]  # [1, W - 1, C]
    return bool(np.median(off[~np.isnan(off)]) > GIVEN) if (~np.isnan(off)).any() else False


def _whole(data: Prepared, ends: Ints) -> Bools:
    """Whether a whole window ends at each row ``[n]``."""
    fit, validation, calibration = (
        _among(ends, part) for part in (data.fit_ends, data.validation_ends, data.calibration_ends)
    )
    return fit | validation | calibration


def _among(rows: Ints, ends: Ints) -> Bools:
    """Whether each row ``[n]`` is one of ``ends``, which ascend."""
    if not len(ends):
        return np.zeros(len(rows), bool)
    nearest = ends[np.minimum(np.searchsorted(ends, rows), len(ends) - 1)]
    return np.equal(nearest, rows)


def _short(values: Floats) -> list[float | None]:
    """As many digits as a line needs."""
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in values]
