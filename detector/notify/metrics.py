"""What `detector notify` tells Prometheus."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from detector.notify.courier import Courier
from detector.notify.desk import Desk


class NotifyMetrics:
    """On a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.delivered = Gauge(
            "residual_notify_delivered", "notices that a place took, since the start", ["place"], registry=registry
        )
        self.failures = Gauge(
            "residual_notify_failures", "attempts that failed, since the start", ["place"], registry=registry
        )
        self.dead_letters = Counter("residual_notify_dead_letters", "what could not be told, ever", registry=registry)
        self.waiting = Gauge("residual_notify_waiting", "notices that a place does not have yet", registry=registry)
        self.oldest = Gauge("residual_notify_oldest_seconds", "how long the oldest of them waits", registry=registry)
        self.incidents = Gauge("residual_notify_incidents", "open incidents, by stage", ["stage"], registry=registry)
        self.pages = Gauge("residual_notify_pages", "told by themselves in this day", registry=registry)
        self.digest = Gauge("residual_notify_digest", "left for the digest in this day", registry=registry)
        self.lag = Gauge("residual_notify_lag_records", "alert events not read yet", registry=registry)

    def show(self, desk: Desk, lag: int, couriers: Sequence[Courier], now: float) -> None:
        """As it is now."""
        for courier in couriers:
            self.delivered.labels(courier.sink.name).set(courier.delivered)
            self.failures.labels(courier.sink.name).set(courier.failed)
        self.waiting.set(len(desk.parcels))
        self.oldest.set(max((now - parcel.since for parcel in desk.parcels.values()), default=0.0))
        self.incidents.clear()
        for stage, count in Counts(case.stage.value for case in desk.cases.values()).items():
            self.incidents.labels(stage).set(count)
        self.pages.set(desk.day.told)
        self.digest.set(desk.day.count)
        self.lag.set(lag)
