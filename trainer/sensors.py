"""When a sensor counts as broken, learned from how it behaved: limits for the detector's rules that need no model.

All of the training data count, the calibration stretch included: nothing is fitted here, and the more normal readings,
the better the longest run among them is known. The runs are counted by the detector's own rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.adapters.overflow import chunks
from detector.engine import runs
from detector.engine.segments import Segments
from detector.engine.silence import LEAST_INTERVALS, LEAST_S
from detector.engine.state import State
from schemas.moment import SECOND_NS
from trainer.data import Prepared

#: A run is too long where it is so many times as long as the longest one in training …
FACTOR = 3

#: … and no shorter than this, in readings.
LEAST_STUCK, LEAST_MISSING = 12, 5

#: A channel that repeats its value in a larger share of a stream's readings is coarse, and its runs grow with quieter
#: times: measured, by up to 7 times from one fortnight to the next, where those of others stayed within 3. It takes …
COARSE = 0.2

#: … so many times the longest run: enough to find a sensor that died.
COARSE_FACTOR = 10

#: A channel that kept one value for a larger share of a stream's readings hardly moves: that says nothing.
MOST_SAME = 0.05

#: A channel that is missing from a larger share of a stream's readings is not expected.
MOST_MISSING = 0.1

#: Limits are at most so many readings; a channel that would need more is not watched.
MOST_READINGS = 60_000

#: A stream is silent after so many times the longest usual pause; a pause is usual that was seen this often, and at
#: least once per stream.
PAUSE_FACTOR, USUAL = 1.5, 3

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Limits:
    """Readings of a run that are still normal, ``[C]``; 0: the channel is not watched for it."""

    stuck_after: Ints
    missing_after: Ints


def limits_of(data: Prepared) -> Limits:
    """The limits of a group's channels: of all its streams, the most that is normal in any."""
    S, C = len(data.names), data.channels
    longest, repeats, absent, present = (np.zeros((S, C), np.int64) for _ in range(4))
    readings = np.zeros(S, np.int64)
    memory = State({"sensors": runs.fields(C)})
    memory.grow(S)
    for part in chunks(*data.values.shape):
        given = data.given[part]
        values, stream = data.values[part][given], data.stream[part][given]
        segments = Segments.of(stream)
        found = runs.follow(memory, segments, values)
        for blocks, most in ((found.same, longest), (found.absent, absent)):
            np.maximum.at(most, (stream[found.rows(blocks)], found.channel(blocks)), blocks.longest())
        more = found.same.longest() - found.same.before
        np.add.at(repeats, (stream[found.rows(found.same)], found.channel(found.same)), more)
        np.add.at(present, stream, ~np.isnan(values))
        readings[segments.slots] += segments.counts
    expected = present > 0  # a machine that has no such sensor says nothing about the others'
    still = (longest > np.maximum(MOST_SAME * present, LEAST_STUCK)).any(axis=0)
    rare = (expected & (readings[:, None] - present > MOST_MISSING * readings[:, None])).any(axis=0)
    coarse = (repeats > COARSE * present).any(axis=0)
    never: Bools = (present == 0).all(axis=0)
    return Limits(
        _limit(longest, np.where(coarse, COARSE_FACTOR, FACTOR), LEAST_STUCK, still | never),
        _limit(np.where(expected, absent, 0), FACTOR, LEAST_MISSING, rare | never),
    )


def _limit(longest: Ints, factor: Ints | int, least: int, unwatched: Bools) -> Ints:
    """Limits ``[C]`` from the longest runs ``[S, C]``; 0 for the ``unwatched`` ``[C]``."""
    limit = np.maximum(factor * longest.max(axis=0), least)
    return np.where(unwatched | (limit > MOST_READINGS), 0, limit)


def silent_after(times: Iterable[Ints], interval_ns: int) -> float:
    """Seconds after which a stream of the group is silent, from the times of each stream's readings, in any order."""
    least = max(LEAST_S * SECOND_NS, LEAST_INTERVALS * interval_ns)
    pauses: list[Ints] = []
    streams = 0
    for own in times:
        distinct = np.unique(own)
        steps = distinct[1:] - distinct[:-1]
        pauses.append(steps[steps * PAUSE_FACTOR > least])
        streams += 1
    longest = np.sort(np.concatenate([np.zeros(0, np.int64), *pauses]))[::-1]
    usual = max(USUAL, streams)
    return float(max(least, PAUSE_FACTOR * longest[usual - 1] if len(longest) >= usual else 0)) / SECOND_NS
