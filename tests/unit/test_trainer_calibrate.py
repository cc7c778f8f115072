"""Thresholds: drawn from the engine's own scores of the stretch that nothing was fitted on."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from trainer_data import normal, table

from detector.adapters.files import Table
from detector.engine.calibration import needed, split_conformal
from detector.engine.engine import Engine
from trainer.data import prepare
from trainer.pipeline import Learned, learn
from trainer.settings import FitSettings

RATE = 0.01
SETTINGS = FitSettings(model="pca", rate=RATE, smoothing_span=4)


@cache
def readings() -> Table:
    """Two long streams and one whose calibration stretch is too short for a threshold of its own."""
    return table(normal(1200), normal(1200, seed=1, phase=3), normal(200, seed=2))


@cache
def learned() -> Learned:
    return learn(readings(), SETTINGS)


def raw_scores(model_of: Learned) -> NDArray[np.float64]:
    """Raw scores of all readings, by an engine that sees the whole log, one reading after the other."""
    model = model_of.model
    raw = dataclasses.replace(
        model, streams=dataclasses.replace(model.streams, threshold=np.ones(len(model.streams.names)))
    )
    return Engine(raw).process(readings().slice(0, len(readings()))).score


def late_rows() -> list[NDArray[np.bool_]]:
    """Of each stream: which rows are of its calibration stretch."""
    data, names = prepare(readings(), 10, SETTINGS), np.array(readings().streams)
    return [(names == name) & (readings().times >= data.calibration_start[s]) for s, name in enumerate(data.names)]


def test_thresholds_are_conformal_quantiles_of_what_the_detector_will_say() -> None:
    scores, late = raw_scores(learned()), late_rows()
    streams, manifest = learned().model.streams, learned().model.manifest
    pooled = scores[np.logical_or.reduce(late)]
    group = split_conformal(pooled, RATE)
    assert manifest.calibration.threshold == group
    assert manifest.calibration.readings == len(pooled) == 360 + 360 + 60
    assert not np.isnan(pooled).any()  # no warm-up: the stretch before it is its history
    assert streams.threshold.tolist() == [
        split_conformal(scores[late[0]], RATE), split_conformal(scores[late[1]], RATE), group,
    ]  # fmt: skip
    assert needed(RATE) > 60


def test_about_the_promised_share_of_the_stretch_lies_above() -> None:
    scored = Engine(learned().model).process(readings().slice(0, len(readings())))
    newest = scored.score[-2 * 360 :]
    assert 0 < (newest > 1).mean() <= RATE * 1.5


def test_p_values_are_those_of_the_pooled_scores() -> None:
    streams = learned().model.streams
    assert len(streams.tail_score) == len(streams.tail_p)
    assert (np.diff(streams.tail_score) > 0).all()
    assert streams.tail_p[-1] == pytest.approx(1 / (780 + 1))


def test_too_few_scores_raise_the_threshold_and_say_so() -> None:
    few = learn(readings(), FitSettings(model="pca", rate=1e-4, smoothing_span=4))
    assert len(few.warnings) == 1
    assert "780 calibration scores are too few" in few.warnings[0]
    assert few.model.manifest.calibration.threshold > np.nanmax(raw_scores(few)[-720:])
    assert learned().warnings == []


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
    assert set(manifest.metrics) == {"fit_loss", "parity", "validation_loss", "median_score", "realised_rate"}
    calibration = np.logical_or.reduce(late_rows())
    assert manifest.metrics["median_score"] == np.median(raw_scores(learned())[calibration])
    assert 0 < manifest.metrics["realised_rate"] <= RATE
    assert {"python", "torch", "onnxruntime", "numpy"} <= set(manifest.made_with) | {"onnxruntime"}


def test_the_same_readings_give_the_same_model() -> None:
    again = learn(readings(), SETTINGS)
    assert again.model.manifest == learned().model.manifest
    assert again.model.graph == learned().model.graph
    np.testing.assert_array_equal(again.model.streams.threshold, learned().model.streams.threshold)
    assert again.report == learned().report
