"""The readings topic changes while it is watched: it grows, is made anew, is deleted; members keep what is theirs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from kafka import KafkaAdminClient
from kafka_cluster import create_topic, produce, read_all, unique
from pipeline import MODEL_CHANNELS
from servers import Detector
from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.adapters.partitioner import partition_of

pytestmark = pytest.mark.kafka

STREAMS = [f"s{n}" for n in range(8)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tiny_model(threshold=1.0), tmp_path / "model")
    return tmp_path / "model"


def send(bootstrap: str, topic: str, partitions: int, seconds: range, loud: str | None = None) -> None:
    """A reading of every stream for every second; ``loud`` is far off."""
    found = []
    for t in seconds:
        for stream in STREAMS:
            value = 9.0 * (-1) ** t if stream == loud else 0.1
            reading = {"stream": stream, "timestamp": t * 1000, "values": dict.fromkeys(MODEL_CHANNELS, value)}
            found.append((partition_of(stream.encode(), partitions), stream.encode(), orjson.dumps(reading)))
    produce(bootstrap, topic, found)


def until(what: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def kinds(bootstrap: str, group: str) -> list[tuple[str, str, str | None]]:
    events = [orjson.loads(value) for _, _, value in read_all(bootstrap, f"{group}-alerts")]
    return [(e["subject"], e["type"].rpartition(".")[2], e["data"].get("ended")) for e in events]


def test_a_topic_that_grows_is_watched_in_full(broker, model: Path, tmp_path: Path) -> None:
    group, log = unique("grows"), tmp_path / "log"
    topic = create_topic(broker.bootstrap, unique("readings"), 1)
    flags = ("--unseen-readings", "0", "--silent-after", "0")
    moved = next(s for s in STREAMS if partition_of(s.encode(), 3) != 0)
    detector = Detector(broker.bootstrap, topic, model, group, log, *flags)
    try:
        send(broker.bootstrap, topic, 1, range(50))
        send(broker.bootstrap, topic, 1, range(50, 60), loud=moved)
        until(lambda: kinds(broker.bootstrap, group) == [(moved, "opened", None)], log)
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_partitions({topic: 3})
        admin.close()
        send(broker.bootstrap, topic, 3, range(60, 100))
        send(broker.bootstrap, topic, 3, range(100, 110), loud=moved)
        expected = [(moved, "opened", None), (moved, "opened", None), (moved, "resolved", "forgotten")]
        until(lambda: sorted(kinds(broker.bootstrap, group), key=repr) == expected, log, 90)
    finally:
        detector.terminate()
        assert detector.wait(30) == 0, log.read_text()
    assert "has 3 partitions" in log.read_text()


def test_a_topic_made_anew_is_watched_from_its_start(broker, model: Path, tmp_path: Path) -> None:
    group, log = unique("anew"), tmp_path / "log"
    topic = create_topic(broker.bootstrap, unique("readings"), 2)
    detector = Detector(broker.bootstrap, topic, model, group, log, "--unseen-readings", "0")
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        send(broker.bootstrap, topic, 2, range(30))
        until(lambda: "watching" in log.read_text(), log)
        send(broker.bootstrap, topic, 2, range(30, 40), loud="s1")
        until(lambda: kinds(broker.bootstrap, group) == [("s1", "opened", None)], log)
        admin.delete_topics([topic])
        time.sleep(1)
        create_topic(broker.bootstrap, topic, 2)
        send(broker.bootstrap, topic, 2, range(1000, 1060))  # more than before: offsets alone would not show it
        send(broker.bootstrap, topic, 2, range(1060, 1070), loud="s2")
        expected = [("s1", "opened", None), ("s1", "resolved", "forgotten"), ("s2", "opened", None)]
        until(lambda: sorted(kinds(broker.bootstrap, group), key=repr) == expected, log, 90)
    finally:
        admin.close()
        detector.terminate()
        assert detector.wait(30) == 0, log.read_text()


def test_a_topic_that_is_gone_ends_the_process_with_one_line(broker, model: Path, tmp_path: Path) -> None:
    group, log = unique("gone"), tmp_path / "log"
    topic = create_topic(broker.bootstrap, unique("readings"), 2)
    detector = Detector(broker.bootstrap, topic, model, group, log)
    send(broker.bootstrap, topic, 2, range(10))
    until(lambda: "restored" in log.read_text(), log)
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.delete_topics([topic])
    admin.close()
    until(lambda: detector.process.poll() is not None, log)
    assert detector.wait(1) == 2, log.read_text()
    lines = [line for line in log.read_text().splitlines() if line.startswith("detector: ")]
    assert len(lines) == 1
    assert topic in lines[0]


def test_who_keeps_a_partition_does_not_restore_it(broker, model: Path, tmp_path: Path) -> None:
    group, logs = unique("keeps"), [tmp_path / "1", tmp_path / "2"]
    topic = create_topic(broker.bootstrap, unique("readings"), 4)
    first = Detector(broker.bootstrap, topic, model, group, logs[0])
    send(broker.bootstrap, topic, 4, range(30))
    until(lambda: "owns partitions [0, 1, 2, 3]" in logs[0].read_text(), logs[0])
    second = Detector(broker.bootstrap, topic, model, group, logs[1])
    try:
        until(lambda: re.search(r"owns partitions \[\d, \d\]", logs[1].read_text()) is not None, logs[1])
        until(lambda: re.search(r"owns partitions \[\d, \d\], restored \[\]", logs[0].read_text()) is not None, logs[0])
    finally:
        for detector in (first, second):
            detector.terminate()
        assert [detector.wait(30) for detector in (first, second)] == [0, 0]
    restored = re.findall(r"restored (\[.*?\])", logs[0].read_text())
    assert [found for found in restored if found != "[]"] == ["[0, 1, 2, 3]"]
