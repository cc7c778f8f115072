"""Marks: what readings say about each kind of incident, in the form that ``incidents.follow`` takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detector.engine.alerts import LARGEST
from detector.engine.assembly import NEVER, Times
from detector.engine.clocks import ClockMark
from detector.engine.incidents import (
    ANOMALOUS,
    CALM,
    FADING,
    OVER,
    TOP_CHANNELS,
    UNSCORED,
    Flags,
    Marks,
    Policy,
    run_lengths,
)
from detector.engine.segments import Ints, Segments
from detector.engine.sensors import Mark
from detector.engine.state import State
from schemas.alert import Kind

#: A score, in thresholds, beyond which none is worse: twice that is still a number in 32 bits, and infinity is none.
STRONGEST = 1e30

#: A channel with this part of the error has come to the front; a further one is named from that part of its share on.
FRONT, WITH = 0.3, 1 / 3

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def anomaly_marks(
    policy: Policy,
    state: State,
    segments: Segments,
    times: Times,
    flags: Flags,
    history: Flags,
    score: Doubles,
    error: Floats,
    away: NDArray[np.bool_] | None,
    blamed: Callable[[int], Floats],
) -> Marks:
    """Of the model's scores ``[n]`` in thresholds; ``flags`` ``[n]``, ``history`` ``[n, policy.n]``: those up to each.

    ``blamed``: the errors ``[C]`` behind the smoothed score of a reading.
    Brings the state's runs of calm readings and of others up to date.
    """
    slots = segments.slots
    quiet = (flags == CALM) | (flags == FADING)
    calm = run_lengths(segments, quiet, state.calm[slots].astype(np.int64))
    off = (flags != CALM) & (flags != UNSCORED)
    # the run of readings that are off: from the first after the last one that was not
    before = segments.latest(~off)
    began = np.where(
        before >= 0,
        times[np.minimum(before + 1, len(times) - 1)],
        np.where(state.off_since[slots] == NEVER, times[segments.first], state.off_since[slots])[segments.of_row],
    )
    last = segments.last
    state.calm[slots] = np.minimum(calm[last], OVER)
    state.off_since[slots] = np.where(off[last], began[last], NEVER)
    anomalous = (flags == ANOMALOUS) | (flags == FADING)
    sharp, fading = (history == ANOMALOUS).sum(axis=1), (history == FADING).sum(axis=1)
    on = anomalous & (sharp + fading >= policy.k) & (sharp > 0)
    rows = np.flatnonzero(anomalous)
    news = np.full(len(times), -1, np.int16)
    if len(rows):
        news[rows] = fronts(error[rows])[1]

    def channels(row: int) -> NDArray[np.int16]:
        front: NDArray[np.int16] = fronts(blamed(row)[None])[0][0]
        return front if anomalous[row] else np.full(TOP_CHANNELS, -1, np.int16)

    strength = np.minimum(score, STRONGEST).astype(np.float32)
    return Marks(Kind.ANOMALY, on, calm, policy.quiet, strength, began, channels, news, away)


def fronts(parts: NDArray[np.floating]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """The channels with the largest parts ``[m, TOP_CHANNELS]``, largest first, those far behind it left out, and
    the first where its part is worth an update ``[m]``; -1: none. ``parts`` ``[m, C]``.
    """
    given = np.nan_to_num(parts.astype(np.float64), posinf=LARGEST)
    top = np.argsort(-given, axis=1, kind="stable")[:, :TOP_CHANNELS]  # [m, ≤ 3]
    largest = np.take_along_axis(given, top, axis=1)
    kept = (largest > 0) & (largest >= WITH * largest[:, :1])
    channels = np.full((len(given), TOP_CHANNELS), -1, np.int16)
    channels[:, : top.shape[1]] = np.where(kept, top, -1)
    total = given.sum(axis=1)
    return channels, np.where(kept[:, 0] & (largest[:, 0] >= FRONT * total), top[:, 0], -1).astype(np.int16)


def sensor_marks(kind: Kind, mark: Mark, times: Times, began: Times, allowed: NDArray[np.bool_]) -> Marks:
    """Of a rule about channels; ``began`` ``[n]``: since when, as far as it is on; ``allowed`` ``[n]``: may publish."""
    n = len(times)
    on = mark.on & allowed
    channels, strength = np.full((n, TOP_CHANNELS), -1, np.int16), np.zeros(n, np.float32)
    for row in np.flatnonzero(on):
        which = np.flatnonzero(mark.which[row])
        strength[row] = len(which)
        channels[row, : min(len(which), TOP_CHANNELS)] = which[:TOP_CHANNELS]
    calm = np.where(mark.off, OVER, 0).astype(np.int64)
    return Marks(kind, on, calm, 1, strength, began, channels.__getitem__, channels[:, 0])


def drift_marks(segments: Segments, times: Times, drifted: NDArray[np.bool_], fronts: Ints) -> Marks:
    """A drift is told at a stream's first reading of a turn and over with the next one.

    ``drifted`` ``[U]``; ``fronts`` ``[U]``: the channel that crept furthest.
    """
    n = len(times)
    on = np.zeros(n, bool)
    on[segments.first] = drifted
    channels = np.full((n, TOP_CHANNELS), -1, np.int16)
    channels[segments.first, 0] = np.where(drifted, fronts, -1)
    calm = np.where(on, 0, OVER).astype(np.int64)
    nothing = np.full(n, -1, np.int16)
    return Marks(Kind.DRIFT, on, calm, 1, on.astype(np.float32), times, channels.__getitem__, nothing)


def clock_marks(mark: ClockMark, times: Times) -> Marks:
    """Of the rule about a stream's own clock, over all readings, dropped ones among them."""
    n = len(mark.on)
    calm = np.where(mark.off, OVER, 0).astype(np.int64)
    nothing = np.full((n, TOP_CHANNELS), -1, np.int16)
    return Marks(Kind.CLOCK, mark.on, calm, 1, mark.on.astype(np.float32), times, nothing.__getitem__, nothing[:, 0])


def silence_marks(silent: bool, since: int) -> Marks:
    """Of a stream that fell silent, its last reading at ``since``, or is back."""
    one = np.array([silent])
    calm = np.array([0 if silent else OVER])
    nothing = np.full((1, TOP_CHANNELS), -1, np.int16)
    return Marks(
        Kind.SILENT,
        one,
        calm,
        1,
        one.astype(np.float32),
        np.array([since], np.int64),
        nothing.__getitem__,
        nothing[:, 0],
    )
