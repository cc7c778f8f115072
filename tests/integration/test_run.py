"""``detector run`` as its user meets it: exit codes, one line that says what to do, health and metrics."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest
from kafka_cluster import create_topic, produce, read_all, unique
from pipeline import MODEL_CHANNELS, rows
from servers import Detector
from tiny_model import tiny_model

from detector.adapters.folder import write_model

pytestmark = pytest.mark.kafka


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tiny_model(threshold=1.0), tmp_path / "model")
    return tmp_path / "model"


def run(bootstrap: str, topic: str, model: Path, log: Path, *flags: str, group: str | None = None) -> tuple[int, str]:
    detector = Detector(bootstrap, topic, model, group or unique("run"), log, *flags)
    return detector.wait(60), log.read_text()


def records(stream: str = "a") -> list[tuple[int, bytes, bytes]]:
    found = []
    for name, t, values in rows(stream):
        reading = {"stream": name, "timestamp": t * 1000, "values": dict(zip(MODEL_CHANNELS, values, strict=True))}
        found.append((0, name.encode(), orjson.dumps(reading)))
    return found


def test_a_missing_topic(broker, model: Path, tmp_path: Path) -> None:
    code, said = run(broker.bootstrap, "no-such-topic", model, tmp_path / "log")
    assert code == 2
    last = said.splitlines()[-1]
    assert last.startswith("detector: ")
    assert "no-such-topic" in last
    assert "Traceback" not in said
    assert read_all(broker.bootstrap, "no-such-topic") == []


def test_a_broker_out_of_reach(model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        code, said = run(address, "t", model, tmp_path / "log", "--startup-timeout", "2s")
    assert code == 75
    assert address in said.splitlines()[-1]
    assert "Traceback" not in said
    assert time.monotonic() - began < 30


def test_another_groups_state_topic(broker, model: Path, tmp_path: Path) -> None:
    topic = create_topic(broker.bootstrap, unique("readings"), 2)
    produce(broker.bootstrap, topic, records())
    state = unique("state")
    flags = ("--state-topic", state, "--stop-at-end")
    assert run(broker.bootstrap, topic, model, tmp_path / "1", *flags)[0] == 0
    code, said = run(broker.bootstrap, topic, model, tmp_path / "2", *flags)
    assert code == 2
    assert state in said.splitlines()[-1]


def test_a_state_topic_of_another_width(broker, model: Path, tmp_path: Path) -> None:
    topic = create_topic(broker.bootstrap, unique("readings"), 2)
    state = create_topic(broker.bootstrap, unique("state"), 3)
    code, said = run(broker.bootstrap, topic, model, tmp_path / "log", "--state-topic", state)
    assert code == 2
    assert state in said.splitlines()[-1]


def test_an_empty_topic_is_at_its_end(broker, model: Path, tmp_path: Path) -> None:
    topic = create_topic(broker.bootstrap, unique("readings"), 3)
    assert run(broker.bootstrap, topic, model, tmp_path / "log", "--stop-at-end")[0] == 0


def test_dead_letters_keep_the_bytes_and_say_why(broker, model: Path, tmp_path: Path) -> None:
    topic, group = create_topic(broker.bootstrap, unique("readings"), 1), unique("group")
    bad = [(0, b"k", b"\x00\xff"), (0, None, b'{"stream":1}'), (0, b"k", None)]
    produce(broker.bootstrap, topic, [*bad, *records()])
    assert run(broker.bootstrap, topic, model, tmp_path / "log", "--stop-at-end", group=group)[0] == 0
    assert sorted(v or b"" for _, _, v in read_all(broker.bootstrap, f"{group}-dead")) == sorted(
        v or b"" for *_, v in bad
    )
    events = [json.loads(value)["type"] for _, _, value in read_all(broker.bootstrap, f"{group}-alerts")]
    assert events == ["residual.incident.opened", "residual.incident.resolved"]


def test_health_and_metrics(broker, model: Path, tmp_path: Path) -> None:
    topic, group = create_topic(broker.bootstrap, unique("readings"), 1), unique("group")
    produce(broker.bootstrap, topic, records())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    detector = Detector(broker.bootstrap, topic, model, group, tmp_path / "log", "--http", address)
    try:
        until(lambda: get(address, "/readyz")[0] == 200)
        assert get(address, "/healthz")[0] == 200
        until(lambda: b"residual_alert_events_total{" in get(address, "/metrics")[1])
        text = get(address, "/metrics")[1].decode()
        for name in ("lag_records", "batch_readings", "score_thresholds", "open_incidents", "last_commit_age_seconds"):
            assert f"residual_{name}" in text
        assert "residual_readings_received_total 50.0" in text
        assert 'residual_alert_events_total{type="opened"} 1.0' in text
        detector.terminate()
        assert detector.wait(20) == 0
    finally:
        detector.kill()


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def until(what, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.1)
