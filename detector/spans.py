"""Spans of event time: what was muted, what was an incident, what is left to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.moment import EARLIEST_NS, LATEST_NS

Times = NDArray[np.int64]


def _no_times() -> Times:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Half-open spans ``[start, end)`` in nanoseconds since 1970: in order, apart from each other, none of them empty.

    Make them with ``of``: it puts any spans into this form. None holds the last moment there is, ``LATEST_NS``.
    """

    starts: Times = field(default_factory=_no_times)
    """int64 ``[N]``."""
    ends: Times = field(default_factory=_no_times)
    """int64 ``[N]``."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> Spans:
        """Of any pairs of start and end: those that overlap or touch become one, empty and inverted ones vanish."""
        table = np.array([(start, end) for start, end in pairs if start < end], np.int64).reshape(-1, 2)
        return cls._joined(table[:, 0], table[:, 1])

    @classmethod
    def _joined(cls, starts: Times, ends: Times) -> Spans:
        order = np.argsort(starts, kind="stable")
        starts, reach = starts[order], np.maximum.accumulate(ends[order]) if len(ends) else ends
        first = np.ones(len(starts), np.bool_)
        first[1:] = starts[1:] > reach[:-1]
        last = np.append(first[1:], True)[: len(first)]
        return cls(starts[first], reach[last])

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts.tolist(), self.ends.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Spans) -> Spans:
        """What lies in either."""
        return self._joined(np.concatenate([self.starts, other.starts]), np.concatenate([self.ends, other.ends]))

    def __sub__(self, other: Spans) -> Spans:
        """What lies in these and not in the others."""
        return self & other.rest(EARLIEST_NS, LATEST_NS)

    def __and__(self, other: Spans) -> Spans:
        """What lies in both."""
        edges = np.unique(np.concatenate([self.starts, self.ends, other.starts, other.ends]))
        if len(edges) < 2:
            return Spans()
        inside = self.hold(edges[:-1]) & other.hold(edges[:-1])
        return self._joined(edges[:-1][inside], edges[1:][inside])

    def rest(self, start: int, end: int) -> Spans:
        """What of ``[start, end)`` they leave free."""
        inside = self.within(start, end)
        starts, ends = np.append(start, inside.ends), np.append(inside.starts, end)
        return self._joined(starts[starts < ends], ends[starts < ends])

    def within(self, start: int, end: int) -> Spans:
        """What of them lies in ``[start, end)``."""
        starts, ends = self.starts.clip(start, end), self.ends.clip(start, end)
        return Spans(starts[starts < ends], ends[starts < ends])

    def widened(self, before: int, after: int) -> Spans:
        """Each begins ``before`` nanoseconds sooner and ends ``after`` later, as far as time reaches."""
        starts = np.maximum(self.starts, EARLIEST_NS + before) - before
        return self._joined(starts, np.minimum(self.ends, LATEST_NS - after) + after)

    def hold(self, times: Times) -> NDArray[np.bool_]:
        """Whether each time lies in one of them, ``[N]``."""
        place = np.searchsorted(self.starts, times, side="right") - 1
        found: NDArray[np.bool_] = place >= 0
        found[found] = times[found] < self.ends[place[found]]
        return found

    @property
    def total(self) -> int:
        """Nanoseconds in all of them."""
        return int((self.ends - self.starts).sum())
