"""Another promise of a model: its thresholds, derived from its own tail. Nothing is fitted."""

from __future__ import annotations

from dataclasses import replace

from detector.engine.model import Model
from schemas.promise import Promise


def promising(model: Model, false_alarms: str) -> Model:
    """The model with the thresholds that go with a promise, such as ``1/7d``. Raises ValueError where it is none."""
    calibration, streams = model.manifest.calibration, model.streams
    rate = Promise.parse(false_alarms).per_day(len(streams.names))
    changed = {
        "false_alarms": false_alarms,
        "rate": rate,
        "threshold": max(streams.tail.level(rate), calibration.floor),
        "interval": None,
    }
    return replace(
        model,
        manifest=model.manifest.model_copy(update={"calibration": calibration.model_copy(update=changed)}),
        streams=replace(streams, threshold=streams.tail.threshold(rate, streams.factor, calibration.floor)),
    )
