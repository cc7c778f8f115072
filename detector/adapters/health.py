"""Health and metrics over HTTP: /healthz (is it alive), /readyz (does it watch), /metrics (Prometheus)."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from prometheus_client.exposition import choose_encoder

from detector.adapters.metrics import Metrics
from schemas.errors import SettingsError

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"

# Seconds that a client may keep a connection without saying anything: each has a thread of its own.
CLIENT_TIMEOUT_S = 10.0


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
    """Serves ``address`` (HOST:PORT, [IPv6]:PORT; port 0 takes a free one) on a daemon thread.

    Raises SettingsError where the address is none, is taken or is not this host's.
    """

    def __init__(self, address: str, metrics: Metrics, health: Health) -> None:
        host, port = parse_address(address)

        class Bound(_Handler):
            pass

        Bound.metrics, Bound.health = metrics, health
        server = _Server6 if ":" in host else _Server
        try:
            self._server = server((host, port), Bound)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise SettingsError(f"--http {address}: {why}; choose another address or port") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True
        )
        self._thread.start()
        log.info("health and metrics at http://%s:%d", f"[{host}]" if ":" in host else host, self.port)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> HealthServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises SettingsError.

    >>> parse_address("127.0.0.1:9100"), parse_address("[::1]:0")
    (('127.0.0.1', 9100), ('::1', 0))
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = host[1:-1] if bracketed else host
    fits = port.isascii() and port.isdigit() and int(port) <= 65535
    if not fits or not plain or (":" in plain) != bracketed:
        raise SettingsError(f"--http {address}: write HOST:PORT, as 127.0.0.1:9100, 0.0.0.0:9100 or [::1]:9100")
    return plain, int(port)


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can take seconds where there is no name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("a request from %s failed", client_address, exc_info=True)  # clients that hang up are no news


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    metrics: Metrics
    health: Health
    timeout = CLIENT_TIMEOUT_S
    server_version, sys_version = "residual", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, kind, encode(self.metrics.registry))
        elif path == "/healthz":
            self._say(*self.health.liveness())
        elif path == "/readyz":
            self._say(*self.health.readiness())
        else:
            self._answer(404, TEXT, b"there are /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815 — the name that http.server calls

    def _say(self, well: bool, line: str) -> None:
        self._answer(200 if well else 503, TEXT, f"{line}\n".encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 — the base's name
        log.debug(format, *arguments)
