"""A long load of made readings with faults on a detector: does it keep up, does it grow, is anything lost?

    python tests/bench/soak.py [--minutes 20] [--streams 200] [--rate 10000] [--data DIR]

A generator learned from a server's readings feeds a real Kafka at a stated rate, with faults of which the truth goes to
a topic of its own; the detector runs beside it. Every ten seconds: the memory of the detector and how many records it
is behind. At the end, beside what was promised and asked for: every record committed, none set aside; alerts without a
fault by stream and week; the share of faults, of channels and kinds of all sorts, that an incident was open in.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "kafka"), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from broker import Broker  # noqa: E402
from kafka import KafkaConsumer, TopicPartition  # noqa: E402
from kafka_cluster import create_topic, read_all  # noqa: E402

from schemas.moment import SECOND_NS, parse_time  # noqa: E402
from trainer.cli import main as trainer  # noqa: E402
from trainer.synthesis.recipe import read_recipe  # noqa: E402

PARTITIONS, GROUP, LOOK_S, START = 4, "soak", 10.0, "2026-01-01T00:00:00Z"
WEEK_S = 7 * 86400
#: Readings after a fault's last within which an incident still counts as of it.
AFTER = 30


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--episodes", default="1/2d")
    beside = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RESIDUAL_DATA", beside)), metavar="DIR")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gen, model = f"{folder}/gen", f"{folder}/model"
        source = str(asked.data / "asd" / "omi-1" / "train.csv.gz")
        _do("synth", "fit", source, "--out", gen, "--model", "vae", "--steps", "800")
        _do("synth", "sample", gen, "--length", "20000", "--streams", "4", "--out", f"{folder}/normal.parquet")
        _do("fit", f"{folder}/normal.parquet", "--model", "pca", "--out", model, "--set", "detectability=false")
        with Broker() as broker:
            soak(broker.bootstrap, gen, model, asked)


def _do(*arguments: str) -> None:
    if trainer(list(arguments)) != 0:
        raise SystemExit(f"trainer {arguments[0]} failed")


def soak(bootstrap: str, gen: str, model: str, asked: argparse.Namespace) -> None:
    """Feed, watch, judge."""
    for name in ("readings", "alerts", "dead-letters", "truth"):
        create_topic(bootstrap, name, PARTITIONS if name == "readings" else 1)
    length = int(asked.minutes * 60 * asked.rate / asked.streams)
    feed = subprocess.Popen([
        sys.executable, "-m", "trainer", "synth", "stream", gen, "--to", f"kafka://{bootstrap}/readings",
        "--streams", str(asked.streams), "--rate", str(asked.rate), "--length", str(length), "--per-record", "20",
        "--start", START, "--truth", "truth", "--episodes", asked.episodes, "--seed", "5",
    ], cwd=ROOT, stderr=subprocess.DEVNULL)  # fmt: skip
    command = [
        sys.executable, "-m", "detector.cli", "run", "--model", model, "--bootstrap-servers", bootstrap,
        "--group-id", GROUP, "--log-level", "error", "--silent-after", "12h",  # a record spans 100 minutes
    ]  # fmt: skip
    detector = subprocess.Popen(command, cwd=ROOT)
    memory = []
    try:
        while feed.poll() is None:
            time.sleep(LOOK_S)
            memory.append(psutil.Process(detector.pid).memory_info().rss / 2**20)
            done, end = progress(bootstrap)
            print(f"{len(memory) * LOOK_S:6.0f} s  {memory[-1]:6.0f} MiB  {end - done:>9,} records behind", flush=True)
            if detector.poll() is not None:
                raise SystemExit(f"the detector ended with {detector.returncode}")
        detector.send_signal(signal.SIGTERM)
        print(f"feed {feed.returncode}, detector {detector.wait(60)}")
    finally:
        feed.kill()
        detector.kill()
    subprocess.run([*command, "--stop-at-end"], cwd=ROOT, check=True)
    done, end = progress(bootstrap)
    print(f"{done:,} of {end:,} records committed, {len(read_all(bootstrap, 'dead-letters'))} set aside")
    half = memory[len(memory) // 2 :]
    slope = np.polyfit(np.arange(len(half)) * LOOK_S / 3600, half, 1)[0] if len(half) > 1 else 0.0
    print(f"memory {max(memory):.0f} MiB at most; in the second half {slope:+.0f} MiB an hour")
    judge(bootstrap, asked.streams, length, read_recipe(gen).manifest.interval_ns)


def progress(bootstrap: str) -> tuple[int, int]:
    """(committed, written) records of all partitions."""
    reader = KafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False)
    try:
        parts = [TopicPartition("readings", number) for number in range(PARTITIONS)]
        return sum(reader.committed(part) or 0 for part in parts), sum(reader.end_offsets(parts).values())
    finally:
        reader.close()


def judge(bootstrap: str, streams: int, length: int, step_ns: int) -> None:
    """What the alerts say beside the truth."""
    spans: dict[str, list[tuple[int, int]]] = {}
    opened: dict[str, tuple[str, int]] = {}
    ids = []
    for _, _, value in read_all(bootstrap, "alerts"):
        event = json.loads(value or b"")
        ids.append(event["id"])
        incident = event["data"]["incident"]
        if event["type"].endswith("opened"):
            opened[incident] = (event["subject"], parse_time(event["time"]))
        elif event["type"].endswith("resolved"):
            stream, at = opened.pop(incident)
            spans.setdefault(stream, []).append((at, parse_time(event["time"])))
    for stream, at in opened.values():
        spans.setdefault(stream, []).append((at, 2**63 - 1))
    print(f"{len(ids):,} events, {len(ids) - len(set(ids))} of them twice")
    truth = [json.loads(value or b"") for _, _, value in read_all(bootstrap, "truth")]
    caught, all_of = Counter[str](), Counter[str]()
    faults: dict[str, list[tuple[int, int]]] = {}
    for one in truth:
        start, end = parse_time(one["start"]), parse_time(one["end"]) + AFTER * step_ns
        faults.setdefault(one["stream"], []).append((start, end))
        all_of[one["kind"]] += 1
        caught[one["kind"]] += any(s <= end and e >= start for s, e in spans.get(one["stream"], []))
    false = sum(
        not any(start <= at <= end for start, end in faults.get(stream, []))
        for stream, own in spans.items() for at, _ in own
    )  # fmt: skip
    weeks = streams * length * step_ns / SECOND_NS / WEEK_S
    print(f"{false} incidents without a fault: {false / weeks:.2f} a stream and week, promised 1")
    kinds = ", ".join(f"{kind} {caught[kind]}/{count}" for kind, count in sorted(all_of.items()))
    print(f"faults caught: {sum(caught.values())} of {len(truth)}: {kinds}")


if __name__ == "__main__":
    main()
