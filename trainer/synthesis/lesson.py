"""What a generator learns from: stretches of normal readings, as normal scores with their context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.adapters.files import Table
from detector.engine.assembly import layout
from schemas.errors import DataError
from schemas.manifest import Channel
from schemas.moment import SECOND_NS
from trainer.data import interval_of, rows_by_stream
from trainer.synthesis.clock import Clock
from trainer.synthesis.marginals import Marginal
from trainer.synthesis.rests import share_of_rests

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Intervals without a reading from which on a stretch is cut: markets rest at weekends, and a reading or two get lost.
GAP = 5

#: Readings of a group below which nothing can be learned of it.
LEAST = 200


@dataclass(frozen=True)
class Stretch:
    """Readings of one stream without a gap, n of them."""

    group: int
    times: Ints
    """``[n]``, ns."""
    values: Floats
    """``[n, C]``, engineering units; a missing one is what was last read."""


@dataclass(frozen=True)
class Lesson:
    """Stretches, and what is the same for all of them."""

    channels: tuple[str, ...]
    groups: tuple[str, ...]
    interval_ns: int
    clock: Clock
    stretches: tuple[Stretch, ...]
    marginals: tuple[tuple[Marginal, ...], ...]
    """Of each group, of each channel."""
    same_as: tuple[int, ...]
    """Of each channel: the first one that it always equals, or itself."""

    @property
    def varying(self) -> Ints:
        """``[V]``: the channels that a network makes; the others are constant or the same as another."""
        moves = [any(not group[c].constant for group in self.marginals) for c in range(len(self.channels))]
        return np.flatnonzero([moves[c] and self.same_as[c] == c for c in range(len(self.channels))])

    def rests(self, group: int) -> Floats:
        """Share of the steps at which each channel that varies stays as it was ``[V]``."""
        return share_of_rests([s.values[:, self.varying] for s in self.stretches if s.group == group])

    def scores(self, stretch: Stretch) -> Floats:
        """Normal scores ``[n, V]``."""
        own = self.marginals[stretch.group]
        columns = [own[c].scores(stretch.values[:, c]) for c in self.varying]
        return np.stack(columns, axis=1) if columns else np.zeros((len(stretch.times), 0), np.float32)


def possible(table: Table, catalogue: Sequence[Channel] | None) -> Table:
    """The same, without values that are beyond what a channel can have: nothing is learned from them."""
    if catalogue is None:
        return table
    low = np.array([-np.inf if channel.min is None else channel.min for channel in catalogue], np.float32)
    high = np.array([np.inf if channel.max is None else channel.max for channel in catalogue], np.float32)
    beyond = (table.values < low) | (table.values > high)
    return replace(table, values=np.where(beyond, np.float32("nan"), table.values))


def lesson_of(table: Table, patterns: Sequence[str] = ("*",)) -> Lesson:
    """Of readings. ``patterns``: of streams, each makes a group; a stream is of the first one that fits.

    Raises DataError where there is too little, or a stream is of no group.
    """
    by_stream = rows_by_stream(table)
    groups = {stream: group_of(stream, patterns) for stream in by_stream}
    interval = interval_of(table, by_stream)
    stretches = [
        stretch for stream, rows in by_stream.items() for stretch in _stretches(table, rows, interval, groups[stream])
    ]
    pooled = [[s.values for s in stretches if s.group == number] for number in range(len(patterns))]
    for pattern, parts in zip(patterns, pooled, strict=True):
        count = sum(map(len, parts))
        if count < LEAST:
            raise DataError(f"{count} readings of {pattern} without gaps: {LEAST} are needed at least to learn from")
    values = [np.concatenate(parts) for parts in pooled]
    span_s = int(table.times.max() - table.times.min()) / SECOND_NS
    return Lesson(
        table.channels, tuple(patterns), interval, Clock.of(span_s, interval / SECOND_NS, len(patterns)),
        tuple(stretches), tuple(tuple(_marginal(column) for column in own.T) for own in values),
        _same(np.concatenate(values)),
    )  # fmt: skip


def group_of(stream: str, patterns: Sequence[str]) -> int:
    """Number of the first pattern that fits. Raises DataError where none does."""
    for number, pattern in enumerate(patterns):
        if fnmatchcase(stream, pattern):
            return number
    raise DataError(f"the stream {stream} is of no group: {'; '.join(patterns)}")


def _marginal(column: Floats) -> Marginal:
    known = column[~np.isnan(column)]
    return Marginal.of(known) if len(known) else Marginal(np.array([np.nan]), np.ones(1), steps=True)


def _same(values: Floats) -> tuple[int, ...]:
    def first(c: int) -> int:
        return next((b for b in range(c) if np.array_equal(values[:, b], values[:, c], equal_nan=True)), c)

    return tuple(map(first, range(values.shape[1])))


def _stretches(table: Table, rows: Ints, interval: int, group: int) -> list[Stretch]:
    """One stream's readings, cut where some are missing."""
    own = layout(table.times[rows], interval, 1)
    kept = rows[own.kept]
    times, values = table.times[kept], table.values[kept]
    cuts = np.flatnonzero(np.diff(times) > GAP * interval) + 1
    parts = zip(np.split(times, cuts), np.split(values, cuts), strict=True)
    return [Stretch(group, at, _filled(read)) for at, read in parts]


def _filled(values: Floats) -> Floats:
    """What was last read where something is missing; before the first, the first."""
    place = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(place, axis=0)
    first = np.where((place >= 0).any(axis=0), (place >= 0).argmax(axis=0), 0)
    return np.take_along_axis(values, np.where(last < 0, first, last), axis=0)


def runs(values: Floats, length: int) -> Floats:
    """Every run of readings ``[n, C]`` of this length, ``[n - length + 1, length, C]``: a view."""
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1)


class Windows:
    """Runs of ``length`` readings at random, with normal scores and context."""

    def __init__(self, lesson: Lesson, length: int) -> None:
        long = [s for s in lesson.stretches if len(s.times) >= length]
        if not long:
            raise DataError(f"no {length} readings in a row without a gap: a generator cannot learn from them")
        scores = np.concatenate([lesson.scores(s) for s in long])
        context = np.concatenate([lesson.clock.context(s.times, s.group) for s in long])
        ends = np.cumsum([len(s.times) for s in long])
        starts = [np.arange(end - len(s.times), end - length + 1) for s, end in zip(long, ends, strict=True)]
        self.length = length
        self._scores, self._context = (torch.from_numpy(a) for a in (scores, context))
        self._starts = torch.from_numpy(np.concatenate(starts))

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Normal scores ``[count, V, length]`` and context ``[count, K, length]``, by torch's random state."""
        chosen = self._starts[torch.randint(len(self._starts), (count,))]
        rows = chosen[:, None] + torch.arange(self.length)
        return self._scores[rows].transpose(1, 2), self._context[rows].transpose(1, 2)
