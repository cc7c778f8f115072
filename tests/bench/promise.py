"""Whether the promise of false alarms is kept where nothing is wrong, and faults are caught all the same.

    python tests/bench/promise.py [--models pca,default] [--series iid,ar.9,ar.99,daily] [--streams 200] [--watch 60]

Normal series of known kinds are learned from as ``trainer fit`` does and watched as ``detector run`` does, once for
each promise; after that faults are planted, each of one channel, six standard deviations for three hours, and the same
detector goes on watching. What is made is thrown away as soon as it is scored, so the size is bounded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]  # run as a file

from detector.adapters.files import Table  # noqa: E402
from detector.adapters.texts import Names, Stamps  # noqa: E402
from detector.engine.engine import Engine  # noqa: E402
from detector.engine.model import Model  # noqa: E402
from detector.engine.promising import promising  # noqa: E402
from detector.engine.readings import Readings  # noqa: E402
from schemas.moment import SECOND_NS  # noqa: E402
from schemas.promise import Promise  # noqa: E402
from trainer.pipeline import learn  # noqa: E402
from trainer.settings import AUTO, FitSettings  # noqa: E402

#: Correlation of a channel with itself one reading later; "daily" has independent noise on a rhythm of its own.
SERIES = {"iid": 0.0, "ar.9": 0.9, "ar.99": 0.99, "daily": 0.0}
PROMISES = ("1/7d", "1/14d", "1/70d")
DEFAULT = "default"

CHANNELS, STEP_S = 8, 300
DAY = 86_400 // STEP_S
START_NS = 1_700_006_400 * SECOND_NS

#: Standard deviations, readings, and readings from one planted fault to the next.
SIZE, LENGTH, APART = 6.0, 3 * 3600 // STEP_S, DAY

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """What was seen under one promise."""

    promised: float
    """Episodes per stream-week."""
    realised: float
    within: float
    """Share of streams with at most three times the promise."""
    alarmed: float
    """Share of readings under alarm."""
    caught: float
    """Share of planted faults in which an alarm began."""
    faults: int


class Fleet:
    """Streams of one kind, time step by time step, forever and the same for the same seed."""

    def __init__(self, kind: str, streams: int, seed: int) -> None:
        self._rng = np.random.default_rng([seed, list(SERIES).index(kind)])
        self.phi, self.daily = SERIES[kind], kind == "daily"
        shape = (streams, CHANNELS)
        self.level = self._rng.standard_normal(shape, np.float32)
        self.spread = np.exp(self._rng.standard_normal(shape, np.float32) / 4)
        self._phase = 2 * np.pi * self._rng.random(shape, np.float32)
        self._state = self._rng.standard_normal(shape, np.float32)
        self.at = 0

    def steps(self, count: int) -> Floats:
        """The next readings, ``[count, streams, CHANNELS]``; every channel has its own level, spread and phase."""
        made = self._rng.standard_normal((count, *self._state.shape), np.float32)
        made *= np.float32(np.sqrt(1 - self.phi**2))
        if self.phi:
            for row in made:
                row += np.float32(self.phi) * self._state
                self._state = row
            self._state = self._state.copy()  # not what becomes of it below
        if self.daily:
            of_day = 2 * np.pi * (self.at + np.arange(count, dtype=np.float32)) / DAY
            made += 2 * np.sin(of_day[:, None, None] + self._phase)
        self.at += count
        made *= self.spread
        made += self.level
        return made


def as_table(values: Floats) -> Table:
    """Readings ``[count, streams, CHANNELS]`` as one log."""
    count, streams, channels = values.shape
    times = START_NS + np.repeat(np.arange(count), streams) * (STEP_S * SECOND_NS)
    names = Names(names_of(streams), np.tile(np.arange(streams, dtype=np.int32), count))
    return Table(
        names,
        times,
        values.reshape(-1, channels),
        Stamps(times, np.empty(0, np.uint8), None),
        tuple(f"c{c}" for c in range(channels)),
    )


def names_of(streams: int) -> list[str]:
    """Names of the streams, in alphabetical order."""
    return [f"s{number:04}" for number in range(streams)]


class Watch:
    """One detector: a stretch of normal readings, then one with faults."""

    def __init__(self, model: Model, promise: str, streams: int) -> None:
        self._engine = Engine(promising(model, promise))
        self.promise = Promise.parse(promise)
        self._names = names_of(streams)
        self._open = np.zeros(streams, bool)
        self.episodes = np.zeros(streams, np.int64)
        self.alarmed = self.readings = self.caught = self.faults = 0

    def follow(self, values: Floats, start: int, counted: bool = True) -> NDArray[np.bool_]:
        """Score readings ``[count, streams, CHANNELS]`` from step ``start`` on; whether each is under alarm."""
        count, streams, channels = values.shape
        times = START_NS + np.repeat(start + np.arange(count), streams) * (STEP_S * SECOND_NS)
        readings = Readings(0, self._names * count, times, values.reshape(-1, channels))
        alert = self._engine.process([readings]).alert.reshape(count, streams)
        if counted:
            before = np.concatenate([self._open[None], alert[:-1]])
            self.episodes += (alert & ~before).sum(axis=0)
            self.alarmed += int(alert.sum())
            self.readings += alert.size
        self._open = alert[-1]
        return alert

    def plant(self, values: Floats, start: int, spread: Floats, number: int) -> None:
        """A fault in every stream, in the middle of ``APART`` readings: caught where an alarm opens during it."""
        begin = (APART - LENGTH) // 2
        streams = np.arange(values.shape[1])
        channel = (streams + number) % CHANNELS
        sign = np.where((streams + number) // CHANNELS % 2, 1, -1)
        faulty = values.copy()
        faulty[begin : begin + LENGTH, streams, channel] += SIZE * spread[streams, channel] * sign
        alert = self.follow(faulty, start, counted=False)
        opened = alert[begin : begin + LENGTH] & ~alert[begin - 1 : begin + LENGTH - 1]
        self.caught += int(opened.any(axis=0).sum())
        self.faults += len(streams)

    def kept(self) -> Kept:
        """The sums."""
        weeks = self.readings / len(self.episodes) * STEP_S / (7 * 86_400)
        promised = 7 * self.promise.per_day(len(self.episodes))
        own = self.episodes / weeks
        within = float(np.mean(own <= 3 * promised))
        caught = self.caught / max(self.faults, 1)
        return Kept(promised, float(own.mean()), within, self.alarmed / self.readings, caught, self.faults)


def watched(
    kind: str, model: str, streams: int, fit_days: int, watch_days: int, fault_days: int, seed: int,
    promises: Sequence[str] = PROMISES, **settings: object,
) -> tuple[Model, list[Kept]]:  # fmt: skip
    """Learn, watch, plant; the model and what became of each promise."""
    fleet = Fleet(kind, streams, seed)
    values = fleet.steps(fit_days * DAY)
    fit = FitSettings.model_validate({"model": AUTO if model == DEFAULT else model, "seed": seed, **settings})
    learned = learn(as_table(values), fit).model
    watches = [Watch(learned, promise, streams) for promise in promises]
    tail = values[-DAY:] if learned.manifest.season is None else values[-7 * DAY :]
    for watch in watches:
        for at, part in parts(tail):
            watch.follow(part, fleet.at - len(tail) + at, counted=False)
    del values
    for _ in range(watch_days):
        start, normal = fleet.at, fleet.steps(DAY)
        for watch in watches:
            for at, part in parts(normal):
                watch.follow(part, start + at)
    for number in range(fault_days):
        start, normal = fleet.at, fleet.steps(APART)
        for watch in watches:
            watch.plant(normal, start, fleet.spread, number)
    return learned, [watch.kept() for watch in watches]


def parts(values: Floats, size: int = 8192) -> Iterator[tuple[int, Floats]]:
    """Some time steps at once, with the place of the first."""
    steps = max(size // values.shape[1], 1)
    return ((at, values[at : at + steps]) for at in range(0, len(values), steps))


HEADER = (
    f"{'series':7} {'model':11} {'promised':>9} {'realised':>9} {'times':>6} {'within 3x':>10} {'alarmed':>8} "
    f"{'caught':>7}  {'tail':16} {'cpu s':>6}"
)
EXPLAINED = """
promised, realised: false-alarm episodes per stream-week, pooled over the streams. within 3x: streams with at most three
times the promise. alarmed: share of normal readings under alarm. caught: planted faults (6 standard deviations of the
noise, one channel, 3 hours) in which an alarm began. The tail's method is that of the threshold of 1/7d."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["pca", DEFAULT], metavar="A,B")
    parser.add_argument("--series", type=lambda text: text.split(","), default=list(SERIES), metavar="A,B")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--fit", type=int, default=30, help="days")
    parser.add_argument("--watch", type=int, default=60, help="days")
    parser.add_argument("--faults", type=int, default=4, help="days with a fault in every stream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit-limit", default="10m", metavar="DURATION", help="time to fit a model, at most")
    given = parser.parse_args(arguments)
    print(HEADER, flush=True)
    for model in given.models:
        for kind in given.series:
            began = time.process_time()
            learned, kept = watched(
                kind, model, given.streams, given.fit, given.watch, given.faults, given.seed, fit_limit=given.fit_limit
            )
            spent = time.process_time() - began
            for one in kept:
                print(
                    f"{kind:7} {learned.manifest.model:11} {one.promised:9.3f} {one.realised:9.3f} "
                    f"{one.realised / one.promised:6.2f} {one.within:10.1%} {one.alarmed:8.3%} {one.caught:7.1%}  "
                    f"{learned.manifest.calibration.method:16} {spent:6.0f}",
                    flush=True,
                )
    print(EXPLAINED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
