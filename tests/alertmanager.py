"""A real Prometheus Alertmanager on 127.0.0.1, and a receiver that it, or anything else, posts to."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from broker import free_port
from go_program import built

VERSION, MODULE = "0.27.0", "github.com/prometheus/alertmanager/cmd/alertmanager"

START_SECONDS = 30.0

CONFIG = """
route: {{receiver: hook, group_by: [model_group], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: hook
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Receiver:
    """Takes what is posted to it. ``answer``: a status for each request, by its number from 0."""

    def __init__(self, answer: Callable[[int], int] = lambda _: 200) -> None:
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    status = answer(outer.requests)
                    outer.requests += 1
                    if status < 300:
                        outer.bodies.append(orjson.loads(body))
                        outer.headers.append(dict(self.headers))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Alertmanager:
    """The server, which posts to ``hook``. Raises Missing where it cannot be built."""

    def __init__(self, hook: str) -> None:
        program = built("Alertmanager", MODULE, VERSION)
        self._folder = tempfile.TemporaryDirectory(prefix="residual-alertmanager-")
        place = Path(self._folder.name)
        (place / "config.yaml").write_text(CONFIG.format(url=hook))
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [
            str(program), f"--config.file={place}/config.yaml", f"--storage.path={place}/data",
            f"--web.listen-address=127.0.0.1:{self._port}", "--cluster.listen-address=",
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it, with no alerts: it keeps them in memory."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.alerts()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise RuntimeError("Alertmanager did not start") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def alerts(self) -> list[Any]:
        """That are active."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
            found: list[Any] = orjson.loads(answer.read())
        return found

    def close(self) -> None:
        """End it, and take its files away."""
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Alertmanager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
