"""Sensors that break: rules about a channel's own values that need no model.

* *Stuck*: the channel repeats one value for more readings than ``stuck_after``, a multiple of what it did in training.
* *Missing*: it is absent from more readings in a row than ``missing_after``, likewise; a channel that the stream never
  had is not missed.
* *Range*: its value is outside of what is physically possible.

Rows that assembly inserts are no readings: a gap is for the rule of silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine import runs
from detector.engine.incidents import ANOMALOUS, NORMAL, UNSCORED
from detector.engine.runs import MOST, Bools, Fields, Floats, Runs
from detector.engine.segments import Ints, Segments, with_tails
from schemas.manifest import Channel

#: Readings in a row without a stuck channel that end it: a sensor on its way out comes back for a moment.
STUCK_QUIET = 3

#: Impossible readings that open an incident, among the newest …, and possible ones in a row that end it.
RANGE_K, RANGE_N, RANGE_QUIET = 2, 3, 5


def fields(channels: int) -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met)."""
    u8 = np.dtype("u1")
    return {
        **runs.fields(channels),
        "sensor_stuck": ((STUCK_QUIET,), u8, UNSCORED),
        "sensor_outside": ((max(RANGE_N, RANGE_QUIET),), u8, UNSCORED),
    }


class Memory(runs.Memory, Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's."""

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
    """The three rules' marks."""

    stuck: Mark
    missing: Mark
    outside: Mark


class Sensors:
    """The rules for the channels of a model."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.stuck_after = _limits([channel.stuck_after for channel in channels])
        self.missing_after = _limits([channel.missing_after for channel in channels])
        # as precise as the readings: a limit of .1 must not be less than a reading of .1
        self._lowest = np.array([-np.inf if c.lowest is None else c.lowest for c in channels], np.float32)
        self._highest = np.array([np.inf if c.highest is None else c.highest for c in channels], np.float32)
        self._bounded = np.isfinite(self._lowest) | np.isfinite(self._highest)

    def follow(self, memory: Memory, segments: Segments, values: Floats) -> Marks:
        """What the rules say after each accepted reading ``values`` ``[n, C]`` of ``segments``, in time order within
        each. The memory then knows them.
        """
        found = runs.follow(memory, segments, values)
        return Marks(
            self._stuck(memory, segments, found), self._missing(found), self._outside(memory, segments, values)
        )

    def _stuck(self, memory: Memory, segments: Segments, found: Runs) -> Mark:
        limit = self.stuck_after[found.channel(found.same)]
        which = found.at(found.same.beyond(limit))
        on = _any(which)
        history = _remembered(memory.sensor_stuck, segments, np.where(on, ANOMALOUS, NORMAL).astype(np.uint8))
        return Mark(on, (history == NORMAL).all(axis=1), which)

    def _missing(self, found: Runs) -> Mark:
        """A value is proof enough that the sensor is back: one reading resolves."""
        limit = self.missing_after[found.channel(found.absent)]
        which = found.at(found.absent.beyond(limit, found.known))
        on = _any(which)
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


def _limits(named: Sequence[int | None]) -> Ints:
    """Runs longer than this are too long, ``[C]``; none is where it is off."""
    return np.array([limit or MOST for limit in named], np.int64)


def _any(which: Bools) -> Bools:
    """Whether any channel is marked, ``[n]``."""
    if not which.any():  # nearly always, and cheaper
        return np.zeros(len(which), dtype=bool)
    return np.asarray(which.any(axis=1))


def _remembered(kept: NDArray[np.uint8], segments: Segments, flags: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The newest flags up to and with each reading ``[n, L]``, newest last; keeps the newest ``[S, L]``."""
    history = with_tails(segments, kept[segments.slots], flags)
    kept[segments.slots] = history[segments.last]
    return history
