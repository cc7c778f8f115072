"""The state topic: compacted, partitioned like the readings, and one consumer group's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from kafka import KafkaConsumer, TopicPartition

from detector.adapters.kafka_clients import read_from
from detector.adapters.port import StateRecord
from schemas.errors import BrokerUnavailable, TopicError

#: Key of the record that says whose state a partition holds; its value is the group's id.
OWNER = b"owner"

# Seconds that the look at the first records of the state topic may take at the start. What it misses, ``read`` finds.
PEEK_S = 10.0

# Milliseconds to wait for records at a time.
POLL_MS = 200


class StateTopic:
    """Reads the state topic. ``high_watermark``: the end of a partition, open transactions included."""

    def __init__(
        self,
        reader: KafkaConsumer,
        topic: str,
        group: str,
        high_watermark: Callable[[TopicPartition], int],
        patience_s: float,
    ) -> None:
        self.topic = topic
        self._reader, self._group = reader, group
        self._high_watermark, self._patience_s = high_watermark, patience_s
        self._marked: set[int] = set()  # partitions known to hold our owner record

    def read(self, partition: int, beat: Callable[[], None]) -> dict[bytes, bytes]:
        """Newest value of each key, everything committed before the call included.

        Reads to the high watermark, not to the last stable offset: behind a transaction that a dead process left open
        there may be records of its successor. So the broker's ending of it is waited for, at most ``patience_s`` from
        the last progress; ``beat`` is called at each. The position is compared with the end, since control records are
        delivered to nobody.
        """
        tp = TopicPartition(self.topic, partition)
        end = self._high_watermark(tp)
        self._seek_to_first([tp])
        newest: dict[bytes, bytes] = {}
        position, deadline = -1, time.monotonic() + self._patience_s
        while (now := self._reader.position(tp, timeout_ms=POLL_MS) or 0) < end:
            if now != position:
                beat()
                position, deadline = now, time.monotonic() + self._patience_s
            elif time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"partition {partition} of {self.topic}: a transaction has been open for {self._patience_s:.0f} s "
                    "and hides what follows it: end it (kafka-transactions.sh), or wait"
                )
            for records in self._reader.poll(timeout_ms=POLL_MS, max_records=5000).values():
                for record in records:
                    if record.key is None:
                        continue  # nobody's: a compacted topic takes none
                    if record.value is None:
                        newest.pop(record.key, None)
                    else:
                        newest[record.key] = record.value
        self._reader.unsubscribe()
        self._check(partition, newest.pop(OWNER, None))
        return newest

    def peek(self, partitions: Iterable[int]) -> None:
        """Raises TopicError where the first records say that the topic is another group's.

        The owner's record is the first that is ever written to a partition, and compaction keeps it in its place.
        """
        tps = [TopicPartition(self.topic, partition) for partition in partitions]
        first, end = self._reader.beginning_offsets(tps), self._reader.end_offsets(tps)
        left = {tp for tp in tps if first[tp] < end[tp]}
        if not left:
            return
        self._seek_to_first(sorted(left))
        deadline = time.monotonic() + PEEK_S
        while left and time.monotonic() < deadline:
            for tp, records in self._reader.poll(timeout_ms=POLL_MS).items():
                self._check(tp.partition, next((r.value for r in records if r.key == OWNER), None))
                self._reader.pause(tp)
                left.discard(tp)
            left = {tp for tp in left if (self._reader.position(tp, timeout_ms=POLL_MS) or 0) < end[tp]}
        self._reader.unsubscribe()

    def owner_records(self, partitions: Iterable[int]) -> list[StateRecord]:
        """The records that say whose these partitions are, where that is not known to be written yet."""
        return [StateRecord(p, OWNER, self._group.encode()) for p in sorted(set(partitions) - self._marked)]

    def written(self, owner_records: Iterable[StateRecord]) -> None:
        """These were committed."""
        self._marked |= {record.partition for record in owner_records}

    def close(self, timeout_ms: int) -> None:
        """Let go of the connection."""
        self._reader.close(autocommit=False, timeout_ms=timeout_ms)

    def _seek_to_first(self, tps: list[TopicPartition]) -> None:
        first = self._reader.beginning_offsets(tps)
        self._reader.unsubscribe()
        self._reader.assign(tps)
        for tp in tps:
            read_from(self._reader, tp, first[tp])

    def _check(self, partition: int, owner: bytes | None) -> None:
        if owner is None:
            return
        if owner != self._group.encode():
            raise TopicError(
                f"the state topic {self.topic} belongs to the consumer group {owner.decode(errors='replace')}, not to "
                f"{self._group}: name another with --state-topic, or use that group's --group-id"
            )
        self._marked.add(partition)
