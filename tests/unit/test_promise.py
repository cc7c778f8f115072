"""The promise as it is written, and as it reaches the thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import TAIL_RATE, tiny_model

from detector.adapters.folder import write_model
from detector.engine.promising import promising
from detector.loading import load_engine
from schemas.errors import SettingsError
from schemas.promise import Promise
from schemas.settings import DetectorSettings
from trainer.settings import FitSettings


@pytest.mark.parametrize(
    ("text", "per_day", "of_ten"),
    [
        ("1/7d", 1 / 7, 1 / 7),
        ("1/1w", 1 / 7, 1 / 7),
        ("0.5/7d", 1 / 14, 1 / 14),
        (" 3 / 12h ", 6, 6),
        ("fleet:5/1d", 5, 0.5),
        ("1/604800", 1 / 7, 1 / 7),
    ],
)
def test_it_is_so_many_a_day_for_each_stream(text: str, per_day: float, of_ten: float) -> None:
    assert Promise.parse(text).per_day(1) == pytest.approx(per_day)
    assert Promise.parse(text).per_day(10) == pytest.approx(of_ten)


@pytest.mark.parametrize("text", ["0/7d", "x", "-1/7d", "1/0d", "1/-7d", "7d", "1/7d/2", "nan/7d", "", "fleet:"])
def test_no_promise_is_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match=r"'false_alarms'.*1/7d") as caught:
        DetectorSettings.load({"false_alarms": text})
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="'false_alarms'"):
        FitSettings.load({"false_alarms": text})


@pytest.mark.parametrize("text", ["1/1000000d", "1e9/1s", "inf/7d", "1e-9/1d"])
def test_what_nobody_can_mean_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="a thousand years"):
        DetectorSettings.load({"false_alarms": text})


def test_the_default_is_one_a_week() -> None:
    assert FitSettings().false_alarms == "1/7d"
    assert DetectorSettings().false_alarms is None  # the model's own


def test_another_promise_takes_its_threshold_from_the_tail(tmp_path: Path) -> None:
    model = tiny_model(threshold=3.0)
    write_model(model, tmp_path / "m")
    same = load_engine(DetectorSettings(model=str(tmp_path / "m")))
    assert same.model.streams.threshold.tolist() == [3.0, 3.0]
    rarer = load_engine(DetectorSettings(model=str(tmp_path / "m"), false_alarms="1/700d"))
    assert rarer.model.streams.threshold == pytest.approx([9.0, 9.0])
    assert rarer.model.manifest.calibration.threshold == pytest.approx(9.0)
    assert rarer.model.manifest.calibration.false_alarms == "1/700d"
    fleet = load_engine(DetectorSettings(model=str(tmp_path / "m"), false_alarms="fleet:2/7d"))
    assert fleet.model.streams.threshold == pytest.approx([3.0, 3.0])
    assert fleet.model.manifest.calibration.rate == pytest.approx(TAIL_RATE)


def test_what_the_data_cannot_tell_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(tiny_model(threshold=3.0), tmp_path / "m")
    model = load_engine(DetectorSettings(model=str(tmp_path / "m"), false_alarms="1/7000d")).model
    assert model.streams.threshold == pytest.approx([9.0, 9.0])  # the last level of its tail
    assert "rarer than the model's data can tell" in caplog.text


def test_a_stream_stretches_the_tail_of_its_group() -> None:
    from dataclasses import replace

    model = tiny_model(threshold=3.0)
    model = replace(model, streams=replace(model.streams, factor=np.array([2.0, 1e-9])))
    assert promising(model, "1/7d").streams.threshold == pytest.approx([6.0, 1e-3])  # never below the floor
