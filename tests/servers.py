"""The measured servers as streams: their test parts interleaved, a model for them, and the detector as a process."""

from __future__ import annotations

import csv
import gzip
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
from kafka import KafkaConsumer, TopicPartition
from kafka_cluster import create_topic, produce
from tiny_model import tiny_model

from detector.adapters.files import read_table
from detector.adapters.folder import write_model
from detector.adapters.partitioner import partition_of
from schemas.manifest import Channel

STREAMS = tuple(f"omi-{n}" for n in range(1, 7))
PARTITIONS = 3
READINGS = 4320 * len(STREAMS)


def write_server_model(data: Path, folder: Path, threshold: float = 2.0) -> Path:
    """A model that is easily alarmed, so that there are many alerts to lose or to repeat."""
    tables = [read_table([str(data / "asd" / name / "train.csv.gz")]) for name in STREAMS]
    channels = tables[0].channels
    model = tiny_model(10, len(channels), STREAMS, interval_s=300, threshold=threshold)
    values = replace(
        model.streams,
        loc=np.stack([t.values.mean(axis=0) for t in tables]),
        scale=np.stack([np.maximum(t.values.std(axis=0), 0.01) for t in tables]),
    )
    manifest = model.manifest.model_copy(update={"channels": tuple(Channel(name=c) for c in channels)})
    write_model(replace(model, manifest=manifest, streams=values), folder)
    return folder


def sources(data: Path) -> list[str]:
    """The test parts as ``detector score`` takes them."""
    return [f"{name}={data / 'asd' / name / 'test.csv.gz'}" for name in STREAMS]


def records(data: Path) -> list[tuple[int, bytes, bytes]]:
    """The test parts as records of PARTITIONS partitions, the streams interleaved."""
    found = []
    with ExitStack() as stack:
        texts = [stack.enter_context(gzip.open(data / "asd" / name / "test.csv.gz", "rt")) for name in STREAMS]
        for rows in zip(*(csv.DictReader(text) for text in texts), strict=True):
            for name, row in zip(STREAMS, rows, strict=True):
                stamp = row.pop("timestamp")
                value = {"stream": name, "timestamp": stamp, "values": {k: float(v) for k, v in row.items()}}
                found.append((partition_of(name.encode(), PARTITIONS), name.encode(), orjson.dumps(value)))
    return found


def topic_of(bootstrap: str, topic: str, found: list[tuple[int, bytes, bytes]]) -> str:
    """Make a topic and fill it."""
    create_topic(bootstrap, topic, PARTITIONS)
    produce(bootstrap, topic, found)
    return topic


class Detector:
    """``detector run`` as a process of its own."""

    def __init__(self, bootstrap: str, readings: str, model: Path, group: str, log: Path, *flags: str) -> None:
        self._log = log.open("ab")
        command = [
            sys.executable, "-m", "detector.cli", "run", "--model", str(model), "--bootstrap-servers", bootstrap,
            "--readings-topic", readings, "--group-id", group, "--alerts-topic", f"{group}-alerts",
            "--dead-letters-topic", f"{group}-dead", "--checkpoint-age", "0", *flags,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=self._log, stdout=self._log, env={**os.environ})

    def wait(self, seconds: float = 120) -> int:
        """The exit code; the process is killed where it does not come in time."""
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self._log.close()


def wait_for_offset(bootstrap: str, topic: str, group: str, readings: int, seconds: float = 60) -> int:
    """Wait until the group has committed this many readings; returns how many."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            total = sum(consumer.committed(TopicPartition(topic, p)) or 0 for p in range(PARTITIONS))
            if total >= readings:
                return total
            time.sleep(0.05)
    finally:
        consumer.close()
    raise AssertionError(f"{group} did not commit {readings} readings within {seconds} s")
