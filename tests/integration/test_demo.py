"""The demo itself, short: real telemetry, real faults, a real page, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from broker import Broker
from kafka import KafkaConsumer

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainer.demo", "--fast", *arguments]


def burning() -> list[int]:
    """Processes of faults that are alive."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(part.endswith("burn.py") for part in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(demo(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)


def test_it_learns_catches_its_faults_and_tells(tmp_path: Path) -> None:
    result = run("--out", str(tmp_path))
    said = result.stdout
    assert result.returncode == 0, said + result.stderr
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
    assert not burning()


def test_ctrl_c_in_a_fault_leaves_nothing_running(tmp_path: Path) -> None:
    process = subprocess.Popen(
        demo("--out", str(tmp_path), "--seconds", "12"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "FAULT" in line:
            time.sleep(1)
            assert burning()
            process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(30) == 130, "".join(lines)
    assert lines[-1].startswith("stopped"), "".join(lines)
    assert not burning()
    assert "It was stopped" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_wrong_flag_and_a_broker_that_is_not_there_are_one_line(tmp_path: Path) -> None:
    result = run("--out", str(tmp_path), "--seconds", "1")
    assert (result.returncode, result.stdout.count("\n"), result.stderr) == (2, 1, "")
    assert "--seconds 1" in result.stdout


def test_over_kafka_it_does_the_same_in_topics_of_its_own(broker: Broker, tmp_path: Path) -> None:
    result = run("--out", str(tmp_path), "--bootstrap-servers", broker.bootstrap)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "caught   every core busy" in result.stdout
    assert f"Kafka at {broker.bootstrap}" in result.stdout
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap)
    try:
        deadline = time.monotonic() + 10  # deleting is done in the background
        while left := [name for name in consumer.topics() if name.startswith("residual-demo-")]:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
    finally:
        consumer.close()
    assert os.listdir(tmp_path)
