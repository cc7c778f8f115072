"""What has drifted is told: a channel or the scores, in the newest day beside the days before."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import numpy as np
import pytest

from detector.adapters.files import Table
from detector.engine.model import Model
from schemas.drift import Drift
from schemas.errors import BrokerUnavailable, DataError
from schemas.moment import SECOND_NS
from trainer.pipeline import learn
from trainer.retrain import schedule
from trainer.retrain.drift import drifts, in_words
from trainer.retrain.schedule import every_night
from trainer.retrain.settings import RetrainSettings
from trainer.settings import FitSettings


@cache
def table(days: int = 6) -> Table:
    """Two streams, a reading every ten minutes, with a daily rhythm."""
    steps = np.arange(144 * days)
    rng = np.random.default_rng(3)
    rhythm = 2 * np.sin(2 * np.pi * steps[:, None, None] / 144 + np.array([0, 1, 2]))
    values = (rhythm + rng.normal(size=(len(steps), 2, 3))).reshape(-1, 3).astype(np.float32)
    names = ["a", "b"] * len(steps)
    return Table(names, np.repeat(steps, 2) * 600 * SECOND_NS, values, [""] * len(names), ("x", "y", "z"))


@cache
def model() -> Model:
    return learn(table(), FitSettings.load({"model": "pca"})).model


def moved(by: float, channel: int = 1) -> Table:
    """Stream b's newest day is elsewhere."""
    found = table()
    values = found.values.copy()
    values[(np.array(found.streams) == "b") & (found.times > found.times.max() - 86_400 * SECOND_NS), channel] += by
    return replace(found, values=values)


def test_nothing_has_drifted_where_nothing_has() -> None:
    assert drifts(table(), model(), "default") == []


def test_a_channel_that_moved_is_named() -> None:
    found = drifts(moved(5), model(), "default")
    assert ("b", "y") in [(one.stream, one.channel) for one in found]
    assert {one.stream for one in found} == {"b"}
    one = next(one for one in found if one.channel == "y")
    assert one.now - one.was == pytest.approx(5, abs=1.5)
    assert (one.start < one.end, one.p_value < 1e-3, 0.6 <= one.statistic <= 1) == (True, True, True)
    assert Drift.model_validate_json(one.to_bytes()) == one
    assert "channel y of b went from" in "\n".join(in_words(found))


def test_a_channel_that_is_gone_and_one_day_alone_are_no_drift() -> None:
    found = moved(0)
    values = found.values.copy()
    values[:, 2] = np.nan
    assert [one for one in drifts(replace(found, values=values), model(), "d") if one.channel == "z"] == []
    assert drifts(table(1), model(), "d") == []


# -- the nightly clock -----------------------------------------------------------------------------------------------


class Clock(datetime):
    """Time passes when somebody waits for it."""

    at = datetime(2026, 11, 26, 1, 0)

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return cls.at


class Waits(threading.Event):
    def __init__(self, until: datetime) -> None:
        super().__init__()
        self._until = until

    def wait(self, timeout: float | None = None) -> bool:
        Clock.at += timedelta(seconds=timeout or 0)
        if Clock.at >= self._until:
            self.set()
        return self.is_set()


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days, of which nobody has to wait for a second."""
    import contextlib

    Clock.at = datetime(2026, 11, 26, 1, 0)
    monkeypatch.setattr(schedule, "datetime", Clock)
    stop = Waits(Clock.at + timedelta(days=3))
    monkeypatch.setattr(schedule, "_stopping", lambda: contextlib.nullcontext(stop))


def settings(**more: object) -> RetrainSettings:
    return RetrainSettings.load({"schedule": "02:30", "jitter": 0, **more})


@pytest.mark.usefixtures("days")
def test_it_runs_every_night_whatever_one_night_brings() -> None:
    ran: list[str] = []

    def run() -> None:
        ran.append(f"{Clock.now():%d %H:%M}")
        if len(ran) == 1:
            raise DataError("too little")

    said: list[str] = []
    every_night(settings(), run, lambda: False, said.append)
    assert ran == ["26 02:30", "27 02:30", "28 02:30"]
    assert "tonight nothing was promoted: too little" in said


@pytest.mark.usefixtures("days")
def test_a_broker_that_is_away_is_tried_again() -> None:
    ran: list[str] = []

    def run() -> None:
        ran.append(f"{Clock.now():%d %H:%M}")
        if len(ran) < 3:
            raise BrokerUnavailable("away")

    every_night(settings(), run, lambda: False, lambda _: None)
    assert ran[:4] == ["26 02:30", "26 02:45", "26 03:00", "27 02:30"]


@pytest.mark.usefixtures("days")
def test_drift_brings_a_run_early_once_between_two_nights() -> None:
    ran: list[str] = []
    every_night(
        settings(early=True), lambda: ran.append(f"{Clock.now():%d %H:%M}"), lambda: Clock.now().hour == 12,
        lambda _: None,
    )  # fmt: skip
    assert ran[0] == "26 02:30"
    assert next(r[3:] for r in ran if r.startswith("27")) == "02:30"
    assert len([r for r in ran if r.startswith("26")]) == 2
