"""Made readings through a real Kafka: a detector can read them, and what is wrong with them is told beside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from broker import Broker
from kafka_cluster import create_topic, read_all, unique
from made import made, table
from sklearn.datasets import load_digits

from detector.adapters.files import read_table
from detector.adapters.images import read_images
from detector.history import read_image_topic, read_topic
from schemas.frame import Frame
from schemas.moment import format_time, parse_time
from schemas.reading import FieldNames
from trainer.cli import main as trainer
from trainer.synthesis.images.recipe import read_image_recipe
from trainer.synthesis.recipe import read_recipe, write_recipe

pytestmark = pytest.mark.kafka

START = "2026-03-01T00:00:00Z"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("synth") / "gen")
    write_recipe(made().recipe, path, {})
    return path


def test_a_topic_holds_what_a_file_does_and_the_truth_beside_it(broker: Broker, folder: str, tmp_path: Path) -> None:
    topic, truth = unique("made"), unique("truth")
    asked = ["synth", "stream", folder, "--length", "3000", "--streams", "3", "--start", START, "--episodes", "2/1d"]
    to = ["--to", f"kafka://{broker.bootstrap}/{topic}", "--truth", truth, "--rate", "0", "--per-record", "25"]
    assert trainer([*asked, *to]) == 2  # there is no such topic, and it may be a slip
    assert trainer([*asked, *to, "--partitions", "2"]) == 0
    out = tmp_path / "made.parquet"
    assert trainer([*asked, "--to", str(out), "--truth", str(tmp_path / "truth.csv")]) == 0
    from_topic = read_topic(
        broker.bootstrap, topic, 1e9, table().channels,
        fields=FieldNames(), streams=(), timeout_s=30, client={},
    )  # fmt: skip
    from_file = read_table([str(out)])
    assert len(from_topic) == 9000
    for stream in ("1", "2", "3"):
        read, wanted = (
            (one.times[which], one.values[which])
            for one in (from_topic, from_file)
            for which in [np.array(one.streams) == stream]
        )
        np.testing.assert_array_equal(read[0], wanted[0])
        np.testing.assert_array_equal(read[1], wanted[1])
    told = [json.loads(value) for _, _, value in read_all(broker.bootstrap, truth) if value]
    lines = (tmp_path / "truth.csv").read_text().splitlines()[1:]
    assert sorted((one["stream"], one["kind"], one["start"]) for one in told) == sorted(
        (stream, kind, start) for stream, kind, start, *_ in (line.split(",") for line in lines)
    )
    assert len(told) > 50
    again = ["synth", "fit", f"kafka://{broker.bootstrap}/{topic}", "--span", "30d", "--out", str(tmp_path / "again")]
    assert trainer([*again, "--steps", "60", "--hidden", "16", "--model", "vae", "--window", "12"]) == 0
    assert set(read_recipe(tmp_path / "again").manifest.channels) == set(table().channels)
    ends = [parse_time(one["end"]) for one in told]
    assert ends == sorted(ends)


def test_interrupted_it_says_how_much_it_sent(broker: Broker, folder: str) -> None:
    topic = create_topic(broker.bootstrap, unique("made"), 1)
    command = [
        sys.executable, "-m", "trainer", "synth", "stream", folder,
        "--to", f"kafka://{broker.bootstrap}/{topic}", "--rate", "500", "--streams", "5",
    ]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while len(read_all(broker.bootstrap, topic)) < 200:
            assert run.poll() is None, run.communicate()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert (run.returncode, err.splitlines()) == (0, [err.strip()])
    said = int(out.rpartition(": ")[2].split(" ")[0].replace(",", ""))
    assert len(read_all(broker.bootstrap, topic)) == said
    assert "of 500 asked for" in out


def test_a_camera_is_made_and_learned_from_its_topic(broker: Broker, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    source, gen, topic, truth = tmp_path / "x.npz", str(tmp_path / "gen"), unique("frames"), unique("truth")
    digits = load_digits()
    np.savez(source, x=digits.images[digits.target < 2].astype(np.uint8))  # one a second, from 1970 on
    quick = ["--steps", "300", "--model", "vae", "--hidden", "16"]
    assert trainer(["synth", "fit", str(source), "--out", gen, *quick]) == 0
    to = ["--to", f"kafka://{broker.bootstrap}/{topic}", "--truth", truth, "--partitions", "2", "--streams", "2"]
    before = time.time_ns()
    assert trainer(["synth", "stream", gen, *to, "--length", "300", "--rate", "0", "--episodes", "30/1h"]) == 0
    frames = read_image_topic(broker.bootstrap, topic, 1e9, timeout_s=30)
    assert (frames.frame, len(frames.table)) == (Frame(8, 8, 1), 600)
    assert set(frames.table.streams) == {"1", "2"}
    newest = frames.table.times.max()
    assert before - 5 * 10**9 <= newest <= time.time_ns()  # ends now: neither deleted at once nor refused
    start = format_time(int(newest) - 299 * 10**9)
    sample = ["synth", "sample", gen, "--streams", "2", "--length", "300", "--start", start, "--episodes", "30/1h"]
    assert trainer([*sample, "--out", str(tmp_path / "made.npz"), "--truth", str(tmp_path / "t.csv")]) == 0
    files = read_images([str(tmp_path / "made.npz")]).table
    for stream in ("1", "2"):
        read, wanted = (one.values[np.array(one.streams) == stream] for one in (frames.table, files))
        np.testing.assert_array_equal(read, wanted)
    told = [json.loads(value) for _, _, value in read_all(broker.bootstrap, truth) if value]
    lines = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert sorted((one["stream"], one["kind"], one["start"]) for one in told) == sorted(
        (stream, kind, start) for stream, kind, start, *_ in (line.split(",") for line in lines)
    )
    assert len(told) >= 2
    again = str(tmp_path / "again")
    source_topic = f"kafka://{broker.bootstrap}/{topic}"
    assert trainer(["synth", "fit", source_topic, "--records", "images", "--out", again, *quick]) == 0
    assert read_image_recipe(again).manifest.frame == Frame(8, 8, 1)
