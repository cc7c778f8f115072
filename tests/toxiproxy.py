"""Toxiproxy: a real proxy between clients and a broker, which cuts, delays and throttles their connections.

Built once from its published Go module, into a folder that git ignores. Errors: ``Missing`` where Go is not there or
the module could not be fetched; the message says what to install.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from broker import free_port
from go_program import built

VERSION = "2.12.0"
MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server"

START_SECONDS = 20.0  # it listens within a tenth of a second on an idle machine
ASK_SECONDS = 10.0  # an answer takes milliseconds


def server() -> Path:
    """The program, built where it is not there yet. Raises Missing."""
    return built("Toxiproxy", MODULE, VERSION)


class Toxiproxy:
    """The server on 127.0.0.1. Its proxies go with it, and it goes with this process, however that ends."""

    def __init__(self) -> None:
        self._port = free_port()
        # the shell ends it when its standard input, which this process holds open, is closed: also after kill -9
        script = '"$@" >/dev/null 2>&1 & pid=$!; cat >/dev/null; kill -9 $pid'
        command = [str(server()), "-host", "127.0.0.1", "-port", str(self._port)]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *command],
            stdin=subprocess.PIPE, start_new_session=True, cwd="/",  # ctrl-C in a terminal is not meant for it
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"Toxiproxy did not answer at port {self._port} within {START_SECONDS:.0f} s")
            time.sleep(0.02)

    def proxy(self, name: str, port: int, upstream: int) -> Proxy:
        """A new proxy that listens at a port of 127.0.0.1 and hands on to another."""
        self.ask("POST", "/proxies", {"name": name, "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{upstream}"})
        return Proxy(self, name, port)

    def ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        """One request; raises RuntimeError where it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ASK_SECONDS)
        try:
            connection.request(method, path, None if document is None else orjson.dumps(document))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"Toxiproxy: {method} {path}: {answer.status} {body.decode(errors='replace')}")
        return orjson.loads(body) if body else None

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/version")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End it. May be called twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Toxiproxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Proxy:
    """One proxy. What is done to it holds for open connections too, until ``heal``."""

    def __init__(self, owner: Toxiproxy, name: str, port: int) -> None:
        self._owner, self._name, self.port = owner, name, port

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close every connection and take no new one."""
        self._owner.ask("POST", f"/proxies/{self._name}", {"enabled": False})

    def poison(self, kind: str, towards: str, **attributes: int) -> None:
        """A toxic on what flows ``towards`` "broker" or "client"; kinds and attributes are Toxiproxy's."""
        stream = {"broker": "upstream", "client": "downstream"}[towards]
        toxic = {"type": kind, "stream": stream, "toxicity": 1.0, "attributes": attributes}
        self._owner.ask("POST", f"/proxies/{self._name}/toxics", toxic)

    def heal(self) -> None:
        """Let everything through again. Connections from which something is missing are closed."""
        for toxic in self._owner.ask("GET", f"/proxies/{self._name}/toxics"):
            self._owner.ask("DELETE", f"/proxies/{self._name}/toxics/{toxic['name']}")
        self._owner.ask("POST", f"/proxies/{self._name}", {"enabled": True})
