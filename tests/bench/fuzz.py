"""make fuzz: a million records, half of them garbage, through ``detector run`` over a real Kafka, each accounted for.

The records are ``garbage.Grammar``'s, which knows what must become of each, readings of 38 channels among them, and
spoiled ones, of which only the number of elements is known. Then there are batches that unpack to a gigabyte, and one
is damaged on the broker's disk. What the detector has counted, and what lies on the dead-letter topic, must add up to
what was sent, offset for offset. Memory is sampled all the while.

Throughput: records per CPU-second of the process, less its start on an empty topic, of a topic with as much garbage and
of one of the same grammar with none, in turns, and medians compared: trust the ratio, not the figures.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "deploy" / "kafka")]

import load  # noqa: E402
import zstandard  # noqa: E402
from batches import batch, flip, places, record, segment, send  # noqa: E402
from broker import Broker, free_port  # noqa: E402
from garbage import Grammar, Sample  # noqa: E402
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka.errors import KafkaError  # noqa: E402
from kafka_cluster import create_topic, unique  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402
from run import ENVIRONMENT, cpu_seconds, machine  # noqa: E402

from detector.adapters.partitioner import partition_of  # noqa: E402
from schemas.dead_letter import Reason  # noqa: E402

PARTITIONS = 3

#: Of the garbage, how much may be large: at a million records 100 MB.
HEAVY = 0.0005

#: Bytes of the longest record, deep JSON of 4.3 MB.
MOST = 8 * 2**20

#: Records of a megabyte in a batch that is left packed.
BOMB_RECORDS = 1200


@dataclass
class Truth:
    """What was sent to one partition, by offset: the number of elements, and how many are bad for which reason.

    None where that is not known: the bytes were spoiled.
    """

    elements: list[int] = field(default_factory=list)
    bad: list[Counter[Reason] | None] = field(default_factory=list)
    unreadable: list[tuple[int, int, str]] = field(default_factory=list)
    """Ranges (first, next) that nobody can read, and why."""

    def lose(self, first: int, following: int, reason: str) -> None:
        """Records that nobody can read."""
        for offset in range(first, following):
            self.elements[offset], self.bad[offset] = 0, Counter()
        self.unreadable.append((first, following, reason))

    def check(self, letters: Counter[tuple[int, str]]) -> tuple[int, int]:
        """Compare with the elements set aside, by offset and reason: how many readings must be left, how many offsets
        do not add up.
        """
        aside: dict[int, Counter[str]] = defaultdict(Counter)
        for (offset, reason), count in letters.items():
            aside[offset][reason] += count
        wrong = 0
        for first, _, reason in self.unreadable:
            wrong += aside.pop(first, Counter()) != Counter([reason])
        nothing: Counter[str] = Counter()
        readings = 0
        for offset, (elements, bad) in enumerate(zip(self.elements, self.bad, strict=True)):
            found = aside.pop(offset, nothing)
            readings += elements - found.total()
            if found.total() > elements if bad is None else found != bad:
                wrong += 1
                print(f"  offset {offset}: {dict(found)} set aside of {elements}, not {bad}")
        return readings, wrong + len(aside)


class Topic:
    """A topic that is being filled, and the truth about it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.name = create_topic(broker.bootstrap, unique("fuzz"), PARTITIONS, max_message_bytes=str(MOST))
        self.truth = [Truth() for _ in range(PARTITIONS)]
        self.kinds: Counter[str] = Counter()

    def fill(self, samples: Iterable[Sample]) -> None:
        """Send the records, in order."""
        producer = KafkaProducer(
            bootstrap_servers=self.broker.bootstrap, acks="all", enable_idempotence=True, linger_ms=20,
            batch_size=1 << 18, max_request_size=MOST, compression_type="lz4", max_block_ms=120_000,
        )  # fmt: skip
        for sample in samples:
            partition = partition_of(sample.key or b"", PARTITIONS)
            value = sample.value if sample.key is not None or sample.value is not None else b""
            producer.send(self.name, value, sample.key, partition=partition, timestamp_ms=sample.stamp_ms)
            self.truth[partition].elements.append(sample.elements)
            self.truth[partition].bad.append(sample.bad)
            self.kinds[sample.kind] += 1
        producer.flush()
        producer.close()

    def drop_bombs(self) -> None:
        """A batch on each partition that unpacks to more than a gigabyte."""
        packer = zstandard.ZstdCompressor().compressobj()
        packed = b"".join(packer.compress(record(n, b"bomb", bytes(2**20))) for n in range(BOMB_RECORDS))
        bomb = batch(packed + packer.flush(), BOMB_RECORDS, codec=4)
        for partition, truth in enumerate(self.truth):
            first = send(self.broker.bootstrap, self.name, partition, bomb)
            assert first == len(truth.elements), (first, len(truth.elements))
            truth.elements += [0] * BOMB_RECORDS
            truth.bad += [Counter()] * BOMB_RECORDS
            truth.lose(first, first + BOMB_RECORDS, "too-long")

    def damage(self) -> None:
        """A bit of a batch on the first partition, long before the bombs, is flipped on the disk."""
        file = segment(self.broker.folder / "data", self.name, 0)
        found = list(places(file.read_bytes()))
        (_, end, base), (_, _, following) = found[len(found) // 4], found[len(found) // 4 + 1]
        flip(file, end - 1)
        self.truth[0].lose(base, following, "corrupt")

    @property
    def ends(self) -> list[int]:
        """The offset after the last record of each partition."""
        return [len(truth.elements) for truth in self.truth]


class Detector:
    """``detector run`` as a process, with its metrics and its memory."""

    def __init__(self, broker: Broker, topic: str, model: Path, *flags: str) -> None:
        self.group, self._bootstrap, self._topic = unique("fuzz"), broker.bootstrap, topic
        self._port = free_port()
        named = {
            "model": model, "bootstrap-servers": broker.bootstrap, "readings-topic": topic, "group-id": self.group,
            "alerts-topic": f"{self.group}-alerts", "dead-letters-topic": f"{self.group}-dead", "log-level": "error",
        }  # fmt: skip
        self.command = [sys.executable, "-m", "detector.cli", "run", *flags]
        self.command += [part for name, value in named.items() for part in (f"--{name}", str(value))]
        self.samples: list[tuple[int, float]] = []  # records received, MB

    def watch(self, ends: list[int], patience_s: float) -> dict[tuple[str, str], float]:
        """Run it until the group has committed these offsets; returns its metrics by name and label."""
        parts = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
        command = [*self.command, "--http", f"127.0.0.1:{self._port}", "--skip-corrupt"]
        deadline = time.monotonic() + patience_s
        with KafkaAdminClient(bootstrap_servers=self._bootstrap) as admin, tempfile.TemporaryDirectory() as empty:
            process = subprocess.Popen(command, env=ENVIRONMENT, cwd=empty)
            try:
                while True:
                    time.sleep(1)
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(
                            f"the detector ended with {process.poll()}, or took longer than {patience_s} s"
                        )
                    found = self._metrics()
                    self.samples.append(
                        (int(found.get(("residual_records_received_total", ""), 0)), memory(process.pid))
                    )
                    with suppress(KafkaError):  # nobody knows the group yet
                        offsets = admin.list_group_offsets({self.group: parts})[self.group]
                        if [offsets[tp].offset if tp in offsets else 0 for tp in parts] == ends:
                            return self._metrics()
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    def _metrics(self) -> dict[tuple[str, str], float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:  # it is starting
            return {}
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def letters(self) -> list[Counter[tuple[int, str]]]:
        """Elements set aside, by offset and reason, for each partition of the readings."""
        found: list[Counter[tuple[int, str]]] = [Counter() for _ in range(PARTITIONS)]
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, isolation_level="read_committed")
        parts = [TopicPartition(f"{self.group}-dead", number) for number in range(PARTITIONS)]
        consumer.assign(parts)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(parts)
        while any(consumer.position(tp) < ends[tp] for tp in parts):
            for records in consumer.poll(500, max_records=10_000).values():
                for letter in records:
                    headers = dict(letter.headers)
                    place = int(headers["residual-offset"]), headers["residual-reason"].decode()
                    found[int(headers["residual-partition"])][place] += int(headers.get("residual-elements", b"1"))
        consumer.close()
        return found


def memory(pid: int) -> float:
    """Resident megabytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def account(topic: Topic, letters: list[Counter[tuple[int, str]]], metrics: dict[tuple[str, str], float]) -> int:
    """Check offset for offset, and print the sums. Returns how many of them do not hold."""
    checked = [truth.check(own) for truth, own in zip(topic.truth, letters, strict=True)]
    readings, wrong = sum(left for left, _ in checked), sum(bad for _, bad in checked)
    by_reason: Counter[str] = Counter()
    for own in letters:
        for (_, reason), count in own.items():
            by_reason[reason] += count
    sent = sum(topic.ends)
    scored = metrics[("residual_readings_scored_total", "")]
    events = {
        kind: metrics.get(("residual_engine_events_total", kind), 0)
        for kind in ("warming_up", "all_missing", "overflowed")
    }
    dropped = {kind: metrics.get(("residual_readings_dropped_total", kind), 0) for kind in ("late", "duplicate")}
    received = metrics[("residual_readings_received_total", "")]
    unreadable = sum(until - first for truth in topic.truth for first, until, _ in truth.unreadable)
    rows = [
        ("records sent", sent),
        ("  in batches that nobody can read", unreadable),
        ("  received", metrics[("residual_records_received_total", "")]),
        ("readings that must come of them", readings),
        ("  received", received),
        ("  scored", scored),
        *((f"  {kind.replace('_', ' ')}", count) for kind, count in (events | dropped).items()),
        ("elements set aside", by_reason.total()),
        *((f"  {reason}", count) for reason, count in by_reason.most_common()),
    ]
    for name, count in rows:
        print(f"{name:<40}{int(count):>12,}")
    counted = {key[1]: value for key, value in metrics.items() if key[0] == "residual_dead_letters_total"}
    sums = {
        "records: received and unreadable = sent": metrics[("residual_records_received_total", "")] + unreadable
        == sent,
        "readings: received = what must come": received == readings,
        "readings: scored, unscored and dropped = received": scored + sum(events.values()) + sum(dropped.values())
        == received,
        "elements: counted = on the dead-letter topic": {k: v for k, v in counted.items() if v} == dict(by_reason),
        "every offset adds up, reason for reason": not wrong,
    }
    for name, holds in sums.items():
        print(f"{name:<52}{'yes' if holds else 'NO'}")
    return list(sums.values()).count(False)


def show_memory(samples: list[tuple[int, float]], sent: int, streams: float) -> None:
    """Flat: the most of the last half is at most a tenth over the most of the half before, its start left out."""
    of = [(count / sent, megabytes) for count, megabytes in samples if count]
    first = max((megabytes for share, megabytes in of if 0.1 <= share < 0.55), default=0.0)
    last = max((megabytes for share, megabytes in of if share >= 0.55), default=0.0)
    marks = [min(of, key=lambda entry, at=at: abs(entry[0] - at)) for at in (0.1, 0.25, 0.5, 0.75, 1.0)]
    print(f"\nmemory, {len(samples)} samples, {streams:,.0f} streams in the end:")
    print("  " + ", ".join(f"at {share:.0%} {megabytes:.0f} MB" for share, megabytes in marks))
    flat = "yes" if last <= 1.1 * first else "NO"
    print(f"  most before 55 %: {first:.0f} MB, most after: {last:.0f} MB; flat (at most a tenth more): {flat}")


def throughput(broker: Broker, model: Path, records: int, garbage: float, rounds: int, seed: int) -> None:
    """The ratio of records per CPU-second with garbage and without."""
    topics = {}
    for name, share in (("none", 0.0), ("garbage", garbage)):
        topics[name] = Topic(broker)
        grammar = Grammar(load.CHANNEL_NAMES, seed, load.STREAMS)
        topics[name].fill(grammar.any(records, share, HEAVY))
    empty = Topic(broker)
    rates: dict[str, list[float]] = {name: [] for name in topics}
    for number in range(rounds):
        idle = cpu_seconds(Detector(broker, empty.name, model, "--stop-at-end").command)
        for name, topic in topics.items():
            began = time.monotonic()
            busy = cpu_seconds(Detector(broker, topic.name, model, "--stop-at-end").command)
            rates[name].append(records / (busy - idle))
            spent = f"{busy:.1f} s of CPU, {idle:.1f} s of it start, {time.monotonic() - began:.1f} s in all"
            print(f"  round {number + 1}: {name}: {spent}", flush=True)
    print(f"\n{'records per CPU-second':<28}{'median':>10}{'min':>10}{'max':>10}")
    for name, values in rates.items():
        print(f"{name:<28}{statistics.median(values):>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}")
    ratio = statistics.median(rates["garbage"]) / statistics.median(rates["none"])
    verdict = "pass" if ratio >= 0.5 else "falls short"
    print(f"{garbage:.0%} garbage / none{ratio:>16.2f}   at least 0.50   {verdict}")


def main() -> int:
    """Set up, send, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=1_000_000, help="records to account for; default 1000000")
    parser.add_argument("--garbage", type=float, default=0.5, help="share of them that is bad; default 0.5")
    parser.add_argument("--seed", type=int, default=0, help="of the garbage; default 0")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the throughput; default 3, 0: none")
    parser.add_argument("--measured", type=int, default=100_000, help="records of a turn; default 100000")
    flags = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}, seed {flags.seed}")
    with tempfile.TemporaryDirectory() as folder, Broker() as broker:
        model = load.fit("pca", Path(folder) / "pca")
        topic, began = Topic(broker), time.monotonic()
        grammar = Grammar(load.CHANNEL_NAMES, flags.seed, load.STREAMS)
        topic.fill(grammar.any(flags.records // 2, flags.garbage, HEAVY))
        topic.drop_bombs()
        topic.fill(grammar.any(flags.records - flags.records // 2, flags.garbage, HEAVY))
        topic.damage()
        print(
            f"{flags.records:,} records of {len(topic.kinds)} kinds sent in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        detector, began = Detector(broker, topic.name, model), time.monotonic()
        metrics = detector.watch(topic.ends, 900)
        print(f"through the detector in {time.monotonic() - began:.0f} s\n", flush=True)
        wrong = account(topic, detector.letters(), metrics)
        show_memory(detector.samples, sum(topic.ends), metrics[("residual_streams", "")])
        if flags.rounds:
            print(f"\nthroughput, {flags.measured:,} records in turns:", flush=True)
            throughput(broker, model, flags.measured, flags.garbage, flags.rounds, flags.seed)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
