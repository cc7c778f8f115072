"""Spans against sets of moments."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.spans import Spans
from schemas.moment import LATEST_NS

LAST = 40
PAIRS = st.lists(st.tuples(st.integers(0, LAST), st.integers(0, LAST)), max_size=8)


def moments(spans: Spans) -> set[int]:
    """Every moment in them; that they are in order, apart and not empty is checked on the way."""
    listed = list(spans)
    assert all(start < end for start, end in listed)
    assert all(one[1] < other[0] for one, other in pairwise(listed))
    return {moment for start, end in listed for moment in range(start, end)}


def plain(pairs: list[tuple[int, int]]) -> set[int]:
    return {moment for start, end in pairs for moment in range(start, end)}


@given(PAIRS, PAIRS)
def test_they_are_sets_of_moments(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    one, other, a, b = Spans.of(some), Spans.of(others), plain(some), plain(others)
    assert moments(one) == a
    assert moments(one | other) == a | b
    assert moments(one & other) == a & b
    assert moments(one - other) == a - b
    assert one.total == len(a)
    times = np.arange(LAST + 5)
    assert set(times[one.hold(times)].tolist()) == a


@given(PAIRS, st.integers(0, LAST), st.integers(0, LAST), st.integers(0, 9), st.integers(0, 9))
def test_they_are_cut_and_widened(pairs: list[tuple[int, int]], start: int, end: int, before: int, after: int) -> None:
    one, a = Spans.of(pairs), plain(pairs)
    if start <= end:
        assert moments(one.within(start, end)) == {moment for moment in a if start <= moment < end}
        assert moments(one.rest(start, end)) == set(range(start, end)) - a
    wide = {m for s, e in one for m in range(max(s - before, 0), e + after)}
    assert moments(one.widened(before, after)) == wide


def test_they_reach_no_further_than_time() -> None:
    one = Spans.of([(5, LATEST_NS)])
    assert list(one.widened(10, 10)) == [(0, LATEST_NS)]
    assert list(Spans().widened(1, 1)) == [] == list(Spans() | Spans())
    assert one == Spans.of([(5, 9), (7, LATEST_NS)]) != Spans()
