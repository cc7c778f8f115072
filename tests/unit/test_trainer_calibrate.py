"""Thresholds: drawn from episodes of the engine's own scores of the stretch that nothing was fitted on."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from trainer_data import normal, table

from detector.adapters.files import Table
from detector.engine.engine import Engine
from detector.engine.tails import Tail
from schemas.promise import DAY_S
from trainer.calibrate import OUT_OF_REACH, unalarmed
from trainer.data import prepare
from trainer.pipeline import Learned, learn
from trainer.settings import FitSettings

#: One false alarm in ten minutes: readings come every second.
SETTINGS = FitSettings(model="pca", false_alarms="1/10min", smoothing_span=4)


@cache
def readings() -> Table:
    """Two long streams and one whose calibration stretch is too short for a factor of its own."""
    return table(normal(1200), normal(1200, seed=1, phase=3), normal(200, seed=2))


@cache
def learned() -> Learned:
    return learn(readings(), SETTINGS)


def raw_scores(model_of: Learned) -> NDArray[np.float64]:
    """Raw scores of all readings, by an engine that sees the whole log, one reading after the other."""
    engine = Engine(unalarmed(model_of.model))
    return engine.process(readings().slice(0, len(readings()))).score * OUT_OF_REACH


def late_rows() -> list[NDArray[np.bool_]]:
    """Of each stream: which rows are of its calibration stretch."""
    data, names = prepare(readings(), 10, SETTINGS), np.array(readings().streams)
    return [(names == name) & (readings().times >= data.calibration_start[s]) for s, name in enumerate(data.names)]


def test_thresholds_are_the_promised_level_of_the_tail_times_each_stream_s_factor() -> None:
    streams, calibration = learned().model.streams, learned().model.manifest.calibration
    level = streams.tail.level(calibration.rate)
    assert calibration.rate == pytest.approx(144)
    assert calibration.threshold == level
    np.testing.assert_allclose(streams.threshold, streams.factor * level)
    assert streams.factor[2] == 1  # of the third stream too little is known


def test_few_episodes_of_the_stretch_lie_above() -> None:
    scored = Engine(learned().model).process(readings().slice(0, len(readings())))
    newest = np.logical_or.reduce(late_rows())
    assert np.mean(scored.score[newest] > 0.3) > 0
    opened = [p for p in scored.published if newest[p.index]]
    assert len(opened) <= 4  # 13 minutes of streams, one in ten


def test_p_values_are_those_of_the_pooled_scores_in_factors() -> None:
    streams = learned().model.streams
    assert len(streams.tail_score) == len(streams.tail_p)
    assert (np.diff(streams.tail_score) > 0).all()
    assert streams.tail_p[-1] == pytest.approx(1 / (780 + 1))
    late, scores = late_rows(), raw_scores(learned())
    largest = max(scores[rows].max() / factor for rows, factor in zip(late, streams.factor, strict=True))
    assert streams.tail_score[-1] == pytest.approx(largest)


def test_the_manifest_says_what_the_tail_was_fitted_on() -> None:
    calibration = learned().model.manifest.calibration
    assert calibration.false_alarms == "1/10min"
    assert calibration.readings == 360 + 360 + 60
    assert calibration.method in ("ranks", "pot-exponential")
    assert calibration.peaks >= 20
    # the fit stretch is as good as new, but for the periods in which its season is not known
    assert calibration.share == pytest.approx(0.75, abs=1e-3)
    assert calibration.days == pytest.approx(0.75 * 2600 / DAY_S)
    assert calibration.reach_s > 100
    assert calibration.suspected == 0
    assert calibration.suspects == ()
    low, high = calibration.interval or (0.0, 0.0)
    assert 0 < low < high


def test_data_that_cannot_carry_the_promise_say_so() -> None:
    few = learn(readings(), SETTINGS.model_copy(update={"false_alarms": "1/365d"}))
    assert len(few.warnings) == 1
    assert "0.0226 stream-days of data cannot carry a promise of 1/365d" in few.warnings[0]
    threshold, largest = few.model.manifest.calibration.threshold, np.nanmax(raw_scores(few)[-720:])
    assert largest < threshold < 10 * largest
    assert learned().warnings == []


def test_a_fleet_s_budget_is_divided() -> None:
    fleet = learn(readings(), SETTINGS.model_copy(update={"false_alarms": "fleet:3/10min"})).model
    assert fleet.manifest.calibration.rate == learned().model.manifest.calibration.rate
    np.testing.assert_array_equal(fleet.streams.threshold, learned().model.streams.threshold)
    assert fleet.manifest.calibration.false_alarms == "fleet:3/10min"


def test_faults_in_the_stretch_are_suspected_and_do_not_blunt_the_threshold() -> None:
    values = normal(4000)
    clean = learn(table(values, interval_s=300), FitSettings(model="pca", context="none"))
    spoilt = values.copy()
    for at in range(2900, 3900, 120):
        spoilt[at : at + 12, 1] += 100
    dirty = learn(table(spoilt, interval_s=300), FitSettings(model="pca", context="none"))
    calibration = dirty.model.manifest.calibration
    assert calibration.method.startswith("bulk-")
    assert calibration.suspected >= 9
    assert "look like faults" in dirty.warnings[0]
    assert calibration.suspects[0].stream == "s0"
    assert calibration.suspects[0].score > 5
    assert calibration.threshold < 3 * clean.model.manifest.calibration.threshold


def test_the_same_calibration_of_no_peaks_at_all() -> None:
    constant = learn(table(np.ones((400, 2), np.float32)), FitSettings(model="pca", context="none")).model
    assert constant.manifest.calibration.threshold == pytest.approx(1e-3, rel=1e-3)
    assert isinstance(constant.streams.tail, Tail)
    assert len(constant.streams.tail.levels) >= 2


def test_the_manifest_says_what_was_learned_from_what() -> None:
    manifest = learned().model.manifest
    assert (manifest.model, manifest.window, manifest.interval_s, manifest.smoothing_span) == ("pca", 10, 1, 4)
    assert manifest.training.readings == 2600
    assert manifest.training.streams == 3
    assert manifest.training.start == "2023-11-14T22:13:20Z"
    assert manifest.training.calibration_start == "2023-11-14T22:15:40Z"
    assert manifest.channel_names == ("c0", "c1", "c2", "c3")
    values = readings().values
    assert manifest.channels[0].max is not None
    assert manifest.channels[0].max <= values[:, 0].max()
    assert set(manifest.metrics) == {"fit_loss", "parity", "validation_loss", "median_score"}
    calibration = np.logical_or.reduce(late_rows())
    assert manifest.metrics["median_score"] == pytest.approx(np.median(raw_scores(learned())[calibration]))
    assert {"python", "torch", "onnxruntime", "numpy"} <= set(manifest.made_with) | {"onnxruntime"}


def test_the_same_readings_give_the_same_model() -> None:
    again = learn(readings(), SETTINGS)
    assert again.model.manifest == learned().model.manifest
    assert again.model.graph == learned().model.graph
    np.testing.assert_array_equal(again.model.streams.threshold, learned().model.streams.threshold)
    np.testing.assert_array_equal(again.model.streams.tail.rates, learned().model.streams.tail.rates)
    assert again.report == learned().report
