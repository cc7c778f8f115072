"""Images through a real Kafka: learned from a topic, watched on it, the same alerts as from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from broker import Broker
from image_data import png, scenes
from kafka import KafkaProducer
from kafka_cluster import create_topic, read_all, unique
from servers import Detector
from thorough import thorough

from detector.adapters.folder import read_model
from detector.cli import main as detector
from trainer.cli import main as trainer

pytestmark = pytest.mark.kafka
pytest.importorskip("PIL.Image")

#: Milliseconds since 1970 of the first image; they come once a minute.
START_MS, STEP_MS = 1_700_000_000_000, 60_000
FAULTY = range(30, 36)


def publish(bootstrap: str, topic: str, images: np.ndarray, first: int = 0, *, raw: bool = False) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    for number, image in enumerate(images, first):
        value = image.tobytes() if raw else png(image)
        producer.send(topic, value=value, key=b"gate", timestamp_ms=START_MS + number * STEP_MS)
    producer.flush()
    producer.close()


def saved(path: Path, images: np.ndarray, first: int = 0) -> str:
    times = START_MS + (first + np.arange(len(images))) * STEP_MS
    np.savez(path, x=images, timestamp=times, stream=np.full(len(images), "gate"))
    return str(path)


def test_the_main_job_on_a_camera(broker: Broker, tmp_path: Path) -> None:
    topic = create_topic(broker.bootstrap, unique("pictures"), 1)
    past, today = scenes(200), scenes(60, seed=5, faulty=FAULTY)
    publish(broker.bootstrap, topic, past)
    fit = ["--model", "conv", "--epochs", "10", "--false-alarms", "1/1h"]
    source = f"kafka://{broker.bootstrap}/{topic}"
    assert trainer(["fit", source, "--set", "records=images", "--out", str(tmp_path / "topic"), *fit]) == 0
    assert trainer(["fit", saved(tmp_path / "past.npz", past), "--out", str(tmp_path / "file"), *fit]) == 0
    assert read_model(tmp_path / "topic").graph == read_model(tmp_path / "file").graph

    publish(broker.bootstrap, topic, today[:45], 200)
    publish(broker.bootstrap, topic, today[45:], 245, raw=True)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    producer.send(topic, value=b"no picture", key=b"gate").get(timeout=30)
    producer.close()
    alerts, letters = unique("alerts"), unique("letters")
    flags = ("--stop-at-end", "--alerts-topic", alerts, "--dead-letters-topic", letters)
    run = Detector(broker.bootstrap, topic, tmp_path / "topic", unique("group"), tmp_path / "log", *flags)
    assert run.wait(120) == 0, (tmp_path / "log").read_text()

    everything = saved(tmp_path / "all.npz", np.concatenate([past, today]))
    offline = tmp_path / "alerts.jsonl"
    score = ["score", "--model", str(tmp_path / "topic"), everything, "--out", str(tmp_path / "s.csv")]
    assert detector([*score, "--alerts", str(offline)]) == 0
    assert [value for _, _, value in read_all(broker.bootstrap, alerts)] == offline.read_bytes().splitlines()
    assert b'"image":{"error":' in offline.read_bytes()
    assert [value for _, _, value in read_all(broker.bootstrap, letters)] == [b"no picture"]


@thorough
def test_the_size_of_raw_images_is_told(broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topic = create_topic(broker.bootstrap, unique("raw"), 1)
    publish(broker.bootstrap, topic, scenes(60), raw=True)
    source = f"kafka://{broker.bootstrap}/{topic}"
    fit = ["fit", source, "--out", str(tmp_path / "m"), "--model", "pca", "--set", "records=images"]
    assert trainer(fit) == 2
    assert "--set frame=HEIGHTxWIDTHxBANDS" in capsys.readouterr().err.splitlines()[-1]
    assert trainer([*fit, "--set", "frame=16x20x1", "--false-alarms", "1/10min"]) == 0
    assert read_model(tmp_path / "m").manifest.frame == (16, 20, 1)
