"""The ceiling: how many streams a partition may hold, and which of them give way to new ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from detector.decoding.decoded import Decoded
from detector.engine.engine import Engine

#: Of the streams that a partition may hold, one in so many may be there beyond them for the length of a batch, and one
#: in so many is forgotten beyond what is needed: room for a while.
PART = 20


class Ceiling:
    """Keeps each partition at ``most`` streams.

    Streams give way after the readings that brought too many, those unheard for longest first. Until then a partition
    holds at most a twentieth more, or what a single record brings.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine, self._most = engine, most
        self._slack = max(most // PART, 1)

    def portions(self, decoded: list[Decoded]) -> Iterator[list[Decoded]]:
        """What arrived, in its order, cut between records where it would bring too many streams at once.

        Room is made between one portion and the next: where they end depends on what is known by then.
        """
        new: dict[int, set[str]] = {}
        for d in decoded:
            known = self._engine.streams.of_partition(d.readings.partition)
            new.setdefault(d.readings.partition, set()).update(set(d.readings.streams) - known.keys())
        if all(self._fits(partition, names) for partition, names in new.items()):
            yield decoded
            return
        for d in decoded:
            for part in self._cut(d):
                yield [part]

    def _fits(self, partition: int, new: set[str]) -> bool:
        return len(self._engine.streams.of_partition(partition)) + len(new) <= self._most + self._slack

    def _cut(self, decoded: Decoded) -> Iterator[Decoded]:
        partition, names = decoded.readings.partition, decoded.readings.streams
        edges = [0, *(np.flatnonzero(np.diff(decoded.offsets)) + 1).tolist(), len(names)]
        start, new = 0, set[str]()
        for first, end in pairwise(edges):
            known = self._engine.streams.of_partition(partition)
            brought = set(names[first:end]) - known.keys()
            if first > start and not self._fits(partition, new | brought):
                yield decoded.part(start, first)
                start, new = first, set()
                brought = set(names[first:end]) - self._engine.streams.of_partition(partition).keys()
            new |= brought
        yield decoded.part(start, len(names))

    def passed(self, partition: int) -> tuple[int, str] | None:
        """Where a partition holds too many: time and name of the last that has to go, see ``Engine.unheard``."""
        over = len(self._engine.streams.of_partition(partition)) - self._most
        return self._engine.longest_unheard(partition, over + self._most // PART) if over > 0 else None
