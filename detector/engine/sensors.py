"""Sensors that break: rules about a channel's own values that need no model.

* *Stuck*: the channel repeats one value for more readings than ``stuck_after``, a multiple of what it did in training.
* *Missing*: it is absent from more readings in a row than ``missing_after``, likewise.
* *Range*: its value is outside of what is physically possible.

A missing value neither breaks nor lengthens a run of equal ones. Rows that assembly inserts are no readings: a gap is
for the rule of silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.incidents import ANOMALOUS, NORMAL, UNSCORED
from detector.engine.segments import Segments, with_tails
from schemas.manifest import Channel

#: Runs are counted up to here: what two bytes hold. Limits are at most 60,000.
MOST = 65_535

#: Readings in a row without a stuck channel that end it: a sensor on its way out comes back for a moment.
STUCK_QUIET = 3

#: Impossible readings that open an incident, among the newest …, and possible ones in a row that end it.
RANGE_K, RANGE_N, RANGE_QUIET = 2, 3, 5

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Counts = NDArray[np.int64]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields(channels: int) -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met)."""
    C = channels
    f32, u16, u8 = (np.dtype(name) for name in ("<f4", "<u2", "u1"))
    return {
        "sensor_value": ((C,), f32, np.nan),
        "sensor_same": ((C,), u16, 0),
        "sensor_absent": ((C,), u16, 0),
        "sensor_stuck": ((STUCK_QUIET,), u8, UNSCORED),
        "sensor_outside": ((max(RANGE_N, RANGE_QUIET),), u8, UNSCORED),
    }


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

    sensor_value: Floats
    """``[S, C]``: the newest value, engineering units; NaN: none yet."""
    sensor_same: NDArray[np.uint16]
    """``[S, C]``: readings up to the newest that had this value."""
    sensor_absent: NDArray[np.uint16]
    """``[S, C]``: newest readings in a row without a value."""
    sensor_stuck: NDArray[np.uint8]
    """``[S, STUCK_QUIET]``: flags of the newest readings, newest last."""
    sensor_outside: NDArray[np.uint8]
    """``[S, RANGE_QUIET]``: likewise."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a rule says after each of n readings.

    ``on`` ``[n]``: an incident is to be open; ``off`` ``[n]``: it is to be over; neither: as before. ``which``
    ``[n, C]``: the channels that it is about now.
    """

    on: Bools
    off: Bools
    which: Bools


@dataclass(frozen=True, slots=True)
class Marks:
    """The three rules' marks, and the runs behind them, ``same`` and ``absent`` ``[n, C]``, in readings."""

    stuck: Mark
    missing: Mark
    outside: Mark
    same: Counts
    absent: Counts


class Sensors:
    """The rules for the channels of a model."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._stuck_after = _limits([channel.stuck_after for channel in channels])
        self._missing_after = _limits([channel.missing_after for channel in channels])
        # as precise as the readings: a limit of .1 must not be less than a reading of .1
        self._lowest = np.array([-np.inf if c.lowest is None else c.lowest for c in channels], np.float32)
        self._highest = np.array([np.inf if c.highest is None else c.highest for c in channels], np.float32)
        self._bounded = np.isfinite(self._lowest) | np.isfinite(self._highest)

    def follow(self, memory: Memory, segments: Segments, values: Floats) -> Marks:
        """What the rules say after each accepted reading ``values`` ``[n, C]`` of ``segments``, in time order within
        each. The memory then knows them.
        """
        same, absent = runs(memory, segments, values)
        return Marks(
            self._stuck(memory, segments, same), self._missing(absent), self._outside(memory, segments, values),
            same, absent,
        )  # fmt: skip

    def _stuck(self, memory: Memory, segments: Segments, same: Counts) -> Mark:
        which = same > self._stuck_after
        flags = np.where(which.any(axis=1), ANOMALOUS, NORMAL).astype(np.uint8)
        history = _remembered(memory.sensor_stuck, segments, flags)
        return Mark(flags == ANOMALOUS, (history == NORMAL).all(axis=1), which)

    def _missing(self, absent: Counts) -> Mark:
        """A value is proof enough that the sensor is back: one reading resolves."""
        which = absent > self._missing_after
        on = np.asarray(which.any(axis=1))
        return Mark(on, ~on, which)

    def _outside(self, memory: Memory, segments: Segments, values: Floats) -> Mark:
        if not self._bounded.any():
            nowhere = np.zeros(values.shape, dtype=bool)
            return Mark(nowhere[:, 0], ~nowhere[:, 0], nowhere)
        with np.errstate(invalid="ignore"):
            which = (values < self._lowest) | (values > self._highest)
        flags = np.where(which.any(axis=1), ANOMALOUS, NORMAL)
        flags[np.isnan(values[:, self._bounded]).all(axis=1)] = UNSCORED
        history = _remembered(memory.sensor_outside, segments, flags.astype(np.uint8))
        on = (flags == ANOMALOUS) & ((history[:, -RANGE_N:] == ANOMALOUS).sum(axis=1) >= RANGE_K)
        return Mark(on, (history[:, -RANGE_QUIET:] == NORMAL).all(axis=1), which)


def runs(memory: Memory, segments: Segments, values: Floats) -> tuple[Counts, Counts]:
    """For each reading ``[n, C]``: how many up to it had the newest value, and how many in a row had none.

    ``values`` as in ``Sensors.follow``; counted up to MOST.
    """
    there = ~np.isnan(values)
    slots = segments.slots
    if there.all():
        same = _repeated(segments, values, memory.sensor_value[slots], memory.sensor_same[slots])
        absent = np.zeros(values.shape, np.int64)
        newest = values
    else:
        newest = _carried(segments, values, there, memory.sensor_value[slots])
        same = _repeated(segments, newest, memory.sensor_value[slots], memory.sensor_same[slots], there)
        absent = _counted(segments, ~there, memory.sensor_absent[slots])
    last = segments.last
    memory.sensor_value[slots] = newest[last]
    memory.sensor_same[slots] = same[last]
    memory.sensor_absent[slots] = absent[last]
    return same, absent


def _limits(named: Sequence[int | None]) -> Counts:
    """Runs longer than this are too long, ``[C]``; none is where it is off."""
    return np.array([limit or MOST for limit in named], np.int64)


def _remembered(kept: NDArray[np.uint8], segments: Segments, flags: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The newest flags up to and with each reading ``[n, L]``, newest last; keeps the newest ``[S, L]``."""
    history = with_tails(segments, kept[segments.slots], flags)
    kept[segments.slots] = history[segments.last]
    return history


def _carried(segments: Segments, values: Floats, there: Bools, before: Floats) -> Floats:
    """The newest known value at each reading ``[n, C]``; ``before`` ``[U, C]`` the batch."""
    index = np.where(there, np.arange(len(values))[:, None], -1)
    np.maximum.accumulate(index, axis=0, out=index)
    inside = index >= segments.first[segments.of_row][:, None]
    return np.where(inside, np.take_along_axis(values, np.maximum(index, 0), axis=0), before[segments.of_row])


def _repeated(
    segments: Segments, newest: Floats, before: Floats, count: NDArray[np.uint16], there: Bools | None = None
) -> Counts:
    """How many readings up to each ``[n, C]`` had its value; ``there``: which have one, None: all.

    ``before`` and ``count`` ``[U, C]``: the value before the batch and how many readings had it.
    """
    changed = newest != segments.previous(newest, before)  # NaN, of a channel without any value yet, differs too
    if there is None:
        return _counted(segments, ~changed, count, at_least=1)
    # a missing value is as if it was not there: counted are the values since the change
    counted = np.cumsum(there, axis=0)  # [n, C]
    start = np.maximum.accumulate(np.where(changed & there, np.arange(len(newest))[:, None], -1), axis=0)
    inside = start >= segments.first[segments.of_row][:, None]
    at_start = np.take_along_axis(counted, np.maximum(start, 0), axis=0)
    at_first: Counts = (counted - there)[segments.first][segments.of_row]
    since = np.where(inside, counted - at_start + 1, counted - at_first + count[segments.of_row])
    return np.minimum(since, MOST)


def _counted(segments: Segments, holds: Bools, before: NDArray[np.uint16], at_least: int = 0) -> Counts:
    """Readings in a row for which something ``holds`` ``[n, C]``; ``before`` ``[U, C]``: up to the batch.

    ``at_least``: what the reading counts for which it does not hold.
    """
    row = np.arange(len(holds))[:, None]
    stop = np.maximum.accumulate(np.where(holds, -1, row), axis=0)
    first = segments.first[segments.of_row][:, None]
    since = np.where(stop >= first, row - stop + at_least, row - first + 1 + before[segments.of_row])
    return np.minimum(since, MOST)
