"""Measuring it: faults of every kind and size, one channel at a time, into normal readings, past the detector's engine.

A fault counts as caught where an incident opens while it lasts or within MARGIN readings after it, and none was open
when it began. All sizes of a kind are planted at the same places into the same channels, so that they are compared in
pairs; a larger one that is caught less often is not chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detector.engine.model import Model
from schemas.alert import EventType
from schemas.moment import SECOND_NS, format_time
from schemas.promise import DAY_S
from trainer.detectability.result import ChannelResult, Detectability, KindResult, Level
from trainer.faults import KINDS, NEED_MOVEMENT, Fault, Kind, moving, plant
from trainer.pipeline import Learned
from trainer.retrain.promised import promised_rate
from trainer.track import Runner, Track, laps_at_once

Floats = NDArray[np.float32]

#: Sizes of each kind, in what unit, and how many readings a fault lasts; None: its size is how long.
DEVIATIONS, READINGS, TIMES = "deviations", "readings", "times as fast"
LASTS = 64


@dataclass(frozen=True)
class Grid:
    """What is planted of a kind."""

    unit: str
    sizes: tuple[float, ...]
    lasts: int | None = LASTS


GRIDS: dict[Kind, Grid] = {
    Kind.SPIKE: Grid(DEVIATIONS, (2, 4, 8, 16, 32), 1),
    Kind.SHIFT: Grid(DEVIATIONS, (0.5, 1, 2, 4, 8)),
    Kind.DRIFT: Grid(DEVIATIONS, (1, 2, 4, 8, 16)),
    Kind.STUCK: Grid(READINGS, (8, 16, 32, 64, 128), None),
    Kind.DROPOUT: Grid(READINGS, (8, 16, 32, 64, 128), None),
    Kind.NOISE: Grid(DEVIATIONS, (0.5, 1, 2, 4, 8)),
    Kind.FREQUENCY: Grid(TIMES, (1.5, 2, 3, 4, 8)),
    Kind.CORRELATION: Grid(READINGS, (8, 16, 32, 64, 128), None),
    Kind.DELAY: Grid(READINGS, (2, 4, 8, 16, 32)),
}

#: Of each kind.
SIZES = 5

#: Kinds that go up or down.
SIGNED = (Kind.SPIKE, Kind.SHIFT, Kind.DRIFT)

#: Readings after a fault in which it may still be caught, and those that then lie before the next one.
MARGIN, REST = 16, 48

#: Channels that are planted into, and faults of each kind and size over all of them.
CHANNELS, FAULTS = 12, 24


@dataclass
class _Count:
    planted: int = 0
    caught: int = 0
    delays: list[int] = field(default_factory=list)

    def add(self, delay: int | None) -> None:
        """A fault, and after how many readings it was caught."""
        self.planted += 1
        if delay is not None:
            self.caught += 1
            self.delays.append(delay)


@dataclass(frozen=True)
class _Wanted:
    """A fault to be planted somewhere: of this kind, at a place of its own, in this stream and channel."""

    stream: str
    channel: int
    kind: Kind
    number: int


def measure(
    model: Model, track: Track, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> Detectability | None:
    """None where the readings are too few for any fault."""
    runner = Runner(track, model)
    alert, episodes, days = _clean(runner, track)
    plan = _Plan(track, seed)
    counts = _Counts()
    rounds = [_Round.planted(plan, lap, number) for lap in plan.laps() for number in range(SIZES)]
    if not rounds:
        return None
    say(f"detectability: {len(rounds)} laps with planted faults")
    for one, told in zip(rounds, laps_at_once(track, model, [one.values for one in rounds]), strict=True):
        one.count(track, alert, told, counts)
    names = model.manifest.channel_names
    return Detectability(
        start=format_time(int(track.times.min())), end=format_time(int(track.times.max())),
        false_alarms=model.manifest.calibration.false_alarms, episodes=episodes,
        promised=round(promised_rate(model) * days, 3), stream_days=round(days, 3),
        kinds=tuple(_kind(kind, counts.by_size) for kind in KINDS),
        channels=tuple(_channel(c, names[c], counts.by_channel) for c in plan.channels),
        truncated=plan.truncated,
    )  # fmt: skip


def with_detectability(learned: Learned, seed: int = 0, say: Callable[[str], None] = lambda _: None) -> Learned:
    """The same, its report with what it can see; as it was where that cannot be measured."""
    if learned.track is None:
        return learned
    found = measure(learned.model, learned.track, seed, say)
    return replace(learned, report=learned.report.model_copy(update={"detectability": found}))


def _clean(runner: Runner, track: Track) -> tuple[NDArray[np.bool_], int, float]:
    """(where something is open without any fault ``[N]``, incidents, stream-days that were scored)."""
    alert, scored_count, episodes = np.zeros(len(track.times), bool), 0, 0
    for part, scored in runner.lap(track.values):
        alert[part] = scored.alert
        scored_count += int((~np.isnan(scored.score)).sum())
        episodes += sum(event.alert.type is EventType.OPENED for event in scored.published)
    return alert, episodes, scored_count * runner.engine.interval_ns / SECOND_NS / DAY_S


class _Plan:
    """Which faults are planted where."""

    def __init__(self, track: Track, seed: int) -> None:
        self.track, self.seed = track, seed
        self.spread = {stream: track.spread(stream) for stream in track.streams}
        self.truncated = False
        self._moving = {s: moving(track.values[track.rows[s]], self.spread[s]) for s in track.streams}
        known = np.unique(np.concatenate([*self._moving.values(), np.empty(0, np.int64)]))
        chosen = known if len(known) else np.arange(track.values.shape[1])
        self.channels = chosen[np.unique(np.linspace(0, len(chosen) - 1, CHANNELS).astype(np.int64))].tolist()

    def _wanted(self) -> Iterator[_Wanted]:
        """Every kind in every channel, the streams by turns."""
        each = -(-FAULTS // len(self.channels))
        turn = 0
        for number in range(each):
            for kind in KINDS:
                for channel in self.channels:
                    able = [s for s in self.track.streams if kind not in NEED_MOVEMENT or channel in self._moving[s]]
                    if able:
                        turn += 1
                        yield _Wanted(able[turn % len(able)], channel, kind, number)

    def laps(self) -> Iterator[list[tuple[_Wanted, int]]]:
        """Faults that have room beside each other, and the reading of its stream at which each begins."""
        rng = np.random.default_rng(self.seed)
        queues: dict[str, list[_Wanted]] = defaultdict(list)
        for wanted in self._wanted():
            queues[wanted.stream].append(wanted)
        for queue in queues.values():
            rng.shuffle(queue)
        while any(queues.values()):
            lap: list[tuple[_Wanted, int]] = []
            for stream, queue in queues.items():
                lap += self._placed(stream, queue, rng)
            if lap:
                yield lap

    def _placed(self, stream: str, queue: list[_Wanted], rng: np.random.Generator) -> list[tuple[_Wanted, int]]:
        """Takes from the queue what there is room for."""
        at, end = MARGIN + int(rng.integers(REST)), len(self.track.rows[stream])
        placed: list[tuple[_Wanted, int]] = []
        while queue:
            longest = _longest(queue[-1].kind)
            if at + longest + MARGIN > end:
                if placed:
                    break
                queue.pop()  # it has no room on any lap
                self.truncated = True
                continue
            placed.append((queue.pop(), at))
            at += longest + MARGIN + REST + int(rng.integers(REST))
        return placed

    def fault(self, wanted: _Wanted, start: int, size: float) -> Fault:
        """What is planted."""
        grid = GRIDS[wanted.kind]
        sign = -1 if wanted.kind in SIGNED and (wanted.number + wanted.channel) % 2 else 1
        return Fault(
            wanted.kind, start, round(size) if grid.lasts is None else grid.lasts, (wanted.channel,), sign * size
        )


def _longest(kind: Kind) -> int:
    grid = GRIDS[kind]
    return round(max(grid.sizes)) if grid.lasts is None else grid.lasts


@dataclass(frozen=True)
class _Round:
    """One lap: readings with faults in them, all of the size of one number."""

    values: Floats
    faults: list[tuple[_Wanted, float, Fault]]
    """Those that can be seen, with their sizes."""

    @classmethod
    def planted(cls, plan: _Plan, lap: Sequence[tuple[_Wanted, int]], number: int) -> _Round:
        """With the faults of a lap."""
        track, faults = plan.track, []
        values = track.values.copy()
        for stream in track.streams:
            own = [(wanted, start) for wanted, start in lap if wanted.stream == stream]
            sizes = [GRIDS[wanted.kind].sizes[number] for wanted, _ in own]
            made = [plan.fault(wanted, start, size) for (wanted, start), size in zip(own, sizes, strict=True)]
            planted = plant(track.values[track.rows[stream]], made, plan.spread[stream], plan.seed)
            values[track.rows[stream]] = planted.values
            for (wanted, _), size, fault, seen in zip(own, sizes, made, planted.changed, strict=True):
                if seen or wanted.kind not in NEED_MOVEMENT:
                    faults.append((wanted, size, fault))
        return cls(values, faults)

    def count(self, track: Track, clean: NDArray[np.bool_], told: NDArray[np.bool_], counts: _Counts) -> None:
        """What was caught. ``clean``, ``told`` ``[N]``: where something is open without and with the faults."""
        for wanted, size, fault in self.faults:
            rows = track.rows[wanted.stream]
            during = rows[fault.start : fault.start + fault.length + MARGIN]
            if told[rows[fault.start - 1]] or clean[during].any():  # nobody can tell what it was about
                continue
            after = np.flatnonzero(told[during])
            counts.add(wanted, size, int(after[0]) if len(after) else None)


@dataclass
class _Counts:
    by_size: dict[tuple[Kind, float], _Count] = field(default_factory=lambda: defaultdict(_Count))
    by_channel: dict[tuple[int, Kind], _Count] = field(default_factory=lambda: defaultdict(_Count))

    def add(self, wanted: _Wanted, size: float, delay: int | None) -> None:
        """A fault, and after how many readings it was caught."""
        self.by_size[wanted.kind, size].add(delay)
        self.by_channel[wanted.channel, wanted.kind].add(delay)


def _kind(kind: Kind, counts: dict[tuple[Kind, float], _Count]) -> KindResult:
    grid = GRIDS[kind]
    return KindResult(
        kind=kind.value, unit=grid.unit, lasts=grid.lasts,
        levels=tuple(_level(size, counts[kind, size]) for size in grid.sizes),
    )  # fmt: skip


def _level(size: float, count: _Count) -> Level:
    delay = float(np.median(count.delays)) if count.delays else None
    return Level(size=size, planted=count.planted, caught=count.caught, delay=delay)


def _channel(number: int, name: str, counts: dict[tuple[int, Kind], _Count]) -> ChannelResult:
    own = {kind.value: counts[number, kind] for kind in KINDS if (number, kind) in counts}
    return ChannelResult(
        channel=name,
        planted={kind: count.planted for kind, count in own.items()},
        caught={kind: count.caught for kind, count in own.items()},
    )
