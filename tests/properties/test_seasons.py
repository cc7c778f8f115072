"""The seasonal memory against a plain loop over single readings, and however the readings are split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector.engine.seasons import NO_BIN, STEPS, UNKNOWN, Seasons, fields
from detector.engine.segments import Segments
from detector.engine.state import State
from schemas.manifest import Season
from schemas.moment import SECOND_NS

C = 2
LOC, SCALE = np.array([5.0, -3.0], np.float32), np.array([2.0, 0.5], np.float32)

Floats = NDArray[np.float32]


class Plain:
    """One stream, reading by reading, as the policy is written down."""

    def __init__(self, season: Season) -> None:
        self.season = season
        self.level = np.full((season.bins, C), np.nan)
        self.pending: dict[int, list[list[float]]] = {}  # bin → values of each channel, in steps

    def see(self, time: int, value: Floats) -> NDArray[np.float64]:
        exact = time / (self.season.period_s * SECOND_NS / self.season.bins)
        now = int(np.floor(exact))
        for old in sorted(full for full in self.pending if full <= now - 2):
            self.fold(old, self.pending.pop(old))
        expected = np.array([self.between(c, now, exact - now) for c in range(C)])
        for c in range(C):
            values = self.pending.setdefault(now, [[] for _ in range(C)])[c]
            if not np.isnan(value[c]):
                step = np.float32(SCALE[c] / STEPS)
                values.append(float(np.clip(np.rint((value[c] - LOC[c]) / step), -32767, 32767)))
        return LOC + (SCALE / STEPS).astype(np.float32) * expected

    def fold(self, old: int, values: list[list[float]]) -> None:
        for c in range(C):
            if values[c]:
                mean, k = sum(values[c]) / len(values[c]), old % self.season.bins
                level = self.level[k, c]
                self.level[k, c] = np.rint(mean if np.isnan(level) else level + self.season.decay * (mean - level))

    def between(self, c: int, now: int, place: float) -> float:
        near = self.level[now % self.season.bins, c]
        far = self.level[(now - 1 if place < 0.5 else now + 1) % self.season.bins, c]
        if np.isnan(near) or np.isnan(far):
            return float(far if np.isnan(near) else near)
        return float(near + abs(place - 0.5) * (far - near))


@st.composite
def readings(draw: st.DrawFn) -> tuple[Season, NDArray[np.int64], NDArray[np.int64], Floats]:
    """(season, streams, times, values) of at most three streams, in time order within each."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n, streams = draw(st.integers(1, 120)), draw(st.integers(1, 3))
    season = Season(period_s=draw(st.sampled_from([10.0, 24.0, 60.0])), bins=draw(st.sampled_from([1, 2, 3, 5, 10])))
    stream = rng.integers(0, streams, n)
    gaps = rng.choice([1, 1, 1, 2, 7, 40], n) * SECOND_NS
    times = 1_700_000_000 * SECOND_NS + np.cumsum(gaps) + rng.integers(0, SECOND_NS // 2, n)
    values = (LOC + SCALE * rng.normal(size=(n, C)) * 3).astype(np.float32)
    values[rng.random((n, C)) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    return season, stream, times, values


def follow(
    season: Season, memory: State, stream: NDArray[np.int64], times: NDArray[np.int64], values: Floats
) -> Floats:
    order = np.argsort(stream, kind="stable")
    segments = Segments.of(stream[order])
    U = len(segments.slots)
    found = np.empty_like(values)
    found[order] = Seasons(season).follow(
        memory, segments, times[order], values[order], np.tile(LOC, (U, 1)), np.tile(SCALE, (U, 1))
    )
    return found


def fresh(season: Season) -> State:
    memory = State({"season": fields(season, C)})
    memory.grow(3)
    return memory


@settings(max_examples=150, deadline=None)
@given(readings(), st.lists(st.integers(0, 120), max_size=6))
def test_any_split_gives_what_a_plain_loop_gives(
    data: tuple[Season, NDArray[np.int64], NDArray[np.int64], Floats], cuts: list[int]
) -> None:
    season, stream, times, values = data
    plain = [Plain(season) for _ in range(3)]
    wanted = np.stack([plain[s].see(int(t), v) for s, t, v in zip(stream, times, values, strict=True)])
    whole, split = fresh(season), fresh(season)
    found = follow(season, whole, stream, times, values)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    edges = [0, *sorted(cut for cut in cuts if cut < len(times)), len(times)]
    parts = [follow(season, split, stream[a:b], times[a:b], values[a:b]) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), found)
    for name in fields(season, C):
        np.testing.assert_array_equal(getattr(whole, name), getattr(split, name))


def test_a_day_that_repeats_itself_is_known_on_the_second_day_and_not_on_the_first() -> None:
    season = Season(period_s=86_400, bins=48)
    times = np.arange(0, 3 * 86_400, 300) * SECOND_NS
    day = np.sin(2 * np.pi * times / (86_400 * SECOND_NS))
    values = (LOC + SCALE * day[:, None]).astype(np.float32)
    found = follow(season, fresh(season), np.zeros(len(times), np.int64), times, values)
    assert np.isnan(found[:280]).all()
    np.testing.assert_allclose(found[300:], values[300:], atol=0.1)


def test_a_stream_just_met_knows_nothing() -> None:
    memory = fresh(Season(period_s=60, bins=5))
    assert (memory.season_level == UNKNOWN).all()
    assert (memory.season_bin == NO_BIN).all()


def test_the_memory_keeps_its_budget() -> None:
    """160 bytes per channel and a kilobyte per stream are all that may be remembered beside the window."""
    channels = 38
    sizes = [
        np.prod(shape, dtype=int) * dtype.itemsize
        for shape, dtype, _ in fields(Season(period_s=86_400, bins=48), channels).values()
    ]
    assert sum(sizes) <= 130 * channels + 100
