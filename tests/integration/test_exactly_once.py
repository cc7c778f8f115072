"""Over a real Kafka the detector publishes exactly what offline scoring says, whatever befalls it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from kafka_cluster import read_all, unique
from servers import READINGS, Detector, records, sources, topic_of, wait_for_offset, write_server_model
from thorough import few, thorough

from detector.cli import main
from schemas.moment import parse_time

pytestmark = pytest.mark.kafka


@dataclass(frozen=True)
class Ground:
    bootstrap: str
    topic: str
    model: Path
    alerts: list[bytes]


@pytest.fixture(scope="module")
def ground(broker, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The readings on a topic, and the alerts that offline scoring gives."""
    folder = tmp_path_factory.mktemp("ground")
    model = write_server_model(shared_data, folder / "model")
    arguments = ["--out", str(folder / "scores.csv"), "--alerts", str(folder / "alerts.jsonl")]
    assert main(["score", "--model", str(model), *sources(shared_data), *arguments]) == 0
    alerts = sorted((folder / "alerts.jsonl").read_bytes().splitlines())
    assert len(alerts) > 100
    topic = topic_of(broker.bootstrap, unique("readings"), records(shared_data))
    return Ground(broker.bootstrap, topic, model, alerts)


@pytest.fixture(scope="module")
def beginning(ground: Ground, shared_data: Path) -> Ground:
    """The first fifth of them, for detectors that are slow: what is published about a reading does not depend on later
    ones.
    """
    found = records(shared_data)[: READINGS // 5]
    last = orjson.loads(found[-1][2])["timestamp"]
    alerts = [line for line in ground.alerts if parse_time(orjson.loads(line)["time"]) <= parse_time(last)]
    assert len(alerts) > 20
    return Ground(ground.bootstrap, topic_of(ground.bootstrap, unique("beginning"), found), ground.model, alerts)


def published(ground: Ground, group: str) -> list[bytes]:
    return sorted(value for _, _, value in read_all(ground.bootstrap, f"{group}-alerts"))


def check_published(ground: Ground, group: str) -> None:
    """Exactly the alerts that offline scoring gives; else it says which are too many and which are missing, whole."""
    found, wanted = Counter(published(ground, group)), Counter(ground.alerts)
    assert found == wanted, b"\n".join([b"too many:", *(found - wanted), b"missing:", *(wanted - found)]).decode()


def test_scores_are_in_the_transaction_of_their_offsets(ground: Ground, beginning: Ground, tmp_path: Path) -> None:
    """Killed and started again, each reading that has a score has one record."""
    group = unique("scores")
    flags = ["--scores-topic", f"{group}-scores", "--replica-id", "one", "--batch-size", "50"]
    first = Detector(beginning.bootstrap, beginning.topic, beginning.model, group, tmp_path / "log", *flags)
    wait_for_offset(beginning.bootstrap, beginning.topic, group, 300)
    first.kill()
    again = [*flags, "--stop-at-end"]
    second = Detector(beginning.bootstrap, beginning.topic, beginning.model, group, tmp_path / "log", *again)
    assert second.wait() == 0
    check_published(beginning, group)
    found = [orjson.loads(value or b"") for _, _, value in read_all(beginning.bootstrap, f"{group}-scores")]
    moments = [(one["stream"], one["timestamp"]) for one in found]
    assert len(moments) == len(set(moments)) > READINGS // 5 - 100


@pytest.mark.parametrize("size", few([500], [1, 7, 500, 10_000]))
def test_whatever_the_batch_size(ground: Ground, request: pytest.FixtureRequest, tmp_path: Path, size: int) -> None:
    group = unique("size")
    ground = request.getfixturevalue("beginning") if size < 500 else ground
    detector = Detector(
        ground.bootstrap,
        ground.topic,
        ground.model,
        group,
        tmp_path / "log",
        "--batch-size",
        str(size),
        "--stop-at-end",
    )
    assert detector.wait() == 0, (tmp_path / "log").read_text()
    check_published(ground, group)


def test_killed_in_the_middle(ground: Ground, tmp_path: Path) -> None:
    group = unique("killed")
    for part in (0.2, 0.5):
        victim = Detector(ground.bootstrap, ground.topic, ground.model, group, tmp_path / "log", "--batch-size", "20")
        reached = wait_for_offset(ground.bootstrap, ground.topic, group, int(part * READINGS))
        victim.kill()
        assert reached < READINGS
    heir = Detector(ground.bootstrap, ground.topic, ground.model, group, tmp_path / "log", "--stop-at-end")
    assert heir.wait() == 0, (tmp_path / "log").read_text()
    check_published(ground, group)


@thorough
def test_one_of_two_replicas_killed(ground: Ground, tmp_path: Path) -> None:
    group = unique("two")
    flags = ("--batch-size", "10")
    first = Detector(ground.bootstrap, ground.topic, ground.model, group, tmp_path / "1", *flags, "--stop-at-end")
    wait_for_offset(ground.bootstrap, ground.topic, group, 1000)
    second = Detector(ground.bootstrap, ground.topic, ground.model, group, tmp_path / "2", *flags)
    reached = wait_for_offset(ground.bootstrap, ground.topic, group, READINGS // 2)
    second.kill()
    assert reached < READINGS
    assert first.wait() == 0, (tmp_path / "1").read_text()
    check_published(ground, group)


def test_sigterm_finishes_the_batch_and_the_next_run_goes_on(ground: Ground, tmp_path: Path) -> None:
    group = unique("term")
    first = Detector(ground.bootstrap, ground.topic, ground.model, group, tmp_path / "log", "--batch-size", "20")
    wait_for_offset(ground.bootstrap, ground.topic, group, READINGS // 4)
    first.terminate()
    assert first.wait(20) == 0, (tmp_path / "log").read_text()
    second = Detector(ground.bootstrap, ground.topic, ground.model, group, tmp_path / "log", "--stop-at-end")
    assert second.wait() == 0, (tmp_path / "log").read_text()
    check_published(ground, group)
