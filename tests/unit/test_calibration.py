"""Thresholds and p-values against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.engine.calibration import FLOOR, TAIL_POINTS, needed, p_values, split_conformal, tail

SCORES = st.lists(st.integers(0, 30).map(float), min_size=1, max_size=200)


@given(SCORES, st.sampled_from([0.5, 0.2, 0.1, 0.05]))
def test_the_threshold_is_the_conformal_quantile(scores: list[float], rate: float) -> None:
    n = len(scores)
    threshold = split_conformal(np.array(scores), rate, 0.0)
    if n >= needed(rate):
        # at most a share `rate` of n + 1 exchangeable scores may exceed it
        assert sum(s > threshold for s in scores) <= rate * (n + 1)
        below = [s for s in scores if s < threshold]
        assert not below or sum(s > max(below) for s in scores) + 1 > rate * (n + 1)
    else:
        assert threshold >= max(scores)


def test_the_promise_holds_on_new_scores() -> None:
    rng = np.random.default_rng(0)
    rates = [(rng.exponential(size=2000) > split_conformal(rng.exponential(size=999), 1e-3)).mean() for _ in range(300)]
    assert np.mean(rates) == pytest.approx(1e-3, rel=0.25)


def test_floor_missing_and_nothing() -> None:
    assert split_conformal(np.zeros(5000), 1e-3) == FLOOR
    assert split_conformal(np.array([np.nan] * 10), 1e-3) == math.inf
    assert split_conformal(np.array([1.0, np.nan] * 600), 1e-3) == pytest.approx(1 + math.log(999 / 600))


@given(SCORES, st.lists(st.integers(-1, 31).map(float), min_size=1, max_size=20))
def test_p_values_are_those_of_conformal_prediction(scores: list[float], new: list[float]) -> None:
    found = p_values(np.array(new), *tail(np.array(scores)))
    exact = [(1 + sum(s >= x for s in scores)) / (len(scores) + 1) for x in new]
    np.testing.assert_allclose(found, exact)


def test_a_thinned_tail_never_understates_and_is_exact_at_the_top() -> None:
    scores = np.sort(np.random.default_rng(1).lognormal(size=50_000))
    tail_score, tail_p = tail(scores)
    assert len(tail_score) <= TAIL_POINTS
    new = np.random.default_rng(2).lognormal(size=500)
    exact = (1.0 + len(scores) - np.searchsorted(scores, new)) / (len(scores) + 1)
    found = p_values(new, tail_score, tail_p)
    assert (found >= exact - 1e-12).all()
    assert (found <= exact + 1e-3).all()
    np.testing.assert_allclose(p_values(scores[-50:], tail_score, tail_p), np.arange(51, 1, -1) / 50_001)


def test_missing_scores_have_no_p_value() -> None:
    assert np.isnan(p_values(np.array([np.nan]), *tail(np.ones(3)))).all()
    assert p_values(np.array([5.0]), *tail(np.empty(0))).tolist() == [1.0]
