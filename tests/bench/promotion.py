"""How long an alert takes while another model takes over, under half of the load that a replica can bear and more.

    python tests/bench/promotion.py --streams 1000 10000

Each case: a topic of 4 partitions, 5 channels, 50 readings a record, a replica that runs from a store. First it catches
up, which tells how many readings a second it can take. Then readings come at a given share of that, in every round one
of them far off; measured is the time from sending it until a ``read_committed`` reader sees the alert. In the middle
another version is promoted, and later the first one again. The broker, the sender and the reader run on the same cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "deploy" / "kafka"), str(ROOT)]

import numpy as np  # noqa: E402
import orjson  # noqa: E402
from broker import Broker  # noqa: E402
from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka_cluster import create_topic, unique  # noqa: E402
from recovery import CHANNELS, NAMES, PARTITIONS, PER_RECORD, WINDOW, Replica, wait_until_read  # noqa: E402
from tiny_model import tiny_model  # noqa: E402

from detector.adapters.folder import write_model  # noqa: E402
from detector.adapters.store import Store  # noqa: E402

#: Rounds of readings of every stream that it catches up with.
ROUNDS = 60


def records(streams: int, second: int, loud: int | None) -> Iterator[tuple[int, bytes]]:
    """(partition, value) of one reading of every stream, of which one may be far off."""
    values = np.random.default_rng(second).normal(0, 0.1, (streams, CHANNELS)).round(3)
    if loud is not None:
        values[loud] += 9
    for partition in range(PARTITIONS):
        own = range(partition, streams, PARTITIONS)
        for at in range(0, len(own), PER_RECORD):
            yield partition, orjson.dumps([_reading(n, second, values[n]) for n in own[at : at + PER_RECORD]])


def _reading(stream: int, second: int, values: np.ndarray) -> dict[str, object]:
    named = dict(zip(NAMES, values.tolist(), strict=True))
    return {"stream": f"s{stream:06}", "timestamp": second * 1000, "values": named}


class Reader(threading.Thread):
    """Notes when the first alert of each stream is there."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        self.over = False
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
        )  # fmt: skip
        self._consumer.assign([TopicPartition(topic, p) for p in range(PARTITIONS)])

    def run(self) -> None:
        """Until it is over."""
        while not self.over:
            for batch in self._consumer.poll(timeout_ms=20).values():
                for record in batch:
                    self.seen.setdefault(json.loads(record.value)["subject"], time.monotonic())
        self._consumer.close()


def measure(broker: Broker, folder: Path, streams: int, share: float, live_s: float) -> dict[str, float]:
    """One case."""
    group, topic = unique("promotion"), create_topic(broker.bootstrap, unique("readings"), PARTITIONS)
    store = Store(str(folder / group))
    plain = tiny_model(window=WINDOW, channels=CHANNELS, threshold=1.0)
    other = replace(plain, streams=replace(plain.streams, threshold=plain.streams.threshold * 1.1))
    for number, model in enumerate((plain, other)):
        write_model(model, folder / f"{group}-{number}")
        store.add("default", folder / f"{group}-{number}")
    first, second_version = (store.find("default", v) or "" for v in _hashes(store))
    store.promote("default", first, "bench")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", linger_ms=5, compression_type="lz4")
    second = itertools.count(1000)

    def send(loud: int | None = None) -> None:
        for partition, value in records(streams, next(second), loud):
            producer.send(topic, value=value, partition=partition)

    (folder / f"{group}-replica").mkdir()
    replica = Replica(broker.bootstrap, topic, folder / group, group, folder / f"{group}-replica", 10**6)
    send()
    producer.flush()
    wait_until_read(broker.bootstrap, topic, group, replica)  # it is up
    for _ in range(ROUNDS):
        send()
    producer.flush()
    began = time.monotonic()
    wait_until_read(broker.bootstrap, topic, group, replica)
    able = ROUNDS * streams / (time.monotonic() - began)
    reader = Reader(broker.bootstrap, f"{group}-alerts")
    reader.start()
    pace = streams / (able * share)
    sent: dict[str, float] = {}
    promotions: list[float] = []
    began = time.monotonic()
    for number in itertools.count():
        due = began + number * pace
        if due - began > live_s:
            break
        time.sleep(max(due - time.monotonic(), 0))
        passed = time.monotonic() - began
        if passed > live_s / 3 * (1 + len(promotions)) and len(promotions) < 2:
            store.promote("default", (second_version, first)[len(promotions)], "bench")
            promotions.append(time.monotonic())
        loud = number % streams
        if f"s{loud:06}" not in sent:
            sent[f"s{loud:06}"] = time.monotonic()
            send(loud)
        else:
            send()
        producer.flush()
    behind = time.monotonic() - began - live_s
    wait_until_read(broker.bootstrap, topic, group, replica)
    time.sleep(1)
    reader.over = True
    reader.join()
    said = [line for line in replica.log.read_text().splitlines() if "serves now" in line]
    replica.kill()
    producer.close()
    return _case(streams, able, share, sent, reader.seen, promotions, said, behind)


def _hashes(store: Store) -> list[str]:
    return [store.version("default", v).sha256 for v in store.versions("default")]


def _case(
    streams: int, able: float, share: float, sent: dict[str, float], seen: dict[str, float], promotions: list[float],
    said: list[str], behind: float,
) -> dict[str, float]:  # fmt: skip
    latency = {stream: 1000 * (seen[stream] - at) for stream, at in sent.items() if stream in seen}
    # a detector looks at the store every second here: the change is within a few seconds of the promotion
    near = {s for s, at in sent.items() if any(0 <= at - promoted <= 5 for promoted in promotions)}
    calm = np.array([value for stream, value in latency.items() if stream not in near])
    change = np.array([value for stream, value in latency.items() if stream in near])
    took = [float(line.rpartition("(")[2].split()[0]) for line in said]
    return {
        "streams": streams, "able": able, "share": share, "alerts": len(latency), "missing": len(sent) - len(latency),
        "p50": float(np.median(calm)), "worst": float(calm.max()), "p50_change": float(np.median(change)),
        "worst_change": float(change.max()), "handovers": len(took),
        "handover_ms": 1000 * max(took, default=float("nan")),
        "sender_behind_s": behind,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the readings a second that it can take; default .5"
    )
    parser.add_argument("--live", type=float, default=45, help="seconds; default 45")
    flags = parser.parse_args()
    os.environ["RESIDUAL_MODEL_POLL"] = "1"
    with tempfile.TemporaryDirectory(prefix="residual-promotion-") as name, Broker() as broker:
        for streams in flags.streams:
            case = measure(broker, Path(name), streams, flags.share, flags.live)
            print(
                f"{streams:,} streams, {case['share']:.0%} of {case['able']:,.0f} readings a second: "
                f"{case['alerts']} alerts after {case['p50']:.0f} ms (median), {case['worst']:.0f} ms (worst); within "
                f"5 s of a promotion {case['p50_change']:.0f} and {case['worst_change']:.0f} ms; {case['handovers']} "
                f"changes of the model, the longer took {case['handover_ms']:.0f} ms; {case['missing']} alerts "
                f"missing; the sender was {case['sender_behind_s']:.1f} s behind",
                flush=True,
            )


if __name__ == "__main__":
    main()
