"""make bench: readings per CPU-second of the process, beside what one would do without Residual.

A topic of 38-channel JSON readings of 1,000 streams in turn, 3 partitions, on a broker of its own. Each contender is a
process; its CPU time (user and system, from the operating system's account of it) less that of the same command on an
empty topic. Contenders take turns, and medians are compared: trust the ratios, not the figures.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "deploy" / "kafka")]

import load  # noqa: E402
from broker import Broker  # noqa: E402
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition  # noqa: E402
from kafka_cluster import create_topic, read_all, unique  # noqa: E402

#: One thread each; and no settings of the detector but the defaults.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RESIDUAL_")} | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(HERE.parents[1]),
}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process that must succeed."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as empty:  # no residual.toml is in force there
        process = subprocess.Popen(command, stdout=said, stderr=said, env=ENVIRONMENT, cwd=empty)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')[-3000:]}")
    return usage.ru_utime + usage.ru_stime


def answer(command: list[str]) -> dict[str, Any]:
    """What a process that prints JSON says."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, stdout=subprocess.PIPE, env=ENVIRONMENT, check=True, cwd=empty)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass(frozen=True)
class Contender:
    """A process that reads a topic to its end. ``command``: from a topic and the readings on it; ``rounds``: turns."""

    command: Callable[[str, int], list[str]]
    rounds: int


class Contenders:
    """Who is compared, over one broker."""

    def __init__(self, bootstrap: str, pca: Path, conv: Path, rounds: int) -> None:
        self._bootstrap = bootstrap
        self.groups: dict[str, str] = {}
        self.all = {
            "bare": Contender(lambda *topic: self._reader("bare.py", *topic), rounds),
            "detector, pca": Contender(lambda *topic: self._detector(pca, *topic), rounds),
            "script, pca": Contender(lambda *topic: self._reader("script.py", *topic, pca), rounds),
            "detector, conv": Contender(lambda *topic: self._detector(conv, *topic), 1),
        }

    def _reader(self, script: str, topic: str, readings: int, *more: Path) -> list[str]:
        return [sys.executable, str(HERE / script), self._bootstrap, topic, str(readings), *map(str, more)]

    def _detector(self, model: Path, topic: str, readings: int) -> list[str]:
        group = self.groups[topic] = unique("bench")
        flags = {"model": model, "bootstrap-servers": self._bootstrap, "readings-topic": topic, "group-id": group}
        flags |= {"alerts-topic": f"{group}-alerts", "dead-letters-topic": f"{group}-dead", "log-level": "error"}
        command = [sys.executable, "-m", "detector.cli", "run", "--stop-at-end"]
        return command + [part for name, value in flags.items() for part in (f"--{name}", str(value))]

    def check(self, topic: str, readings: int) -> None:
        """The newest detector has committed every reading and set none aside."""
        group = self.groups[topic]
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            parts = [TopicPartition(topic, number) for number in range(load.PARTITIONS)]
            found = admin.list_group_offsets({group: parts})[group]
        finally:
            admin.close()
        committed = sum(offset.offset for offset in found.values())
        dead = len(read_all(self._bootstrap, f"{group}-dead"))
        if committed != readings or dead:
            raise SystemExit(f"the detector committed {committed} of {readings} readings, {dead} dead letters")


def fill(bootstrap: str, readings: int) -> str:
    """A topic with this many readings."""
    topic = create_topic(bootstrap, unique("readings"), load.PARTITIONS)
    create_topic(bootstrap, f"{topic}-script-alerts", 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=20, batch_size=1 << 18)
    for key, value in load.records(readings):
        producer.send(topic, key=key, value=value)
    producer.flush()
    producer.close()
    return topic


def measure(contenders: Contenders, topic: str, empty: str, readings: int, rounds: int) -> dict[str, list[float]]:
    """Readings per CPU-second of each contender, by round.

    What a process costs before its first reading is measured in every round, on an empty topic, and the median taken.
    """
    idle: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name, contender in contenders.all.items():
            if number >= contender.rounds:
                continue
            idle[name].append(cpu_seconds(contender.command(empty, 0)))
            busy[name].append(cpu_seconds(contender.command(topic, readings)))
            if name.startswith("detector"):
                contenders.check(topic, readings)
            print(
                f"  round {number + 1}: {name}: {busy[name][-1]:.2f} s, {idle[name][-1]:.2f} s of it start", flush=True
            )
    return {
        name: [readings / max(spent - statistics.median(idle[name]), 1e-3) for spent in seconds]
        for name, seconds in busy.items()
    }


def percentages(shares: dict[str, float]) -> str:
    """Shares on one line."""
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def show(rates: dict[str, list[float]], shares: dict[str, float], engine: dict[str, Any]) -> None:
    """The table and the targets."""
    print(f"\n{'readings per CPU-second':<28}{'median':>10}{'min':>10}{'max':>10}")
    for name, values in rates.items():
        print(f"{name:<28}{statistics.median(values):>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}")
    print(f"\ndetector's CPU time: {percentages(shares)}")
    print(f"engine alone: {percentages(engine['shares'])}; {engine['alerts']} alerts")
    print(f"state: {engine['bytes_per_stream']:,.0f} bytes per stream (window, recent scores and flags, incident)\n")
    median = {name: statistics.median(values) for name, values in rates.items()}
    targets = [
        ("end to end / bare", median["detector, pca"] / median["bare"], 0.5, ".2f"),
        ("end to end / script", median["detector, pca"] / median["script, pca"], 2.0, ".2f"),
        ("engine alone", median["engine alone, pca"], 200_000, ",.0f"),
    ]
    for name, value, target, form in targets:
        verdict = "pass" if value >= target else "falls short"
        print(f"{name:<22}{value:>12{form}}   at least {target:>10{form}}   {verdict}")


def machine() -> str:
    """What the figures were taken on."""
    names = ["kafka-python", "orjson", "numpy", "onnxruntime", "onnxruntime-gpu"]
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    versions = ", ".join(f"{name} {found[name]}" for name in names if name in found)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main() -> None:
    """Set up, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--readings", type=int, default=300_000, help="readings on the topic; default 300000")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; default 3")
    parser.add_argument("--quick", action="store_true", help="one round of 30,000 readings, to see that it works")
    flags = parser.parse_args()
    readings, rounds = (30_000, 1) if flags.quick else (flags.readings, flags.rounds)
    print(f"{machine()}\n{readings:,} readings of {load.CHANNELS} channels, {load.STREAMS:,} streams, {rounds} rounds")
    with tempfile.TemporaryDirectory() as folder, Broker() as broker:
        print("fitting the models, filling the topic …", flush=True)
        pca, conv = load.fit("pca", Path(folder) / "pca"), load.fit("conv", Path(folder) / "conv")
        topic, empty = fill(broker.bootstrap, readings), fill(broker.bootstrap, 0)
        rates = measure(Contenders(broker.bootstrap, pca, conv, rounds), topic, empty, readings, rounds)
        alone = [sys.executable, str(HERE / "engine.py")]
        engines = [answer([*alone, str(pca), str(min(readings, 200_000)), "2000"]) for _ in range(rounds)]
        rates["engine alone, pca"] = [engine["rate"] for engine in engines]
        rates["engine alone, conv"] = [answer([*alone, str(conv), str(min(readings, 100_000)), "2000"])["rate"]]
        shares = answer([sys.executable, str(HERE / "stages.py"), broker.bootstrap, topic, str(pca), unique("stages")])
        show(rates, shares, engines[0])


if __name__ == "__main__":
    main()
