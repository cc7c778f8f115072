"""Thirty nights: a group of streams that change, with retraining, without it, and relearning blindly.

    python tests/bench/nights.py --nights 30 --out nights.json

A real broker, everything in the past: a record's timestamp is its reading's, and the readings are kept for ever. Four
streams of three channels, a reading every five minutes, with a daily rhythm:

* ``clean``: nothing happens;
* ``seasonal``: level and daily rhythm grow slowly all the time, as with the time of year: by the end of the month the
  level has moved by three standard deviations of the noise, and the rhythm is half as large again (with ``--noise``, so
  is the noise);
* ``patched``: on day 8 a patch moves a level by six standard deviations, for good;
* ``faulty``: from day 12, 15:00, to day 20 a channel is broken; and once more, in the same way, on day 26.

Whoever is on call confirms an incident about the fault within three hours, and says nothing else all the month. Each
way of going on has its own detector (group, store, alerts) on the same readings; every day ``detector run
--stop-at-end`` reads what came, and then the night's run follows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "deploy" / "kafka"), str(ROOT)]

import numpy as np  # noqa: E402
import orjson  # noqa: E402
from broker import Broker  # noqa: E402
from kafka import KafkaProducer  # noqa: E402
from kafka_cluster import create_topic, read_all  # noqa: E402

from detector.adapters.folder import write_model  # noqa: E402
from detector.adapters.store import Store  # noqa: E402
from detector.history import read_topic  # noqa: E402
from detector.run import run  # noqa: E402
from schemas.alert import Alert, EventType  # noqa: E402
from schemas.command import Command, Verb  # noqa: E402
from schemas.errors import ResidualError  # noqa: E402
from schemas.feedback import Feedback, Verdict  # noqa: E402
from schemas.moment import SECOND_NS, format_time, parse_time  # noqa: E402
from schemas.settings import DetectorSettings  # noqa: E402
from trainer.pipeline import learn  # noqa: E402
from trainer.retrain.night import Night, retrain  # noqa: E402
from trainer.retrain.settings import RetrainSettings  # noqa: E402
from trainer.settings import FitSettings  # noqa: E402
from trainer.warm import WEIGHTS  # noqa: E402

STREAMS = ("clean", "seasonal", "patched", "faulty")
CHANNELS = ("cpu", "latency", "queue")
START_S = 1_790_000_000 // 86_400 * 86_400
#: Four days before: by day 0 the detectors know the daily rhythm, and nothing of these days is counted.
FROM = format_time((START_S - 4 * 86_400) * SECOND_NS)
STEP_S = 300
PER_DAY = 86_400 // STEP_S
LEARNED_DAYS = 14
PATCH_DAY, FAULTS = 8.0, ((12.625, 20.0), (26.625, 27.0))
#: Of ``seasonal``, a day.
GROWTH, RISE = 1 / 60, 0.1
ARMS = ("retrained", "never", "blindly")


def readings(stream: str, start: int, stop: int, seed: int, louder: bool = False) -> np.ndarray:
    """Values ``[n, 3]`` of steps ``start`` to ``stop``, counted from day 0; those before are what is learned first."""
    rng = np.random.default_rng([seed, STREAMS.index(stream)])
    steps = np.arange(-LEARNED_DAYS * PER_DAY, stop)
    noise = rng.normal(size=(len(steps), 3))
    for n in range(1, len(noise)):  # neighbours are alike
        noise[n] = 0.7 * noise[n - 1] + 0.714 * noise[n]
    days = steps / PER_DAY
    phase = np.array([0, 0.3, 0.6]) + STREAMS.index(stream) / 10
    rhythm = 2 * np.sin(2 * np.pi * (days[:, None] - phase))
    grown = np.maximum(days, 0)[:, None] if stream == "seasonal" else np.zeros((len(days), 1))
    values = (1 + GROWTH * grown) * rhythm + (1 + GROWTH * louder * grown) * noise + RISE * grown
    if stream == "patched":
        values[days >= PATCH_DAY, 0] += 6
    if stream == "faulty":
        for first, last in FAULTS:
            values[(days >= first) & (days < last), 1] += 7
    return (10 + values)[steps >= start].round(3)


def records(stream: str, start: int, stop: int, seed: int, louder: bool = False) -> Iterator[tuple[int, bytes]]:
    """(timestamp in milliseconds, record) of each reading."""
    values = readings(stream, start, stop, seed, louder)
    for step, row in zip(range(start, stop), values.tolist(), strict=True):
        at = 1000 * (START_S + step * STEP_S)
        yield at, orjson.dumps({"stream": stream, "timestamp": at, "values": dict(zip(CHANNELS, row, strict=True))})


@dataclass
class Arm:
    """One way of going on."""

    name: str
    bootstrap: str
    folder: Path
    fitting: FitSettings
    judged: set[str] = field(default_factory=set)
    nights: list[dict[str, Any]] = field(default_factory=list)

    @property
    def detector(self) -> DetectorSettings:
        """What its detector is told."""
        return DetectorSettings.load({
            "model": str(self.folder / self.name), "bootstrap_servers": self.bootstrap, "group_id": self.name,
            "alerts_topic": f"alerts-{self.name}", "dead_letters_topic": f"dead-{self.name}", "replica_id": "one",
            "from": FROM, "stop_at_end": True, "batch_latency": 5, "commit_interval": 0.2, "checkpoint_age": 0,
            "checkpoint_bytes": 10**8, "log_level": "warning",
        })  # fmt: skip

    @property
    def retraining(self) -> RetrainSettings:
        """What its nightly run is told."""
        return RetrainSettings.load({
            "store": str(self.folder / self.name), "bootstrap_servers": self.bootstrap, "group_id": self.name,
            "alerts_topic": f"alerts-{self.name}", "feedback_topic": f"feedback-{self.name}",
        })  # fmt: skip

    def watch(self) -> None:
        """Read what has come."""
        run(self.detector)

    def alerts(self) -> list[Alert]:
        """All events so far."""
        found = read_all(self.bootstrap, f"alerts-{self.name}")
        return [Alert.model_validate_json(value) for _, _, value in found if value]

    def judge(self, producer: KafkaProducer) -> None:
        """What is about the fault is confirmed: at once to the detector, and for the nights to come."""
        for alert in self.alerts():
            incident, day = alert.data.incident, _day(alert.data.opened)
            real = alert.subject == "faulty" and any(first <= day < last for first, last in FAULTS)
            if real and incident not in self.judged:
                self.judged.add(incident)
                feedback = Feedback(incident=incident, stream=alert.subject, verdict=Verdict.CONFIRMED)
                producer.send(f"feedback-{self.name}", key=incident.encode(), value=feedback.to_bytes())
                command = Command(id=incident, command=Verb.CONFIRM, stream=alert.subject)
                producer.send(f"residual-commands-{self.name}", value=command.to_bytes())
        producer.flush()

    def night(self, day: int, say: bool) -> None:
        """The night after a day."""
        began = time.monotonic()
        said: dict[str, Any] = {"day": day}
        try:
            if self.name == "retrained":
                said |= _outcome(retrain(self.retraining, self.fitting, _loud if say else _silent))
            elif self.name == "blindly":
                self._learn_all()
        except ResidualError as error:
            said["error"] = str(error)
        said["seconds"] = round(time.monotonic() - began, 1)
        model = Store(str(self.folder / self.name)).read("default", self.champion)
        if "faulty" in model.streams.names:
            said["faulty_level"] = round(float(model.streams.loc[model.streams.names.index("faulty"), 1]), 2)
        self.nights.append(said)

    @property
    def champion(self) -> str:
        """What serves."""
        champion = Store(str(self.folder / self.name)).champion("default")
        assert champion is not None
        return champion.now.version

    def _learn_all(self) -> None:
        """The last days as they are, good or bad."""
        table = read_topic(self.bootstrap, "readings", LEARNED_DAYS * 86_400.0, CHANNELS)
        learned = learn(table, self.fitting)
        write_model(learned.model, self.folder / "blind", {WEIGHTS: learned.weights})
        store = Store(str(self.folder / self.name))
        store.promote("default", store.add("default", self.folder / "blind"), "blindly")


def _outcome(night: Night) -> dict[str, Any]:
    return {
        "promoted": night.promoted, "left_out": dict(night.left_out), "unsettled": list(night.unsettled),
        "reasons": list(night.contest.decision.reasons),
        "rows": {
            c.role: [c.rows[0].episodes, round(c.rows[0].promised, 2), round(c.rows[0].share, 3)]
            for c in night.contest.contenders
        },
    }  # fmt: skip


def _silent(line: str) -> None:
    """Nothing."""


def _loud(line: str) -> None:
    print(f"    {line}", flush=True)


def _day(time_text: str) -> float:
    return (parse_time(time_text) / SECOND_NS - START_S) / 86_400


def _send(producer: KafkaProducer, start: int, stop: int, seed: int, louder: bool) -> None:
    logs = [records(stream, start, stop, seed, louder) for stream in STREAMS]
    for moment in zip(*logs, strict=True):  # in the order of time
        for number, (at, value) in enumerate(moment):
            key = STREAMS[number].encode()
            producer.send("readings", key=key, value=value, timestamp_ms=at, partition=number % 2)
    producer.flush()


def _portions(day: int) -> Sequence[tuple[float, float]]:
    """A day in one piece, or in two where somebody is called in the middle of it."""
    cuts = [first + 0.125 for first, _ in FAULTS if int(first) == day]
    edges = [float(day), *cuts, day + 1.0]
    return list(pairwise(edges))


def play(
    bootstrap: str, folder: Path, nights: int, seed: int, model: str, arms: Sequence[str], loud: bool, louder: bool
) -> Iterator[tuple[int, list[Arm]]]:
    """All arms, after each of the nights."""
    fitting = FitSettings.load({"model": model, "seed": seed})
    create_topic(bootstrap, "readings", 2)
    for name in arms:
        for topic in ("alerts", "feedback", "residual-commands"):
            create_topic(bootstrap, f"{topic}-{name}", 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    _send(producer, -LEARNED_DAYS * PER_DAY, 0, seed, louder)
    learned = learn(read_topic(bootstrap, "readings", 10**7, CHANNELS), fitting)
    write_model(learned.model, folder / "first", {WEIGHTS: learned.weights})
    found = [Arm(name, bootstrap, folder, fitting) for name in arms]
    for arm in found:
        store = Store(str(folder / arm.name))
        store.promote("default", store.add("default", folder / "first"), "first")
    for day in range(nights):
        for first, last in _portions(day):
            _send(producer, round(first * PER_DAY), round(last * PER_DAY), seed, louder)
            for arm in found:
                arm.watch()
                arm.judge(producer)
        for arm in found:
            arm.night(day, loud)
        print(f"day {day}: " + "; ".join(f"{arm.name} {_short(arm)}" for arm in found), flush=True)
        yield day, found
    producer.close()


def _short(arm: Arm) -> str:
    last = arm.nights[-1]
    done = "promoted" if last.get("promoted") else last.get("error") or "; ".join(last.get("reasons", ["-"]))
    opened = sum(alert.type is EventType.OPENED for alert in arm.alerts())
    return f"{opened} incidents, {done[:90]}, {last['seconds']} s, level {last.get('faulty_level')}"


def table(arm: Arm, nights: int) -> list[dict[str, Any]]:
    """By stream: incidents that were false, and how much of the month was under an alarm that was none."""
    by_incident: dict[str, list[Alert]] = {}
    for alert in arm.alerts():
        by_incident.setdefault(alert.data.incident, []).append(alert)
    rows = []
    for stream in STREAMS:
        false, hours, kinds, right = 0, 0.0, [], []
        for events in by_incident.values():
            if events[0].subject != stream:
                continue
            began = _day(events[0].data.opened)
            if began < 0:
                continue
            over = [_day(e.time) for e in events if e.type is EventType.RESOLVED]
            end = over[0] if over else float(nights)
            kind = events[-1].data.kind.value
            real = stream == "faulty" and any(first <= began < last + 0.1 for first, last in FAULTS)
            known = stream == "patched" and PATCH_DAY <= began < PATCH_DAY + 0.1
            if real or known:
                right.append(f"{kind} {began:.2f}–{end:.2f}")
                continue
            false += 1
            hours += 24 * (end - began)
            kinds.append(f"{kind} {began:.2f}–{end:.2f}")
        rows.append({
            "arm": arm.name, "stream": stream, "false": false, "a_week": round(7 * false / nights, 2),
            "hours_in_false_alarm": round(hours, 1), "right": right, "false_ones": kinds,
        })  # fmt: skip
    return rows


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="pca")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--noise", action="store_true", help="the noise of the seasonal stream grows, too")
    parser.add_argument("--loud", action="store_true", help="what the nightly run says")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="residual-nights-")))
        broker = stack.enter_context(
            contextlib.closing(Broker(settings={"group.initial.rebalance.delay.ms": "0"}).start())
        )
        played = play(
            broker.bootstrap, folder, chosen.nights, chosen.seed, chosen.model, chosen.arms, chosen.loud, chosen.noise
        )
        for day, arms in played:  # what was seen so far is kept, whatever comes of the next night
            rows = [row for arm in arms for row in table(arm, day + 1)]
            if chosen.out:
                nights = {arm.name: arm.nights for arm in arms}
                chosen.out.write_text(json.dumps({"rows": rows, "nights": nights}, indent=1))
    print(f"\n{'arm':10} {'stream':9} {'false':>5} {'a week':>6} {'hours':>6}  right; false ones")
    for row in rows:
        print(f"{row['arm']:10} {row['stream']:9} {row['false']:5} {row['a_week']:6} {row['hours_in_false_alarm']:6}  "
              f"{', '.join(row['right'])}; {', '.join(row['false_ones'])[:150]}")  # fmt: skip


if __name__ == "__main__":
    main()
