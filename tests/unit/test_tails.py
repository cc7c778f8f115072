"""The table of levels and rates that the detector reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_model

from detector.engine.streams import Streams
from detector.engine.tails import RAREST, UNKNOWN, Tail
from schemas.promise import DAY_S

TAIL = Tail(np.array([0.5, 1.0, 3.0]), np.array([100.0, 10.0, 1.0]))


@st.composite
def tails(draw: st.DrawFn) -> Tail:
    count = draw(st.integers(2, 20))
    steps = st.floats(1e-3, 1e3)
    levels = draw(st.floats(0, 10)) + np.cumsum(draw(st.lists(steps, min_size=count, max_size=count)))
    falls = np.cumsum(draw(st.lists(st.floats(0.01, 2), min_size=count, max_size=count)))
    return Tail(levels, 100 * np.exp(-falls))


@given(tails(), st.floats(0, 1))
def test_level_and_rate_undo_each_other_inside_the_table(tail: Tail, share: float) -> None:
    rate = float(np.exp((1 - share) * np.log(tail.rates[0]) + share * np.log(tail.rates[-1])))
    assert tail.rate(np.array([tail.level(rate)]))[0] == pytest.approx(rate, rel=1e-6)


@given(tails(), st.lists(st.floats(0, 1e5), min_size=2, max_size=20))
def test_what_is_higher_is_never_more_frequent(tail: Tail, levels: list[float]) -> None:
    rates = tail.rate(np.sort(levels))
    assert (np.diff(rates) <= 0).all()
    assert (rates >= RAREST * (1 - 1e-9)).all()
    assert np.isfinite(tail.return_period_s(np.sort(levels))).all()


def test_between_levels_the_logarithm_is_a_line_and_beyond_the_last_it_goes_on() -> None:
    assert TAIL.rate(np.array([2.0, 5.0, 7.0])) == pytest.approx([10**0.5, 0.1, 0.01])
    assert TAIL.return_period_s(np.array([5.0])) == pytest.approx([10 * DAY_S])


def test_a_threshold_stays_within_the_table() -> None:
    assert TAIL.level(1e6) == 0.5
    assert TAIL.level(1e-6) == 3.0  # rarer than the data can tell


def test_nothing_known_is_not_a_number() -> None:
    assert np.isnan(UNKNOWN.return_period_s(np.array([1.0]))).all()
    assert UNKNOWN.level(1.0) == np.inf


def test_streams_tell_their_return_periods() -> None:
    model = tiny_model(threshold=3.0)
    streams = Streams(model.streams, model.manifest.calibration.threshold, 256)
    slots = streams.slots(0, ["a", "new"])
    assert streams.return_period_s(slots, np.array([1.0, 3.0])) == pytest.approx([7 * DAY_S, 700 * DAY_S])
    assert np.isnan(streams.return_period_s(slots[:1], np.array([np.nan]))).all()
