"""Fitting the tail: of clean stretches, of contaminated ones, of long and of very short ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.tails import EXTENT, fit_tail, interval_of, thinned_back

GAP = 13 / 288
WEEK = 7.0


def peaks(days: float, scale: float = 1.0, shape: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    """Peaks of ``days`` in which episodes above 0 begin 20 times a day, generalised Pareto."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1 / 20, size=round(days * 25)))
    at = at[at < days]
    depth = rng.exponential(size=len(at))
    x = scale * (np.expm1(shape * depth) / shape if shape else depth)
    first, last = np.searchsorted(at, at - GAP), np.searchsorted(at, at + GAP, side="right")
    return np.array([x[n] for n, (i, j) in enumerate(zip(first, last, strict=True)) if x[n] >= x[i:j].max()])


def true_level(rate: float, scale: float = 1.0, shape: float = 0.0) -> float:
    depth = np.log(20 / rate)
    return float(scale * (np.expm1(shape * depth) / shape if shape else depth))


@pytest.mark.parametrize(("shape", "off"), [(0.0, 0.15), (0.2, 0.35)])  # a few peaks do not show their shape
@pytest.mark.parametrize("rate", [1 / 7, 1 / 70])
def test_a_clean_stretch_gives_the_true_level(rate: float, shape: float, off: float) -> None:
    found = [fit_tail(peaks(27, shape=shape, seed=seed), 27, GAP) for seed in range(20)]
    assert sum(one.bulk for one in found) <= (5 if shape else 1)  # a heavy tail looks a little like faults
    levels = np.array([one.tail.level(rate) for one in found])
    assert np.median(levels) == pytest.approx(true_level(rate, shape=shape), rel=off)


def test_a_fleet_gives_it_closely() -> None:
    fitted = fit_tail(peaks(1000, shape=0.1), 1000, GAP)
    for weeks in (1, 2, 10):
        rate = 1 / (WEEK * weeks)
        assert fitted.tail.level(rate) == pytest.approx(true_level(rate, shape=0.1), rel=0.1)
    assert not fitted.bulk
    assert fitted.method(1.0) == "ranks"
    assert fitted.method(1e-3).startswith("pot-")


@pytest.mark.parametrize("faults", [3, 20])
def test_faults_in_the_stretch_do_not_raise_the_threshold(faults: int) -> None:
    clean = peaks(27)
    spoilt = np.concatenate([clean, 30 + 10 * np.random.default_rng(1).random(faults)])
    fitted = fit_tail(spoilt, 27, GAP)
    assert fitted.bulk
    assert fitted.suspect.sum() == pytest.approx(faults, abs=2)
    assert fitted.suspect[:faults].all()
    assert fitted.tail.level(1 / WEEK) == pytest.approx(true_level(1 / WEEK), rel=0.4)
    assert np.sort(spoilt)[-3] > 2 * fitted.tail.level(1 / WEEK)  # what ranks would have taken
    assert fitted.method(1 / WEEK) == "bulk-exponential"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(1e-4, 100))
def test_any_peaks_give_a_tail(level: list[float], days: float) -> None:
    tail = fit_tail(np.array(level), days, GAP).tail
    assert len(tail.levels) >= 2
    assert (np.diff(tail.levels) > 0).all()
    assert (np.diff(tail.rates) < 0).all()
    assert (tail.rates > 0).all()
    assert np.isfinite(tail.levels).all()


def test_a_minute_of_data_promises_a_week_as_far_as_it_goes() -> None:
    days = 60 / 86_400
    level = np.array([1.0, 1.2, 1.5, 2.0])
    tail = fit_tail(level, days, 7 / 86_400).tail
    assert tail.rates[-1] == pytest.approx(1 / (EXTENT * days), rel=1e-6)
    assert 2 < tail.level(1 / WEEK) < 20


def test_an_interval_holds_the_true_level_about_as_often_as_it_says() -> None:
    rate, held = 1 / WEEK, 0
    for seed in range(30):
        level = peaks(60, seed=seed)
        fitted = fit_tail(level, 60, GAP)
        found = interval_of(fitted, level, np.arange(len(level)) // 10, GAP, 1.0, np.array([rate, rate / 10]))
        assert found is not None
        low, high = found[:, 0]
        assert 0 < low <= high
        assert (found[:, 1] >= found[:, 0]).all()
        held += low <= true_level(rate) <= high
    assert held >= 22


def test_too_few_blocks_give_no_interval() -> None:
    level = peaks(3)
    assert interval_of(fit_tail(level, 3, GAP), level, np.zeros(len(level), np.int64), GAP, 1.0, np.ones(1)) is None


def test_peaks_thin_out_as_theory_says() -> None:
    rate = np.array([0.1, 1.0, 5.0])
    left = -np.expm1(-2 * GAP * rate) / (2 * GAP)
    np.testing.assert_allclose(thinned_back(left, GAP), rate)
