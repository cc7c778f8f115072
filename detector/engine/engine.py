"""The engine: readings in, scores and alerts out.

``process`` takes what has arrived, of many streams of many partitions, and does each step once for all of it:
reorder buffer → assembly → windows → graph → recent scores → flags → incidents. How the readings were split into
batches never shows in the result. Live scoring, offline scoring and calibration all run this code.

With a lateness, readings wait (see ``reorder``), and everything after the buffer goes by the readings that it releases,
in the order in which it does: an alert comes as much later, and with the stream's next reading at the soonest. Who is
silent and whose clock was set back is told with released readings, too: a clock that was set back by less than the
lateness only brings disorder.

Baselines move between turns of event time, so a batch that spans several turns of a stream goes through in as many
rounds; a live batch is one or two.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.engine import calibration, clocks
from detector.engine.alerts import Published
from detector.engine.arrival import Arrived, arrive
from detector.engine.assembly import NEVER, Fate, Times, judge
from detector.engine.baseline import SLOW, Baselines, Turned, Usual, shift_s
from detector.engine.gates import OFF, STATES, Gated, Gates
from detector.engine.handover import Learned, handed_over
from detector.engine.incidents import (
    ANOMALOUS,
    CALM,
    FADING,
    KINDS,
    NORMAL,
    REMEMBERED,
    TOP_CHANNELS,
    UNSCORED,
    Change,
    Flags,
    Moved,
    Policy,
    close,
    follow,
)
from detector.engine.marks import anomaly_marks, clock_marks, drift_marks, fronts, sensor_marks, silence_marks
from detector.engine.model import Model
from detector.engine.orders import obey
from detector.engine.promising import promising
from detector.engine.readings import Readings
from detector.engine.records import dump_record, forget_incidents, load_record
from detector.engine.reorder import capacity, reorder
from detector.engine.reporter import Reporter, Seen
from detector.engine.scorer import Scorer
from detector.engine.seasons import Seasons
from detector.engine.segments import Ints, Segments, histories, with_tails
from detector.engine.sensors import Sensors
from detector.engine.silence import Silence, Silences, limit_ns
from detector.engine.smoothing import smoothed, smoothing_weights
from detector.engine.state import Saved, State, layout
from detector.engine.streams import Streams
from schemas.alert import Ended, EventType, Kind
from schemas.command import Command
from schemas.errors import ModelError
from schemas.machine import MachineState, parse_off_when
from schemas.moment import SECOND_NS

#: Buckets of streams per partition: the unit in which state is saved.
BUCKETS = 256

#: A stream's clock may be this far ahead of the others before it is believed to be wrong.
AHEAD_NS = 3600 * SECOND_NS

ANOMALY = KINDS.index(Kind.ANOMALY)

DRIFT = KINDS.index(Kind.DRIFT)

#: Kinds of incidents that are about what a machine does while it is on.
OF_VALUES = tuple(KINDS.index(kind) for kind in (Kind.ANOMALY, Kind.STUCK, Kind.MISSING, Kind.RANGE))

#: Spreads from what is usual at which a channel is away.
AWAY = 4.0
#: … in the mean of so many readings.
LASTING = 5


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of N readings, in the order in which they were given; with a lateness, of those that were released,
    in that order, some of which came in earlier batches. Of what still waits, and of duplicates of what waited, there
    is nothing.

    ``arrived``: the stream's row in the state of each reading that was given, in that order; ``number`` ``[N]``: the
    place of each of these readings among all that this engine was ever given, from 0, -1 where it waited already in a
    state that was loaded; ``slot`` ``[N]``: the stream's row; ``time`` ``[N]``: event time; ``score`` ``[N]`` in
    thresholds, NaN in warm-up and for dropped readings; ``p_value`` ``[N]``, NaN likewise; ``alert`` ``[N]``: an
    incident of the stream is open after the reading was scored; ``error`` ``[N, C]`` and ``expected`` ``[N, C]``
    (engineering units), NaN where there is no score; ``published``: the alerts, each with the reading that caused it;
    ``counts``: readings by what was done with them.
    """

    arrived: Ints
    number: Ints
    slot: Ints
    time: Times
    score: NDArray[np.float64]
    p_value: NDArray[np.float64]
    alert: NDArray[np.bool_]
    error: NDArray[np.float32]
    expected: NDArray[np.float32]
    published: list[Published]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class _Given:
    """N readings in some order, numbered."""

    slots: Ints
    times: Times
    values: NDArray[np.float32]
    number: Ints
    known: Times
    """The newest times of their streams, of readings that wait too."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """N readings to be scored, and sorted by stream."""

    number: Ints
    slots: Ints
    times: Times
    known: Times
    """The newest times of their streams, of readings that wait too."""
    values: NDArray[np.float32]
    order: Ints
    segments: Segments
    """Of the sorted readings."""
    fate: Fate
    """Of the sorted readings."""
    newest: Times
    """``[U]``: each stream's newest time before, of readings that were passed over too."""
    gated: Gated
    """Of the sorted readings."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Sorted readings ``[N]`` that are scored."""
        return self.fate.accepted & ~self.gated.passed


class Engine:
    """Scores streams with one model and follows their incidents. Not for several threads at once."""

    def __init__(self, model: Model, policy: Policy | None = None, threads: int = 1) -> None:
        manifest = model.manifest
        self._learned = self.model = model
        #: the promise in force; None: the model's own
        self.false_alarms: str | None = None
        self.threads = threads
        self.scorer = Scorer(model.graph, manifest.batching, threads)
        self.streams = Streams(model.streams, manifest.calibration.threshold, BUCKETS)
        self._window = manifest.window
        self._channels, self._values = len(manifest.channels), manifest.values
        # an image is its own window: keeping it would fill memory and checkpoints, and serve nothing
        self._tail = self._window if manifest.frame is None else 0
        self._sensed = self._channels if manifest.frame is None else 0
        self.interval_ns = max(round(manifest.interval_s * SECOND_NS), 1)
        self._weights = smoothing_weights(manifest.smoothing_span)
        self.seasons = Seasons(manifest.season) if manifest.season else None
        if self.scorer.context != (manifest.season is not None):
            raise ModelError("the model's graph and manifest disagree on a season: fit it again")
        if self.scorer.images != (manifest.frame is not None):
            raise ModelError("the model's graph and manifest disagree on images: fit it again")
        self.state = State(
            layout(self._tail, self._values, len(self._weights), REMEMBERED, manifest.season, self._sensed)
        )
        self._sensors = Sensors(manifest.channels)
        self._given = 0
        self._go_by(policy or Policy.usual(manifest.smoothing_span))
        self._reporter = Reporter(model, self.scorer, self.streams, self.state, self._weights, self._gates)
        #: CPU-bound seconds by stage since the start, for benchmarks and metrics; decides nothing
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def judge_by(self, policy: Policy, false_alarms: str | None = None) -> None:
        """Go by another policy and another promise (None: the model's own) from the next reading on.

        What is remembered stays, and what waits in the reorder buffer is lost by none. Raises ValueError where the
        promise cannot be read, or where ``off_when`` names a channel that the model does not have.
        """
        model = self._learned if false_alarms is None else promising(self._learned, false_alarms)
        if model.manifest.calibration != self.model.manifest.calibration:
            self.streams.judge_by(model.streams, model.manifest.calibration.threshold)
            self.model = model
        self.false_alarms = false_alarms
        self._go_by(policy)
        self._reporter = Reporter(model, self.scorer, self.streams, self.state, self._weights, self._gates)

    def _go_by(self, policy: Policy) -> None:
        manifest = self.model.manifest
        self.policy = policy = _patient(policy, manifest.interval_s)
        self.baselines = Baselines(policy, self.interval_ns)
        self._lateness_ns = round(policy.lateness * SECOND_NS)
        silent_ns = limit_ns(policy.silent_after, manifest.silent_after_s, self.interval_ns)
        rules = parse_off_when(manifest.off_when if policy.off_when is None else policy.off_when)
        if rules and manifest.frame is not None:
            raise ValueError("off_when compares channels with numbers: images have no such channels")
        settle_s = manifest.settle_s if policy.settle is None else policy.settle
        self._gates = Gates(rules, manifest.channel_names, round(settle_s * SECOND_NS))
        self._silences = Silences(silent_ns + self._lateness_ns if silent_ns else 0, AHEAD_NS)
        self._capacity = capacity(self._lateness_ns, self.interval_ns, self._values)

    @property
    def open_incidents(self) -> int:
        """How many incidents are open."""
        return int((self.state.opened[: self.state.size] != NEVER).sum())

    @property
    def waiting(self) -> int:
        """How many readings wait in the reorder buffer."""
        return int(self.state.wait_count[: self.state.size].sum())

    def process(self, batches: Sequence[Readings]) -> Scored:
        """Take in what has arrived, in order within each stream, and say what it means."""
        batches = [batch for batch in batches if len(batch)]
        began = time.perf_counter()
        counts: Counter[str] = Counter()
        arrived = self._columns(batches)
        counts["received"] += len(arrived.slots)
        batch = self._sorted(self._released(arrived, counts), counts)
        out = self._nothing_yet(arrived, batch, counts)
        silent = self._silence(batch, out)
        clocked = self._clocks(batch, out)
        self.seconds["decide"] += time.perf_counter() - began
        for rows in self._rounds(batch):
            off = batch.gated.passed[rows]
            if off.any():
                self._switched_off(batch, rows[off], out)
                rows = rows[~off]
            if len(rows):
                self._round(batch, rows, out)
        self._carry(batch, out, silent, clocked)
        published = [
            replace(p, record=dump_record(self.state, self.streams.of_partition(p.partition)[p.stream]))
            for p in sorted(out.published, key=lambda p: p.index)
        ]
        return replace(out, published=published)

    # -- the batch as a whole --------------------------------------------------------------------------------------

    def _columns(self, batches: Sequence[Readings]) -> _Given:
        slots = [self.streams.slots(batch.partition, batch.streams) for batch in batches]
        self.state.grow(self.streams.size)
        count = sum(map(len, slots))
        number = np.arange(self._given, self._given + count)
        self._given += count
        if len(batches) == 1:
            return _Given(slots[0], batches[0].times, batches[0].values, number, batches[0].times)
        times = np.concatenate([np.empty(0, np.int64), *(batch.times for batch in batches)])
        values = np.concatenate([np.empty((0, self._values), np.float32), *(batch.values for batch in batches)])
        return _Given(np.concatenate([np.empty(0, np.int64), *slots]), times, values, number, times)

    def _released(self, given: _Given, counts: Counter[str]) -> _Given:
        """What the reorder buffer lets go on; everything where nothing has to wait and nothing does."""
        if not len(given.slots) or not (self._lateness_ns or self._anything_waits()):
            return given
        began = time.perf_counter()
        out = reorder(
            self.state, given.slots, given.times, given.values, given.number,
            lateness_ns=self._lateness_ns, capacity=self._capacity,
        )  # fmt: skip
        counts["duplicate"] += out.duplicates
        counts["released_early"] += out.early
        self.seconds["reorder"] += time.perf_counter() - began
        return _Given(out.slots, out.times, out.values, out.number, out.known)

    def _anything_waits(self) -> bool:
        """Under a policy that was in force before, that is."""
        state = self.state
        return state.wait_time.shape[1] > 0 and bool(state.wait_count[: state.size].any())

    def _sorted(self, given: _Given, counts: Counter[str]) -> _Batch:
        order = np.argsort(given.slots, kind="stable")
        segments = Segments.of(given.slots[order])
        times = given.times[order]
        newest = np.maximum(self.state.time[segments.slots], self.state.gate_time[segments.slots])
        fate = judge(segments, times, newest)
        gated = Gated.none(len(order), self.state.size)
        if self._gates:
            names, values = self.streams.names, given.values[order]
            gated = self._gates.follow(self.state, names, segments, fate.accepted, times, values)
        counts["machine_off"] += int(gated.passed.sum())
        counts["late"] += int(fate.late.sum())
        counts["duplicate"] += int(fate.duplicate.sum())
        return _Batch(
            given.number, given.slots, given.times, given.known, given.values, order, segments, fate, newest, gated
        )

    def _nothing_yet(self, arrived: _Given, batch: _Batch, counts: Counter[str]) -> Scored:
        n, C = len(batch.slots), self._channels
        # an incident that was open before a stream's first reading, for readings that are dropped
        alert = (self.state.opened[batch.slots] != NEVER).any(axis=1)
        whole = bool(batch.kept.all())
        error, expected = (
            np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32) for _ in range(2)
        )
        nothing = np.full(n, np.nan), np.full(n, np.nan)
        return Scored(
            arrived.slots, batch.number, batch.slots, batch.times, *nothing, alert, error, expected, [], counts
        )

    def _rounds(self, batch: _Batch) -> Iterator[Ints]:
        """Accepted readings, as places in the sorted batch, by the turn of their stream; what is passed over apart."""
        rows = np.flatnonzero(batch.fate.accepted)
        if not len(rows):
            return
        off = batch.gated.passed[rows]
        if not self.baselines.move and not off.any():
            yield rows
            return
        order = batch.order[rows]
        segments = Segments.of(batch.slots[order])
        new = off != segments.previous(off, off[segments.first])
        if self.baselines.move:
            turns = self.baselines.turns(batch.times[order])
            new |= turns != segments.previous(turns, turns[segments.first])
        if not new.any():
            yield rows
            return
        rank = np.cumsum(new)
        rank -= rank[segments.first][segments.of_row]
        by_rank = np.argsort(rank, kind="stable")
        yield from np.split(rows[by_rank], np.flatnonzero(np.diff(rank[by_rank])) + 1)

    def _switched_off(self, batch: _Batch, rows: Ints, out: Scored) -> None:
        """Close what is open about the values of streams whose readings, these sorted ones, are passed over."""
        segments = Segments.of(batch.slots[batch.order[rows]])
        opened = self.state.opened
        for slot, row in zip(segments.slots.tolist(), rows[segments.first].tolist(), strict=True):
            index = int(batch.order[row])
            for k in OF_VALUES:
                if opened[slot, k] == NEVER:
                    continue
                time = int(batch.times[index])
                change = close(self.state, slot, KINDS[k], time, Ended.SWITCHED_OFF, wait=False)
                out.published.append(self._reporter.of_switch(slot, index, time, change))
        # (what its clock and silence have to do with it is brought to all readings at the end)
        out.alert[batch.order[rows]] = (opened[segments.slots, DRIFT] != NEVER)[segments.of_row]

    # -- one round -------------------------------------------------------------------------------------------------

    def _round(self, batch: _Batch, rows: Ints, out: Scored) -> None:
        """Score readings of at most one turn of each stream and follow what they mean."""
        began = time.perf_counter()
        index = batch.order[rows]
        segments = Segments.of(batch.slots[index])
        turned = self._turn(segments, batch.times[index])
        arrived = arrive(
            self.state, segments, index, batch.times[index], batch.values[index],
            interval_ns=self.interval_ns, window=self._window, tail=self._tail, counts=out.counts,
        )  # fmt: skip
        loc, scale = self.scaling(segments.slots)
        context = self._context(arrived, loc, scale)
        self.seconds["windows"] += time.perf_counter() - began
        spread = self._spread(self.state.base_spread, segments.slots)
        raw, error, expected = self._score(arrived, np.flatnonzero(arrived.scorable), loc, spread, context)
        raw = raw / self.state.base_relief[segments.slots][segments.of_row]
        judged, raw = self._try(arrived, loc, scale, context, raw, error, expected)
        began = time.perf_counter()
        score, judged, flags, history = self._flag(arrived, raw, judged, out.counts)
        row_slots = segments.slots[segments.of_row]
        levels = self.streams.levels(row_slots, score)
        p_value = calibration.p_values(levels, self.model.streams.tail_score, self.model.streams.tail_p)
        seen = Seen(arrived, loc, scale, context, score, judged, p_value, error, expected, turned)
        out.alert[index] = self._follow(seen, flags, history, out)
        out.score[index], out.p_value[index] = score, p_value
        out.error[index], out.expected[index] = error, expected
        self.seconds["decide"] += time.perf_counter() - began

    def scaling(self, slots: Ints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Level and spread of each slot as they are now, ``[N, C]`` each."""
        loc, scale = self.streams.scaling(slots)
        if not (self.baselines.move and self._sensed):
            return loc, scale
        return loc + self.state.base_level[slots], scale * self.state.base_spread[slots]

    def _spread(self, spread: NDArray[Any], slots: Ints) -> NDArray[np.float32] | None:
        """Of each slot ``[N, C]`` what its readings are shown to the model by; None where all are as learned."""
        given: NDArray[np.float32] = spread[slots]
        return given if self._sensed and (given > 1).any() else None

    def _turn(self, segments: Segments, times: Times) -> Turned | None:
        """Move the baselines on to the turn of these readings; None where they do not move."""
        if not self.baselines.move:
            return None
        state, slots = self.state, segments.slots
        first = times[segments.first]
        scale = self.streams.scaling(slots)[1][:, : self._sensed]
        turns = self.baselines.turns(first)
        season = np.zeros_like(scale)
        if self.seasons is not None and (over := turns > state.base_turn[slots]).any():
            known = ~self.streams.never_seen(slots[over])  # (others are at a level of their own from the start)
            season[over] = np.where(known[:, None], self._season_away(slots[over]), 0)
        usual = Usual(scale, self.streams.noise[: self._sensed], self.streams.usual(slots), season)
        turned = self.baselines.advance(state, slots, first, turns, usual)
        moved = turned.shifted | turned.returned
        if moved.any():
            self.move_level(slots[moved], turned.level[moved])
            at = slots[turned.returned]
            state.judged[at] = state.scores[at]  # which compared with the level before all the time
        at = slots[turned.settled]
        state.scores[at] = state.judged[at]
        return turned

    def _season_away(self, slots: Ints) -> NDArray[np.float32]:
        """How far a period's mean lies from the level as it is now ``[N, C]``, in scales; 0: not known."""
        assert self.seasons is not None
        loc, scale = self.streams.scaling(slots)
        away = (self.seasons.level(self.state, slots) - loc - self.state.base_level[slots]) / scale
        known: NDArray[np.float32] = np.nan_to_num(away, posinf=0, neginf=0).astype(np.float32)
        return known

    def season_level(self, slots: Ints) -> NDArray[np.float32]:
        """Engineering units ``[N, C]`` that a period's mean lies above the level as it is now; 0: not known."""
        if self.seasons is None:
            return np.zeros_like(self.state.base_level[slots])
        above: NDArray[np.float32] = self._season_away(slots) * self.streams.scaling(slots)[1]
        return above

    def move_level(self, slots: Ints, level: NDArray[np.float32]) -> None:
        """What follows from levels that moved at once by ``[U, C]``: what is usual moves, recent scores are history."""
        state = self.state
        if self.seasons is not None:
            known = state.season_step[slots] > 0
            state.season_base[slots] += np.where(known, level, 0)
        state.judged[slots], state.flags[slots] = np.nan, UNSCORED
        state.calm[slots], state.off_since[slots] = 0, NEVER
        final = slots[state.base_trial[slots] == NEVER]
        state.scores[final] = np.nan

    def _context(
        self, arrived: Arrived, loc: NDArray[np.float32], scale: NDArray[np.float32]
    ) -> NDArray[np.float32] | None:
        """What is usual at the time of each accepted reading, ``[n, C]``; None where the model knows no season."""
        if self.seasons is None:
            return None
        segments = arrived.segments
        # what happens in an incident must not pass as what usually happens
        learns = self.state.base_mode[segments.slots] == SLOW if self.baselines.move else None
        return self.seasons.follow(self.state, segments, arrived.times, arrived.values, loc, scale, learns)

    def _score(
        self,
        arrived: Arrived,
        which: Ints,
        loc: NDArray[np.float32],
        spread: NDArray[np.float32] | None,
        context: NDArray[np.float32] | None,
        moved: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Raw score ``[n]``, error and expected ``[n, C]`` of the readings ``which``; NaN of others.

        ``moved`` ``[U, C]``: of earlier readings of a window, what is nearer to the level so far away is hidden.
        """
        n, C = len(arrived.index), self._channels
        scale = self.streams.scaling(arrived.segments.slots)[1]
        whole = len(which) == n
        raw = np.full(n, np.nan)
        error = np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32)
        expected = np.empty((n, C), np.float32) if whole else np.full((n, C), np.nan, np.float32)
        for at in range(0, len(which), self.scorer.chunk):  # gathered chunk by chunk, to stay in the cache
            began = time.perf_counter()
            rows = which[at : at + self.scorer.chunk]
            x, of = arrived.window(rows, self._window), arrived.segments.of_row[rows]
            ready = time.perf_counter()
            usual = None if context is None else context[rows]
            if moved is not None and self._sensed:
                level = loc[of] if usual is None else np.where(np.isnan(usual), loc[of], usual)
                with np.errstate(invalid="ignore"):
                    gone = (2 * (x[:, :-1] - level[:, None]) - moved[of][:, None]) * np.sign(moved[of])[:, None] > 0
                x[:, :-1][gone] = np.nan  # the window is a copy: rows were gathered
            times = None if spread is None else spread[of]
            raw[rows], error[rows], expected[rows] = self.scorer.score(x, loc[of], scale[of], usual, times)
            self.seconds["windows"] += ready - began
            self.seconds["onnx"] += time.perf_counter() - ready
        return raw, error, expected

    def _try(
        self,
        arrived: Arrived,
        loc: NDArray[np.float32],
        scale: NDArray[np.float32],
        context: NDArray[np.float32] | None,
        raw: NDArray[np.float64],
        error: NDArray[np.float32],
        expected: NDArray[np.float32],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Raw scores ``[n]`` to judge by and to publish: of a stream with a shift on trial the smaller of those by the
        level now and the one before, and the latter. ``error`` and ``expected`` become those judged by.
        """
        state, segments = self.state, arrived.segments
        trial = state.base_trial[segments.slots] != NEVER
        if not trial.any():
            return raw, raw
        rows = np.flatnonzero(arrived.scorable & trial[segments.of_row])
        before = self.streams.scaling(segments.slots)[0]
        if self._sensed:
            before = before + state.base_old_level[segments.slots]
        spread = self._spread(state.base_old_spread, segments.slots)
        usual = None if context is None else context + (before - loc)[segments.of_row]
        was, was_error, was_expected = self._score(arrived, rows, before, spread, usual, loc - before)
        old = raw.copy()
        old[rows] = was[rows] / state.base_old_relief[segments.slots][segments.of_row[rows]]
        limit = self.policy.release * self.streams.threshold(segments.slots)[segments.of_row[rows]]
        better = (old[rows] < raw[rows]) & self._nearer(
            arrived, rows, loc, before, scale, usual if usual is None else usual[rows]
        )
        self.baselines.tried(state, segments, rows, better & (old[rows] <= limit))
        chosen = rows[better]
        error[chosen], expected[chosen] = was_error[chosen], was_expected[chosen]
        judged = raw.copy()
        judged[chosen] = old[chosen]
        return judged, old

    def _nearer(
        self,
        arrived: Arrived,
        rows: Ints,
        loc: NDArray[np.float32],
        before: NDArray[np.float32],
        scale: NDArray[np.float32],
        usual: NDArray[np.float32] | None,
    ) -> NDArray[np.bool_]:
        """Readings ``rows`` whose channels that moved are nearer to the level ``before`` ``[U, C]`` than to ``loc``.

        A model of windows calls a stream that stands still normal at any level. ``usual`` ``[r, C]``: by the level
        before.
        """
        if not self._sensed:
            return np.ones(len(rows), bool)
        of = arrived.segments.of_row[rows]
        moved = (loc - before)[of] / scale[of]  # spreads, 0 where nothing moved
        level = before[of] if usual is None else np.where(np.isnan(usual), before[of], usual)
        # in doubles: squares of what 32 bits hold are still numbers
        above = np.nan_to_num((arrived.values[rows].astype(np.float64) - level) / scale[of])
        nearer: NDArray[np.bool_] = ((2 * above - moved) * moved).sum(axis=1) <= 0
        return nearer

    def _flag(
        self, arrived: Arrived, raw: NDArray[np.float64], judged: NDArray[np.float64], counts: Counter[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Flags, Flags]:
        """Score to publish and to judge by in thresholds ``[n]``, flag ``[n]`` and flags up to each ``[n, policy.n]``;
        keeps the recent ones.
        """
        segments, state = arrived.segments, self.state
        threshold = self.streams.threshold(segments.slots)[segments.of_row]
        if judged is not raw:  # of a stream without a trial, whatever became of its last one, both are the same
            same = segments.slots[state.base_trial[segments.slots] == NEVER]
            state.judged[same] = state.scores[same]
        score = smoothed(self._remembered(segments, state.scores, raw), self._weights) / threshold
        if judged is raw:
            by = score
            state.judged[segments.slots] = state.scores[segments.slots]
        else:
            by = smoothed(self._remembered(segments, state.judged, judged), self._weights) / threshold
        silent = self._unseen(arrived)
        # a spike goes on in the smoothed score after it is over: calm is judged before smoothing
        calm = judged <= self.policy.release * threshold
        flags = np.where(by > 1, np.where(calm, FADING, ANOMALOUS), np.where(calm, CALM, NORMAL))
        flags = np.where(np.isnan(score) | silent, UNSCORED, flags).astype(np.uint8)
        unscored = np.isnan(score)
        counts["scored"] += int((~unscored).sum())
        counts["overflowed"] += int((unscored & arrived.scorable).sum())  # numbers too large for the model's own
        counts["anomalous"] += int(((flags == ANOMALOUS) | (flags == FADING)).sum())
        counts["not_published"] += int((silent & (score > 1)).sum())
        recent, newest = histories(segments, state.flags[segments.slots], flags, self.policy.n)
        state.flags[segments.slots] = newest
        return score, by, flags, recent

    def _remembered(self, segments: Segments, kept: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """The newest values up to and with each row ``[n, L]``; keeps the newest ``[S, L]``."""
        history = with_tails(segments, kept[segments.slots], rows)
        kept[segments.slots] = history[segments.last]
        return history

    def _unseen(self, arrived: Arrived) -> NDArray[np.bool_]:
        """Readings ``[n]`` about which nothing is published yet."""
        slots = arrived.segments.slots
        return self.streams.never_seen(slots)[arrived.segments.of_row] & (arrived.number <= self.policy.unseen)

    def _follow(self, seen: Seen, flags: Flags, history: Flags, out: Scored) -> NDArray[np.bool_]:
        """An incident is open after each reading ``[n]``; publishes what happened and lets the baselines know."""
        arrived, state = seen.arrived, self.state
        segments, times = arrived.segments, arrived.times
        turned = seen.turned
        away = self._away(seen, flags)
        marks = anomaly_marks(
            self.policy, state, segments, times, flags, history, seen.judged, seen.error, away,
            lambda row: self._reporter.blamed(seen, row),
        )  # fmt: skip
        anomalous, changes = follow(self.policy, marks, segments, times, state, self._moved(segments, turned))
        self._tell(seen, changes, out)
        for change in changes:
            slot = int(segments.slots[segments.of_row[change.row]])
            if change.type is EventType.OPENED:
                self.baselines.opened(state, slot, change.opened, again=change.reopened > 0)
        is_open = anomalous.copy()
        if self._sensed:
            is_open |= self._follow_rules(seen, out)
        if turned is not None:
            self._note(seen, anomalous, away)
        return is_open

    def _away(self, seen: Seen, flags: Flags) -> NDArray[np.bool_] | None:
        """Channels that are far from where they usually are ``[n, C]``, by the level before a shift on trial too.

        A model of windows follows a level that moved and calls it normal within a few readings; an incident that names
        the channel is not over then. Only of streams that have an incident or may open one.
        """
        if seen.turned is None or not self._sensed or not self.policy.shift_after:
            return None
        state, segments = self.state, seen.arrived.segments
        touched = state.opened[segments.slots, ANOMALY] != NEVER
        touched[segments.of_row[(flags == ANOMALOUS) | (flags == FADING)]] = True
        rows = np.flatnonzero(touched[segments.of_row])
        if not len(rows):
            return None
        of = segments.of_row[rows]
        usual = seen.loc[of]
        if seen.context is not None:
            usual = np.where(np.isnan(seen.context[rows]), usual, seen.context[rows])
        recent = seen.arrived.window(rows, self._window)[:, -LASTING:]
        there = ~np.isnan(recent)
        count = there.sum(axis=1)
        above = np.where(there, recent - usual[:, None], 0).sum(axis=1, dtype=np.float64) / np.maximum(count, 1)
        far = (count > 0) & (np.abs(above) >= AWAY * seen.scale[of])
        slots = segments.slots[of]
        trial = state.base_trial[slots] != NEVER
        if trial.any():
            moved = state.base_level[slots] - state.base_old_level[slots]
            spread = self.streams.scaling(slots)[1] * state.base_old_spread[slots]
            far &= ~((np.abs(above + moved) < AWAY * spread) & trial[:, None])
        away = np.zeros((len(segments.of_row), self._channels), bool)
        away[rows] = far
        return away

    def _moved(self, segments: Segments, turned: Turned | None) -> Moved | None:
        if turned is None or not turned.shifted.any():
            return None
        if not self._sensed:  # images have no level that moves
            return Moved(turned.shifted, np.full((len(segments.slots), TOP_CHANNELS), -1, np.int16))
        far = np.abs(turned.level) / self.streams.scaling(segments.slots)[1]
        far = np.where(far.any(axis=1, keepdims=True), far, turned.wider)
        return Moved(turned.shifted, fronts(far)[0])

    def _follow_rules(self, seen: Seen, out: Scored) -> NDArray[np.bool_]:
        arrived, state = seen.arrived, self.state
        segments, times = arrived.segments, arrived.times
        is_open = np.zeros(len(times), bool)
        if seen.turned is not None:
            drifts = drift_marks(segments, times, seen.turned.drifted, seen.turned.furthest)
            is_open, changes = follow(self.policy, drifts, segments, times, state)
            self._tell(seen, changes, out)
        rules = self._sensors.follow(state, segments, arrived.values)
        allowed = ~self._unseen(arrived)
        for kind, mark, after in (
            (Kind.STUCK, rules.stuck, self._sensors.stuck_after),
            (Kind.MISSING, rules.missing, self._sensors.missing_after),
            (Kind.RANGE, rules.outside, None),
        ):
            column = KINDS.index(kind)
            lives = (state.opened[segments.slots, column] != NEVER) | (state.phase[segments.slots, column] != 0)
            if not mark.on.any() and not lives.any():
                continue
            # when such an incident opens, its run is as long as the limit
            run = 0 if after is None else np.where(mark.which, after, 0).max(axis=1)
            began = times - run * self.interval_ns
            found, changes = follow(
                self.policy, sensor_marks(kind, mark, times, began, allowed), segments, times, state
            )
            is_open |= found
            self._tell(seen, changes, out, mark.which)
        return is_open

    def _note(self, seen: Seen, anomalous: NDArray[np.bool_], away: NDArray[np.bool_] | None) -> None:
        """Let the baselines learn from these readings."""
        arrived, segments = seen.arrived, seen.arrived.segments
        scale = self.streams.scaling(segments.slots)[1][:, : self._sensed]
        if self._sensed:
            usual = seen.loc[segments.of_row]
            if seen.context is not None:
                usual = np.where(np.isnan(seen.context), usual, seen.context)
            residual, above = arrived.values - seen.expected, arrived.values - usual
        else:
            residual = above = np.empty((len(arrived.times), 0), np.float32)
        self.baselines.add(
            self.state, segments, arrived.times, residual, above, scale, seen.judged, arrived.number, anomalous,
            np.zeros(len(anomalous), bool) if away is None else np.asarray(away.any(axis=1)),
        )  # fmt: skip

    def _tell(self, seen: Seen, changes: list[Change], out: Scored, which: NDArray[np.bool_] | None = None) -> None:
        for change in changes:
            out.published.append(self._reporter.of_reading(seen, change, which))

    # -- rules over all readings of a batch ------------------------------------------------------------------------

    def _silence(self, batch: _Batch, out: Scored) -> dict[int, list[tuple[int, bool]]]:
        """Streams that fell silent or came back, (index, silent) by slot."""
        found: dict[int, list[tuple[int, bool]]] = {}
        if not len(batch.slots):
            return found
        state, column = self.state, KINDS.index(Kind.SILENT)
        accepted = np.zeros(len(batch.slots), bool)
        accepted[batch.order] = batch.fate.accepted
        told = state.opened[: state.size, column] != NEVER
        machine = np.empty(len(batch.slots), np.uint8)
        machine[batch.order] = batch.gated.state
        partition_of = np.array([self.streams.partitions[slot] for slot in batch.segments.slots.tolist()])
        of_row = np.empty(len(batch.slots), np.int64)
        of_row[batch.order] = partition_of[batch.segments.of_row]
        for partition in np.unique(partition_of).tolist():
            rows = np.flatnonzero(accepted & (of_row == partition))
            members = self.streams.expected(partition)
            if len(members) < len(self.streams.of_partition(partition)):  # some have moved to other partitions
                rows = rows[np.isin(batch.slots[rows], members)]
            events = self._silences.follow(
                state, members, batch.slots[rows], batch.known[rows], rows, told,
                machine[rows] == OFF, batch.gated.before,
            )  # fmt: skip
            for event in events:
                one = Segments.of(np.array([event.slot]))
                marks = silence_marks(event.silent, event.newest)
                _, changes = follow(self.policy, marks, one, np.array([event.time]), state)
                for change in changes:
                    out.published.append(self._reporter.of_silence(event, change, self._machine(event, machine)))
                found.setdefault(event.slot, []).append((event.index, event.silent))
        return found

    def _machine(self, silence: Silence, machine: NDArray[np.uint8]) -> MachineState | None:
        """What the machine of a stream does that is back, or did that fell silent: it was on, else none would tell."""
        if not silence.silent:
            return STATES[machine[silence.index]]
        return MachineState.ON if self._gates.gated(self.streams.names[silence.slot]) else None

    def _clocks(self, batch: _Batch, out: Scored) -> NDArray[np.bool_]:
        """Whether an incident of its clock is open after each reading, sorted ``[N]``, dropped ones among them."""
        segments, times = batch.segments, batch.times[batch.order]
        mark = clocks.follow(self.state, segments, times, batch.fate, batch.newest)
        column = KINDS.index(Kind.CLOCK)
        if not mark.on.any() and not (self.state.opened[segments.slots, column] != NEVER).any():
            return np.zeros(len(times), bool)
        # a clock that was set back tells no time: what happens is dated by the newest reading that counted
        highest = self._dated(batch, times)
        is_open, changes = follow(self.policy, clock_marks(mark, highest), segments, highest, self.state)
        for change in changes:
            slot, state = int(segments.slots[segments.of_row[change.row]]), STATES[batch.gated.state[change.row]]
            back = int(mark.back[segments.latest(mark.on)[change.row]]) if mark.on.any() else 0
            index, time = int(batch.order[change.row]), int(highest[change.row])
            out.published.append(self._reporter.of_clock(slot, index, time, change, back, state))
        return is_open

    def _dated(self, batch: _Batch, times: Times) -> Times:
        accepted = batch.segments.latest(batch.fate.accepted)
        before = batch.newest[batch.segments.of_row]
        return np.where(accepted >= 0, times[accepted], before)

    def _carry(
        self, batch: _Batch, out: Scored, silent: dict[int, list[tuple[int, bool]]], clocked: NDArray[np.bool_]
    ) -> None:
        """Bring to every reading what is open at its stream because of other readings."""
        if not batch.fate.accepted.all():  # a dropped reading leaves its stream as it was after the last accepted one
            newest = batch.segments.latest(batch.fate.accepted)
            ordered = out.alert[batch.order]
            out.alert[batch.order] = np.where(newest < 0, ordered, ordered[newest])
        out.alert[batch.order] |= clocked
        column = KINDS.index(Kind.SILENT)
        still = np.flatnonzero(self.state.opened[batch.segments.slots, column] != NEVER)
        for slot in {*silent, *batch.segments.slots[still].tolist()}:
            rows = np.flatnonzero(batch.slots == slot)
            events = silent.get(slot, [])
            before = not events[0][1] if events else True
            for row in rows.tolist():
                state = [what for index, what in events if index <= row]
                out.alert[row] |= state[-1] if state else before

    def buckets(self, readings: Readings) -> Ints:
        """The bucket of each reading's stream, ``[N]``."""
        slots = self.streams.slots(readings.partition, readings.streams)
        self.state.grow(self.streams.size)
        return self.streams.bucket(slots)

    # -- operators -------------------------------------------------------------------------------------------------

    def apply(self, partition: int, command: Command) -> list[Published]:
        """Do what an operator says about a stream of a partition; nothing where it is not known there."""
        slot = self.streams.of_partition(partition).get(command.stream)
        if slot is None:
            return []
        self._date(slot)
        published = [self._reporter.of_order(slot, change) for change in obey(self, slot, command)]
        return [replace(p, record=dump_record(self.state, slot)) for p in published]

    def _date(self, slot: int) -> None:
        """Of a stream of which nothing is known but what was published, its newest time is that of the last event."""
        if self.state.time[slot] == NEVER:
            self.state.time[slot] = self.state.told[slot].max()

    # -- forgetting --------------------------------------------------------------------------------------------------

    def forget(self, partition: int) -> None:
        """Forget a partition, as if never met: another owns it now."""
        self.streams.place(partition, None)
        self.state.reset(self.streams.remove(partition, list(self.streams.of_partition(partition))))

    def waiting_of(self, partition: int, streams: Iterable[str]) -> int:
        """How many readings wait in the reorder buffer of these streams."""
        known = self.streams.of_partition(partition)
        return int(self.state.wait_count[[known[stream] for stream in streams if stream in known]].sum())

    def evict(self, partition: int, streams: Iterable[str]) -> list[Published]:
        """Forget streams of a partition; what is open at them is over, since nobody would ever say so."""
        published, gone = [], []
        for stream in streams:
            slot = self.streams.of_partition(partition).get(stream)
            if slot is None:
                continue
            gone.append(stream)
            self._date(slot)
            time = int(self.state.time[slot])
            for k in np.flatnonzero(self.state.opened[slot] != NEVER).tolist():
                change = close(self.state, slot, KINDS[k], time, Ended.FORGOTTEN, wait=False)
                published.append(self._reporter.of_order(slot, change))
        self.state.reset(self.streams.remove(partition, gone))
        return published

    def longest_unheard(self, partition: int, count: int) -> tuple[int, str]:
        """Newest time and name of the ``count``-th stream of a partition, ordered by these two; there are so many."""
        names, heard = self._heard(partition)
        time = int(np.partition(heard, count - 1)[count - 1])
        alike = sorted(names[n] for n in np.flatnonzero(heard == time).tolist())
        return time, alike[count - 1 - int((heard < time).sum())]

    def unheard(self, partition: int, time: int, stream: str) -> list[str]:
        """The streams of a partition up to this newest time and, of those with just this one, name; in that order.

        Both times are those of readings, of the ones in the reorder buffer too: nothing but a stream's own readings
        decides whether it is among them.
        """
        names, heard = self._heard(partition)
        found = [(int(heard[n]), names[n]) for n in np.flatnonzero(heard <= time).tolist()]
        return [name for _, name in sorted(one for one in found if one <= (time, stream))]

    def _heard(self, partition: int) -> tuple[list[str], Times]:
        """Names of a partition's streams and the newest time of each."""
        members = self.streams.of_partition(partition)
        slots = np.fromiter(members.values(), np.int64, len(members))
        waiting = self.state.wait_time[slots].max(axis=1, initial=NEVER)
        return list(members), np.maximum(np.maximum(self.state.time[slots], self.state.gate_time[slots]), waiting)

    # -- state -----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget every stream, as if just started."""
        self.streams.clear()
        self.state.clear()

    def dump(self, partition: int, bucket: int) -> bytes:
        """The state of a partition's streams in one bucket."""
        members = self.streams.of_bucket(partition, bucket)
        slots = np.fromiter(members.values(), np.int64, len(members))
        return self.state.dump(list(members), slots, self.model.id)

    def load(self, partition: int, data: bytes | Saved) -> None:
        """Take over a dump; the streams in it are as they were then. Raises ModelError where it does not fit.

        Of a dump under another model of the same channels, what no model owns is taken over: readings, clocks, runs.
        """
        saved = data if isinstance(data, Saved) else Saved.parse(data)
        if saved.model not in (self.model.id, self.model.manifest.graph_sha256):
            saved = saved.of_no_model(self._tail)
        self._load(partition, saved)

    def _load(self, partition: int, saved: Saved) -> None:
        slots = self.streams.slots(partition, saved.streams)
        self.state.grow(self.streams.size)
        self.state.load(saved, slots)

    def take_over(self, partition: int, other: Engine, streams: Sequence[str]) -> None:
        """Go on with these streams of a partition where another model's engine, which forgets them, has brought them.

        See ``handover``. What is open stays open. Raises ModelError where the other model's channels are not ours.
        """
        if not self.model.fits(other.model):
            raise ModelError(
                f"the model {self.model.id[:12]}… has other channels than {other.model.id[:12]}…: it can go on with "
                "nothing of its state; run it under another --group-id"
            )
        known = other.streams.of_partition(partition)
        theirs = np.fromiter(map(known.__getitem__, streams), np.int64, len(streams))
        saved = other.state.copy(list(streams), theirs, "")
        ours = self.streams.slots(partition, streams)
        same = self.model.manifest.season == other.model.manifest.season
        season = None if self.seasons is None or not same else self.seasons.level(other.state, theirs)
        self._load(partition, handed_over(
            saved, other.learned(theirs), self.learned(ours), tail=self._tail, season=season,
        ))  # fmt: skip
        other.state.reset(other.streams.remove(partition, streams))

    def learned(self, slots: Ints) -> Learned:
        """What the model has learned of these streams."""
        return Learned(*self.streams.scaling(slots), self.streams.threshold(slots))

    def set_incidents(self, partition: int, incidents: Mapping[str, bytes]) -> None:
        """Make these the open incidents of a partition: the record of each stream that has one.

        What was published is a fact; what a replay would have said is not. Raises ModelError where a record cannot be
        read.
        """
        state, members = self.state, self.streams.of_partition(partition)
        forget_incidents(state, np.fromiter(members.values(), np.int64, len(members)))
        slots = self.streams.slots(partition, list(incidents))
        state.grow(self.streams.size)
        for slot, record in zip(slots.tolist(), incidents.values(), strict=True):
            load_record(state, slot, record)
            if state.opened[slot, ANOMALY] != NEVER and state.base_since[slot] == NEVER:
                self.baselines.opened(state, slot, int(state.opened[slot, ANOMALY]))


def _patient(policy: Policy, interval_s: float) -> Policy:
    """The policy for streams this slow: an incident may become a shift before it expires."""
    least = 2 * shift_s(policy, interval_s)
    return policy if policy.expire_after >= least else policy.model_copy(update={"expire_after": least})
