"""Topics followed from some way back, without a group: for those who only look."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from kafka import TopicPartition

from detector.adapters.kafka_clients import Clients, left_out, read_from
from detector.adapters.kafka_errors import VENDOR, translate

log = logging.getLogger(__name__)

#: Seconds after which topics that were not there, and new partitions, are looked for.
LOOK_S = 10.0


class Heard(NamedTuple):
    """A record."""

    topic: str
    key: bytes | None
    value: bytes | None


class Follower:
    """``back``: of each topic how many records of each partition to begin with at most; None: all."""

    def __init__(self, clients: Clients, back: Mapping[str, int | None], patience_s: float) -> None:
        self._back = back
        self._reader = clients.consumer(time.monotonic() + patience_s, passes=left_out)
        self._tps: set[TopicPartition] = set()
        self._looked = -LOOK_S

    def poll(self, timeout_s: float) -> Iterator[Heard]:
        """What has come. Raises our errors."""
        try:
            if time.monotonic() - self._looked > LOOK_S:
                self._look()
            if not self._tps:
                time.sleep(timeout_s)
                return
            for tp, records in self._reader.poll(timeout_ms=int(1000 * timeout_s), max_records=5000).items():
                yield from (Heard(tp.topic, record.key, record.value) for record in records)
        except VENDOR as error:
            raise translate(error, f"reading {', '.join(self._back)}") from error

    def _look(self) -> None:
        self._looked = time.monotonic()
        there = {
            TopicPartition(topic, number)
            for topic in self._back for number in self._reader.partitions_for_topic(topic) or ()
        }  # fmt: skip
        new = sorted(there - self._tps)
        if not new:
            return
        positions = {tp: self._reader.position(tp, timeout_ms=1000) for tp in self._tps}
        first, end = self._reader.beginning_offsets(new), self._reader.end_offsets(new)
        for tp in new:
            back = self._back[tp.topic]
            positions[tp] = first[tp] if back is None else max(first[tp], end[tp] - back)
        self._tps |= there
        self._reader.assign(sorted(self._tps))
        for tp, position in positions.items():
            if position is not None:
                read_from(self._reader, tp, position)
        log.info("follows %s", ", ".join(sorted({tp.topic for tp in self._tps})))

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(Exception):
            self._reader.close(autocommit=False, timeout_ms=2000)
