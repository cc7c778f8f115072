"""Planted faults: exact truth, nothing else touched, and each kind does what its name says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.faults import KINDS, NEED_MOVEMENT, Fault, Kind, draw, plant

Floats = NDArray[np.float32]


def walk(N: int, C: int, seed: int, missing: float = 0.0) -> Floats:
    """Channels that move together, each on a level of its own."""
    rng = np.random.default_rng(seed)
    common = np.sin(np.arange(N) / 9)[:, None]
    values = (10 * np.arange(C) + common + 0.2 * rng.normal(size=(N, C))).astype(np.float32)
    values[rng.random((N, C)) < missing] = np.nan
    return values


@st.composite
def drawn(draw_from: st.DrawFn) -> tuple[Floats, Floats, list[Fault], int]:
    N, C = draw_from(st.integers(1, 400)), draw_from(st.integers(1, 8))
    seed = draw_from(st.integers(0, 2**32 - 1))
    values = walk(N, C, seed, draw_from(st.sampled_from([0.0, 0.1, 1.0])))
    scale = np.full(C, 0.7, np.float32)
    faults = draw(
        values,
        scale,
        seed=seed,
        per_kind=draw_from(st.integers(0, 3)),
        lengths=(1, 40),
        margin=draw_from(st.integers(0, 30)),
    )
    return values, scale, faults, seed


@settings(max_examples=150, deadline=None)
@given(drawn())
def test_the_truth_is_exact_and_nothing_else_changes(case: tuple[Floats, Floats, list[Fault], int]) -> None:
    values, scale, faults, seed = case
    before = values.tobytes()
    spoilt, truth, changed = plant(values, faults, scale, seed)
    assert values.tobytes() == before
    assert spoilt.dtype == np.float32
    expected = np.zeros(values.shape, bool)
    for fault in faults:
        expected[fault.start : fault.start + fault.length, list(fault.channels)] = True
    np.testing.assert_array_equal(truth, expected)
    np.testing.assert_array_equal(spoilt[~truth], values[~truth])
    assert np.isnan(spoilt[np.isnan(values)]).all()
    assert len(changed) == len(faults)
    assert plant(values, faults, scale, seed).values.tobytes() == spoilt.tobytes()
    for number, fault in enumerate(faults):
        if not changed[number]:  # what cannot be seen did not move by half a scale
            cells = np.s_[fault.start : fault.start + fault.length, list(fault.channels)]
            assert (np.abs(np.nan_to_num(spoilt[cells] - values[cells])) < 0.5 * scale[0]).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1500), st.integers(1, 6), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_drawn_faults_keep_their_distance(N: int, C: int, margin: int, seed: int) -> None:
    values, scale = walk(N, C, seed), np.full(C, 0.7, np.float32)
    faults = draw(values, scale, seed=seed, margin=margin)
    assert faults == draw(values, scale, seed=seed, margin=margin)
    edges = [(0, 0), *((f.start, f.start + f.length) for f in faults), (N, N)]
    assert all(start - end >= margin for (_, end), (start, _) in pairwise(edges)) or not faults
    for fault in faults:
        assert 1 <= len(fault.channels) == len(set(fault.channels)) <= C
        assert all(0 <= c < C for c in fault.channels)


def test_where_there_is_room_every_kind_comes_as_often_as_asked() -> None:
    values = walk(4000, 5, 0)
    faults = draw(values, np.full(5, 0.7, np.float32), per_kind=2)
    assert sorted(f.kind for f in faults) == sorted([*KINDS, *KINDS])
    some = draw(values[:500], np.full(5, 0.7, np.float32), per_kind=2)
    assert 0 < len(some) < 18
    assert max(sum(f.kind == kind for f in some) for kind in KINDS) <= 2


def test_kinds_that_need_movement_take_channels_that_move() -> None:
    values = walk(3000, 4, 0)
    values[:, 1] = 5
    faults = draw(values, np.full(4, 0.7, np.float32))
    assert all(1 not in f.channels for f in faults if f.kind in NEED_MOVEMENT)
    constant = draw(np.full((3000, 4), 5, np.float32), np.full(4, 0.7, np.float32))
    assert constant
    assert not any(f.kind in NEED_MOVEMENT for f in constant)


def test_what_cannot_be_seen_says_so() -> None:
    values = np.full((300, 2), 5, np.float32)
    values[::10] = np.nan
    faults = [Fault(kind, 100, 40, (0,), 3) for kind in (*NEED_MOVEMENT, Kind.SHIFT, Kind.DROPOUT)]
    assert plant(values, faults, np.ones(2, np.float32)).changed == (False, False, False, False, True, True)
    assert plant(values, faults[:1], np.zeros(2, np.float32)).changed == (False,)


def test_where_room_is_short_no_kind_is_favoured() -> None:
    values, scale = walk(400, 4, 0), np.full(4, 0.7, np.float32)
    drawn = Counter(fault.kind for seed in range(300) for fault in draw(values, scale, seed=seed))
    assert set(drawn) == set(KINDS)
    assert max(drawn.values()) < 2 * min(drawn.values())


def one(kind: Kind, size: float = 1.0, length: int = 60, start: int = 200) -> tuple[Floats, Floats]:
    """The stretch of channel 1 before and after."""
    values = walk(500, 3, 3)
    spoilt = plant(values, [Fault(kind, start, length, (1,), size)], np.array([1, 2, 3], np.float32)).values
    return values[start : start + length, 1], spoilt[start : start + length, 1]


def test_a_spike_is_in_every_third_reading() -> None:
    before, after = one(Kind.SPIKE, 4)
    np.testing.assert_allclose((after - before)[::3], 8, atol=1e-4)
    assert (np.delete(after - before, np.s_[::3]) == 0).all()


def test_a_shift_moves_the_level_by_its_size() -> None:
    before, after = one(Kind.SHIFT, -3)
    np.testing.assert_allclose(after - before, -6, atol=1e-4)


def test_a_drift_ends_at_its_size() -> None:
    before, after = one(Kind.DRIFT, 3)
    np.testing.assert_allclose(np.diff(after - before), 0.1, atol=1e-4)
    assert (after - before)[-1] == pytest.approx(6, abs=1e-4)


def test_stuck_is_constant() -> None:
    before, after = one(Kind.STUCK)
    assert (after == walk(500, 3, 3)[199, 1]).all()
    assert (before != after).any()


def test_a_dropout_is_missing() -> None:
    assert np.isnan(one(Kind.DROPOUT)[1]).all()


def test_noise_has_its_size() -> None:
    before, after = one(Kind.NOISE, 2, length=290)
    assert np.std(after - before) == pytest.approx(4, rel=0.15)


def test_a_changed_frequency_is_the_course_played_faster() -> None:
    before, after = one(Kind.FREQUENCY, 2)
    np.testing.assert_array_equal(after[:30], before[::2])


def test_lost_correlation_keeps_the_channel_and_loses_the_others() -> None:
    N = 4000
    common = np.cumsum(np.random.default_rng(0).normal(size=N) * 0.3) % 7
    values = np.stack([common, common], axis=1).astype(np.float32)
    spoilt = plant(values, [Fault(Kind.CORRELATION, 500, 1000, (0,), 1)], np.ones(2, np.float32)).values
    part = spoilt[500:1500]
    assert set(part[:, 0].tolist()) <= set(values[:, 0].tolist())
    assert np.corrcoef(part.T)[0, 1] < 0.5


def test_a_delayed_channel_repeats_what_was() -> None:
    values = walk(500, 3, 3)
    spoilt = plant(values, [Fault(Kind.DELAY, 200, 60, (1,), 12)], np.ones(3, np.float32)).values
    np.testing.assert_array_equal(spoilt[200:260, 1], values[188:248, 1])


def test_a_fault_outside_is_refused() -> None:
    for fault in (
        Fault(Kind.SHIFT, 490, 20, (0,), 1),
        Fault(Kind.SHIFT, -1, 5, (0,), 1),
        Fault(Kind.SHIFT, 0, 5, (3,), 1),
    ):
        with pytest.raises(ValueError, match="lies outside"):
            plant(walk(500, 3, 0), [fault], np.ones(3, np.float32))
