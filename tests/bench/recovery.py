"""How long a detector that got kill -9 leaves its streams unwatched, by streams and by the bytes that checkpoints take.

    python tests/bench/recovery.py --streams 1000 10000 100000 --checkpoint-bytes 128000 4000000

Each case: a topic of 4 partitions with rounds of readings of every stream (5 channels, 50 readings a record), a replica
that catches up and then watches live ones for a while, kill -9, a successor with the same name, and at once readings
that are far off, of one stream of each partition. Measured: from the successor's start to the first alert about them
that a ``read_committed`` reader sees; of this the restore; readings between R and C; memory at the peak of either
process; what a transaction takes and carries while live. The broker runs on the same machine.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "deploy" / "kafka"), str(ROOT)]

import numpy as np  # noqa: E402
import orjson  # noqa: E402
from broker import Broker  # noqa: E402
from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka_cluster import create_topic, unique  # noqa: E402
from tiny_model import tiny_model  # noqa: E402

from detector.adapters.folder import write_model  # noqa: E402
from detector.adapters.kafka_publisher import from_metadata  # noqa: E402

PARTITIONS, CHANNELS, WINDOW = 4, 5, 16
PER_RECORD = 50
#: Seconds of event time between two readings of a stream.
INTERVAL_S = 1
NAMES = [f"c{c}" for c in range(CHANNELS)]


@dataclass
class Case:
    """What was measured."""

    streams: int
    checkpoint_bytes: int
    recovery_s: float
    restore_s: float
    replayed: int
    peak_mb: float
    successor_mb: float
    state_bytes_per_s: float
    commit_p50_ms: float
    commit_p99_ms: float


def records(streams: int, second: int, loud: bool = False) -> Iterator[tuple[int, bytes]]:
    """(partition, value) of one reading of every stream; stream n lies on partition n % PARTITIONS."""
    rng = np.random.default_rng(second)
    values = rng.normal(0, 0.1, (streams, CHANNELS)).round(3)
    if loud:
        values[:PARTITIONS] += 9  # one stream of each partition
    for partition in range(PARTITIONS):
        own = range(partition, streams, PARTITIONS)
        for at in range(0, len(own), PER_RECORD):
            yield (
                partition,
                orjson.dumps(
                    [
                        {
                            "stream": f"s{n:06}",
                            "timestamp": second * INTERVAL_S * 1000,
                            "values": dict(zip(NAMES, values[n].tolist(), strict=True)),
                        }
                        for n in own[at : at + PER_RECORD]
                    ]
                ),
            )


class Replica:
    """A replica in a process of its own that notes what it commits."""

    def __init__(
        self, bootstrap: str, topic: str, model: Path, group: str, folder: Path, checkpoint_bytes: int
    ) -> None:
        self.notes, self.log = folder / "notes", folder / "log"
        command = [
            sys.executable, str(HERE / "recovery_replica.py"), str(self.notes),
            "--model", str(model), "--bootstrap-servers", bootstrap, "--readings-topic", topic, "--group-id", group,
            "--alerts-topic", f"{group}-alerts", "--dead-letters-topic", f"{group}-dead", "--replica-id", "one",
            "--unseen-readings", "0", "--silent-after", "0", "--checkpoint-bytes", str(checkpoint_bytes),
            "--max-ahead", "1000000000",
        ]  # fmt: skip
        self.notes.touch()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    def peak_mb(self) -> float:
        """Its largest resident memory so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def commits(self) -> list[tuple[float, float, int]]:
        """(when, seconds, bytes of state) of each."""
        found = [line.split()[1:] for line in self.notes.read_text().splitlines() if line.startswith("commit")]
        return [(float(at), float(took), int(size)) for at, took, size in found]

    def restores(self) -> list[float]:
        """Seconds of each."""
        return [float(line.split()[1]) for line in self.notes.read_text().splitlines() if line.startswith("restore")]


def committed(consumer: KafkaConsumer, topic: str) -> dict[int, tuple[int, int]]:
    """C and R by partition."""
    found = {}
    for partition in range(PARTITIONS):
        said = consumer.committed(TopicPartition(topic, partition), metadata=True)
        if said is not None and said.offset >= 0:
            ours = from_metadata(said)
            found[partition] = (ours.offset, ours.offset if ours.replay_from is None else ours.replay_from)
    return found


def wait_until_read(bootstrap: str, topic: str, group: str, replica: Replica) -> None:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    parts = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    try:
        ends = consumer.end_offsets(parts)
        while any(committed(consumer, topic).get(tp.partition, (0, 0))[0] < ends[tp] for tp in parts):
            if replica.process.poll() is not None:
                raise SystemExit(f"the replica ended:\n{replica.log.read_text()[-3000:]}")
            time.sleep(0.5)
    finally:
        consumer.close()


def replayed(bootstrap: str, topic: str, group: str) -> int:
    """Readings between R and C."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    try:
        return sum(c - r for c, r in committed(consumer, topic).values()) * PER_RECORD
    finally:
        consumer.close()


def measure(broker: Broker, model: Path, streams: int, rounds: int, live_s: float, checkpoint_bytes: int) -> Case:
    group, topic = unique("recovery"), create_topic(broker.bootstrap, unique("readings"), PARTITIONS)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", linger_ms=20, compression_type="lz4")
    second = itertools.count(1000)

    def send(loud: bool = False) -> None:
        for partition, value in records(streams, next(second), loud):
            producer.send(topic, value=value, partition=partition)
        producer.flush()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(rounds):
            send()
        victim = Replica(broker.bootstrap, topic, model, group, folder, checkpoint_bytes)
        wait_until_read(broker.bootstrap, topic, group, victim)
        began, stop = time.time(), threading.Event()
        pace = max(streams / 1000, 1.0)  # a round of readings in so many seconds: about 1,000 a second
        while time.time() - began < live_s:
            due = time.time() + pace
            send()
            stop.wait(max(due - time.time(), 0))
        wait_until_read(broker.bootstrap, topic, group, victim)
        live = [commit for commit in victim.commits() if commit[0] > began]
        peak = victim.peak_mb()
        victim.kill()
        to_replay = replayed(broker.bootstrap, topic, group)
        before = len(victim.restores())
        alerts = KafkaConsumer(
            bootstrap_servers=broker.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        tps = [TopicPartition(f"{group}-alerts", p) for p in range(PARTITIONS)]
        alerts.assign(tps)
        alerts.seek_to_end(*tps)
        for tp in tps:
            alerts.position(tp)
        started = time.monotonic()
        heir = Replica(broker.bootstrap, topic, model, group, folder, checkpoint_bytes)
        send(loud=True)
        while not alerts.poll(timeout_ms=100):
            if heir.process.poll() is not None:
                raise SystemExit(f"the successor ended:\n{heir.log.read_text()[-3000:]}")
        recovery = time.monotonic() - started
        successor = heir.peak_mb()
        heir.kill()
        alerts.close()
        producer.close()
        times = np.array([took for _, took, _ in live]) * 1000
        return Case(
            streams, checkpoint_bytes, recovery, heir.restores()[before], to_replay, peak, successor,
            sum(size for _, _, size in live) / max(time.time() - began, 1e-9) if live else 0.0,
            float(np.percentile(times, 50)), float(np.percentile(times, 99)),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--checkpoint-bytes", type=int, nargs="+", default=[128_000, 4_000_000])
    parser.add_argument("--rounds", type=int, default=20, help="readings of each stream before it is live; default 20")
    parser.add_argument("--live", type=float, default=30, help="seconds that are watched live; default 30")
    flags = parser.parse_args()
    print(f"{os.cpu_count()} cores, {CHANNELS} channels, window {WINDOW}, {flags.rounds} readings of each stream first")
    widths = {
        "streams": 9, "checkpoints": 13, "recovery": 10, "restore": 9, "replayed": 12, "peak": 10, "successor": 11,
        "written": 12, "commit p50": 12, "p99": 9,
    }  # fmt: skip
    print("".join(f"{name:>{width}}" for name, width in widths.items()))
    with tempfile.TemporaryDirectory() as folder, Broker() as broker:
        model = Path(folder) / "model"
        write_model(tiny_model(window=WINDOW, channels=CHANNELS, threshold=1.0), model)
        for streams, size in itertools.product(flags.streams, flags.checkpoint_bytes):
            case = measure(broker, model, streams, flags.rounds, flags.live, size)
            cells = (
                f"{case.streams:,}", f"{size / 1000:,.0f} kB/s", f"{case.recovery_s:.1f} s", f"{case.restore_s:.1f} s",
                f"{case.replayed:,}", f"{case.peak_mb:,.0f} MB", f"{case.successor_mb:,.0f} MB",
                f"{case.state_bytes_per_s / 1000:,.0f} kB/s", f"{case.commit_p50_ms:.0f} ms",
                f"{case.commit_p99_ms:.0f} ms",
            )  # fmt: skip
            print("".join(f"{cell:>{width}}" for cell, width in zip(cells, widths.values(), strict=True)), flush=True)


if __name__ == "__main__":
    main()
