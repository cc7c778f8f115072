"""What training says of when a sensor counts as broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from trainer_data import table

from trainer.data import Prepared, prepare
from trainer.sensors import (
    COARSE_FACTOR,
    FACTOR,
    LEAST_MISSING,
    LEAST_STUCK,
    Limits,
    limits_of,
    silent_after,
)
from trainer.settings import FitSettings

N = 1000
HOUR = 3600 * 10**9


def prepared(*streams: NDArray[np.float32]) -> Prepared:
    """Streams of readings ``[N, C]``, a second apart."""
    return prepare(table(*streams), 4, FitSettings(window=4))


def noise(seed: int = 0, channels: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(N, channels)).astype(np.float32)


def limits(*streams: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    found: Limits = limits_of(prepared(*streams))
    return found.stuck_after.tolist(), found.missing_after.tolist()


def test_a_channel_that_always_moves_is_stuck_after_a_dozen_readings() -> None:
    assert limits(noise()) == ([LEAST_STUCK], [LEAST_MISSING])


def test_the_longest_run_of_any_stream_counts_the_newest_part_of_training_too() -> None:
    one, other = noise(0), noise(1)
    one[-10:] = 3  # in the calibration stretch
    other[100:107] = 3
    other[300:304] = np.nan
    assert limits(one, other) == ([FACTOR * 10], [FACTOR * 4])


def test_a_channel_that_hardly_moves_is_not_watched() -> None:
    values = noise(channels=3)
    values[:, 1] = 7
    values[:, 2] = np.repeat([1, 0, 1], [500, 20, 480])
    assert limits(values)[0] == [LEAST_STUCK, 0, 0]


def test_a_coarse_channel_needs_a_much_longer_run() -> None:
    values = np.repeat(noise()[: N // 4], 4, axis=0)  # each value is held for four readings
    assert limits(values)[0] == [COARSE_FACTOR * 4]


def test_a_channel_that_often_is_missing_is_not_expected_and_a_stream_without_it_says_nothing() -> None:
    values, without = noise(channels=3), noise(1, channels=3)
    values[::5, 1] = np.nan
    without[:, 2] = np.nan
    assert limits(values, without)[1] == [LEAST_MISSING, 0, LEAST_MISSING]


def test_a_channel_that_nobody_had_is_not_watched() -> None:
    values = noise(channels=2)
    values[:, 1] = np.nan
    assert limits(values) == ([LEAST_STUCK, 0], [LEAST_MISSING, 0])


def test_a_gap_is_no_run_of_missing_values() -> None:
    readings = table(noise())
    times = readings.times.copy()
    times[500:] += 2 * 10**9  # two readings are lost: fewer than a window, so rows are inserted
    data = prepare(replace(readings, times=times), 4, FitSettings(window=4))
    assert (~data.given).sum() == 2
    assert limits_of(data).missing_after.tolist() == [LEAST_MISSING]


@pytest.mark.parametrize(
    ("pauses", "hours"),
    [([], 1), ([14.0], 1), ([14.0, 14.0, 13.0, 12.0], 19.5), ([0.5] * 5, 1)],
    ids=["none", "once: a repair", "each night", "short ones"],
)
def test_a_pause_that_is_usual_is_no_silence(pauses: list[float], hours: float) -> None:
    steps = np.full(200, HOUR // 60)
    steps[10 : 10 + len(pauses)] = [round(pause * HOUR) for pause in pauses]
    assert silent_after([np.cumsum(steps)], HOUR // 60) == pytest.approx(hours * 3600)


def test_a_pause_is_usual_that_streams_have_once_each() -> None:
    paused, steady = np.cumsum(np.full(200, HOUR)), np.cumsum(np.full(200, HOUR))
    paused[100:] += 30 * HOUR
    fleet = [paused, paused, paused, *[steady] * 3]
    assert silent_after(fleet, HOUR) == pytest.approx(10 * 3600)
    assert silent_after(fleet[:3], HOUR) == pytest.approx(1.5 * 31 * 3600)
