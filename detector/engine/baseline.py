"""Baselines: what a stream's level and spread are now, where they were learned otherwise.

A stream's level moves for good: a part is replaced, load is added, a sensor ages. Baselines follow by turns of event
time (half an hour, less where a shift is sooner, at least six readings), and never within one:

* **Slowly.** A channel's level follows what the model gets wrong about it, its mean residual, with the time constant
  ``drift_after``, where its own readings are off that way as well and no incident is open. It may move ``drift_limit``
  spreads away from where it was learned or last anchored; there it stops, and a drift is told once. So it is where the
  mean of a season gets so far away, which follows without a bound, and where a channel shifts the same way a second
  time.
* **At once.** An anomaly that has been open for ``shift_after``, at least half of its readings not calm, is a shift.
  What the stream was in the newer half of that time is its new level, for the channels that moved at least a spread,
  and more than they scatter; a channel whose deviation grew by half has a wider spread from then on, which follows what
  its deviation becomes in the course of a week. Where even that leaves the stream so for another sixth of that time,
  its scores are divided until the highest that are to be expected of them are at the threshold, or what is typical of
  them is as usual ("relief"). Relief fades in a week, but not while scores are higher than usual: what made it
  necessary may be over, and nobody would see that it is.
* **On trial.** For ``trial_after`` after a shift the level before it is not forgotten: a reading that fits either is no
  anomaly, its published score is that of the level before, and a stream that returns there for a turn has its old
  level back. Then the new one is for good.
* **Not at all**, where an operator says that something is still wrong: until the incident is over, and with what was
  learned, not what was re-baselined.

Sums are of integers, so that batches of any size give the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.engine.assembly import NEVER, Times
from detector.engine.incidents import KINDS, Policy
from detector.engine.segments import Ints, Segments
from schemas.alert import Kind
from schemas.moment import SECOND_NS

#: A turn: this long at most, a twelfth of the time until a shift, but so many readings at least.
TURN_S, TURN_READINGS = 1800.0, 6

#: Turn of a stream that has no reading yet: below every turn.
NO_TURN = -(2**62)

#: Steps in a channel's spread in which levels are summed, and the largest distance, in spreads.
STEPS, FARTHEST = 16, 1000
#: A residual counts this many spreads at most: one wild reading must not move a level.
BELIEVED = 3.0
#: Readings of a turn, and of the newer half of the time until a shift, that are summed, about: of faster streams every
#: some-th.
MOST_OF_TURN, MOST = 64, 10_000
MOST_SUM = 2**31 - 1

#: Spreads by which a channel's level moves at least in a shift, and by how much its deviation grows.
MOVED_SPREADS, WIDER = 1.0, 1.5

#: A stream that a shift leaves anomalous is re-baselined again after this part of the time that the first one took.
AGAIN = 6

#: Share of a turn's readings that must fit the level before a shift for the shift to be taken back.
RETURNED = 0.8

#: Times its spread as learned that a channel is believed to scatter, at most: of one that never moved, any is many.
MOST_SPREAD = 1e4

#: Steps of a doubling in which scores are summed.
SCORE_STEPS = 256
#: The highest scores to be expected lie so many standard deviations of their logarithms above what is typical.
UPPER = 3.0
#: Scores are as usual where what is typical of them is at most this many times what is of normal data …
AS_USUAL = 1.2
#: … in the mean of so many turns, a day: there is a rhythm in them.
REMEMBERED = 48
RELIEF_FADES_S = 7 * 86_400.0
#: Relief at most: what no number holds would blind a stream for good.
MOST_RELIEF = 1e6

#: How a drift that was told came about: slowly, until the channel is back, or by shifts, until an operator says so.
CREPT, STEPPED = 1, 2

#: What a stream's sums are of.
SLOW, WATCHED, HELD = 0, 1, 2

ANOMALY = KINDS.index(Kind.ANOMALY)
#: Sensors that break teach nothing. (What a stream's clock or silence tells comes from readings that do not count, or
#: from other streams', and so at no certain place among its own.)
BROKEN = [KINDS.index(kind) for kind in (Kind.STUCK, Kind.MISSING, Kind.RANGE)]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Fields = dict[str, tuple[tuple[int, ...], np.dtype[Any], Any]]


def fields(channels: int) -> Fields:
    """The arrays of one stream: name to (shape, type, value of a stream just met); see ``Memory``."""
    C = (channels,)
    f32, i64, i32, u32, u8 = (np.dtype(name) for name in ("<f4", "<i8", "<i4", "<u4", "u1"))
    return {
        "base_turn": ((), i64, NO_TURN),
        "base_mode": ((), u8, SLOW),
        "base_level": (C, f32, 0),
        "base_anchor": (C, f32, 0),
        "base_spread": (C, f32, 1),
        "base_relief": ((), f32, 1),
        "base_sum": (C, i32, 0),
        "base_second": (C, i64, 0),
        "base_count": (C, u32, 0),
        "base_since": ((), i64, NEVER),
        "base_stage": ((), u8, 0),
        "base_rows": ((2,), i32, 0),
        "base_scores": ((3,), i64, 0),
        "base_trial": ((), i64, NEVER),
        "base_old_level": (C, f32, 0),
        "base_old_spread": (C, f32, 1),
        "base_old_relief": ((), f32, 1),
        "base_back": ((2,), i32, 0),
        "base_hold": ((), u8, 0),
        "base_drift": ((), u8, 0),
    }


class Memory(Protocol):
    """Where the arrays lie: row ``slot`` of each is a stream's. Levels in engineering units."""

    opened: Times
    base_turn: Ints
    """``[S]``: the turn of the newest reading, counted from 1970."""
    base_mode: NDArray[np.uint8]
    """``[S]``: what this turn's sums are of: residuals (SLOW), levels in an incident (WATCHED), nothing (HELD)."""
    base_level: Floats
    """``[S, C]``: added to the level that was learned."""
    base_anchor: Floats
    """``[S, C]``: the part of it that was re-baselined, not crept to."""
    base_spread: Floats
    """``[S, C]``: times the spread that was learned."""
    base_relief: Floats
    """``[S]``: raw scores are divided by it."""
    base_sum: NDArray[np.int32]
    """``[S, C]``: steps."""
    base_second: Ints
    """``[S, C]``: of residuals what the readings are above what is usual, or its squares where the spread is wide; of
    levels their squares; steps.
    """
    base_count: NDArray[np.uint32]
    base_since: Times
    """``[S]``: when the open anomaly opened, or the first of those that came back soon, or was last re-baselined."""
    base_stage: NDArray[np.uint8]
    """``[S]``: how often it was."""
    base_rows: NDArray[np.int32]
    """``[S, 2]``: scored readings since then, and those that were not calm."""
    base_scores: Ints
    """``[S, 3]``: sum of the logarithms of scores, of their squares, and their count, like ``base_sum``."""
    base_trial: Times
    """``[S]``: since when the newest shift is on trial; NEVER: none is."""
    base_old_level: Floats
    """``[S, C]``: ``base_level`` before it, and likewise."""
    base_old_spread: Floats
    base_old_relief: Floats
    base_back: NDArray[np.int32]
    """``[S, 2]``: readings scored on trial in this turn, and those that fit the level before, and better."""
    base_hold: NDArray[np.uint8]
    """``[S]``: 1: an operator said that it is still wrong; 2: and nothing was open at the next turn; 0: neither."""
    base_drift: NDArray[np.uint8]
    """``[S]``: a drift was told and is not over."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What was learned of U streams."""

    scale: Floats
    """``[U, C]``, engineering units."""
    noise: Floats
    """``[C]``: root mean square of readings from what is usual at their time, in scales."""
    score: Doubles
    """``[U]``: what is typical of scores, in thresholds; 0: unknown."""
    season: Floats
    """``[U, C]``: how far a period's mean lies from the level as it is now, in scales; 0 where it is not known."""


@dataclass(frozen=True, slots=True)
class Turned:
    """What happened to the baselines of U streams as their turns ended."""

    shifted: Bools
    """``[U]``: the open anomaly is a shift, and was re-baselined."""
    drifted: Bools
    """``[U]``: a channel reached the limit."""
    furthest: Ints
    """``[U]``: the channel that crept furthest; of streams that drifted."""
    returned: Bools
    """``[U]``: a shift on trial is taken back."""
    settled: Bools
    """``[U]``: a shift is no longer on trial."""
    level: Floats
    """``[U, C]``: by how much the level moved at once, engineering units; 0 where it did not."""
    wider: Floats
    """``[U, C]``: times its spread as learned that a channel scatters, where that is what changed; 0 elsewhere."""
    crept: Doubles
    """``[U, C]``: scales that the channel is from where it was learned or last anchored; of streams that drifted."""


def shift_s(policy: Policy, interval_s: float) -> float:
    """Seconds that an anomaly lasts until it is a shift: that takes some readings, however rare they are."""
    return max(policy.shift_after, 4 * TURN_READINGS * interval_s)


class Baselines:
    """Follows the baselines of all streams of a model."""

    def __init__(self, policy: Policy, interval_ns: int) -> None:
        self._policy = policy
        turn_s = min(TURN_S, policy.shift_after / 12) if policy.shift_after else TURN_S
        self._turn_ns = max(round(turn_s * SECOND_NS), TURN_READINGS * interval_ns)
        self._interval_ns = interval_ns
        self._shift_ns = round(shift_s(policy, interval_ns / SECOND_NS) * SECOND_NS)
        self._trial_ns = round(policy.trial_after * SECOND_NS)
        self._every = max(self._shift_ns // (2 * MOST * interval_ns), 1)
        self._seldom = max(self._turn_ns // (MOST_OF_TURN * interval_ns), 1)
        turn_s = self._turn_ns / SECOND_NS
        self._slow = min(turn_s / policy.drift_after, 1.0) if policy.drift_after else 0.0
        self._fade = min(turn_s / RELIEF_FADES_S, 1.0)

    @property
    def move(self) -> bool:
        """Whether baselines move at all."""
        return self._policy.shift_after > 0 or self._slow > 0

    def turns(self, times: Times) -> Ints:
        """The turn of each time."""
        return times // self._turn_ns

    def advance(self, memory: Memory, slots: Ints, times: Times, turns: Ints, usual: Usual) -> Turned:
        """Move on to these turns ``[U]``; ``times`` ``[U]``: of each stream's next reading."""
        U, C = usual.scale.shape
        shifted, drifted, returned, settled = (np.zeros(U, bool) for _ in range(4))
        level, wider = (np.zeros((U, C), np.float32) for _ in range(2))
        turned = Turned(shifted, drifted, np.zeros(U, np.int64), returned, settled, level, wider, np.zeros((U, C)))
        # a stream's time does not go back: a smaller turn is one of another length, under a policy that came since
        over = np.flatnonzero(turns != memory.base_turn[slots])
        if not len(over):
            return turned
        known = memory.base_turn[slots] != NO_TURN
        self._creep(memory, slots, usual, turned, over[known[over] & (memory.base_mode[slots[over]] == SLOW)])
        watched = over[known[over] & (memory.base_mode[slots[over]] == WATCHED)]
        if len(watched):
            self._anchor(memory, slots, times, usual, turned, watched)
        tried = over[(memory.base_trial[slots[over]] != NEVER) & ~turned.shifted[over]]
        if len(tried):
            self._try(memory, slots, times, turned, tried)
        self._begin(memory, slots[over], times[over], turns[over])
        return turned

    def _try(self, memory: Memory, slots: Ints, times: Times, turned: Turned, tried: Ints) -> None:
        """Take a shift back whose stream has returned; settle one whose time is over."""
        at = slots[tried]
        rows, fit = memory.base_back[at].T
        back = (rows >= TURN_READINGS // 2) & (fit >= RETURNED * rows)
        over = ~back & (times[tried] - memory.base_trial[at] >= self._trial_ns)
        turned.returned[tried], turned.settled[tried] = back, over
        turned.level[tried[back]] = self._restore(memory, at[back])
        memory.base_trial[at[back | over]] = NEVER
        memory.base_back[at] = 0

    def _restore(self, memory: Memory, at: Ints) -> Floats:
        """Make the level before the shift on trial the level again; returns by how much that moves it."""
        level: Floats = memory.base_old_level[at] - memory.base_level[at]
        memory.base_anchor[at] += level
        memory.base_level[at] = memory.base_old_level[at]
        memory.base_spread[at], memory.base_relief[at] = memory.base_old_spread[at], memory.base_old_relief[at]
        return level

    def _begin(self, memory: Memory, slots: Ints, times: Times, turns: Ints) -> None:
        """A new turn: what its sums are of is settled for as long as it lasts."""
        memory.base_turn[slots] = turns
        is_open = memory.opened[slots, ANOMALY] != NEVER
        other = (memory.opened[slots[:, None], BROKEN] != NEVER).any(axis=1) & ~is_open
        hold = memory.base_hold[slots]
        held = hold > 0
        # what was said of a stream that has nothing open holds for a turn, in which it opens, if it is still wrong
        memory.base_hold[slots] = np.where(held & ~is_open, np.where(hold == 1, 2, 0), hold)
        trial = memory.base_trial[slots] != NEVER
        mode = np.where(other | held, HELD, np.where(is_open, WATCHED, np.where(trial, HELD, SLOW)))
        before = memory.base_mode[slots]
        slowly, goes_on = (mode == SLOW) & (before == SLOW), (mode == WATCHED) & (before == WATCHED)
        memory.base_mode[slots] = mode
        begun = goes_on & (times >= memory.base_since[slots] + self._lasting_ns(memory, slots) // 2)
        reset = slots[~begun]  # the newer half of the time until a shift is what counts
        for array in (memory.base_sum, memory.base_second, memory.base_count):
            array[reset] = 0
        memory.base_scores[slots[~begun & ~slowly]] = 0  # what fades goes by a day

    def _lasting_ns(self, memory: Memory, slots: Ints) -> Ints:
        """How long an anomaly lasts until it is re-baselined, or once more, ``[U]``."""
        return np.where(memory.base_stage[slots] > 0, max(self._shift_ns // AGAIN, 2 * self._turn_ns), self._shift_ns)

    # -- slowly ----------------------------------------------------------------------------------------------------

    def _creep(self, memory: Memory, slots: Ints, usual: Usual, turned: Turned, which: Ints) -> None:
        at = slots[which]
        self._fade_out(memory, at, usual.score[which])
        if not len(which) or not usual.scale.shape[1]:
            return
        count = memory.base_count[at]  # [G, C]
        wide = self._narrow(memory, at, usual.noise)
        if not self._slow:
            return
        mean = memory.base_sum[at] / (np.maximum(count, 1) * STEPS)  # [G, C], spreads
        # a model smears one channel's error over others: only a channel that is itself off follows
        own = memory.base_second[at] / (np.maximum(count, 1) * STEPS)  # [G, C], spreads
        itself = (np.sign(own) == np.sign(mean)) & (np.abs(own) >= np.abs(mean)) & ~wide
        step = np.where((count >= TURN_READINGS // 2) & itself, self._slow * mean, 0.0)
        spread = usual.scale[which].astype(np.float64)
        crept = (memory.base_level[at] - memory.base_anchor[at]) / spread + step  # [G, C], spreads
        limit = self._policy.drift_limit
        # a season follows whatever comes slowly, and a model that is told of it finds nothing wrong
        season = crept + usual.season[which]
        furthest = np.where(np.abs(season) > np.abs(crept), season, crept)
        far = np.abs(furthest) >= limit
        level = memory.base_anchor[at] + np.clip(crept, -limit, limit) * spread
        memory.base_level[at] = level.astype(np.float32)
        told = memory.base_drift[at] > 0
        turned.furthest[which] = np.abs(furthest).argmax(axis=1)
        turned.crept[which] = furthest
        turned.drifted[which] = far.any(axis=1) & ~told
        near = (np.abs(furthest) < limit * 2 / 3).all(axis=1)
        now = np.where(far.any(axis=1), CREPT, np.where(near, 0, memory.base_drift[at]))
        memory.base_drift[at] = np.where(memory.base_drift[at] == STEPPED, STEPPED, now)

    def _fade_out(self, memory: Memory, at: Ints, usual: Doubles) -> None:
        """Relief fades where scores have been as usual for a day, or nothing is known of them."""
        eased = memory.base_relief[at] > 1
        if not eased.any():
            return
        at, usual = at[eased], usual[eased]
        typical, _ = _scores_of(memory, at)
        sums = memory.base_scores[at]
        count = sums[:, 2:]
        memory.base_scores[at] -= sums * (count // REMEMBERED) // np.maximum(count, 1)  # all by the same share
        at = at[np.isnan(typical) | (usual == 0) | (typical <= AS_USUAL * usual)]
        memory.base_relief[at] = 1 + (memory.base_relief[at] - 1) * np.float32(1 - self._fade)

    def _narrow(self, memory: Memory, at: Ints, noise: Floats) -> Bools:
        """Spreads that a shift has widened follow the channels' deviation; which did, ``[G, C]``."""
        wide: Bools = memory.base_spread[at] > 1
        if wide.any():
            count = memory.base_count[at]
            square = memory.base_second[at] / (np.maximum(count, 1) * STEPS**2)  # of wide ones: of squares
            known = wide & (count >= TURN_READINGS // 2)
            before = memory.base_spread[at].astype(np.float64) ** 2
            after = before + np.where(known, self._fade * (square / noise.astype(np.float64) ** 2 - before), 0)
            memory.base_spread[at] = np.where(wide, np.sqrt(np.maximum(after, 1)), 1)
        return wide

    # -- at once ---------------------------------------------------------------------------------------------------

    def _anchor(self, memory: Memory, slots: Ints, times: Times, usual: Usual, turned: Turned, watched: Ints) -> None:
        at = slots[watched]
        rows, bad = memory.base_rows[at].astype(np.int64).T
        lasting = (memory.opened[at, ANOMALY] != NEVER) & (
            times[watched] - memory.base_since[at] >= self._lasting_ns(memory, at)
        )
        seen = 2 * rows * self._interval_ns >= self._lasting_ns(memory, at)  # a gap is no evidence
        due = lasting & seen & (2 * bad >= rows) & (self._policy.shift_after > 0)
        chosen = watched[due]
        self._start_trial(memory, slots[chosen], times[chosen])
        first = (memory.base_stage[slots[chosen]] == 0) & (usual.scale.shape[1] > 0)
        self._relevel(memory, slots, usual, turned, chosen[first])
        self._relieve(memory, slots[chosen[~first]], usual.score[chosen[~first]])
        turned.shifted[chosen] = True
        memory.base_stage[slots[chosen]] = np.minimum(memory.base_stage[slots[chosen]] + 1, 200)
        memory.base_since[at[lasting]], memory.base_rows[at[lasting]] = times[watched[lasting]], 0

    def _start_trial(self, memory: Memory, at: Ints, times: Times) -> None:
        if not self._trial_ns:
            return
        new = at[memory.base_trial[at] == NEVER]  # a second shift on trial: what was before the first may still return
        memory.base_old_level[new], memory.base_old_spread[new] = memory.base_level[new], memory.base_spread[new]
        memory.base_old_relief[new] = memory.base_relief[new]
        memory.base_trial[at], memory.base_back[at] = times, 0

    def _relevel(self, memory: Memory, slots: Ints, usual: Usual, turned: Turned, chosen: Ints) -> None:
        if not len(chosen) or not usual.scale.shape[1]:
            return
        at, scale = slots[chosen], usual.scale[chosen]
        count = memory.base_count[at].astype(np.float64)  # [G, C]
        enough = count >= TURN_READINGS // 2
        mean = memory.base_sum[at] / np.maximum(count, 1) / STEPS  # [G, C], spreads
        square = memory.base_second[at] / np.maximum(count, 1) / STEPS**2
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        # (a channel that scatters more is somewhere else for a while, but has not moved)
        moved = enough & (np.abs(mean) >= np.maximum(MOVED_SPREADS, deviation))
        # a second step the same way is no accident: the channel drifts, faster than a baseline may follow
        before = memory.base_anchor[at] / scale
        again = moved & (np.sign(mean) == np.sign(before)) & (np.abs(before) >= MOVED_SPREADS)
        turned.drifted[chosen] = again.any(axis=1) & (memory.base_drift[at] == 0)
        turned.furthest[chosen] = np.where(again, np.abs(before + mean), 0).argmax(axis=1)
        turned.crept[chosen] = np.where(again, before + mean, 0)
        memory.base_drift[at] = np.where(again.any(axis=1), STEPPED, memory.base_drift[at])
        level = np.where(moved, mean * scale, 0).astype(np.float32)
        memory.base_level[at] += level
        memory.base_anchor[at] = np.where(moved, memory.base_level[at], memory.base_anchor[at])
        times = np.minimum(deviation / usual.noise, MOST_SPREAD)
        wider = enough & (times >= WIDER * memory.base_spread[at])
        memory.base_spread[at] = np.where(wider, times, memory.base_spread[at])
        turned.wider[chosen] = np.where(wider, times, 0)
        turned.level[chosen] = level

    def _relieve(self, memory: Memory, at: Ints, usual: Doubles) -> None:
        typical, upper = _scores_of(memory, at)
        # what is typical counts as half a threshold at most, or what is usual where that is more
        least = 2 * typical
        most = np.maximum(typical / np.maximum(usual, 1e-9), least)
        more = np.fmax(np.clip(upper, least, most), 1.0)
        memory.base_relief[at] = np.minimum(memory.base_relief[at] * more, MOST_RELIEF)

    # -- sums ------------------------------------------------------------------------------------------------------

    def opened(self, memory: Memory, slot: int, time: int, *, again: bool = False) -> None:
        """An anomaly opened. One that is back soon (``again``) goes on: its time until a shift does not begin anew,
        unless the last one was re-baselined or an operator spoke of it: this is another one then.
        """
        if again and memory.base_since[slot] != NEVER and memory.base_stage[slot] == 0:
            return
        memory.base_since[slot], memory.base_stage[slot], memory.base_rows[slot] = time, 0, 0

    def add(
        self,
        memory: Memory,
        segments: Segments,
        times: Times,
        residual: Floats,
        above: Floats,
        scale: Floats,
        score: Doubles,
        number: Ints,
        is_open: Bools,
        bad: Bools,
    ) -> None:
        """Count readings at ``times`` ``[n]``: their ``residual`` ``[n, C]`` from what was expected, what they are
        ``above`` what is usual ``[n, C]`` (engineering units, NaN: unknown), ``scale`` ``[U, C]`` as learned, ``score``
        ``[n]`` in thresholds, ``number`` ``[n]``: how many-th of its stream each is.
        """
        slots = segments.slots
        mode = memory.base_mode[slots][segments.of_row]
        slow = (mode == SLOW) & ~is_open & (score <= 1) & (number % self._seldom == 0)
        watched = (mode == WATCHED) & is_open & (number % self._every == 0)
        if self.move and slow.any():
            second = _steps(above, slow, segments, scale, FARTHEST)
            wide = memory.base_spread[slots][segments.of_row[slow]] > 1
            second = np.where(wide, second**2, second)
            self._sum(memory, segments, slow, _steps(residual, slow, segments, scale, BELIEVED), second)
        if is_open.any():
            # an incident that ended in this batch before another opened is no part of it
            own = is_open & (times >= memory.base_since[slots][segments.of_row])
            scored = own & ~np.isnan(score)
            # between release and threshold nothing is over either, nor while a channel is away
            off = scored & ((score > self._policy.release) | bad)
            rows = np.stack([scored, off], axis=1).astype(np.int32)
            memory.base_rows[slots] += np.add.reduceat(rows, segments.first, axis=0)
        if slow.any() and (eased := slow & (memory.base_relief[slots] > 1)[segments.of_row]).any():
            self._sum_scores(memory, segments, eased, score)
        if watched.any():
            steps = _steps(above, watched, segments, scale, FARTHEST)
            self._sum(memory, segments, watched, steps, steps**2)
            self._sum_scores(memory, segments, watched & ~np.isnan(score), score)

    def _sum(self, memory: Memory, segments: Segments, which: Bools, steps: Doubles, second: Doubles) -> None:
        """Add the readings ``which`` ``[n]``, ``steps`` and ``second`` ``[m, C]`` of them, NaN where missing."""
        of = segments.of_row[which]
        first = np.flatnonzero(np.diff(of, prepend=-1))
        at = segments.slots[of[first]]
        there = ~(np.isnan(steps) | np.isnan(second))
        memory.base_count[at] += np.add.reduceat(there, first, axis=0, dtype=np.uint32)
        whole, other = (np.where(there, one, 0).astype(np.int64) for one in (steps, second))
        added = memory.base_sum[at].astype(np.int64) + np.add.reduceat(whole, first, axis=0)
        memory.base_sum[at] = np.clip(added, -MOST_SUM, MOST_SUM)  # of data far denser than the model's interval
        memory.base_second[at] += np.add.reduceat(other, first, axis=0)

    def _sum_scores(self, memory: Memory, segments: Segments, which: Bools, score: Doubles) -> None:
        rows = np.flatnonzero(which)
        if not len(rows):
            return
        logs = np.rint(np.log2(np.clip(score[rows], 1e-6, 1e30)) * SCORE_STEPS).astype(np.int64)
        of = segments.of_row[rows]
        first = np.flatnonzero(np.diff(of, prepend=-1))
        memory.base_scores[segments.slots[of[first]]] += np.add.reduceat(
            np.stack([logs, logs**2, np.ones_like(logs)], axis=1), first, axis=0
        )

    def tried(self, memory: Memory, segments: Segments, rows: Ints, fit: Bools) -> None:
        """Count readings on trial, ``rows`` of ``segments``, those that ``fit`` the level before, and better."""
        of = segments.of_row[rows]
        first = np.flatnonzero(np.diff(of, prepend=-1))
        both = np.stack([np.ones(len(rows), np.int32), fit.astype(np.int32)], axis=1)
        memory.base_back[segments.slots[of[first]]] += np.add.reduceat(both, first, axis=0)

    def relieve(self, memory: Memory, slot: int, score: float) -> None:
        """Make a score, in thresholds, count as half of one."""
        memory.base_relief[slot] = min(float(memory.base_relief[slot]) * max(2 * score, 1.0), MOST_RELIEF)

    # -- operators -------------------------------------------------------------------------------------------------

    def back(self, memory: Memory, slot: int) -> Floats:
        """Take back a shift that is on trial, and follow nothing while what is open lasts.

        Where nothing is on trial and no anomaly is open, all that was ever re-baselined is meant; where one is open,
        what was settled or accepted before is no matter of it. Returns by how much the level moved.
        """
        moved: Floats = np.zeros(memory.base_level.shape[1], np.float32)
        if memory.base_trial[slot] != NEVER:
            moved = self._restore(memory, np.array([slot]))[0]
        elif memory.opened[slot, ANOMALY] == NEVER:
            moved = -memory.base_anchor[slot]
            memory.base_level[slot], memory.base_anchor[slot] = 0, 0
            memory.base_spread[slot], memory.base_relief[slot] = 1, 1
        memory.base_trial[slot], memory.base_stage[slot] = NEVER, 1  # what comes back is another one
        memory.base_hold[slot], memory.base_mode[slot] = 1, HELD
        return moved

    def catch_up(self, memory: Memory, slot: int, above: Floats, scale: Floats, channels: Bools) -> None:
        """Make a level that crept away the level, of those ``channels`` ``[C]`` that are at least a spread away;
        ``above`` ``[C]``: how far a period's mean lies above the level as it is now, engineering units.
        """
        crept = channels & (np.abs(memory.base_level[slot] - memory.base_anchor[slot] + above) >= MOVED_SPREADS * scale)
        memory.base_level[slot] += np.where(crept, above, 0)
        memory.base_anchor[slot] = np.where(crept, memory.base_level[slot], memory.base_anchor[slot])

    def accept(
        self, memory: Memory, slot: int, above: Floats, deviation: Floats, scale: Floats, noise: Floats, channels: Bools
    ) -> Floats:
        """Make what the stream is now its level and its spread, of those ``channels`` ``[C]`` that moved.

        ``above`` ``[C]``: by how much it is above what was usual, engineering units, NaN: unknown; ``deviation``
        ``[C]``: of what that is the mean of; ``scale``, ``noise`` ``[C]``: as learned.
        """
        least = np.maximum(MOVED_SPREADS * scale, deviation)
        moved = channels & (np.abs(np.nan_to_num(above)) >= least)
        spread = np.minimum(deviation / (scale * noise), MOST_SPREAD)
        wider = channels & (spread >= WIDER * memory.base_spread[slot])
        memory.base_spread[slot] = np.where(wider, spread, memory.base_spread[slot])
        level: Floats = np.where(moved, above, 0).astype(np.float32)
        memory.base_level[slot] += level
        memory.base_anchor[slot] = np.where(level != 0, memory.base_level[slot], memory.base_anchor[slot])
        memory.base_hold[slot], memory.base_mode[slot] = 0, HELD
        memory.base_trial[slot], memory.base_since[slot] = NEVER, NEVER
        memory.base_drift[slot] = 0
        if level.any():  # which explains what was relieved
            memory.base_relief[slot] = 1
        return level


def _scores_of(memory: Memory, at: Ints) -> tuple[Doubles, Doubles]:
    """What is typical of the scores that were summed, and the highest to be expected of them, in thresholds ``[U]``;
    NaN where there are none.
    """
    total, second, count = memory.base_scores[at].T.astype(np.float64)
    count = np.where(count > 0, count, np.nan)
    mean = total / count
    deviation = np.sqrt(np.maximum(second / count - mean**2, 0))
    return np.exp2(mean / SCORE_STEPS), np.exp2((mean + UPPER * deviation) / SCORE_STEPS)


def _steps(off: Floats, which: Bools, segments: Segments, scale: Floats, most: float) -> Doubles:
    """Distances ``off`` ``[n, C]`` of the readings ``which`` in steps of the spreads, at most ``most`` spreads."""
    with np.errstate(invalid="ignore", over="ignore"):
        spreads = off[which] / scale[segments.of_row[which]]
        steps: Doubles = np.rint(np.clip(spreads, -most, most) * STEPS).astype(np.float64)
    return steps
