"""The engine: readings in, scores and alerts out.

``process`` takes what has arrived, of many streams of many partitions, and does each step once for all of it:
assembly → windows → graph → recent scores → flags → incidents. How the readings were split into batches never shows in
the result. Live scoring, offline scoring and calibration all run this code.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.engine import calibration
from detector.engine.alerts import Published, describe
from detector.engine.assembly import NEVER, judge, steps
from detector.engine.incidents import ANOMALOUS, NORMAL, UNSCORED, Policy, Verdict, decide
from detector.engine.model import Model
from detector.engine.pictures import image_peak
from detector.engine.readings import Readings
from detector.engine.scorer import Scorer
from detector.engine.seasons import Seasons
from detector.engine.segments import Ints, Segments, blocks, with_tails
from detector.engine.state import Saved, State, layout
from detector.engine.streams import Streams
from schemas.alert import ImagePeak
from schemas.errors import ModelError
from schemas.moment import SECOND_NS

#: Buckets of streams per partition: the unit in which state is saved.
BUCKETS = 256


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of N readings, in the order in which they were given.

    ``slot`` ``[N]``: the stream's row in the state; ``score`` ``[N]`` in thresholds, NaN in warm-up and for dropped
    readings; ``p_value`` ``[N]``, NaN likewise; ``alert`` ``[N]``: an incident of the stream is open after the reading;
    ``error`` ``[N, C]`` and ``expected`` ``[N, C]`` (engineering units), NaN where there is no score; ``published``:
    the alerts, each with the reading that caused it; ``counts``: readings by what was done with them.
    """

    slot: Ints
    score: NDArray[np.float64]
    p_value: NDArray[np.float64]
    alert: NDArray[np.bool_]
    error: NDArray[np.float32]
    expected: NDArray[np.float32]
    published: list[Published]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Accepted readings ``[n]`` sorted by stream, with their windows' places in the flat history."""

    segments: Segments
    index: Ints
    """Where each stood in the batch as given."""
    times: NDArray[np.int64]
    values: NDArray[np.float32]
    windows: NDArray[np.float32]
    """``[M, W * V]``, a view: row ``start[i]`` is the window that ends at reading i."""
    start: Ints
    scorable: NDArray[np.bool_]
    number: Ints
    """How many-th accepted reading of its stream each is, from 1."""


class Engine:
    """Scores streams with one model and follows their incidents. Not for several threads at once."""

    def __init__(self, model: Model, policy: Policy | None = None, threads: int = 1) -> None:
        manifest = model.manifest
        self.model = model
        self.policy = policy or Policy()
        self.scorer = Scorer(model.graph, manifest.batching, threads)
        self.streams = Streams(model.streams, manifest.calibration.threshold, BUCKETS)
        self._window = manifest.window
        self._channels, self._values = len(manifest.channels), manifest.values
        # an image is its own window: keeping it would fill memory and checkpoints, and serve nothing
        self._tail = self._window if manifest.frame is None else 0
        self._interval_ns = max(round(manifest.interval_s * SECOND_NS), 1)
        self._weights = smoothing_weights(manifest.smoothing_span)
        self._seasons = Seasons(manifest.season) if manifest.season else None
        if self.scorer.context != (manifest.season is not None):
            raise ModelError("the model's graph and manifest disagree on a season: fit it again")
        if self.scorer.images != (manifest.frame is not None):
            raise ModelError("the model's graph and manifest disagree on images: fit it again")
        self.state = State(layout(self._tail, self._values, len(self._weights), self.policy.memory, manifest.season))
        #: CPU-bound seconds by stage since the start, for benchmarks and metrics; decides nothing
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def open_incidents(self) -> int:
        """How many streams have an open incident."""
        return int((self.state.opened[: self.state.size] != NEVER).sum())

    def process(self, batches: Sequence[Readings]) -> Scored:
        """Take in what has arrived, in order within each stream, and say what it means."""
        batches = [batch for batch in batches if len(batch)]
        began = time.perf_counter()
        counts: Counter[str] = Counter()
        slots, times, values = self._columns(batches)
        order = np.argsort(slots, kind="stable")
        arrived = self._assemble(slots[order], times[order], values, order, counts)
        context = self._context(arrived)
        self.seconds["windows"] += time.perf_counter() - began
        raw, error, expected = self._score(arrived, context)
        began = time.perf_counter()
        was_open = self.state.opened[slots] != NEVER
        score, flags = self._flag(arrived, raw, counts)
        verdict = self._follow(arrived, flags)
        p_value = calibration.p_values(score, self.model.streams.tail_score, self.model.streams.tail_p)
        published = self._publish(arrived, verdict, score, p_value, error, expected)
        results = (score, p_value, error, expected)
        scored = self._in_given_order(slots, order, arrived, was_open, verdict, results, published, counts)
        self.seconds["decide"] += time.perf_counter() - began
        return scored

    # -- the steps -------------------------------------------------------------------------------------------------

    def _columns(self, batches: Sequence[Readings]) -> tuple[Ints, NDArray[np.int64], NDArray[np.float32]]:
        if not batches:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, self._values), np.float32)
        slots = [self.streams.slots(batch.partition, batch.streams) for batch in batches]
        self.state.grow(len(self.streams))
        if len(batches) == 1:
            return slots[0], batches[0].times, batches[0].values
        return (
            np.concatenate(slots),
            np.concatenate([batch.times for batch in batches]),
            np.concatenate([batch.values for batch in batches]),
        )

    def _assemble(
        self, slots: Ints, times: NDArray[np.int64], values: NDArray[np.float32], order: Ints, counts: Counter[str]
    ) -> _Arrived:
        """Drop what is late or double, insert missing rows, lay the histories out flat and remember the new tails."""
        state, W, T, V = self.state, self._window, self._tail, self._values
        segments = Segments.of(slots)
        fate = judge(segments, times, state.time[segments.slots])
        if not fate.accepted.all():
            counts["late"] += int(fate.late.sum())
            counts["duplicate"] += int(fate.duplicate.sum())
            slots, times, order = slots[fate.accepted], times[fate.accepted], order[fate.accepted]
            segments = Segments.of(slots)
        values = values[order]
        step = steps(times, segments.previous(times, state.time[segments.slots]), self._interval_ns, W)
        counts["gap_rows"] += int(step.missing.sum())
        counts["warm_ups"] += int(step.restart.sum())

        # flat history: for each stream its T older rows, then per reading the missing rows before it and itself
        count = len(segments.slots)
        row = np.cumsum(step.missing + 1) - 1 + T * (segments.of_row + 1)
        block = (row - step.missing)[segments.first] - T
        flat = np.empty((len(order) + int(step.missing.sum()) + T * count, V), np.float32)
        if step.missing.any():
            flat.fill(np.nan)
        windows = blocks(flat, W)
        if T:
            windows[block] = state.raw[segments.slots].reshape(count, T * V)
        flat[row] = values
        start = row - W + 1

        # rows since warm-up began; `base` is the flat row before the first of them and never falls
        base = np.where(step.restart, row - 1, -1)
        fresh = step.restart[segments.first]
        base[segments.first] = np.where(fresh, base[segments.first], block + T - 1 - state.filled[segments.slots])
        filled = np.minimum(row - np.maximum.accumulate(base), W)
        number = state.seen[segments.slots][segments.of_row] + segments.rank() + 1

        last = segments.last
        if T:
            state.raw[segments.slots] = windows[start[last]].reshape(count, T, V)
        state.time[segments.slots] = times[last]
        state.filled[segments.slots] = filled[last]
        state.seen[segments.slots] += segments.counts
        observed = ~np.isnan(values).all(axis=1)
        counts["warming_up"] += int((filled < W).sum())
        counts["all_missing"] += int((~observed).sum())
        return _Arrived(segments, order, times, values, windows, start, (filled >= W) & observed, number)

    def _context(self, arrived: _Arrived) -> NDArray[np.float32] | None:
        """What is usual at the time of each accepted reading, ``[n, C]``; None where the model knows no season."""
        if self._seasons is None:
            return None
        segments = arrived.segments
        loc, scale = self.streams.scaling(segments.slots)
        return self._seasons.follow(self.state, segments, arrived.times, arrived.values, loc, scale)

    def _score(
        self, arrived: _Arrived, context: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Raw score ``[n]``, error and expected ``[n, C]`` of accepted readings; NaN where there is no score."""
        n, C = len(arrived.index), self._channels
        which = np.flatnonzero(arrived.scorable)
        whole = len(which) == n
        raw = np.full(n, np.nan)
        error = np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32)
        expected = np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32)
        row_slots = arrived.segments.slots[arrived.segments.of_row]
        for at in range(0, len(which), self.scorer.chunk):  # gathered chunk by chunk, to stay in the cache
            began = time.perf_counter()
            rows = which[at : at + self.scorer.chunk]
            x = arrived.windows[arrived.start[rows]].reshape(len(rows), self._window, self._values)
            loc, scale = self.streams.scaling(row_slots[rows])
            ready = time.perf_counter()
            usual = None if context is None else context[rows]
            raw[rows], error[rows], expected[rows] = self.scorer.score(x, loc, scale, usual)
            self.seconds["windows"] += ready - began
            self.seconds["onnx"] += time.perf_counter() - ready
        return raw, error, expected

    def _flag(
        self, arrived: _Arrived, raw: NDArray[np.float64], counts: Counter[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Score in thresholds ``[n]`` and flag ``[n]``; keeps the recent raw scores."""
        segments, state = arrived.segments, self.state
        history = with_tails(segments, state.scores[segments.slots], raw)
        state.scores[segments.slots] = history[segments.last]
        slots = segments.slots[segments.of_row]
        score = smoothed(history, self._weights) / self.streams.threshold(slots)
        silent = self.streams.never_seen(slots) & (arrived.number <= self.policy.unseen)
        flags = np.where(score > 1, ANOMALOUS, NORMAL)
        flags[np.isnan(score) | silent] = UNSCORED
        counts["scored"] += int((~np.isnan(score)).sum())
        counts["anomalous"] += int((flags == ANOMALOUS).sum())
        counts["not_published"] += int((silent & (score > 1)).sum())
        return score, flags.astype(np.uint8)

    def _follow(self, arrived: _Arrived, flags: NDArray[np.uint8]) -> Verdict:
        segments, state = arrived.segments, self.state
        history = with_tails(segments, state.flags[segments.slots], flags)
        state.flags[segments.slots] = history[segments.last]
        return decide(self.policy, segments, history, state.opened[segments.slots] != NEVER)

    def _publish(
        self,
        arrived: _Arrived,
        verdict: Verdict,
        score: NDArray[np.float64],
        p_value: NDArray[np.float64],
        error: NDArray[np.float32],
        expected: NDArray[np.float32],
    ) -> list[Published]:
        """One alert per transition: rare, so a loop; in the order of the readings as given."""
        state, published = self.state, []
        for row in np.flatnonzero(verdict.opens | verdict.resolves):
            slot = int(arrived.segments.slots[arrived.segments.of_row[row]])
            if verdict.opens[row]:
                state.opened[slot], state.events[slot] = arrived.times[row], 0
            published.append(
                describe(
                    self.model.manifest,
                    partition=self.streams.partitions[slot],
                    stream=self.streams.names[slot],
                    index=int(arrived.index[row]),
                    opened=int(state.opened[slot]),
                    number=int(state.events[slot]),
                    resolved=bool(verdict.resolves[row]),
                    time=int(arrived.times[row]),
                    score=float(score[row]),
                    p_value=float(p_value[row]),
                    error=error[row],
                    observed=self._observed(arrived.values[row]),
                    expected=expected[row],
                    image=self._peak(slot, arrived.values[row]),
                )
            )
            state.events[slot] += 1
            if verdict.resolves[row]:
                state.opened[slot], state.events[slot] = NEVER, 0
        return sorted(published, key=lambda p: p.index)

    def _observed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What an alert says was observed, ``[C]``: the reading ``[V]``, of an image the mean of each band."""
        if self.model.manifest.frame is None:
            return values
        pixels = values.reshape(-1, self._channels).astype(np.float64)  # [H·W, C]
        seen = ~np.isnan(pixels)
        count = seen.sum(axis=0)
        mean = np.where(seen, pixels, 0).sum(axis=0) / np.maximum(count, 1)
        return np.where(count, mean, np.nan).astype(np.float32)

    def _peak(self, slot: int, values: NDArray[np.float32]) -> ImagePeak | None:
        """Where in the image ``[V]`` the error is largest; None for sensors. Scored once more, but rarely."""
        if self.model.manifest.frame is None:
            return None
        return image_peak(self.scorer.map(values[None, None], *self.streams.scaling(np.array([slot])))[0])

    def _in_given_order(
        self,
        slots: Ints,
        order: Ints,
        arrived: _Arrived,
        was_open: NDArray[np.bool_],
        verdict: Verdict,
        results: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]],
        published: list[Published],
        counts: Counter[str],
    ) -> Scored:
        n, C = len(slots), self._channels
        whole = len(arrived.index) == n
        score, p_value = np.full(n, np.nan), np.full(n, np.nan)
        error = np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32)
        expected = np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32)
        for given, result in zip((score, p_value, error, expected), results, strict=True):
            given[arrived.index] = result
        alert = np.empty(n, dtype=bool)
        alert[arrived.index] = verdict.open
        if not whole:  # a dropped reading leaves its stream as it was after the last accepted one
            accepted = np.zeros(n, dtype=bool)
            accepted[arrived.index] = True
            newest = Segments.of(slots[order]).latest(accepted[order])
            alert[order] = np.where(newest < 0, was_open[order], alert[order[newest]])
        counts["received"] += n
        return Scored(slots, score, p_value, alert, error, expected, published, counts)

    def buckets(self, readings: Readings) -> Ints:
        """The bucket of each reading's stream, ``[N]``."""
        slots = self.streams.slots(readings.partition, readings.streams)
        self.state.grow(len(self.streams))
        return self.streams.bucket(slots)

    # -- state -----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget every stream, as if just started."""
        self.streams.clear()
        self.state.clear()

    def dump(self, partition: int, bucket: int) -> bytes:
        """The state of a partition's streams in one bucket."""
        members = self.streams.of_partition(partition)
        slots = np.fromiter(members.values(), np.int64, len(members))
        chosen = self.streams.bucket(slots) == bucket
        names = [name for name, inside in zip(members, chosen, strict=True) if inside]
        return self.state.dump(names, slots[chosen], self.model.manifest.graph_sha256)

    def load(self, partition: int, data: bytes) -> None:
        """Take over a dump; the streams in it are as they were then. Raises ModelError where it does not fit."""
        saved = Saved.parse(data)
        if saved.model != self.model.manifest.graph_sha256:
            raise ModelError(
                f"the saved state belongs to the model {saved.model[:12]}…, not to "
                f"{self.model.manifest.graph_sha256[:12]}…: use the model that this consumer group ran, or another "
                "--group-id"
            )
        slots = self.streams.slots(partition, saved.streams)
        self.state.grow(len(self.streams))
        self.state.load(saved, slots)

    def set_incidents(self, partition: int, incidents: Mapping[str, tuple[int, int]]) -> None:
        """Make these the open incidents of a partition: (event time of opening, events published) by stream.

        What was published is a fact; what a replay would have said is not.
        """
        members = self.streams.of_partition(partition)
        slots = np.fromiter(members.values(), np.int64, len(members))
        self.state.opened[slots], self.state.events[slots] = NEVER, 0
        if incidents:
            slots = self.streams.slots(partition, list(incidents))
            self.state.grow(len(self.streams))
            self.state.opened[slots] = [opened for opened, _ in incidents.values()]
            self.state.events[slots] = [events for _, events in incidents.values()]


def smoothing_weights(span: float) -> NDArray[np.float64]:
    """Weights of the newest scores, newest last: an exponentially weighted mean, cut off after two spans.

    The smoothing factor is 2 / (span + 1). A finite memory lets recent scores be derived again from the raw tail.
    """
    alpha = 2.0 / (span + 1.0)
    length = 1 if span <= 1 else int(np.ceil(2 * span))
    return np.power(1 - alpha, np.arange(length - 1, -1, -1, dtype=np.float64))


def smoothed(history: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean over the scores ``[n, L]`` that are there; NaN where the newest is not.

    A loop over the L columns, not a matrix product: the order of additions must not depend on how many rows there are.
    """
    newest = history[:, -1]
    if len(weights) == 1:
        return newest
    total, weight = np.zeros(len(history)), np.zeros(len(history))
    for column, w in enumerate(weights):
        scores = history[:, column]
        there = ~np.isnan(scores)
        total += np.where(there, scores, 0.0) * w
        weight += there * w
    return np.where(np.isnan(newest), np.nan, total / np.where(weight > 0, weight, 1.0))
