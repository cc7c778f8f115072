"""What is learned of machines that are off at times: nothing, and the model says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_model
from trainer_data import normal, table, write_csv

from detector.adapters.folder import read_model
from detector.cli import main as detector
from trainer.cli import main
from trainer.machine import off_spans, running
from trainer.pipeline import learn
from trainer.retrain.night import Served, _machine
from trainer.settings import FitSettings

OFF = "c0 < -50 for m1"


@pytest.fixture
def readings():
    """Two machines; the first is off for 60 of 400 readings, and then starts up."""
    first = normal(400)
    first[100:160] = -100
    return table(first, normal(400, seed=1), names=("m1", "m2"))


def test_where_a_machine_was_off(readings) -> None:
    off = off_spans(readings, OFF, 0)
    begin = readings.times.min()
    assert list(off) == ["m1"]
    assert list(off["m1"]) == [(begin + 100 * 10**9, begin + 159 * 10**9 + 1)]
    ((start, end),) = off_spans(readings, OFF, 5)["m1"]
    assert (end - start) // 10**9 == 59 + 5
    assert off_spans(readings, "", 0) == {}


def test_the_order_of_the_rows_does_not_matter(readings) -> None:
    shuffled = np.random.default_rng(0).permutation(len(readings))
    mixed = replace(
        readings,
        streams=[readings.streams[row] for row in shuffled.tolist()],
        times=readings.times[shuffled],
        values=readings.values[shuffled],
        timestamps=[readings.timestamps[row] for row in shuffled.tolist()],
    )
    assert off_spans(mixed, OFF, 5) == off_spans(readings, OFF, 5)


def test_only_what_it_does_while_it_is_on_is_left(readings) -> None:
    said: list[str] = []
    left = running(readings, OFF, 0, said.append)
    assert len(left) == 740
    assert "60 readings" in said[0]
    assert left.values.min() > -50


def test_a_model_knows_when_its_machines_are_off(readings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = str(write_csv(tmp_path / "x.csv", readings)), str(tmp_path / "m")
    assert main(["fit", data, "--out", model, "--model", "pca", "--set", f"off_when={OFF}"]) == 0
    manifest = read_model(model).manifest
    assert (manifest.off_when, manifest.training.readings) == (OFF, 740)
    for more, alerts in ([], 0), (["--off-when", ""], 1):
        out = tmp_path / "alerts.ndjson"
        assert (
            detector(["score", data, "--model", model, "--out", str(tmp_path / "s.csv"), "--alerts", str(out), *more])
            == 0
        )
        assert (len(out.read_text().splitlines()) > 0) == alerts
    capsys.readouterr()
    assert main(["fit", data, "--out", str(tmp_path / "n"), "--set", "off_when=rpm < 5"]) == 2
    assert "rpm" in capsys.readouterr().err.splitlines()[-1]
    assert detector(["score", data, "--model", model, "--out", str(tmp_path / "s.csv"), "--off-when", "rpm < 5"]) == 2
    assert "--off-when names the channel 'rpm'" in capsys.readouterr().err


def test_what_is_left_out_is_no_pause_of_the_stream() -> None:
    """Three machines off for ten hours each, which they said: one that says nothing for ten hours is no usual sight."""
    values = [normal(3000, seed=seed) for seed in range(3)]
    for own in values:
        own[1000:1600] = -100
    readings = table(*values, names=("m1", "m2", "m3"))
    first = readings.times.min()
    readings = replace(readings, times=first + 60 * (readings.times - first))  # a reading a minute
    settings = FitSettings.load({"model": "pca", "off_when": "c0 < -50"})
    assert learn(readings, settings).model.manifest.silent_after_s == 3600
    chosen = running(readings, settings.off_when, 0)
    assert learn(chosen, settings).model.manifest.silent_after_s > 36_000
    assert learn(chosen, settings, heard=readings).model.manifest.silent_after_s == 3600


def test_a_night_inherits_each_setting_that_is_left_open() -> None:
    manifest = tiny_model().manifest.model_copy(update={"off_when": "c0 < 1", "settle_s": 60.0})
    served = Served("v", Path("v"), replace(tiny_model(), manifest=manifest))
    assert _machine(served, FitSettings.load({"settle": 5})) == {"off_when": "c0 < 1"}
    assert _machine(served, FitSettings.load({})) == {"off_when": "c0 < 1", "settle": 60.0}
    assert _machine(None, FitSettings.load({})) == {}
