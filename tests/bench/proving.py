"""A proving ground: normal readings with a model fitted on the first part of them, to plant things into the rest.

Many copies of the rest, each with something else planted, are watched by one engine: a copy is a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from detector.adapters.files import Table, read_table
from detector.adapters.texts import Names, Stamps
from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from schemas.alert import Ended, EventType, Kind
from schemas.moment import SECOND_NS
from trainer.pipeline import learn
from trainer.settings import FitSettings

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DAY_S, START_NS = 86_400, 1_700_006_400 * SECOND_NS

#: Of a real series: the part that is learned from; the rest is normal too, and watched.
FITTED = 0.6

#: Readings of all copies that go through the engine at once, about.
AT_ONCE = 50_000

#: Of real series: a channel with fewer values does not move, it switches.
MOVES = 50


@dataclass(frozen=True)
class Ground:
    """S streams that report together, N readings of C channels each."""

    name: str
    model: Model
    names: list[str]
    times: Ints
    """``[N]``, ns."""
    values: Floats
    """``[N, S, C]``."""
    start: int
    """The reading with which watching starts."""
    sd: Floats
    """``[S, C]``: a standard deviation of what is normal; of generated data that of the noise."""
    moving: Ints
    """Channels to plant into."""

    @property
    def day(self) -> int:
        """Readings of a day."""
        return round(DAY_S * SECOND_NS / int(self.times[1] - self.times[0]))

    @property
    def watched(self) -> Floats:
        """What is watched, ``[M, S, C]``."""
        return self.values[self.start :]


@dataclass(frozen=True)
class Event:
    """An event of an incident, at a reading counted from the start of watching."""

    row: int
    type: EventType
    kind: Kind
    incident: str
    ended: Ended | None
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Played:
    """What became of K copies."""

    alert: NDArray[np.bool_]
    """``[K, M, S]``."""
    events: dict[tuple[int, int], list[Event]]
    """By copy and stream."""
    engine: Engine
    error: Floats
    """``[K, M, S, C]``; empty unless asked for."""

    def level(self, copy: int, names: Sequence[str]) -> Floats:
        """How far the levels have moved at the end, ``[S, C]``, engineering units."""
        members = self.engine.streams.of_partition(copy)
        levels: Floats = self.engine.state.base_level[np.array([members[name] for name in names])]
        return levels


def noise(rng: np.random.Generator, rows: int, shape: tuple[int, ...], phi: float) -> Floats:
    """AR(1) of unit variance, ``[rows, *shape]``."""
    white = rng.standard_normal((rows, *shape))
    white[1:] *= np.sqrt(1 - phi**2)
    made: Floats = lfilter([1.0], [1.0, -phi], white, axis=0).astype(np.float32)
    return made


def generated(
    streams: int = 24, channels: int = 8, fit_days: int = 30, watch_days: int = 20, seed: int = 0, *,
    step_s: int = 300, shared: float = 0.0, **settings: object,
) -> Ground:  # fmt: skip
    """AR(1) noise (φ = .9) on a daily rhythm; each channel has its own level, spread and phase, and ``shared`` of its
    variance with the others of its stream.
    """
    rng = np.random.default_rng(seed)
    day = DAY_S // step_s
    rows, shape = (fit_days + watch_days) * day, (streams, channels)
    spread = np.exp(rng.standard_normal(shape) / 4).astype(np.float32)
    values = np.sqrt(1 - shared) * noise(rng, rows, shape, 0.9)
    values += np.sqrt(shared) * noise(rng, rows, (streams, 1), 0.9) * np.where(rng.random(shape) < 0.5, -1, 1)
    values += 2 * np.sin(2 * np.pi * (np.arange(rows)[:, None, None] / day + rng.random(shape)))
    values = (values * spread + rng.standard_normal(shape)).astype(np.float32)
    times = START_NS + np.arange(rows) * (step_s * SECOND_NS)
    names = [f"s{number:03}" for number in range(streams)]
    model = fitted(names, times, values, fit_days * day, **settings)
    return Ground("generated", model, names, times, values, fit_days * day, spread, np.arange(channels))


def real(folder: Path, **settings: object) -> Ground:
    """The normal part of one series of the measuring data."""
    table = read_table([str(folder / "train.csv.gz")])
    rows = round(FITTED * len(table))
    values = table.values[:, None]
    model = fitted([folder.name], table.times, values, rows, **settings)
    known = values[:rows]
    several = [c for c in range(values.shape[2]) if len(np.unique(known[:, 0, c])) >= MOVES]
    sd = np.nanstd(known.astype(np.float64), axis=0).astype(np.float32)
    return Ground(folder.name, model, [folder.name], table.times, values, rows, sd, np.array(several))


def fitted(names: Sequence[str], times: Ints, values: Floats, rows: int, **settings: object) -> Model:
    """A model of the first ``rows`` readings, ``pca`` where nothing else is named."""
    S, C = values.shape[1:]
    every = np.repeat(times[:rows], S)
    table = Table(
        Names(list(names), np.tile(np.arange(S, dtype=np.int32), rows)),
        every,
        values[:rows].reshape(-1, C),
        Stamps(every, np.empty(0, np.uint8), None),
        tuple(f"c{c}" for c in range(C)),
    )
    return learn(table, FitSettings.model_validate({"model": "pca", **settings})).model


def play(
    ground: Ground,
    copies: Sequence[Floats],
    policy: Policy | None = None,
    engine: Engine | None = None,
    *,
    errors: bool = False,
) -> Played:
    """Watch copies ``[M, S, C]`` of what is watched, each after the same history."""
    engine = engine or Engine(ground.model, policy)
    S, M, K = len(ground.names), len(ground.times) - ground.start, len(copies)
    each = max(AT_ONCE // S, 1)
    for at in range(0, ground.start, each):
        rows = slice(at, min(at + each, ground.start))
        engine.process([_readings(0, ground, ground.times[rows], ground.values[rows])])
    for bucket in range(BUCKETS):
        saved = engine.dump(0, bucket)
        for copy in range(1, K):
            engine.load(copy, saved)
    alert = np.zeros((K, M, S), bool)
    error = np.zeros((K, M, S, ground.values.shape[2]) if errors else (0, 0, 0, 0), np.float32)
    events: dict[tuple[int, int], list[Event]] = {(k, s): [] for k in range(K) for s in range(S)}
    each = max(AT_ONCE // (S * K), 1)
    for at in range(0, M, each):
        rows = slice(at, min(at + each, M))
        times = ground.times[ground.start :][rows]
        scored = engine.process([_readings(k, ground, times, copy[rows]) for k, copy in enumerate(copies)])
        alert[:, rows] = scored.alert.reshape(K, len(times), S)
        if errors:
            error[:, rows] = scored.error.reshape(K, len(times), S, -1)
        for one in scored.published:
            k, place = divmod(one.index, len(times) * S)
            data = one.alert.data
            named = tuple(channel.name for channel in data.channels)
            events[k, place % S].append(
                Event(at + place // S, one.alert.type, data.kind, data.incident, data.ended, named)
            )
    return Played(alert, events, engine, error)


def _readings(partition: int, ground: Ground, times: Ints, values: Floats) -> Readings:
    S = len(ground.names)
    return Readings(partition, ground.names * len(times), np.repeat(times, S), values.reshape(len(times) * S, -1))
