"""Episodes of the stretch that sets thresholds: how strong each was, and how far apart they are.

An incident opens at a reading when it and enough of those before it lie above the threshold, so what decides is not the
score but its *opening strength*: the largest level at which an incident would open there. Strong readings come in runs,
because windows overlap and scores are smoothed; what counts is the peak of each run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from detector.engine.incidents import Policy
from detector.engine.segments import Segments, with_tails
from schemas.moment import SECOND_NS
from schemas.promise import DAY_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Peaks:
    """P peaks of the episodes of S streams.

    A peak is the largest strength within ``gap_days`` on either side, so at most one fits into that time.
    """

    stream: Ints
    """``[P]``."""
    time: Ints
    """``[P]``, ns."""
    strength: Floats
    """``[P]``, raw scores."""
    days: Floats
    """``[S]``, that were watched."""
    gap_days: float

    def blocks(self) -> Ints:
        """A number for each peak ``[P]``: those of a stream and a day, or a twentieth of its time, share one."""
        length = min(1.0, float(self.days.max(initial=0)) / 20) * DAY_S * SECOND_NS
        number = (self.time // max(round(length), 1)).astype(np.int64)
        return np.unique(np.stack([self.stream, number]), axis=1, return_inverse=True)[1].ravel()


def strengths(score: Floats, segments: Segments, policy: Policy) -> Floats:
    """The level up to which an incident opens at each score ``[n]``; -inf where none can yet.

    It opens at a level exactly where this is above it: the newest score is, and ``k`` of the newest ``n`` are.
    """
    before = np.full((len(segments.slots), policy.n), -np.inf)
    newest = with_tails(segments, before, score)  # [n, policy.n]
    kth = np.partition(newest, policy.n - policy.k, axis=1)[:, policy.n - policy.k]
    return np.minimum(score, kth)


def peaks_of(
    score: Floats, times: Ints, stream: Ints, streams: int, interval_ns: int, gap: int, policy: Policy
) -> Peaks:
    """Peaks of scores ``[n]``, sorted by stream and time; ``gap``: readings on either side without a larger one."""
    segments = Segments.of(stream)
    strength = strengths(score, segments, policy)
    if not np.isfinite(strength).any():  # too few scores for an incident: as if one were enough
        strength = score
    rows = _largest(strength, segments, gap)
    interval_days = interval_ns / (DAY_S * SECOND_NS)
    days: Floats = np.bincount(stream, minlength=streams) * np.float64(interval_days)
    return Peaks(stream[rows], times[rows], strength[rows], days, gap * interval_days)


def _largest(strength: Floats, segments: Segments, gap: int) -> Ints:
    """Rows that no other of the same stream within ``gap`` exceeds; of equal ones the first."""
    place = np.arange(len(strength)) + gap * (segments.of_row + 1)
    flat = np.full(len(strength) + gap * (len(segments.slots) + 1), -np.inf)
    flat[place] = strength
    around = maximum_filter1d(flat, gap, mode="constant", cval=-np.inf)  # at i: from i - gap // 2 on
    before, after = around[place - gap + gap // 2], around[np.minimum(place + 1 + gap // 2, len(flat) - 1)]
    return np.flatnonzero(np.isfinite(strength) & (strength > before) & (strength >= after))


def opened(score: Floats, stream: Ints, level: float, policy: Policy) -> NDArray[np.bool_]:
    """Whether an incident opens at each score ``[n]``, sorted by stream and time, with the threshold at ``level``.

    It lasts until ``quiet`` scores in a row do not exceed the level; the detector looks closer before it calls a
    reading calm (``detector.engine.incidents``).
    """
    segments = Segments.of(stream)
    above = np.flatnonzero(score > level)
    opens = np.zeros(len(score), bool)
    if not len(above):
        return opens
    starts = np.diff(above, prepend=-policy.quiet - 1) > policy.quiet
    starts |= np.diff(stream[above], prepend=-1) != 0
    on = strengths(score, segments, policy)[above] > level
    run = np.cumsum(starts) - 1
    firsts = np.full(run[-1] + 1, len(above))
    np.minimum.at(firsts, run[on], np.flatnonzero(on))
    opens[above[firsts[firsts < len(above)]]] = True
    return opens
