"""Assembly: readings as they arrive become regular rows of their streams.

Policy. A reading at or before its stream's newest time is dropped: a *duplicate* where the times are equal, *late*
otherwise. A gap over 1.5 intervals is filled with rows of missing values; where that would take a window of them or
more, the stream warms up again instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.engine.segments import Ints, Segments

#: Time of a stream that has no reading yet; below every event time.
NEVER = -1

Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of sorted readings ``[N]``, in three exclusive masks ``[N]``."""

    accepted: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]
    late: NDArray[np.bool_]


def judge(segments: Segments, times: Times, newest: Times) -> Fate:
    """Accept readings whose time is past every earlier one of their stream.

    ``times`` ``[N]`` in sorted order, ``newest`` ``[U]``: each stream's newest time before the batch.
    """
    before = segments.previous(times, newest)
    if bool((times > before).all()):
        nothing = np.zeros(len(times), dtype=bool)
        return Fate(~nothing, nothing, nothing)
    highest = segments.previous(running_max(segments, times, newest), newest)
    return Fate(times > highest, times == highest, times < highest)


def running_max(segments: Segments, times: Times, before: Times) -> Times:
    """The newest time of each segment up to and with each row ``[N]``; ``before`` ``[U]``: before its first one."""
    if bool((times >= segments.previous(times, before)).all()):
        return times
    # over ranks, since adding a segment's offset to nanoseconds would overflow
    values, rank = np.unique(np.concatenate([times, before]), return_inverse=True)
    start, rank = rank[len(times) :], rank[: len(times)]
    offset = segments.of_row * len(values)
    running = np.maximum.accumulate(np.maximum(rank, start[segments.of_row]) + offset) - offset
    highest: Times = values[running]
    return highest


@dataclass(frozen=True, slots=True)
class Steps:
    """How accepted readings ``[n]`` follow each other.

    ``missing`` ``[n]``: rows of missing values before the reading; ``restart`` ``[n]``: warm-up starts at it.
    """

    missing: Ints
    restart: NDArray[np.bool_]


def steps(times: Times, before: Times, interval_ns: int, window: int) -> Steps:
    """Rows to insert before each accepted reading. ``before`` ``[n]``: the stream's previous time, or NEVER."""
    first = before == NEVER
    step = np.where(first, interval_ns, times - before)
    whole, rest = step // interval_ns, step % interval_ns  # doubling the rest cannot overflow, doubling the step can
    over = (whole > 1) | ((whole == 1) & (2 * rest > interval_ns))
    missing = np.where(over, whole + (2 * rest >= interval_ns) - 1, 0)
    restart = first | (missing >= window)
    return Steps(np.where(restart, 0, missing), restart)


@dataclass(frozen=True, slots=True)
class Layout:
    """One stream as regular rows, R of them, rows of missing values among them.

    ``kept`` ``[N]``: the readings that have a row, in order of arrival; ``row`` ``[n]``: which; ``times`` ``[R]``;
    ``starts``: rows at which the stream would warm up again, the first among them.
    """

    kept: NDArray[np.bool_]
    row: Ints
    times: Times
    starts: Ints


def layout(times: Times, interval_ns: int, window: int) -> Layout:
    """How one stream's readings, ``times`` ``[N]`` in order of arrival, lie in its rows, at the times of the readings
    and evenly between. Late readings and duplicates have none.
    """
    if not len(times):
        return Layout(np.zeros(0, bool), *(np.zeros(0, np.int64) for _ in range(3)))
    segments = Segments.of(np.zeros(len(times), dtype=np.int64))
    kept = judge(segments, times, np.array([NEVER])).accepted
    times = times[kept]
    step = steps(times, np.concatenate([[NEVER], times[:-1]]), interval_ns, window)
    row = np.cumsum(step.missing + 1) - 1
    starts = row[np.flatnonzero(step.restart)]
    if row[-1] + 1 == len(row):
        return Layout(kept, row, times, starts)
    filled = np.zeros(row[-1] + 1, bool)
    filled[row] = True
    all_times = np.empty(len(filled), np.int64)
    all_times[row] = times
    missing = np.flatnonzero(~filled)
    between = np.interp(missing, row, (times - times[0]).astype(np.float64))
    all_times[missing] = between.astype(np.int64) + times[0]
    return Layout(kept, row, all_times, starts)
