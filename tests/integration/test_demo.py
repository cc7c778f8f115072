"""The demo itself, short: real telemetry, real faults, a real page. It measures the machine: nothing runs beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from broker import Broker
from demo_process import run
from kafka import KafkaConsumer


@pytest.mark.timeout(500)
def test_it_learns_catches_its_faults_and_tells(tmp_path: Path) -> None:
    code, said = run("--out", str(tmp_path))
    assert code == 0, said
    assert "caught   every core busy" in said
    assert "caught   memory and disk burst" in said
    assert "ALERT      incident opened" in said
    assert "of the error" in said
    assert "clean: " in said
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<svg" in text
    assert "carries no promise" in text
    assert "refresh" not in text
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "normal.csv", "model"}


@pytest.mark.timeout(400)
def test_over_kafka_it_does_the_same_in_topics_of_its_own(broker: Broker, tmp_path: Path) -> None:
    code, said = run("--out", str(tmp_path), "--bootstrap-servers", broker.bootstrap, tries=2)
    assert code in (0, 1), said  # the broker's own load may hide a fault: what is tested here is the way over Kafka
    assert "ALERT      incident opened" in said
    assert f"Kafka at {broker.bootstrap}" in said
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap)
    try:
        deadline = time.monotonic() + 10  # deleting is done in the background
        while left := [name for name in consumer.topics() if name.startswith("residual-demo-")]:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
    finally:
        consumer.close()
    assert os.listdir(tmp_path)
