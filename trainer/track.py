"""A track: normal readings that a model has not learned from, gone over again and again from the same start.

The detector's own engine goes over it, brought to where it begins by the readings of before. Each lap may have other
values, with faults in them: whatever is told then was told of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detector.adapters.files import Table
from detector.adapters.texts import take
from detector.engine.engine import BUCKETS, Engine, Scored
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from trainer.data import rows_by_stream

#: Readings per call of the engine, at most.
BATCH = 16384

#: Streams of which a track is made, and readings of each before it begins and on it, at most.
STREAMS, HISTORY, HELD_OUT = 8, 5000, 5000

#: Values of all copies together, at most: half a gigabyte of them.
MOST_CELLS = 1 << 27

#: Copies of streams that go at once, and what stands between a name and the number of its copy.
COPIES, COPY = 96, "\x1f"

#: Least spread of a channel, as a share of its range: what hardly moves is not planted into by a hair.
LEAST_SPREAD = 0.01

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Track:
    """``history``: normal readings that come first and are not judged; ``held_out``: those that are."""

    def __init__(self, history: Table, held_out: Table) -> None:
        self.history, self.held_out = history, held_out
        order = np.argsort(held_out.times, kind="stable")
        self.names = take(held_out.streams, order)
        self.times, self.values = held_out.times[order], held_out.values[order]
        """``[N]`` and ``[N, C]``, in the order of time."""
        names = np.array(self.names, dtype=object)
        self.streams = tuple(sorted(set(self.names)))
        self.rows = {stream: np.flatnonzero(names == stream) for stream in self.streams}
        """Of each stream."""
        self.before = rows_by_stream(history)
        """Rows of the history of each stream."""

    def spread(self, stream: str) -> Floats:
        """About the standard deviation of each channel of a stream ``[C]``."""
        rows = self.before.get(stream)
        values = self.history.values[rows] if rows is not None else self.values[self.rows[stream]]
        with np.errstate(invalid="ignore"):
            spread = np.nan_to_num(np.nanstd(np.where(np.isfinite(values), values, np.nan), axis=0))
            span = np.nan_to_num(np.nanmax(values, axis=0) - np.nanmin(values, axis=0)) if len(values) else spread
        least: Floats = np.maximum(spread, LEAST_SPREAD * np.maximum(span, 1e-6)).astype(np.float32)
        return least


def track_of(table: Table, starts: Ints) -> Track:
    """Of some streams of a table: the newest readings before ``starts`` ``[S]``, ns, and the newest from there on."""
    by_stream = list(rows_by_stream(table).values())
    parts = [(by_stream[s], table.times[by_stream[s]] < starts[s]) for s in _some(len(by_stream))]
    before, after = [rows[early] for rows, early in parts], [rows[~early] for rows, early in parts]
    return _newest(table, before, table, after)


def part_of(history: Table, held_out: Table) -> Track:
    """Of some streams, the newest readings of each."""
    before, after = rows_by_stream(history), rows_by_stream(held_out)
    names = list(after)
    chosen = [names[s] for s in _some(len(names))]
    nothing = np.empty(0, np.int64)
    return _newest(history, [before.get(s, nothing) for s in chosen], held_out, [after[s] for s in chosen])


def _some(streams: int) -> list[int]:
    chosen: list[int] = np.unique(np.linspace(0, streams - 1, min(STREAMS, streams)).astype(np.int64)).tolist()
    return chosen


def _newest(history: Table, before: Sequence[Ints], held_out: Table, after: Sequence[Ints]) -> Track:
    def newest(table: Table, parts: Sequence[Ints], most: int) -> Table:
        ordered = [rows[np.argsort(table.times[rows], kind="stable")][-most:] for rows in parts]
        return table.rows(np.sort(np.concatenate(ordered)))

    return Track(newest(history, before, HISTORY), newest(held_out, after, HELD_OUT))


class Runner:
    """A model on a track, under its own promise."""

    def __init__(self, track: Track, model: Model) -> None:
        self._track = track
        self.engine = new_engine(model)
        feed(self.engine, track.history)
        self.engine.set_incidents(0, {})
        occupied = (bucket for bucket in range(BUCKETS) if self.engine.streams.of_bucket(0, bucket))
        self._start = [self.engine.dump(0, bucket) for bucket in occupied]

    def lap(self, values: Floats) -> Iterator[tuple[slice, Scored]]:
        """From the start over the track with these values ``[N, C]``, part by part.

        All streams go together, which is many times as fast as singly.
        """
        self.engine.clear()
        for dump in self._start:
            self.engine.load(0, dump)
        self.engine.set_incidents(0, {})
        track = self._track
        for at in range(0, len(track.times), BATCH):
            part = slice(at, at + BATCH)
            yield part, self.engine.process([Readings(0, track.names[part], track.times[part], values[part])])

    def alerts(self, values: Floats) -> NDArray[np.bool_]:
        """At which readings ``[N]`` of a lap an incident of their stream is open."""
        alert = np.zeros(len(values), bool)
        for part, scored in self.lap(values):
            alert[part] = scored.alert
        return alert


def laps_at_once(track: Track, model: Model, laps: Sequence[Floats]) -> list[NDArray[np.bool_]]:
    """At which readings ``[N]`` an incident of their stream is open, of each of several laps with other values.

    For each lap there is a copy of every stream, under a name of its own: a hundred streams take little longer than
    one.
    """
    cells = (len(track.history) + len(track.times)) * track.values.shape[1]
    at_once = min(COPIES // max(len(track.streams), 1), MOST_CELLS // max(cells, 1))
    if at_once < 2:  # so many streams are no faster twice
        runner = Runner(track, model)
        return [runner.alerts(values) for values in laps]
    found: list[NDArray[np.bool_]] = []
    for at in range(0, len(laps), at_once):
        found += _together(track, model, laps[at : at + at_once])
    return found


def _together(track: Track, model: Model, laps: Sequence[Floats]) -> list[NDArray[np.bool_]]:
    K, (N, C) = len(laps), track.values.shape
    engine = new_engine(_copied(model, K))
    before = np.argsort(track.history.times, kind="stable")
    names = take(track.history.streams, before)
    history = np.repeat(track.history.values[before], K, axis=0)
    _process(engine, _copies(names, K), np.repeat(track.history.times[before], K), history)
    engine.set_incidents(0, {})
    values = np.stack(laps, axis=1).reshape(N * K, C)
    alert = _process(engine, _copies(track.names, K), np.repeat(track.times, K), values)
    return list(alert.reshape(N, K).T)


def _copies(names: Sequence[str], count: int) -> list[str]:
    """Of each name so many, beside each other."""
    return [f"{name}{COPY}{number}" for name in names for number in range(count)]


def _copied(model: Model, count: int) -> Model:
    """The same for the copies of the streams that it knows."""
    streams = model.streams
    copied = replace(
        streams, names=tuple(_copies(streams.names, count)),
        loc=np.repeat(streams.loc, count, axis=0), scale=np.repeat(streams.scale, count, axis=0),
        threshold=np.repeat(streams.threshold, count), factor=np.repeat(streams.factor, count),
    )  # fmt: skip
    return replace(model, streams=copied)


def _process(engine: Engine, names: Sequence[str], times: Ints, values: Floats) -> NDArray[np.bool_]:
    """Where an incident is open after each reading ``[N]``."""
    alert = np.zeros(len(times), bool)
    for at in range(0, len(times), BATCH):
        part = slice(at, at + BATCH)
        alert[part] = engine.process([Readings(0, names[part], times[part], values[part])]).alert
    return alert


def new_engine(model: Model) -> Engine:
    """One to which what was left out of the readings is no silence."""
    return Engine(model, Policy.usual(model.manifest.smoothing_span, silent_after=0))


def feed(engine: Engine, table: Table, stream: str | None = None) -> None:
    """All readings of a table, as those of ``stream`` where it is named."""
    for at in range(0, len(table), BATCH):
        part = np.arange(at, min(at + BATCH, len(table)))
        names = take(table.streams, part) if stream is None else [stream] * len(part)
        engine.process([Readings(0, names, table.times[part], table.values[part])])
