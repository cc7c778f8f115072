"""A few records of a topic, to look at: the newest that are there and what arrives; no group, and nothing committed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kafka import TopicPartition

from detector.adapters.kafka_clients import Clients, read_from
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.port import Damaged, Records
from schemas.dead_letter import Reason


@dataclass(frozen=True)
class Sample:
    """What was found."""

    retained: int
    """Offsets that the topic keeps."""
    records: list[Records]
    """By partition, in the order of offsets."""
    arrived: int
    """How many of them came while it was looked."""
    damaged: list[Damaged]

    @property
    def count(self) -> int:
        """Records."""
        return sum(len(records.offsets) for records in self.records)


def sample(clients: Clients, topic: str, partitions: int, most: int, wait_s: float, patience_s: float) -> Sample:
    """At most ``most`` records, as many of each partition where there are; looks for ``wait_s`` at what arrives.

    Raises BrokerUnavailable, AccessError, TopicError.
    """
    damaged: list[Damaged] = []

    def passes(one: Damaged) -> bool:
        damaged.append(one)
        return one.reason is not Reason.CORRUPT

    reader = clients.consumer(time.monotonic() + patience_s, passes=passes)
    try:
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        reader.assign(tps)
        first, end = reader.beginning_offsets(tps), reader.end_offsets(tps)
        starts = _starts({tp: end[tp] - first[tp] for tp in tps}, most)
        for tp in tps:
            read_from(reader, tp, end[tp] - starts[tp])
        found: dict[int, list[tuple[int, int, bytes | None, bytes | None]]] = {}
        arrived, deadline = 0, time.monotonic() + wait_s
        while time.monotonic() < deadline and sum(map(len, found.values())) < most:
            for tp, records in reader.poll(timeout_ms=100, max_records=most).items():
                own = found.setdefault(tp.partition, [])
                for record in records[: most - sum(map(len, found.values()))]:
                    own.append((record.offset, record.timestamp, record.key, record.value))
                    arrived += record.offset >= end[tp]
    except VENDOR as error:
        raise translate(error, f"reading {topic}") from error
    finally:
        reader.close(autocommit=False, timeout_ms=2000)
    taken = [Records(number, *map(list, zip(*own, strict=True))) for number, own in sorted(found.items()) if own]
    return Sample(sum(end[tp] - first[tp] for tp in tps), taken, arrived, damaged)


def _starts(there: dict[TopicPartition, int], most: int) -> dict[TopicPartition, int]:
    """How many of the newest of each partition to look at: as many of each, the rest from those that have more."""
    starts = dict.fromkeys(there, 0)
    left = most
    while left > 0 and (open_ := [tp for tp in there if starts[tp] < there[tp]]):
        for tp in open_[:left]:
            step = min(max(left // len(open_), 1), there[tp] - starts[tp])
            starts[tp] += step
            left -= step
    return starts
