"""``detector tell`` and ``detector run`` over a real Kafka: from what an operator says to the alert."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from kafka_cluster import create_topic, produce, read_all, unique
from pipeline import MODEL_CHANNELS, rows
from servers import Detector
from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.adapters.partitioner import partition_of

pytestmark = pytest.mark.kafka


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tiny_model(threshold=1.0), tmp_path / "model")
    return tmp_path / "model"


def tell(bootstrap: str, group: str, *words: str, seconds: float = 60) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    command = [sys.executable, "-m", "detector.cli", "tell", *words]
    flags = ["--bootstrap-servers", bootstrap, "--group-id", group]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=seconds, env={**os.environ})
    return done.returncode, done.stdout, done.stderr


def send(bootstrap: str, topic: str, stream: str, start: int, stop: int, partitions: int = 3) -> None:
    found = []
    for name, t, values in rows(stream, start, range(20, 10**6), stop):  # loud from second 20 on, and it stays so
        reading = {"stream": name, "timestamp": t * 1000, "values": dict(zip(MODEL_CHANNELS, values, strict=True))}
        found.append((partition_of(name.encode(), partitions), name.encode(), orjson.dumps(reading)))
    produce(bootstrap, topic, found)


def events(bootstrap: str, group: str) -> list[dict]:
    return [orjson.loads(value) for _, _, value in read_all(bootstrap, f"{group}-alerts")]


def ends(bootstrap: str, group: str) -> list[str]:
    return [event["data"]["ended"] for event in events(bootstrap, group) if "ended" in event["data"]]


def until(what: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_an_operator_accepts_and_the_incident_ends_once(broker, model: Path, tmp_path: Path) -> None:
    """Two replicas; both read the command, the one that owns the stream obeys; a later owner knows."""
    bootstrap, group, log = broker.bootstrap, unique("group"), tmp_path / "log"
    topic = create_topic(bootstrap, unique("readings"), 3)
    replicas = [Detector(bootstrap, topic, model, group, tmp_path / f"log{n}") for n in range(2)]
    try:
        until(lambda: all("owns partitions" in (tmp_path / f"log{n}").read_text() for n in range(2)), tmp_path / "log0")
        send(bootstrap, topic, "a", 0, 40)
        until(lambda: len(events(bootstrap, group)) > 0, tmp_path / "log0")
        code, out, err = tell(bootstrap, group, "accept", "a", "--note", "new pump", "--by", "Ada", "--id", "mine")
        assert (code, out, err) == (0, "mine\n", "")
        told = time.monotonic()
        until(lambda: ends(bootstrap, group) == ["accepted"], tmp_path / "log0")
        assert time.monotonic() - told < 30
        assert tell(bootstrap, group, "accept", "a", "--id", "mine")[0] == 0
    finally:
        for replica in replicas:
            replica.kill()
    before = events(bootstrap, group)
    send(bootstrap, topic, "a", 40, 45)
    heir = Detector(bootstrap, topic, model, group, log, "--stop-at-end")
    assert heir.wait(90) == 0, log.read_text()
    assert events(bootstrap, group)[: len(before)] == before
    assert ends(bootstrap, group) == ["accepted"], "the same id does not count twice"


def test_garbage_on_the_topic_stops_nobody(broker, model: Path, tmp_path: Path) -> None:
    bootstrap, group, log = broker.bootstrap, unique("group"), tmp_path / "log"
    topic = create_topic(bootstrap, unique("readings"), 1)
    send(bootstrap, topic, "a", 0, 40, 1)
    detector = Detector(bootstrap, topic, model, group, log)
    try:
        until(lambda: len(events(bootstrap, group)) > 0, log)
        produce(bootstrap, f"residual-commands-{group}", [(0, None, b"\xff"), (0, b"k", None), (0, None, b"{}")])
        code, out, _ = tell(bootstrap, group, "accept", "a")
        assert code == 0
        assert re.fullmatch(r"[0-9a-f-]{36}\n", out)
        until(lambda: ends(bootstrap, group) == ["accepted"], log)
        detector.terminate()
        assert detector.wait(20) == 0
    finally:
        detector.kill()
    assert log.read_text().count("was ignored") == 3


def test_what_cannot_be_told(broker) -> None:
    group = unique("nobody")
    code, out, err = tell(broker.bootstrap, group, "confirm", "a")
    assert (code, out) == (2, "")
    assert f"there is no topic residual-commands-{group}" in err
    assert err.count("\n") == 1
    several = create_topic(broker.bootstrap, unique("several"), 2)
    code, _, err = tell(broker.bootstrap, group, "confirm", "a", "--commands-topic", several)
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = tell(broker.bootstrap, group, "confirm", "")
    assert (code, err.count("\n")) == (2, 1)


def test_a_commands_topic_without_an_order_is_refused(broker, model: Path, tmp_path: Path) -> None:
    topic = create_topic(broker.bootstrap, unique("readings"), 1)
    several = create_topic(broker.bootstrap, unique("several"), 2)
    detector = Detector(
        broker.bootstrap, topic, model, unique("group"), tmp_path / "log", "--commands-topic", several
    )  # fmt: skip
    assert detector.wait(60) == 2
    assert several in (tmp_path / "log").read_text().splitlines()[-1]


def test_nobody_to_tell() -> None:
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = tell(address, "g", "accept", "a", "--startup-timeout", "2s")
    assert (code, err.count("\n")) == (75, 1)
    assert address in err
