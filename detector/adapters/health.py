"""Health and metrics over HTTP: /healthz (is it alive), /readyz (does it watch), /metrics (Prometheus)."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from detector.adapters.http_server import TEXT, Handler, Listening, is_loopback

log = logging.getLogger(__name__)


class Health:
    """What the main loop says of itself, and other threads ask. ``limit_s``: a longer silence is no progress."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._beat_at = time.monotonic()
        self._ready, self._reason = False, "starting"

    def beat(self) -> None:
        """The main loop went round."""
        with self._lock:
            self._beat_at = time.monotonic()

    def ready(self, ready: bool, reason: str) -> None:
        """Whether the group is joined and the partitions are restored; if not, why."""
        with self._lock:
            self._ready, self._reason = ready, reason

    def liveness(self) -> tuple[bool, str]:
        """Whether the main loop made progress in time, and one line about it."""
        with self._lock:
            silent = time.monotonic() - self._beat_at
        alive = silent <= self._limit_s
        return alive, "alive" if alive else f"no progress for {silent:.0f} s (limit {self._limit_s:g} s)"

    def readiness(self) -> tuple[bool, str]:
        """Whether readings are watched, and why or why not; not without progress either."""
        alive, line = self.liveness()
        with self._lock:
            return (self._ready, self._reason) if alive else (False, line)


class HealthServer:
    """Serves ``address``, see ``Listening``. Raises SettingsError."""

    def __init__(self, address: str, registry: CollectorRegistry, health: Health) -> None:
        class Bound(_Handler):
            pass

        Bound.registry, Bound.health = registry, health
        self._listening = Listening(address, Bound, "health")
        if not is_loopback(self._listening.host):
            log.warning("--http %s: whoever reaches this port can read health and metrics: there is no login", address)
        log.info("health and metrics at %s", self._listening.url)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listening.port

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._listening.close()

    def __enter__(self) -> HealthServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Handler(Handler):
    registry: CollectorRegistry
    health: Health

    def do_GET(self) -> None:  # noqa: N802 — the name that http.server calls
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self.answer(200, kind, encode(self.registry))
        elif path == "/healthz":
            self._say(*self.health.liveness())
        elif path == "/readyz":
            self._say(*self.health.readiness())
        else:
            self.answer(404, TEXT, b"there are /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815

    def _say(self, well: bool, line: str) -> None:
        self.answer(200 if well else 503, TEXT, f"{line}\n".encode())
