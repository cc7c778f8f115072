"""``trainer fit kafka://…`` learns from a topic what it learns from a file of the same readings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from broker import Broker
from kafka_cluster import create_topic, produce, unique
from trainer_data import normal, table, write_csv

from detector.adapters.folder import read_model
from trainer.cli import main

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.kafka


def test_a_topic_teaches_what_a_file_teaches(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readings = table(normal(700), normal(700, seed=1), interval_s=60, names=("a", "b"))
    topic = create_topic(broker.bootstrap, unique("readings"), 2)
    produce(
        broker.bootstrap,
        topic,
        [
            (
                int(name == "b"),
                name.encode(),
                json.dumps(
                    {"t": text, "v": {c: float(v) for c, v in zip(readings.channels, row, strict=True)}}
                ).encode(),
            )
            for name, text, row in zip(readings.streams, readings.timestamps, readings.values, strict=True)
        ]
        + [(0, b"a", b"no reading")],
    )
    fields = ["--model", "pca", "--set", "timestamp_field=t", "--set", "values_field=v"]
    source = f"kafka://{broker.bootstrap}/{topic}"
    assert main(["fit", source, "--out", str(tmp_path / "topic"), *fields]) == 0
    assert main(["fit", str(write_csv(tmp_path / "x.csv", readings)), "--out", str(tmp_path / "file")]) == 0
    one, two = read_model(tmp_path / "topic"), read_model(tmp_path / "file")
    assert one.graph == two.graph
    assert one.streams.names == two.streams.names == ("a", "b")
    np.testing.assert_array_equal(one.streams.threshold, two.streams.threshold)

    assert main(["fit", source, "--out", str(tmp_path / "hour"), "--span", "3h", *fields]) == 0
    assert read_model(tmp_path / "hour").manifest.training.readings == 2 * 181
    capsys.readouterr()
    assert main(["fit", f"kafka://{broker.bootstrap}/{unique('none')}", "--out", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_broker_out_of_reach_is_exit_75(tmp_path: Path) -> None:
    """In a process of its own: the client leaves sockets behind when it gives up."""
    arguments = ["fit", "kafka://127.0.0.1:9/readings", "--out", str(tmp_path / "m"), "--set", "startup_timeout=2s"]
    code = f"import sys; from trainer.cli import main; sys.exit(main({arguments!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert ended.returncode == 75, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "m").exists()
