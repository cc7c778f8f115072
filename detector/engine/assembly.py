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
Values = NDArray[np.float32]


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
    # A running maximum per segment: over ranks, since adding a segment's offset to nanoseconds would overflow.
    values, rank = np.unique(np.concatenate([times, newest]), return_inverse=True)
    start, rank = rank[len(times) :], rank[: len(times)]
    offset = segments.of_row * len(values)
    running = np.maximum.accumulate(np.maximum(rank, start[segments.of_row]) + offset) - offset
    highest = segments.previous(running, start)
    return Fate(rank > highest, rank == highest, rank < highest)


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


def stretches(times: Times, values: Values, interval_ns: int, window: int) -> list[tuple[Times, Values]]:
    """Regular stretches of one stream: ``(times [n], values [n, C])`` each, rows of NaN where readings are missing.

    ``times`` ``[N]`` and ``values`` ``[N, C]`` in order of arrival. Late readings and duplicates are left out; a new
    stretch starts where the stream would warm up again.
    """
    if not len(times):
        return []
    segments = Segments.of(np.zeros(len(times), dtype=np.int64))
    kept = judge(segments, times, np.array([NEVER])).accepted
    times, values = times[kept], values[kept]
    step = steps(times, np.concatenate([[NEVER], times[:-1]]), interval_ns, window)
    position = np.cumsum(step.missing + 1) - 1
    filled = np.full((position[-1] + 1, values.shape[1]), np.nan, dtype=np.float32)
    filled[position] = values
    row_times = np.interp(np.arange(len(filled)), position, (times - times[0]).astype(np.float64))
    all_times = row_times.astype(np.int64) + times[0]
    all_times[position] = times
    cuts = position[np.flatnonzero(step.restart)[1:]]
    return list(zip(np.split(all_times, cuts), np.split(filled, cuts), strict=True))
