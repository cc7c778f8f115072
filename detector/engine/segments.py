"""Runs of one stream inside a batch: the trick that makes everything per stream an operation on whole arrays.

A batch is sorted by stream (stable, so that each stream keeps its order of arrival). Each stream's rows then form one
segment, and histories are laid out flat: for every segment its tail of ``length`` older rows, then its new rows. The
window that ends at a row is a view of the flat array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segments:
    """Sorted rows ``[N]`` in ``U`` segments.

    ``slots`` ``[U]``: the stream of each segment; ``first`` ``[U]``: its first row; ``counts`` ``[U]``: its rows;
    ``of_row`` ``[N]``: the segment of each row.
    """

    slots: Ints
    first: Ints
    counts: Ints
    of_row: Ints

    @classmethod
    def of(cls, sorted_slots: Ints) -> Segments:
        """Segments of slots that are sorted already."""
        n = len(sorted_slots)
        starts = np.ones(n, dtype=bool)
        np.not_equal(sorted_slots[1:], sorted_slots[:-1], out=starts[1:])
        first = np.flatnonzero(starts)
        counts = np.diff(first, append=n)
        return cls(sorted_slots[first], first, counts, np.cumsum(starts) - 1)

    @property
    def last(self) -> Ints:
        """Last row of each segment, ``[U]``."""
        return self.first + self.counts - 1

    def rank(self) -> Ints:
        """Place of each row in its segment from 0, ``[N]``."""
        return np.arange(len(self.of_row)) - self.first[self.of_row]

    def previous(self, rows: NDArray[Any], before: NDArray[Any]) -> NDArray[Any]:
        """The value one row earlier in the same segment; for first rows ``before`` ``[U]``."""
        shifted = np.empty_like(rows)
        shifted[1:] = rows[:-1]
        shifted[self.first] = before
        return shifted

    def latest(self, marked: NDArray[np.bool_]) -> Ints:
        """Index of the newest marked row at or before each row of its segment, ``[N]``; -1 where there is none."""
        index = np.where(marked, np.arange(len(marked)), -1)
        newest: Ints = np.maximum.accumulate(index)
        return np.where(newest >= self.first[self.of_row], newest, -1)


def blocks(flat: NDArray[Any], length: int) -> NDArray[Any]:
    """Every run of ``length`` rows of ``flat`` ``[M, …]`` as one row ``[M - length + 1, length * …]``: a view.

    Gathering rows of it copies each run in one piece. Writing rows that do not overlap is safe.
    """
    width = int(np.prod(flat.shape[1:], dtype=np.int64)) * flat.itemsize
    return as_strided(
        flat,
        (max(len(flat) - length + 1, 0), length * (width // flat.itemsize)),
        (width, flat.itemsize),
    )


def with_tails(segments: Segments, tails: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """The histories of rows ``[N]``: for each row the ``length`` newest values up to and with it, ``[N, length]``.

    ``tails`` ``[U, length]``: each segment's values before its first row, newest last.
    """
    return histories(segments, tails, rows, tails.shape[1])[0]


def histories(
    segments: Segments, tails: NDArray[Any], rows: NDArray[Any], length: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Likewise, of the newest ``length`` values only; and the tails ``[U, L]`` after the last rows."""
    kept = tails.shape[1]
    flat = np.empty(len(rows) + kept * len(segments.slots), dtype=tails.dtype)
    windows = blocks(flat, kept)
    windows[segments.first + kept * np.arange(len(segments.slots))] = tails
    position = np.arange(len(rows)) + kept * (segments.of_row + 1)
    flat[position] = rows
    found: NDArray[Any] = blocks(flat, length)[position - length + 1]
    if length == kept:
        return found, found[segments.last]
    after: NDArray[Any] = windows[position[segments.last] - kept + 1]
    return found, after
