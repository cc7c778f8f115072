"""What the detector tells Prometheus, on a registry of its own. Names and units: https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

#: Stages of a batch, the labels of ``residual_batch_stage_seconds``.
STAGES = ("poll", "decode", "score", "commit", "succeed")

SCORE_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 100.0)  # in thresholds: up to 1 is normal
BATCH_BUCKETS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000)  # readings
STAGE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds


class ArrayHistogram(Collector):
    """A histogram that takes whole arrays at once: ``prometheus_client``'s own takes one value per call."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._edges: NDArray[np.float64] = np.array(buckets, np.float64)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, values: NDArray[np.floating]) -> None:
        """Count values ``[N]``; NaN is no value. A bucket holds what is at most its edge."""
        values = values[~np.isnan(values)]
        counts = np.bincount(np.searchsorted(self._edges, values, side="left"), minlength=len(self._counts))
        total = float(values.sum(dtype=np.float64))
        with self._lock:
            self._counts += counts
            self._sum += total

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The buckets, cumulated as Prometheus wants them."""
        with self._lock:
            cumulated, total = np.cumsum(self._counts).tolist(), self._sum
        names = [*(str(edge) for edge in self._edges.tolist()), "+Inf"]
        buckets = list(zip(names, cumulated, strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=total)


class Metrics:
    """Counters, gauges and histograms of one replica; safe to read from another thread while they change."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._committed_at = time.monotonic()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"residual_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"residual_{name}", what, labels, registry=registry)

        self.records_received = counter("records_received", "Kafka records polled")
        self.records_lost = counter("records_lost", "records that retention deleted too early, by need", "needed_for")
        self.cold_starts = counter("cold_starts", "partitions that were watched before and started without their past")
        self.streams_evicted = counter("streams_evicted", "streams forgotten to make room for others")
        self.offsets_unreadable = counter(
            "offsets_unreadable", "offsets passed over, by reason (corrupt, too-long, unreadable)", "reason"
        )
        self.readings_received = counter("readings_received", "readings decoded")
        self.readings_scored = counter("readings_scored", "readings that have a score")
        self.readings_dropped = counter(
            "readings_dropped",
            "readings left out, by reason (late, duplicate, machine_off, other_streams, evicted)",
            "reason",
        )
        self.engine_counts = counter("engine_events", "what the engine met: warm_ups, gap_rows, all_missing …", "kind")
        self.values_ignored = counter("values_ignored", "values left out, by reason (unknown_channel)", "reason")
        self.dead_letters = counter("dead_letters", "records or elements set aside, by reason", "reason")
        self.alert_events = counter("alert_events", "alert events published, by type (opened, resolved)", "type")
        self.commands = counter("commands", "operators' commands, by outcome (applied, bad, elsewhere …)", "outcome")
        self.transactions = counter("transactions", "transactions committed")
        self.rebalances = counter("rebalances", "times that the consumer group moved on")

        self.lag = gauge("lag_records", "records not yet committed, by owned partition", "partition")
        self.open_incidents = gauge("open_incidents", "incidents open now")
        self.readings_waiting = gauge("readings_waiting", "readings that wait for late ones (lateness)")
        self.streams = gauge("streams", "streams with state")
        self.repeated_streams = gauge("streams_in_several_partitions", "streams met in more than one owned partition")
        self.assigned_partitions = gauge("assigned_partitions", "partitions owned now")
        self.model = gauge("model_info", "the model that serves", "version", "architecture")
        self.model_data_end = gauge(
            "model_data_end_timestamp_seconds", "newest reading that the model has learned from"
        )
        self.last_commit_age = gauge("last_commit_age_seconds", "time since the last commit, or since the start")
        self.last_commit_age.set_function(lambda: time.monotonic() - self._committed_at)

        self.batch_readings = Histogram(
            "residual_batch_readings", "readings of a batch", buckets=BATCH_BUCKETS, registry=registry
        )
        self.stage_seconds = Histogram(
            "residual_batch_stage_seconds",
            "time of a batch, by stage",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.scores = ArrayHistogram("residual_score_thresholds", "scores in thresholds", SCORE_BUCKETS)
        registry.register(self.scores)
        for stage in STAGES:  # so that a rate has a start
            self.stage_seconds.labels(stage)

    def committed(self) -> None:
        """A transaction is visible."""
        self.transactions.inc()
        self._committed_at = time.monotonic()

    def set_lag(self, lag: dict[int, int]) -> None:
        """Records not yet committed, by partition owned; partitions that are no longer owned disappear."""
        self.lag.clear()
        for partition, records in lag.items():
            self.lag.labels(str(partition)).set(records)
