"""P-values against their definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.engine.calibration import TAIL_POINTS, p_values, tail

SCORES = st.lists(st.integers(0, 30).map(float), min_size=1, max_size=200)


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
