"""The streams the engine knows: which row of the state is whose, and in which bucket it is saved."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.engine.calibration import typical
from detector.engine.model import StreamValues
from detector.engine.segments import Ints


def bucket_of(stream: str, buckets: int) -> int:
    """The bucket of a stream: CRC-32 of its name modulo the number of buckets."""
    return zlib.crc32(stream.encode("utf-8", "surrogatepass")) % buckets


class Streams:
    """A slot for every stream of every partition, given out in the order of meeting.

    A stream met in two partitions is two streams: what is published about it depends on its partition alone.
    """

    def __init__(self, values: StreamValues, group_threshold: float, buckets: int) -> None:
        self.buckets = buckets
        self._known = {name: index for index, name in enumerate(values.names)}
        # the last row is the group's: index -1 finds it for a stream never seen
        self._loc = np.concatenate([values.loc, values.group_loc[None]]).astype(np.float32)
        self._scale = np.concatenate([values.scale, values.group_scale[None]]).astype(np.float32)
        self._threshold = np.concatenate([values.threshold, [group_threshold]])
        self._factor = np.concatenate([values.factor, [1.0]])
        self._tail = values.tail
        self._noise = np.ones_like(values.group_scale) if values.noise is None else values.noise
        self._usual = typical(values.tail_score, values.tail_p)
        self.clear()

    def clear(self) -> None:
        """Forget every stream."""
        self.names: list[str] = []
        self.partitions: list[int] = []
        self._slots: dict[int, dict[str, int]] = {}
        self._row = np.empty(64, dtype=np.int64)
        self._bucket = np.empty(64, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def slots(self, partition: int, names: Sequence[str]) -> Ints:
        """The slot of each name, new ones for streams not met yet, ``[N]``."""
        table = self._slots.setdefault(partition, {})
        try:
            return np.fromiter(map(table.__getitem__, names), np.int64, len(names))
        except KeyError:
            for name in dict.fromkeys(names):
                if name not in table:
                    table[name] = self._add(partition, name)
            return np.fromiter(map(table.__getitem__, names), np.int64, len(names))

    def _add(self, partition: int, name: str) -> int:
        slot = len(self.names)
        if slot == len(self._row):
            self._row = np.concatenate([self._row, np.empty_like(self._row)])
            self._bucket = np.concatenate([self._bucket, np.empty_like(self._bucket)])
        self.names.append(name)
        self.partitions.append(partition)
        self._row[slot] = self._known.get(name, -1)
        self._bucket[slot] = bucket_of(name, self.buckets)
        return slot

    def of_partition(self, partition: int) -> dict[str, int]:
        """Slot by name."""
        return self._slots.get(partition, {})

    def bucket(self, slots: Ints) -> Ints:
        """Bucket of each slot."""
        return self._bucket[slots]

    def scaling(self, slots: Ints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``loc`` and ``scale`` of each slot, ``[N, C]`` each."""
        rows = self._row[slots]
        return self._loc[rows], self._scale[rows]

    def threshold(self, slots: Ints) -> NDArray[np.float64]:
        """Raw score that counts as 1, of each slot."""
        return self._threshold[self._row[slots]]

    def factor(self, slots: Ints) -> NDArray[np.float64]:
        """What a raw score of each slot is divided by to be a level of the tail."""
        return self._factor[self._row[slots]]

    def levels(self, slots: Ints, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores in thresholds ``[N]`` as levels of the tail: raw, divided by each stream's factor."""
        rows = self._row[slots]
        levels: NDArray[np.float64] = score * (self._threshold[rows] / self._factor[rows])
        return levels

    @property
    def noise(self) -> NDArray[np.float32]:
        """How far readings are usually from what is usual at their time, in scales, ``[C]``."""
        return self._noise

    def usual(self, slots: Ints) -> NDArray[np.float64]:
        """What is typical of scores of normal data, in thresholds, of each slot; 0: unknown."""
        rows = self._row[slots]
        usual: NDArray[np.float64] = self._usual * self._factor[rows] / self._threshold[rows]
        return usual

    def return_period_s(self, slots: Ints, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of normal data between episodes that reach scores in thresholds ``[N]``; NaN: nobody knows."""
        return self._tail.return_period_s(self.levels(slots, score))

    def never_seen(self, slots: Ints) -> NDArray[np.bool_]:
        """True for streams that training did not know."""
        return self._row[slots] < 0
