"""The streams the engine knows: which row of the state is whose, and in which bucket it is saved."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence

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
        self.judge_by(values, group_threshold)
        self._factor = np.concatenate([values.factor, [1.0]])
        self._tail = values.tail
        self._noise = np.ones_like(values.group_scale) if values.noise is None else values.noise
        self._usual = typical(values.tail_score, values.tail_p)
        self.clear()

    def judge_by(self, values: StreamValues, group_threshold: float) -> None:
        """Other thresholds, of the same streams: another promise."""
        self._threshold = np.concatenate([values.threshold, [group_threshold]])

    def clear(self) -> None:
        """Forget every stream."""
        self.names: list[str] = []
        """By slot; empty where the slot is free."""
        self.partitions: list[int] = []
        """By slot; -1 where it is free."""
        self._slots: dict[int, dict[str, int]] = {}
        self._members: dict[int, list[dict[str, int]]] = {}  # the same by bucket, so that one is found without a search
        self._places: dict[str, int] = {}  # partitions in which a name is known, where there are several
        self._free: list[int] = []
        self._belongs: dict[int, Callable[[str], bool]] = {}
        self._moved: dict[int, set[str]] = {}
        self._row = np.empty(64, dtype=np.int64)
        self._bucket = np.empty(64, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names) - len(self._free)

    @property
    def size(self) -> int:
        """Slots given out so far, free ones among them: rows that the state needs."""
        return len(self.names)

    @property
    def known(self) -> set[int]:
        """Partitions of which some stream is known."""
        return {partition for partition, table in self._slots.items() if table}

    @property
    def repeated(self) -> dict[str, int]:
        """Streams met in several partitions here, and in how many: their sender changed its key, or the topic grew."""
        return self._places

    def slots(self, partition: int, names: Sequence[str]) -> Ints:
        """The slot of each name, new ones for streams not met yet, ``[N]``."""
        table = self._slots.setdefault(partition, {})
        try:
            return np.fromiter(map(table.__getitem__, names), np.int64, len(names))
        except KeyError:
            for name in dict.fromkeys(names):
                if name not in table:
                    table[name] = self._add(partition, name)
                    self._count_places(name)
                    self._note_moved(partition, name)
            return np.fromiter(map(table.__getitem__, names), np.int64, len(names))

    def _add(self, partition: int, name: str) -> int:
        if self._free:
            slot = self._free.pop()
            self.names[slot], self.partitions[slot] = name, partition
        else:
            slot = len(self.names)
            self.names.append(name)
            self.partitions.append(partition)
        if slot == len(self._row):
            self._row = np.concatenate([self._row, np.empty_like(self._row)])
            self._bucket = np.concatenate([self._bucket, np.empty_like(self._bucket)])
        bucket = bucket_of(name, self.buckets)
        self._row[slot], self._bucket[slot] = self._known.get(name, -1), bucket
        members = self._members.setdefault(partition, [{} for _ in range(self.buckets)])
        members[bucket][name] = slot
        return slot

    def remove(self, partition: int, names: Iterable[str]) -> Ints:
        """Forget streams of a partition; returns the slots that are free now. Names not known there are passed over."""
        table = self._slots.get(partition, {})
        slots = []
        for name in dict.fromkeys(names):
            slot = table.pop(name, None)
            if slot is None:
                continue
            del self._members[partition][int(self._bucket[slot])][name]
            self.names[slot], self.partitions[slot] = "", -1
            self._row[slot] = -1
            self._moved.get(partition, set()).discard(name)
            slots.append(slot)
            self._count_places(name)
        self._free += slots
        return np.array(slots, np.int64)

    def _count_places(self, name: str) -> None:
        if len(self._slots) == 1 and not self._places:
            return
        count = sum(name in table for table in self._slots.values())
        if count > 1:
            self._places[name] = count
        else:
            self._places.pop(name, None)

    def place(self, partition: int, belongs: Callable[[str], bool] | None) -> None:
        """Which names belong in a partition; None: all do. Of one that does not, nothing is expected there any more."""
        self._moved.pop(partition, None)
        self._belongs.pop(partition, None)
        if belongs is not None:
            self._belongs[partition] = belongs
            for name in self.of_partition(partition):
                self._note_moved(partition, name)

    def _note_moved(self, partition: int, name: str) -> None:
        belongs = self._belongs.get(partition)
        if belongs is not None and not belongs(name):
            self._moved.setdefault(partition, set()).add(name)

    def expected(self, partition: int) -> Ints:
        """Slots of a partition's streams, but for those that have moved to another."""
        table, moved = self.of_partition(partition), self._moved.get(partition)
        if moved:
            return np.array([slot for name, slot in table.items() if name not in moved], np.int64)
        return np.fromiter(table.values(), np.int64, len(table))

    def of_partition(self, partition: int) -> dict[str, int]:
        """Slot by name."""
        return self._slots.get(partition, {})

    def of_bucket(self, partition: int, bucket: int) -> dict[str, int]:
        """Slot by name, of the streams of a partition that are saved together."""
        members = self._members.get(partition)
        return members[bucket] if members else {}

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
