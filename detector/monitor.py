"""The observer of a running replica: metrics, health, the watchdog, and the HTTP server that shows them."""

from __future__ import annotations

import numpy as np

from detector.adapters.health import Health, HealthServer
from detector.adapters.metrics import Metrics
from detector.adapters.port import Transaction
from detector.decoding.decoded import Decoded
from detector.engine.engine import Engine, Scored
from detector.engine.model import Model
from detector.observer import Observer
from detector.watchdog import Watchdog
from schemas.moment import SECOND_NS, parse_time


class Monitor(Observer):
    """Keeps metrics and health up to date; serves them where ``http`` (HOST:PORT) is given.

    Use as a context manager. Raises SettingsError where the address is none or is taken.
    """

    def __init__(self, http: str | None, limit_s: float, watchdog: Watchdog | None = None) -> None:
        self.metrics = Metrics()
        self.health = Health(limit_s)
        self._watchdog = watchdog
        self._server = HealthServer(http, self.metrics.registry, self.health) if http else None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server:
            self._server.close()

    def beat(self) -> None:
        """See ``Observer``."""
        self.health.beat()
        if self._watchdog:
            self._watchdog.beat()

    def ready(self, ready: bool, why: str) -> None:
        """See ``Observer``."""
        self.health.ready(ready, why)

    def assigned(self, partitions: frozenset[int]) -> None:
        """See ``Observer``."""
        self.metrics.assigned_partitions.set(len(partitions))
        self.metrics.set_lag({})

    def rebalanced(self) -> None:
        """See ``Observer``."""
        self.metrics.rebalances.inc()

    def lost(self, what: str, records: int) -> None:
        """See ``Observer``."""
        self.metrics.records_lost.labels(what).inc(records)

    def damaged(self, reason: str, offsets: int) -> None:
        """See ``Observer``."""
        self.metrics.offsets_unreadable.labels(reason).inc(offsets)

    def lag(self, lag: dict[int, int]) -> None:
        """See ``Observer``."""
        self.metrics.set_lag(lag)

    def cold(self, partition: int) -> None:  # noqa: ARG002 — the log says which
        """See ``Observer``."""
        self.metrics.cold_starts.inc()

    def evicted(self, streams: int, readings: int) -> None:
        """See ``Observer``."""
        self.metrics.streams_evicted.inc(streams)
        self.metrics.readings_dropped.labels("evicted").inc(readings)

    def stage(self, name: str, seconds: float) -> None:
        """See ``Observer``."""
        self.metrics.stage_seconds.labels(name).observe(seconds)

    def decoded(self, records: int, decoded: list[Decoded]) -> None:
        """See ``Observer``."""
        self.metrics.records_received.inc(records)
        ignored = sum(d.counts["unknown_channel"] for d in decoded)
        self.metrics.values_ignored.labels("unknown_channel").inc(ignored)
        self.metrics.readings_dropped.labels("other_streams").inc(sum(d.counts["other_streams"] for d in decoded))

    def scored(self, scored: Scored, engine: Engine) -> None:
        """See ``Observer``."""
        metrics, counts = self.metrics, scored.counts
        metrics.readings_received.inc(counts["received"])
        metrics.readings_scored.inc(counts["scored"])
        for reason in ("late", "duplicate", "machine_off"):
            metrics.readings_dropped.labels(reason).inc(counts[reason])
        for kind in (
            "warming_up", "all_missing", "overflowed", "not_published", "gap_rows", "warm_ups", "released_early",
        ):  # fmt: skip
            metrics.engine_counts.labels(kind).inc(counts[kind])
        metrics.batch_readings.observe(counts["received"])
        metrics.scores.observe(scored.score[~np.isnan(scored.score)])
        metrics.open_incidents.set(engine.open_incidents)
        metrics.readings_waiting.set(engine.waiting)
        metrics.streams.set(len(engine.streams))
        metrics.repeated_streams.set(len(engine.streams.repeated))

    def command(self, outcome: str) -> None:
        """See ``Observer``."""
        self.metrics.commands.labels(outcome).inc()

    def serves(self, model: Model) -> None:
        """See ``Observer``."""
        self.metrics.model.clear()
        self.metrics.model.labels(model.id[:12], model.manifest.model).set(1)
        self.metrics.model_data_end.set(parse_time(model.manifest.training.end) / SECOND_NS)

    def committed(self, transaction: Transaction, types: list[str], seconds: float) -> None:
        """See ``Observer``."""
        self.metrics.committed()
        self.metrics.stage_seconds.labels("commit").observe(seconds)
        for letter in transaction.dead_letters:
            self.metrics.dead_letters.labels(letter.reason.value).inc(letter.elements)
        for kind in types:
            self.metrics.alert_events.labels(kind.rpartition(".")[2]).inc()
