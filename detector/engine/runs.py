"""Runs: for how many readings each channel has had the same value, or none.

Most cells of a batch belong to no run, so only those that do are looked at. Cells lie channel by channel: cell
``c * n + row`` is of channel c, and a run of one stream's channel is a block of neighbours. The part of a run that came
before the batch is a number kept in the state.

A missing value neither breaks nor lengthens a run of equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.segments import Ints, Segments

#: Runs are counted up to here: what two bytes hold.
MOST = 65_535

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields(channels: int) -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met)."""
    C = channels
    f32, u16 = np.dtype("<f4"), np.dtype("<u2")
    return {"sensor_value": ((C,), f32, np.nan), "sensor_same": ((C,), u16, 0), "sensor_absent": ((C,), u16, 0)}


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

    sensor_value: Floats
    """``[S, C]``: the newest value, engineering units; NaN: none yet."""
    sensor_same: NDArray[np.uint16]
    """``[S, C]``: readings up to the newest that had this value."""
    sensor_absent: NDArray[np.uint16]
    """``[S, C]``: newest readings in a row without a value."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """B blocks of cells, each a run of one stream's channel, in the order of the cells.

    Block b has the cells from ``start[b]`` up to ``stop[b]``; ``before[b]``: what the run had reached before the first.
    ``skipped`` ``[cells]``: how many cells up to and with each do not lengthen a run; None: all do.
    """

    start: Ints
    stop: Ints
    before: Ints
    skipped: Ints | None

    def reached(self, block: Ints, cell: Ints) -> Ints:
        """How long the run of each ``block`` is with its ``cell``."""
        length = self.before[block] + cell - self.start[block] + 1
        if self.skipped is not None:
            first = self.start[block]
            length = length - self.skipped[cell] + np.where(first > 0, self.skipped[first - 1], 0)
        reached: Ints = np.minimum(length, MOST)
        return reached

    def longest(self) -> Ints:
        """How long each run is at its end, ``[B]``."""
        return self.reached(np.arange(len(self.start)), self.stop - 1)

    def beyond(self, limit: Ints, chosen: Bools | None = None) -> Ints:
        """The cells at which a run is longer than its block's ``limit`` ``[B]``; ``chosen`` ``[B]``: of these alone."""
        over = self.longest() > limit
        blocks = np.flatnonzero(over if chosen is None else over & chosen)
        counts = self.stop[blocks] - self.start[blocks]
        block = np.repeat(blocks, counts)
        place = np.arange(len(block)) - np.repeat(np.cumsum(counts) - counts, counts)
        cell: Ints = self.start[block] + place
        return cell[self.reached(block, cell) > limit[block]]


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of n readings ``[n, C]``."""

    shape: tuple[int, int]
    """(n, C)."""
    same: Blocks
    """Of a value that the reading before had already; the first cell of one is the second of its run."""
    absent: Blocks
    """Of missing values."""
    known: Bools
    """Of each block of missing values: the channel had a value before."""

    def channel(self, blocks: Blocks) -> Ints:
        """Whose each block is."""
        return blocks.start // max(self.shape[0], 1)

    def rows(self, blocks: Blocks) -> Ints:
        """The first reading of each block."""
        return blocks.start % max(self.shape[0], 1)

    def at(self, cells: Ints) -> Bools:
        """These cells as a mask ``[n, C]``."""
        n, C = self.shape
        mask = np.zeros((C, n), dtype=bool)
        mask.reshape(-1)[cells] = True
        return mask.T


def follow(memory: Memory, segments: Segments, values: Floats) -> Runs:
    """The runs of accepted readings ``values`` ``[n, C]`` of ``segments``, in time order within each. The memory then
    knows them.
    """
    n, C = values.shape
    slots, last = segments.slots, segments.last
    newest = np.array(values.T, order="C")  # [C, n], a copy: missing values are filled in
    before = memory.sensor_value[slots].T  # [C, U]
    missing = np.isnan(newest)
    skipped: Ints | None = None
    nothing = np.zeros(0, np.int64)
    absent = Blocks(nothing, nothing, nothing, None)
    if missing.any():
        absent = _blocks(segments, missing, memory.sensor_absent[slots], 0)
        _carry(segments, newest, absent, before)
        skipped = np.cumsum(missing)
    equal = np.empty(newest.shape, dtype=bool)
    np.equal(newest[:, 1:], newest[:, :-1], out=equal[:, 1:])
    equal[:, segments.first] = newest[:, segments.first] == before
    same = _blocks(segments, equal, memory.sensor_same[slots], 1, skipped)
    known = ~np.isnan(newest.reshape(-1)[absent.start])
    memory.sensor_value[slots] = newest[:, last].T
    memory.sensor_same[slots] = _ending(segments, same, np.where(np.isnan(newest[:, last]), 0, 1))
    memory.sensor_absent[slots] = _ending(segments, absent, np.zeros((C, len(slots)), np.int64))
    return Runs((n, C), same, absent, known)


def _blocks(
    segments: Segments, inside: Bools, before: NDArray[np.uint16], otherwise: int, skipped: Ints | None = None
) -> Blocks:
    """Blocks of cells ``inside`` ``[C, n]``. Runs had reached ``before`` ``[U, C]`` before the batch, and count from
    ``otherwise`` where they begin in it.
    """
    n = inside.shape[1]
    begins, ends = inside.copy(), inside.copy()
    opening = np.zeros(n, dtype=bool)
    opening[segments.first] = True
    begins[:, 1:] &= ~inside[:, :-1] | opening[1:]
    ends[:, :-1] &= ~inside[:, 1:] | opening[1:]
    start = np.flatnonzero(begins)
    channel, row = start // max(n, 1), start % max(n, 1)
    reached = np.full(len(start), otherwise)
    first = opening[row]
    reached[first] = before[segments.of_row[row[first]], channel[first]]
    return Blocks(start, np.flatnonzero(ends) + 1, reached, skipped)


def _carry(segments: Segments, newest: Floats, absent: Blocks, before: Floats) -> None:
    """Put the newest known value into each missing cell of ``newest`` ``[C, n]``; ``before`` ``[C, U]`` the batch."""
    n = newest.shape[1]
    flat = newest.reshape(-1)
    channel, row = absent.start // n, absent.start % n
    segment = segments.of_row[row]
    opening = segments.first[segment] == row
    known = np.where(opening, before[channel, segment], flat[absent.start - 1])
    counts = absent.stop - absent.start
    place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    flat[np.repeat(absent.start, counts) + place] = np.repeat(known, counts)


def _ending(segments: Segments, blocks: Blocks, otherwise: Ints) -> NDArray[np.uint16]:
    """What the runs have reached after each segment's last reading ``[U, C]``; ``otherwise`` ``[C, U]`` outside one."""
    n = len(segments.of_row)
    cell = blocks.stop - 1
    channel, row = cell // max(n, 1), cell % max(n, 1)
    segment = segments.of_row[row]
    final = np.flatnonzero(segments.last[segment] == row)
    otherwise[channel[final], segment[final]] = blocks.reached(final, cell[final])
    return otherwise.T.astype(np.uint16)
