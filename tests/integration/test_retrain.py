"""``trainer retrain`` over a real Kafka: what it leaves out, what it promotes, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from broker import Broker
from kafka import KafkaProducer
from kafka_cluster import create_topic, read_all, unique

from detector.adapters.store import Store
from schemas.alert import Alert, EventType
from schemas.contest import Contest
from schemas.feedback import Feedback, Verdict
from trainer.cli import main

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

STREAMS, CHANNELS, STEP_S, PER_DAY = ("a", "b"), ("x", "y", "z"), 1200, 72
START_S = 1_790_000_000 // 86_400 * 86_400


def values(days: int) -> np.ndarray:
    """``[n, 2, 3]``, with a daily rhythm; on day 9 stream a is far off for three hours."""
    rng = np.random.default_rng(5)
    steps = np.arange(days * PER_DAY)
    rhythm = 2 * np.sin(2 * np.pi * (steps[:, None, None] / PER_DAY + np.array([0, 0.2, 0.5])))
    found = 10 + rhythm + rng.normal(size=(len(steps), 2, 3))
    found[9 * PER_DAY + 30 : 9 * PER_DAY + 39, 0, 1] += 15
    return found.round(3)


@dataclass
class Ground:
    bootstrap: str
    folder: Path
    name: str

    @property
    def store(self) -> Store:
        return Store(str(self.folder / "models"))

    def send(self, first: int, last: int) -> None:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=5)
        known = values(last)
        for step in range(first * PER_DAY, last * PER_DAY):
            at = 1000 * (START_S + step * STEP_S)
            for number, stream in enumerate(STREAMS):
                row = dict(zip(CHANNELS, known[step, number].tolist(), strict=True))
                value = json.dumps({"stream": stream, "timestamp": at, "values": row}).encode()
                producer.send(f"readings-{self.name}", key=stream.encode(), value=value, timestamp_ms=at)
        producer.close()

    def watch(self) -> list[Alert]:
        command = [
            sys.executable, "-m", "detector.cli", "run", "--model", str(self.folder / "models"), "--stop-at-end",
            "--bootstrap-servers", self.bootstrap, "--readings-topic", f"readings-{self.name}",
            "--alerts-topic", f"alerts-{self.name}", "--dead-letters-topic", f"dead-{self.name}",
            "--group-id", self.name, "--log-level", "warning",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        found = read_all(self.bootstrap, f"alerts-{self.name}")
        return [Alert.model_validate_json(value) for _, _, value in found if value]

    @property
    def flags(self) -> list[str]:
        return [
            "--store", str(self.folder / "models"), "--bootstrap-servers", self.bootstrap,
            "--readings-topic", f"readings-{self.name}", "--alerts-topic", f"alerts-{self.name}",
            "--feedback-topic", f"feedback-{self.name}", "--silences-topic", f"silences-{self.name}",
            "--group-id", self.name, "--config", str(self.folder / "residual.toml"),
        ]  # fmt: skip

    def retrain(self, *flags: str) -> int:
        return main(["retrain", *self.flags, *flags])


@pytest.fixture(scope="module")
def ground(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("retrain")
    (folder / "residual.toml").write_text('[trainer]\nmodel = "pca"\n')
    made = Ground(broker.bootstrap, folder, unique("retrain"))
    create_topic(broker.bootstrap, f"readings-{made.name}", 1)
    create_topic(broker.bootstrap, f"feedback-{made.name}", 1, cleanup_policy="compact")
    made.send(0, 9)
    assert made.retrain() == 0
    return made


def test_the_first_night_and_the_next(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    first = ground.store.champion("default")
    assert first is not None
    assert first.now.by == "trainer retrain"
    ground.send(9, 13)
    alerts = ground.watch()
    about = [a for a in alerts if a.subject == "a" and a.type is EventType.OPENED and "2026-09-30T1" in a.time]
    assert about, [a.time for a in alerts]
    capsys.readouterr()
    assert ground.retrain("--span", "13d") == 0
    out, err = capsys.readouterr()
    assert "incident" in err
    assert "left out:" in err
    versions = ground.store.versions("default")
    assert len(versions) == 2
    with ground.store.local("default", versions[1]) as folder:
        contest = Contest.model_validate_json((folder / "contest.json").read_text())
        assert "Champion and challenger" in (folder / "contest.html").read_text()
    assert {c.role for c in contest.contenders} >= {"champion", "baseline"}
    assert ground.store.version("default", versions[1]).manifest.parent == first.now.version
    serves = ground.store.champion("default")
    assert serves is not None
    assert (serves.now.version == versions[1]) == contest.decision.promote
    assert out.startswith(versions[1])


def test_what_was_confirmed_is_counted_as_such(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    alert = next(a for a in ground.watch() if a.subject == "a" and "2026-09-30T1" in a.time)
    feedback = Feedback(incident=alert.data.incident, stream="a", verdict=Verdict.CONFIRMED)
    producer = KafkaProducer(bootstrap_servers=ground.bootstrap, acks="all")
    producer.send(f"feedback-{ground.name}", key=alert.data.incident.encode(), value=feedback.to_bytes())
    producer.send(f"feedback-{ground.name}", key=b"other", value=b"no feedback")
    producer.close()
    before = ground.store.versions("default"), ground.store.champion("default")
    capsys.readouterr()
    assert ground.retrain("--promote", "never", "--span", "13d") == 0
    err = capsys.readouterr().err
    assert "confirmed" in err
    assert "'other' is passed over" in err
    assert (ground.store.versions("default"), ground.store.champion("default")) == before


def test_too_little_is_refused(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    calendar = ground.folder / "stop.ics"
    calendar.write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20260901T000000Z\r\n"
        "DTSTART:20260921T000000Z\r\nDTEND:20261001T000000Z\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    before = ground.store.champion("default")
    capsys.readouterr()
    assert ground.retrain("--calendars", str(calendar), "--span", "13d") == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("trainer: only 2")
    assert "planned" in err[-2]
    assert ground.store.champion("default") == before


def test_a_kill_at_any_time_leaves_the_store_whole(ground: Ground) -> None:
    before = ground.store.champion("default")
    for delay in (2.0, 5.0, 8.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "retrain", *ground.flags], cwd=ROOT, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(ground.folder)},
        )  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        champion = ground.store.champion("default")
        assert champion is not None
        for version in ground.store.versions("default"):
            ground.store.read("default", version)
    assert champion is not None
    assert before is not None
    assert champion.history[: len(before.history)] == before.history


def test_a_broker_out_of_reach_and_a_wrong_word_are_one_line(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    away = ["retrain", "--store", str(tmp_path / "s"), "--bootstrap-servers", "127.0.0.1:9", "--startup-timeout", "1s"]
    assert main(away) == 75
    assert main(["retrain", "--schedule", "25:00"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "champion yet" not in line][-1].startswith("trainer: setting 'schedule'")
