"""make bench: readings per CPU-second of the process, beside what one would do without Residual.

A topic of 38-channel JSON readings of 1,000 streams in turn, 3 partitions, on a broker of its own. Each contender is a
process; its CPU time (user and system, from the operating system's account of it) less that of the same process with
nothing to read. Contenders take turns, and medians are compared: trust the ratios, not the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "deploy" / "kafka")]

import load  # noqa: E402
from broker import Broker  # noqa: E402
from kafka import KafkaProducer  # noqa: E402
from kafka_cluster import create_topic, unique  # noqa: E402

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process that must succeed."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')[-3000:]}")
    return usage.ru_utime + usage.ru_stime


def answer(command: list[str]) -> dict[str, Any]:
    """What a process that prints JSON says."""
    done = subprocess.run(command, stdout=subprocess.PIPE, env=ENVIRONMENT, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Contenders:
    """The commands that read a topic to its end."""

    def __init__(self, bootstrap: str, pca: Path, conv: Path) -> None:
        self._bootstrap, self._pca, self._conv = bootstrap, pca, conv

    def bare(self, topic: str, readings: int) -> list[str]:
        return [sys.executable, str(HERE / "bare.py"), self._bootstrap, topic, str(readings)]

    def script(self, topic: str, readings: int) -> list[str]:
        return [sys.executable, str(HERE / "script.py"), self._bootstrap, topic, str(readings), str(self._pca)]

    def detector(self, topic: str, readings: int) -> list[str]:
        return self._run(topic, self._pca)

    def detector_conv(self, topic: str, readings: int) -> list[str]:
        return self._run(topic, self._conv)

    def _run(self, topic: str, model: Path) -> list[str]:
        group = unique("bench")
        flags = {"model": model, "bootstrap-servers": self._bootstrap, "readings-topic": topic, "group-id": group}
        flags |= {"alerts-topic": f"{group}-alerts", "dead-letters-topic": f"{group}-dead", "log-level": "error"}
        command = [sys.executable, "-m", "detector.cli", "run", "--stop-at-end"]
        return command + [part for name, value in flags.items() for part in (f"--{name}", str(value))]


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
    """Readings per CPU-second of each contender, by round."""
    found: dict[str, list[float]] = {}
    kinds: dict[str, tuple[Callable[[str, int], list[str]], int]] = {
        "bare": (contenders.bare, rounds),
        "detector, pca": (contenders.detector, rounds),
        "script, pca": (contenders.script, rounds),
        "detector, conv": (contenders.detector_conv, 1),
    }
    idle = {name: cpu_seconds(command(empty, 0)) for name, (command, _) in kinds.items()}
    for number in range(rounds):
        for name, (command, times) in kinds.items():
            if number < times:
                rate = readings / max(cpu_seconds(command(topic, readings)) - idle[name], 1e-3)
                found.setdefault(name, []).append(rate)
                print(f"  round {number + 1}: {name}: {rate:,.0f} readings per CPU-second", flush=True)
    return found


def show(rates: dict[str, list[float]], engines: list[dict[str, Any]], stages: dict[str, float]) -> None:
    """The table and the targets."""
    print(f"\n{'readings per CPU-second':<28}{'median':>10}{'min':>10}{'max':>10}")
    rates = {**rates, "engine alone, pca": [engine["rate"] for engine in engines]}
    for name, values in rates.items():
        print(f"{name:<28}{statistics.median(values):>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}")
    print("\nshares of the detector's wall time: " + ", ".join(f"{k} {v:.0%}" for k, v in stages.items()))
    print("shares of the engine alone: " + ", ".join(f"{k} {v:.0%}" for k, v in engines[0]["shares"].items()))
    print(f"state: {engines[0]['bytes_per_stream']:,.0f} bytes per stream; alerts: {engines[0]['alerts']}")
    median = {name: statistics.median(values) for name, values in rates.items()}
    targets = [
        ("end to end / bare", median["detector, pca"] / median["bare"], 0.5),
        ("end to end / script", median["detector, pca"] / median["script, pca"], 2.0),
        ("engine alone", median["engine alone, pca"], 200_000),
    ]
    print()
    for name, value, target in targets:
        verdict = "reached" if value >= target else "falls short"
        print(f"{name:<22}{value:>12,.2f}   target {target:>10,g}   {verdict}")


def main() -> None:
    """Set up, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--readings", type=int, default=200_000, help="readings on the topic; default 200000")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; default 3")
    parser.add_argument("--quick", action="store_true", help="one round of 30,000 readings, to see that it works")
    flags = parser.parse_args()
    readings, rounds = (30_000, 1) if flags.quick else (flags.readings, flags.rounds)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {readings:,} readings")
    with tempfile.TemporaryDirectory() as folder, Broker() as broker:
        print("fitting the models, filling the topic …", flush=True)
        pca, conv = load.fit("pca", Path(folder) / "pca"), load.fit("conv", Path(folder) / "conv")
        topic, empty = fill(broker.bootstrap, readings), fill(broker.bootstrap, 0)
        rates = measure(Contenders(broker.bootstrap, pca, conv), topic, empty, readings, rounds)
        engine = [sys.executable, str(HERE / "engine.py"), str(pca), str(min(readings, 200_000)), "2000"]
        engines = [answer(engine) for _ in range(rounds)]
        stages = answer([sys.executable, str(HERE / "stages.py"), broker.bootstrap, topic, str(pca), unique("stages")])
        show(rates, engines, stages)


if __name__ == "__main__":
    main()
