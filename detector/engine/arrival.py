"""Arrival: accepted readings laid out as histories, so that the window that ends at each is a view."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import Times, steps
from detector.engine.segments import Ints, Segments, blocks
from detector.engine.state import State


@dataclass(frozen=True, slots=True)
class Arrived:
    """Accepted readings ``[n]`` sorted by stream, with their windows' places in the flat history."""

    segments: Segments
    index: Ints
    """Where each stood in the batch as given."""
    times: Times
    values: NDArray[np.float32]
    windows: NDArray[np.float32]
    """``[M, W * V]``, a view: row ``start[i]`` is the window that ends at reading i."""
    start: Ints
    scorable: NDArray[np.bool_]
    number: Ints
    """How many-th accepted reading of its stream each is, from 1."""

    def window(self, rows: Ints, length: int) -> NDArray[np.float32]:
        """The windows that end at these rows, ``[r, W, V]``."""
        return self.windows[self.start[rows]].reshape(len(rows), length, -1)


def arrive(
    state: State,
    segments: Segments,
    index: Ints,
    times: Times,
    values: NDArray[np.float32],
    *,
    interval_ns: int,
    window: int,
    tail: int,
    counts: Counter[str],
) -> Arrived:
    """Insert missing rows, lay the histories out flat and remember the new tails of ``tail`` rows (0 or ``window``)."""
    W, T, V = window, tail, values.shape[1]
    step = steps(times, segments.previous(times, state.time[segments.slots]), interval_ns, W)
    counts["gap_rows"] += int(step.missing.sum())
    counts["warm_ups"] += int(step.restart.sum())

    # flat history: for each stream its T older rows, then per reading the missing rows before it and itself
    count = len(segments.slots)
    row = np.cumsum(step.missing + 1) - 1 + T * (segments.of_row + 1)
    block = (row - step.missing)[segments.first] - T
    flat = np.empty((len(times) + int(step.missing.sum()) + T * count, V), np.float32)
    if step.missing.any():
        flat.fill(np.nan)
    windows = blocks(flat, W)
    if T:
        windows[block] = state.raw[segments.slots].reshape(count, T * V)
    flat[row] = values
    start = row - W + 1

    # rows since warm-up began; `base` is the flat row before the first of them and never falls
    base = np.where(step.restart, row - 1, -1)
    fresh = step.restart[segments.first]
    base[segments.first] = np.where(fresh, base[segments.first], block + T - 1 - state.filled[segments.slots])
    filled = np.minimum(row - np.maximum.accumulate(base), W)
    number = state.seen[segments.slots][segments.of_row] + segments.rank() + 1

    last = segments.last
    if T:
        state.raw[segments.slots] = windows[start[last]].reshape(count, T, V)
    state.time[segments.slots] = times[last]
    state.filled[segments.slots] = filled[last]
    state.seen[segments.slots] += segments.counts
    observed = ~np.isnan(values).all(axis=1)
    counts["warming_up"] += int((filled < W).sum())
    counts["all_missing"] += int((~observed & (filled >= W)).sum())
    return Arrived(segments, index, times, values, windows, start, (filled >= W) & observed, number)
