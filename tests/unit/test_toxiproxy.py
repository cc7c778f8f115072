"""The proxy that cuts and delays: built once, gone with its parent, and it does to a connection what it says."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import go_program as module
import pytest
from broker import Missing, free_port, port_taken
from conftest import absent
from toxiproxy import Proxy, Toxiproxy, server


@pytest.fixture(scope="module")
def toxiproxy() -> Iterator[Toxiproxy]:
    try:
        server()
    except Missing as missing:
        absent(str(missing))
    with Toxiproxy() as running:
        yield running


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def proxy(toxiproxy: Toxiproxy, upstream: socket.socket) -> Proxy:
    port = free_port()
    return toxiproxy.proxy(f"p{port}", port, upstream.getsockname()[1])


def connected(proxy: Proxy, upstream: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection through the proxy."""
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    other, _ = upstream.accept()
    other.settimeout(5)
    return client, other


def test_there_is_one_clear_line_without_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "BUILD", tmp_path)
    monkeypatch.setattr(module, "USUAL_GO", str(tmp_path / "go"))
    with pytest.raises(Missing, match=r"^Toxiproxy is built with Go, and there is no go in PATH: install [^\n]+$"):
        server()


def test_it_cuts_and_heals(proxy: Proxy, upstream: socket.socket) -> None:
    client, other = connected(proxy, upstream)
    client.sendall(b"there")
    assert other.recv(10) == b"there"
    proxy.cut()
    assert client.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        connected(proxy, upstream)
    proxy.heal()
    again, _ = connected(proxy, upstream)
    for one in (client, other, again, _):
        one.close()


def test_what_is_sent_into_a_hole_is_gone_and_its_connection_closes(proxy: Proxy, upstream: socket.socket) -> None:
    client, other = connected(proxy, upstream)
    proxy.poison("timeout", "client", timeout=0)
    client.sendall(b"there")
    assert other.recv(10) == b"there"  # the other way is open
    other.sendall(b"back")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(10)
    proxy.heal()
    client.settimeout(5)
    assert client.recv(10) == b""  # rather than going on without what is missing
    client.close()
    other.close()


def test_it_goes_with_its_parent_even_after_a_kill() -> None:
    program = (
        "from toxiproxy import Toxiproxy\nimport os, sys\nproxy = Toxiproxy()\n"
        "print(proxy._port, flush=True)\nos.kill(os.getpid(), 9)"
    )
    path = [str(Path(module.__file__).parent), str(Path(module.__file__).parents[1] / "deploy" / "kafka")]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": ":".join(path)}, timeout=60
    )
    deadline = time.monotonic() + 10
    while port_taken(int(done.stdout)):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)
