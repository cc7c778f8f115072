"""An HTTP server that nobody can hold up: bounds on connections, on time and on the bytes of a request."""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from schemas.errors import SettingsError

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"

# Seconds that a request may take in all, however slowly it comes or is read: each has a thread of its own. A probe of
# Kubernetes waits 1 s by default, a scrape of Prometheus 10.
REQUEST_S = 10.0

# Bytes of a request: a line and some headers of a browser have 1 or 2 kB.
REQUEST_BYTES = 16_384

# Connections at a time. Where there are more, the oldest is ended: so whoever opens many and says nothing keeps out
# neither probes nor scrapes, which are answered within milliseconds.
MOST_CONNECTIONS = 32

# Where nobody else can connect from.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; a port alone is 127.0.0.1's. Raises SettingsError.

    >>> parse_address("9100"), parse_address("0.0.0.0:9100"), parse_address("[::1]:0")
    (('127.0.0.1', 9100), ('0.0.0.0', 9100), ('::1', 0))
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = (host[1:-1] if bracketed else host) or ("" if bracketed else LOOPBACK[0])
    fits = port.isascii() and port.isdigit() and int(port) <= 65535
    if not fits or not plain or (":" in plain) != bracketed:
        raise SettingsError(f"--http {address}: write PORT, or HOST:PORT as 0.0.0.0:9100 or [::1]:9100")
    return plain, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: dict[socket.socket, float] = {}  # since when, time.monotonic; the oldest first
        self._guard = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open[request] = time.monotonic()
            if len(self._open) > MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _end(oldest)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called by the base between requests, several times a second."""
        late = time.monotonic() - REQUEST_S
        with self._guard:
            for request in [request for request, since in self._open.items() if since < late]:
                _end(request)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can take seconds where there is no name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("a request from %s failed", client_address, exc_info=True)  # clients that hang up are no news


def _end(request: socket.socket) -> None:
    """Wake the thread that serves it, which then closes it."""
    with suppress(OSError):  # the client was faster
        request.shutdown(socket.SHUT_RDWR)


class _Bounded(io.BufferedIOBase):
    """A request as it comes; more of it than ``REQUEST_BYTES`` is an OSError, which ends the connection."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, REQUEST_BYTES

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        if not self._left:
            raise OSError(f"a request of more than {REQUEST_BYTES} bytes")
        most = self._left if size is None or size < 0 else min(size, self._left)
        line: bytes = self._file.readline(most)
        self._left -= len(line)
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > self._left:
            raise OSError(f"a request of more than {REQUEST_BYTES} bytes")
        data: bytes = self._file.read(size)
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


class _Server6(_Server):
    address_family = socket.AF_INET6


class Listening:
    """Serves ``address`` (PORT: of 127.0.0.1; HOST:PORT, [IPv6]:PORT; port 0 takes a free one) on a daemon thread.

    ``handler``: a class made for this server. Raises SettingsError where the address is none, is taken or is not this
    host's.
    """

    def __init__(self, address: str, handler: type[Handler], name: str) -> None:
        self.host, port = parse_address(address)
        kind = _Server6 if ":" in self.host else _Server
        try:
            self._server = kind((self.host, port), handler)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise SettingsError(f"--http {address}: {why}; choose another address or port") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=name, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers; requests are bounded."""

    timeout = REQUEST_S
    server_version, sys_version = "residual", ""

    def setup(self) -> None:
        """See the base."""
        super().setup()
        self.rfile = _Bounded(self.rfile)

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        """One whole answer; of ``headers`` underscores stand for hyphens."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 — the base's name
        """See the base."""
        log.debug(format, *arguments)
