"""Finding the period of a group, and the context that comes of it."""

from __future__ import annotations

import numpy as np
import pytest
from trainer_data import table

from detector.adapters.files import Table
from schemas.errors import SettingsError
from trainer.data import Prepared, prepare
from trainer.season import NOISE, noise_of
from trainer.settings import FitSettings

DAY = 288  # readings, one every 5 minutes


def prepared(values: np.ndarray, interval_s: float = 300, **flags: object) -> Prepared:
    settings = FitSettings.model_validate(flags)
    return prepare(table(values.astype(np.float32), interval_s=interval_s), 4, settings)


def daily(days: int, noise: float = 0.5, period: int = DAY, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(days * period)
    wave = np.stack([np.sin(2 * np.pi * t / period), np.cos(2 * np.pi * t / period) ** 3], axis=1)
    return 10 + wave + noise * rng.normal(size=wave.shape)


def test_a_day_is_found_and_taken_exactly() -> None:
    season = prepared(daily(12)).season
    assert season is not None
    assert season.period_s == 86_400
    assert season.bins == 48


def test_a_machines_own_cycle_is_found() -> None:
    season = prepared(daily(40, period=75), interval_s=1).season
    assert season is not None
    assert season.period_s == pytest.approx(75, abs=0.2)
    assert season.bins == 48


def test_a_week_of_days_is_a_day() -> None:
    """The shorter period is learned sooner."""
    season = prepared(daily(40)).season
    assert season is not None
    assert season.period_s == 86_400


@pytest.mark.parametrize("kind", ["noise", "constant", "walk", "two days"])
def test_nothing_is_found_where_nothing_repeats_itself(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "noise": rng.normal(size=(3000, 2)),
        "constant": np.full((3000, 2), 5.0),
        "walk": rng.normal(size=(3000, 2)).cumsum(axis=0),
        "two days": daily(2),
    }[kind]
    data = prepared(values)
    assert data.season is None
    assert data.context is None


def test_it_can_be_told() -> None:
    assert prepared(daily(12), context="none").season is None
    told = prepared(daily(12), context="12h").season
    assert told is not None
    assert told.period_s == 43_200
    with pytest.raises(SettingsError, match="no two readings"):
        prepared(daily(12), context="5min")
    with pytest.raises(SettingsError, match="context"):
        FitSettings.load({"context": "often"})


def test_the_context_is_near_what_comes_and_knows_nothing_on_the_first_day() -> None:
    data = prepared(daily(12, noise=0.1))
    assert data.context is not None
    assert np.isnan(data.context[: DAY - 10]).all()
    later = slice(2 * DAY, None)
    assert not np.isnan(data.context[later]).any()
    assert np.sqrt(np.mean((data.context[later] - data.values[later]) ** 2)) < 0.2


def kept(readings: Table, rows: list[int]) -> Table:
    return Table(
        [readings.streams[row] for row in rows], readings.times[rows], readings.values[rows],
        [readings.timestamps[row] for row in rows], readings.channels,
    )  # fmt: skip


def test_what_pauses_at_night_still_repeats_itself_after_a_day() -> None:
    """A working day of ten hours, laid end to end, would repeat itself after ten hours."""
    readings = table(daily(20, noise=0.1).astype(np.float32), interval_s=300)
    rows = [row for row in range(len(readings)) if 8 * 12 <= row % DAY < 18 * 12]
    season = prepare(kept(readings, rows), 4, FitSettings()).season
    assert season is not None
    assert season.period_s == 86_400


def test_readings_few_and_far_between_have_no_season() -> None:
    readings = table(daily(20).astype(np.float32), interval_s=300)
    rows = [row for row in range(len(readings)) if row % 1000 < 30]
    assert prepare(kept(readings, rows), 4, FitSettings()).season is None


def test_streams_are_apart_and_gaps_do_no_harm() -> None:
    one, other = daily(12, noise=0.1), daily(12, noise=0.1) + 100
    readings = table(one.astype(np.float32), other.astype(np.float32), interval_s=300)
    holed = kept(readings, [row for row in range(len(readings)) if not 2000 <= row < 2600])
    data = prepare(holed, 4, FitSettings())
    assert data.season is not None
    assert data.context is not None
    for s, level in ((0, 10), (1, 110)):
        known = data.context[(data.stream == s)][2 * DAY :]
        assert np.nanmax(np.abs(known - level)) < 3


def test_noise_is_what_the_rhythm_leaves() -> None:
    data = prepared(daily(20, noise=0.3))
    assert data.context is not None
    noise = noise_of(data.values, data.context, data.stream, data.scaling)
    expected = 0.3 / data.scaling.scale[0]  # the mean of three days adds a little
    np.testing.assert_allclose(noise, expected, rtol=0.25)
    assert (noise < 0.6).all()
    still = noise_of(data.context, data.context, data.stream, data.scaling)
    assert (still == np.float32(NOISE)).all(), "nothing is ever quite at rest"


def test_without_a_rhythm_only_what_hardly_moves_has_less_noise_than_its_scale() -> None:
    rng = np.random.default_rng(0)
    data = prepared(np.stack([rng.normal(size=2000), np.full(2000, 5.0)], axis=1), context="none")
    noise = noise_of(data.values, data.context, data.stream, data.scaling)
    assert noise.tolist() == pytest.approx([1, NOISE], rel=0.05)
