"""Seasons: what a stream usually is at this time of the day, or of whatever period its group was found to have.

Each channel has K bins over the period. A bin holds the mean of its readings, averaged over the past periods with
weights that halve or so from one to the next; the expectation at a moment lies on the line between the centres of the
two bins around it. It is causal twice over: a bin takes part once the stream is a whole bin past it, so that what is
happening now never passes as what usually happens.

Bins are 16-bit integers in steps of a channel's own: with integers the order of additions cannot matter, so batches of
any size give the same bins. Base and step are set when a stream is met and kept, so the memory is in engineering units
and outlives the model that it was met with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.segments import Ints, Segments
from schemas.manifest import Season
from schemas.moment import SECOND_NS

#: Bin of a stream that has no reading yet: below every bin.
NO_BIN = -(2**62)

#: A level that is not known yet.
UNKNOWN = np.iinfo(np.int16).min

#: Steps in a channel's scale (about its standard deviation): levels reach ±64 of them and resolve .002.
STEPS = 512

Floats = NDArray[np.float32]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields(season: Season | None, channels: int) -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met); none without a season."""
    if season is None:
        return {}
    C = channels
    f32, i64, i16, u32 = (np.dtype(name) for name in ("<f4", "<i8", "<i2", "<u4"))
    return {
        "season_bin": ((), i64, NO_BIN),
        "season_base": ((C,), f32, 0),
        "season_step": ((C,), f32, 0),
        "season_level": ((season.bins, C), i16, UNKNOWN),
        "season_sum": ((2, C), i64, 0),
        "season_count": ((2, C), u32, 0),
    }


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

    season_bin: NDArray[np.int64]
    """``[S]``: the bin of the newest reading, counted from 1970."""
    season_base: Floats
    """``[S, C]``, engineering units."""
    season_step: Floats
    """``[S, C]``, engineering units; 0: not met yet."""
    season_level: NDArray[np.int16]
    """``[S, K, C]``, steps above the base."""
    season_sum: NDArray[np.int64]
    """``[S, 2, C]``: of the newest bin and the one before it, not yet part of the levels."""
    season_count: NDArray[np.uint32]
    """``[S, 2, C]``."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """G stays of a stream in a bin: the streams' slots, the bins, the rows of each stay, and how many-th of its stream
    in the batch each is.
    """

    slots: Ints
    bins: Ints
    first: Ints
    counts: Ints
    rank: Ints


class Seasons:
    """The seasonal memory of all streams of a model."""

    def __init__(self, season: Season) -> None:
        self._bins = season.bins
        self._decay = season.decay
        self._width_ns = season.period_s * SECOND_NS / season.bins

    def follow(
        self,
        memory: Memory,
        segments: Segments,
        times: NDArray[np.int64],
        values: Floats,
        loc: Floats,
        scale: Floats,
        learns: NDArray[np.bool_] | None = None,
    ) -> Floats:
        """What each reading was to be expected to be, ``[n, C]`` in engineering units, NaN where nothing is known yet.

        Readings ``values`` ``[n, C]`` at ``times`` ``[n]`` of ``segments``, in time order within each; ``loc`` and
        ``scale`` ``[U, C]`` of its streams. The memory then knows those of the streams that it ``learns``
        ``[U]`` from.
        """
        self._meet(memory, segments.slots, loc, scale)
        expected = np.full(values.shape, np.nan, np.float32)
        if not len(times):
            return expected
        slots = segments.slots[segments.of_row]
        base, step = memory.season_base[slots], memory.season_step[slots]
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.clip(np.rint((values - base) / step), UNKNOWN + 1, -(UNKNOWN + 1))
        bins, place = self._place(times)
        visits = _visits(segments, bins)
        learning = None if learns is None else learns[np.searchsorted(segments.slots, visits.slots)]
        for rank in range(int(visits.rank.max()) + 1):
            chosen = np.flatnonzero(visits.rank == rank)
            rows = _rows(visits.first[chosen], visits.counts[chosen])
            self._advance(memory, visits.slots[chosen], visits.bins[chosen])
            expected[rows] = self._between(memory, slots[rows], bins[rows], place[rows])
            if learning is not None and not learning[chosen].all():
                chosen = chosen[learning[chosen]]
                rows = _rows(visits.first[chosen], visits.counts[chosen])
            if len(chosen):
                _add(memory, visits.slots[chosen], visits.counts[chosen], steps[rows])
        return base + step * expected

    def level(self, memory: Memory, slots: Ints) -> Floats:
        """The mean of a period, ``[U, C]`` in engineering units; NaN where less than half of it is known."""
        steps = memory.season_level[slots]  # [U, K, C]
        known = steps != UNKNOWN
        count = known.sum(axis=1)
        mean = np.where(known, steps, 0).sum(axis=1, dtype=np.int64) / np.maximum(count, 1)
        level = memory.season_base[slots] + memory.season_step[slots] * mean
        return np.where(2 * count >= self._bins, level, np.nan).astype(np.float32)

    def usual(self, memory: Memory, slot: int, time: int) -> Floats:
        """What a stream's reading at ``time`` is expected to be, ``[C]`` in engineering units; NaN: not known."""
        bins, place = self._place(np.array([time]))
        line = self._between(memory, np.array([slot]), bins, place)[0]
        expected: Floats = (memory.season_base[slot] + memory.season_step[slot] * line).astype(np.float32)
        return expected

    def _place(self, times: NDArray[np.int64]) -> tuple[Ints, NDArray[np.float64]]:
        """The bin of each time ``[n]``, counted from 1970, and where in it the time lies ``[n]``, 0 to 1."""
        exact = times / self._width_ns
        bins = np.floor(exact)
        return bins.astype(np.int64), exact - bins

    def _meet(self, memory: Memory, slots: Ints, loc: Floats, scale: Floats) -> None:
        new = memory.season_step[slots, 0] == 0
        if new.any():
            memory.season_base[slots[new]] = loc[new]
            memory.season_step[slots[new]] = scale[new] / STEPS

    def _advance(self, memory: Memory, slots: Ints, bins: Ints) -> None:
        """Move on to these bins: bins at least two back become part of the levels."""
        gone = bins - memory.season_bin[slots]
        moved = gone > 0
        if not moved.any():
            return
        slots, bins, gone = slots[moved], bins[moved], gone[moved]
        before = memory.season_bin[slots]
        self._fold(memory, slots, before - 1, 1)
        far = gone > 1
        self._fold(memory, slots[far], before[far], 0)
        for array in (memory.season_sum, memory.season_count):
            array[slots, 1] = np.where(far[:, None], 0, array[slots, 0])
            array[slots, 0] = 0
        memory.season_bin[slots] = bins

    def _fold(self, memory: Memory, slots: Ints, bins: Ints, which: int) -> None:
        count = memory.season_count[slots, which]  # [G, C]
        there = count > 0
        if not there.any():
            return
        mean = memory.season_sum[slots, which] / np.maximum(count, 1)  # [G, C]
        place = bins % self._bins
        level = memory.season_level[slots, place].astype(np.float64)  # [G, C]
        moved = np.where(level == UNKNOWN, mean, level + self._decay * (mean - level))
        memory.season_level[slots, place] = np.where(there, np.rint(moved), level).astype(np.int16)

    def _between(self, memory: Memory, slots: Ints, bins: Ints, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Levels ``[n, C]`` on the line between the centres of two neighbouring bins; one of them alone is enough."""
        beside = np.where(place < 0.5, bins - 1, bins + 1)
        near = memory.season_level[slots, bins % self._bins]  # [n, C]
        far = memory.season_level[slots, beside % self._bins]  # [n, C]
        weight = np.abs(place - 0.5)[:, None]
        line = near + weight * (far.astype(np.float64) - near)
        line = np.where(far == UNKNOWN, near, line)
        return np.where(near == UNKNOWN, np.where(far == UNKNOWN, np.nan, far), line)


def _visits(segments: Segments, bins: Ints) -> _Visit:
    n = len(bins)
    starts = np.ones(n, dtype=bool)
    starts[1:] = (bins[1:] != bins[:-1]) | (segments.of_row[1:] != segments.of_row[:-1])
    first = np.flatnonzero(starts)
    of = segments.of_row[first]
    rank = np.arange(len(first)) - np.searchsorted(of, of)
    return _Visit(segments.slots[of], bins[first], first, np.diff(first, append=n), rank)


def _rows(first: Ints, counts: Ints) -> Ints:
    """first, first + 1, … of each stay, one after another."""
    if not len(first):
        return np.empty(0, np.int64)
    ends = np.cumsum(counts)
    rows: Ints = np.arange(ends[-1]) + np.repeat(first - (ends - counts), counts)
    return rows


def _add(memory: Memory, slots: Ints, counts: Ints, steps: NDArray[np.floating[Any]]) -> None:
    """Count the readings of G stays, ``steps`` ``[n, C]`` with NaN where missing, into the newest bins."""
    there = ~np.isnan(steps)
    starts = np.cumsum(counts) - counts
    memory.season_sum[slots, 0] += np.add.reduceat(np.where(there, steps, 0).astype(np.int64), starts, axis=0)
    memory.season_count[slots, 0] += np.add.reduceat(there.astype(np.uint32), starts, axis=0)
