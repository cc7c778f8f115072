"""The local Kafka: it starts, survives a kill with its data, and leaves nothing behind, however its parent ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import broker as module
import pytest
from broker import Broker, BrokerError, Missing
from kafka_cluster import create_topic, produce, read_all, unique
from thorough import few

SCRIPT = Path(module.__file__)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has waited for does not."""
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return said.stdout.strip()[:1] not in ("", "Z")


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_there_is_one_clear_line_without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"^a local Kafka needs Java 17 or newer: none found in PATH; [^\n]+$"):
        module.find_java()


@pytest.mark.parametrize(
    ("prints", "code", "says"),
    [('openjdk version "11.0.2" 2019-01-15', 0, "is 11;"), ("Unable to locate a Java Runtime.", 1, "does not run")],
)
def test_a_java_that_will_not_do_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prints: str, code: int, says: str
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{prints}' >&2\nexit {code}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Missing, match=f"^[^\n]*{java} {says}[^\n]*$"):
        module.find_java()


def test_without_maven_the_line_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"^[^\n]*install Maven$"):
        module.fetch_jars(tmp_path / "lib")


def test_a_fetch_that_fails_leaves_nothing_that_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text('#!/bin/sh\nfor a; do case "$a" in -DoutputDirectory=*) mkdir "${a#*=}";; esac; done\n'
                     "echo '[ERROR] no route to host'\nexit 1\n")  # fmt: skip
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Missing, match="no route to host"):
        module.fetch_jars(tmp_path / "lib")
    assert list((tmp_path / "lib").iterdir()) == []


@pytest.mark.kafka
def test_a_topic_that_nobody_created_is_not_created_by_reading_it(broker: Broker) -> None:
    assert read_all(broker.bootstrap, unique("typo")) == []
    name = create_topic(broker.bootstrap, unique("readings"), partitions=3)
    produce(broker.bootstrap, name, [(2, b"k", b"a"), (0, None, b"b"), (2, b"k", None)])
    assert read_all(broker.bootstrap, name) == [(0, None, b"b"), (2, b"k", b"a"), (2, b"k", None)]


@pytest.mark.kafka
def test_data_and_port_survive_a_kill_and_a_stop_and_a_freeze_is_silent(own_broker: Broker) -> None:
    name = create_topic(own_broker.bootstrap, "kept")
    produce(own_broker.bootstrap, name, [(0, None, b"1")])
    address, folder = own_broker.bootstrap, own_broker.folder

    own_broker.kill()
    assert own_broker.pid is None
    assert own_broker.start().bootstrap == address
    produce(address, name, [(0, None, b"2")])
    own_broker.stop()
    own_broker.start()
    assert [value for _, _, value in read_all(address, name)] == [b"1", b"2"]

    own_broker.pause()
    assert not module.answers(own_broker.port, timeout=0.5)
    own_broker.resume()
    assert module.answers(own_broker.port, timeout=10)

    own_broker.close()
    own_broker.close()
    assert not folder.exists()


@pytest.mark.kafka
def test_a_start_that_fails_shows_the_end_of_the_log(broker: Broker) -> None:
    refused = Broker(settings={"log.dirs": "/dev/null/nowhere"})
    with pytest.raises(BrokerError, match="nowhere"):
        refused.start()
    unready = Broker(settings={"group.initial.rebalance.delay.ms": "soon"})
    with pytest.raises(BrokerError, match=r"soon"):
        unready.start()
    with pytest.raises(BrokerError, match="never started, or was closed"):
        _ = unready.folder
    with pytest.raises(BrokerError, match=f"port {broker.port} of 127.0.0.1 is taken"):
        Broker(port=broker.port).start()


def run_script(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, start_new_session=True)  # fmt: skip


def java_of(parent: int) -> int:
    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in said.stdout.splitlines()]
    return next(int(pid) for pid, ppid, name in rows if int(ppid) == parent and name.endswith("java"))


@pytest.mark.kafka
@pytest.mark.usefixtures("broker")  # skips where there is no Java
@pytest.mark.parametrize("number", few([signal.SIGKILL], [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
def test_in_the_foreground_it_leaves_neither_process_nor_folder(number: signal.Signals, tmp_path: Path) -> None:
    os.environ["TMPDIR"], before = str(tmp_path), os.environ.get("TMPDIR")
    try:
        script = run_script("--port", "0")
    finally:
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
    with script:
        line = script.stdout.readline()
        assert "listens at 127.0.0.1:" in line
        port = int(line.split("127.0.0.1:")[1].split()[0])
        java = java_of(script.pid)
        assert module.answers(port)
        assert list(tmp_path.iterdir())
        os.killpg(script.pid, number)  # as a terminal does: to everything in the group
        code = script.wait(30)
    assert code == (-number if number == signal.SIGKILL else 0)
    assert wait_for(lambda: not alive(java))
    assert wait_for(lambda: not list(tmp_path.iterdir()))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
