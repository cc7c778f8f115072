"""The whole pipeline over the memory adapter: readings as JSON in, alerts out, with crashes where a test wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import numpy as np
import orjson

from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.adapters.port import Transaction, Watch, unwatched
from detector.decoding.json_readings import JsonDecoder
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from detector.observer import Observer
from detector.service import Service
from detector.succession import Succession
from schemas.settings import DetectorSettings

POLICY = Policy(k=2, n=3, quiet=3, unseen=20)
Row = tuple[str, int, list[float | None]]  # stream, seconds, values


MODEL_CHANNELS = ("c0", "c1", "c2")
QUIET, LOUD = [0.1, -0.1, 0.1], [9.0, -9.0, 9.0]


def rows(stream: str = "a", start: int = 0, loud: range = range(20, 30), stop: int = 50) -> list[Row]:
    """One reading a second, loud for a while."""
    return [(stream, t, LOUD if t in loud else QUIET) for t in range(start, stop)]


class CrashError(Exception):
    """What a kill -9 would have been."""


class CrashingLog(MemoryLog):
    """Dies at some commits, before or after they took effect: the process cannot know which."""

    def __init__(
        self, broker: MemoryBroker, group: str, dies: Callable[[], str | None], skip_corrupt: bool = False
    ) -> None:
        super().__init__(broker, group, skip_corrupt=skip_corrupt)
        self._dies = dies

    def commit(self, transaction: Transaction, watch: Watch = unwatched) -> None:
        when = self._dies()
        if when == "before":
            raise CrashError
        super().commit(transaction, watch)
        if when == "after":
            raise CrashError


def fill(broker: MemoryBroker, rows: Iterable[Row], partitions: int, per_record: int = 1) -> None:
    """Produce the rows; streams go to partitions by the sum of their letters, so that tests know where."""
    waiting: dict[str, list[dict]] = {}
    for stream, seconds, values in rows:
        reading = {
            "stream": stream,
            "timestamp": seconds * 1000,
            "values": {f"c{c}": value for c, value in enumerate(values)},
        }
        batch = waiting.setdefault(stream, [])
        batch.append(reading)
        if len(batch) == per_record:
            produce(broker, stream, batch, partitions)
            batch.clear()
    for stream, batch in waiting.items():
        if batch:
            produce(broker, stream, batch, partitions)


def produce(broker: MemoryBroker, stream: str, batch: list[dict], partitions: int) -> None:
    value = orjson.dumps(batch if len(batch) > 1 else batch[0])
    broker.produce(value, stream.encode(), timestamp_ms=10**12, partition=place(stream, partitions))


def place(stream: str, partitions: int) -> int:
    return sum(stream.encode()) % partitions


def offline(model: Model, rows: list[Row], partitions: int, policy: Policy = POLICY) -> list[bytes]:
    """The alerts that the engine gives for the rows in one go, sorted."""
    batches = []
    for partition in range(partitions):
        own = [row for row in rows if place(row[0], partitions) == partition]
        times = np.array([seconds for _, seconds, _ in own], dtype=np.int64) * 10**9
        values = np.array([[np.nan if v is None else v for v in r] for _, _, r in own], np.float32)
        batches.append(Readings(partition, [s for s, _, _ in own], times, values.reshape(len(own), 3)))
    published = Engine(model, policy).process(batches).published
    return sorted(p.alert.to_bytes() for p in published)


def serve(
    model: Model,
    broker: MemoryBroker,
    log: MemoryLog | None = None,
    *,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
    policy: Policy = POLICY,
    engine: Engine | None = None,
    succession: Succession | None = None,
    **settings: object,
) -> None:
    """Run a service to the end of the log (or until ``stop``)."""
    chosen = DetectorSettings.load(
        {"stop_at_end": True, "commit_interval": 0, "checkpoint_age": 0, "batch_latency": 0, **settings}
    )
    log = log or MemoryLog(broker, chosen.group_id)
    decoder = JsonDecoder(model.manifest.channel_names, broker.topic)
    engine = engine or Engine(model, policy)
    Service(log, engine, decoder, chosen, observer, stop, succession=succession).run()
