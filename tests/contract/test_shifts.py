"""A stream that moves for good is one incident, and is then watched as before; ``tests/bench/shifts.py`` in small."""

from __future__ import annotations

import numpy as np
import pytest
from bench.proving import Ground, generated
from bench.shifts import POLICIES, STEPS, Seen, measured


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Eight streams; a window model follows a level that moved within readings, so none of it may rest on scores."""
    return generated(8, fit_days=14, watch_days=8, seed=3)


@pytest.fixture(scope="module")
def seen(ground: Ground) -> dict[str, Seen]:
    """What was seen of every scenario, one move a stream."""
    return measured([ground], STEPS, POLICIES["moving"], 1, 5.2)


@pytest.mark.parametrize("name", ["shift 10 sd", "shift 80 sd"])
def test_a_shift_is_one_incident_and_then_the_level(seen: dict[str, Seen], name: str) -> None:
    one = seen[name]
    assert min(one.about) >= 1, "not noticed"
    assert np.mean(np.array(one.about) == 1) >= 0.7, one.about
    assert np.mean(one.shifts) >= 0.7, one.shifts
    assert np.median(one.delay) <= 15, "minutes"
    assert np.median(one.again) <= 10 * 12, "readings: six hours, and some to be sure of"
    assert np.mean(one.alarmed) <= 0.02, "a month of alarm"
    size = float(name.split()[1])
    assert np.median(one.level) == pytest.approx(size, abs=1.5)
    assert np.mean(one.other) >= 0.8, "a second fault was not caught"
    assert np.mean(one.same) >= 0.8, "a second fault of the same channel was not caught"


def test_a_small_shift_teaches_nothing_wrong(seen: dict[str, Seen]) -> None:
    one = seen["shift 2 sd"]
    assert np.mean(one.other) >= 0.8
    assert np.mean(one.same) >= 0.8
    assert max(one.others) <= 1.5, "another channel's level moved"


def test_a_shift_that_goes_back_leaves_the_level_as_it_was(seen: dict[str, Seen]) -> None:
    one = seen["10 sd for 12 h"]
    assert np.abs(one.level).max() <= 1.5
    assert np.mean(one.alarmed) <= 0.02
    assert np.mean(one.same) >= 0.8


def test_without_baselines_wider_noise_is_a_month_of_alarm(ground: Ground, seen: dict[str, Seen]) -> None:
    chosen = [scenario for scenario in STEPS if scenario.name == "noise x4"]
    fixed = measured([ground], chosen, POLICIES["fixed"], 1, 5.2)["noise x4"]
    assert np.mean(fixed.alarmed) >= 0.5
    assert np.mean(seen["noise x4"].alarmed) <= 0.15 * np.mean(fixed.alarmed)
