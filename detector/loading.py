"""From settings to an engine."""

from __future__ import annotations

import logging
from dataclasses import replace

from detector.adapters.folder import read_model
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from schemas.promise import Promise
from schemas.settings import DetectorSettings

log = logging.getLogger(__name__)


def load_engine(settings: DetectorSettings) -> Engine:
    """The engine of a model folder under these settings. Raises ModelError, SettingsError."""
    model = read_model(settings.model, settings.trusted_keys)
    if settings.false_alarms is not None:
        model = promising(model, settings.false_alarms)
    return Engine(model, policy(settings, model), settings.threads)


def promising(model: Model, false_alarms: str) -> Model:
    """The model with the thresholds of another promise, from its own tail; nothing is fitted."""
    calibration, streams = model.manifest.calibration, model.streams
    rate = Promise.parse(false_alarms).per_day(len(streams.names))
    level = streams.tail.level(rate)
    if rate < streams.tail.rates.min(initial=float("inf")):
        log.warning(
            "--false-alarms %s is rarer than the model's data can tell: the thresholds are those of one in %.3g days",
            false_alarms, 1 / streams.tail.rates[-1],
        )  # fmt: skip
    changed = {
        "false_alarms": false_alarms,
        "rate": rate,
        "threshold": max(level, calibration.floor),
        "interval": None,
    }
    return Model(
        model.manifest.model_copy(update={"calibration": calibration.model_copy(update=changed)}),
        model.graph,
        replace(streams, threshold=streams.tail.threshold(rate, streams.factor, calibration.floor)),
    )


def policy(settings: DetectorSettings, model: Model) -> Policy:
    """When incidents open and resolve, and when baselines move."""
    return Policy.usual(
        model.manifest.smoothing_span,
        k=settings.incident_k,
        n=settings.incident_n,
        quiet=settings.incident_quiet,
        release=settings.incident_release,
        worse=settings.incident_worse,
        update_after=settings.incident_update_after,
        flap_after=settings.incident_flap_after,
        expire_after=settings.incident_expire_after,
        unseen=settings.unseen_readings,
        shift_after=settings.shift_after,
        trial_after=settings.shift_trial,
        drift_after=settings.drift_after,
        drift_limit=settings.drift_limit,
        silent_after=settings.silent_after,
    )
