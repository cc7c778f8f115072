"""Episodes: opening strengths, peaks and incidents, each beside its definition read off plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector.engine.incidents import Policy
from detector.engine.segments import Segments
from schemas.moment import SECOND_NS
from trainer.episodes import opened, peaks_of, strengths

SCORES = st.lists(st.integers(0, 9), min_size=1, max_size=60)
POLICIES = st.sampled_from([Policy(), Policy(k=1, n=1), Policy(k=3, n=3, quiet=2), Policy(k=5, n=8, quiet=8)])


def plainly(score: list[float], level: float, policy: Policy) -> list[int]:
    """Where incidents open, one reading at a time."""
    found, calm, is_open = [], 0, False
    for at in range(len(score)):
        calm = 0 if score[at] > level else calm + 1
        is_open = is_open and calm < policy.quiet
        recent = score[max(at - policy.n + 1, 0) : at + 1]
        if not is_open and score[at] > level and sum(s > level for s in recent) >= policy.k:
            found.append(at)
            is_open = True
    return found


def arrays(scores: list[list[int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    stream = np.repeat(np.arange(len(scores)), [len(own) for own in scores])
    return np.concatenate([np.array(own, float) for own in scores]), stream


@given(st.lists(SCORES, min_size=1, max_size=3), st.integers(0, 9), POLICIES)
def test_an_incident_opens_where_the_strength_exceeds_the_level(
    scores: list[list[int]], level: int, policy: Policy
) -> None:
    score, stream = arrays(scores)
    strength = strengths(score, Segments.of(stream), policy)
    place = 0
    for own in scores:
        for at, newest in enumerate(own):
            recent = own[max(at - policy.n + 1, 0) : at + 1]
            opens = newest > level and sum(s > level for s in recent) >= policy.k
            assert (strength[place] > level) == opens
            place += 1


@given(st.lists(SCORES, min_size=1, max_size=3), st.integers(0, 9), POLICIES)
def test_incidents_are_counted_as_one_would(scores: list[list[int]], level: int, policy: Policy) -> None:
    score, stream = arrays(scores)
    starts = np.cumsum([0, *(len(own) for own in scores)])
    wanted = [start + at for start, own in zip(starts, scores, strict=False) for at in plainly(own, level, policy)]
    assert np.flatnonzero(opened(score, stream, float(level), policy)).tolist() == wanted


@given(st.lists(SCORES, min_size=1, max_size=3), st.integers(1, 8))
def test_peaks_are_the_largest_around_and_a_gap_apart(scores: list[list[int]], gap: int) -> None:
    score, stream = arrays(scores)
    policy = Policy(k=1, n=1)
    times = np.arange(len(score)) * 60 * SECOND_NS
    peaks = peaks_of(score, times, stream, len(scores), 60 * SECOND_NS, gap, policy)
    rows = (peaks.time // (60 * SECOND_NS)).tolist()
    for s, own in enumerate(scores):
        start = int(np.flatnonzero(stream == s)[0])
        wanted = [
            at for at in range(len(own))
            if all(own[at] > other for other in own[max(at - gap, 0) : at])
            and all(own[at] >= other for other in own[at + 1 : at + gap + 1])
        ]  # fmt: skip
        assert [row - start for row in rows if stream[row] == s] == wanted
    assert peaks.strength.max() == score.max()
    assert peaks.days == pytest.approx([len(own) / 1440 for own in scores])


def test_blocks_are_days_of_a_stream_and_shorter_where_there_are_few() -> None:
    times = np.arange(0, 40 * 1440, 60) * 60 * SECOND_NS
    score = np.random.default_rng(0).random(2 * len(times))
    stream = np.repeat([0, 1], len(times))
    peaks = peaks_of(score, np.tile(times, 2), stream, 2, 3600 * SECOND_NS, 5, Policy(k=1, n=1))
    blocks = peaks.blocks()
    assert len(np.unique(blocks)) == pytest.approx(80, abs=4)
    assert not set(blocks[peaks.stream == 0]) & set(blocks[peaks.stream == 1])
    few = peaks_of(score[:100], times[:100], stream[:100], 1, 3600 * SECOND_NS, 2, Policy(k=1, n=1))
    assert 10 <= len(np.unique(few.blocks())) <= 21
