"""From settings to an engine."""

from __future__ import annotations

import logging

from detector.adapters.folder import read_model
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.reorder import longest_ns
from schemas.errors import SettingsError
from schemas.moment import SECOND_NS
from schemas.promise import Promise
from schemas.settings import DetectorSettings

log = logging.getLogger(__name__)


def load_engine(settings: DetectorSettings) -> Engine:
    """The engine of a model folder under these settings. Raises ModelError, SettingsError."""
    model = read_model(settings.model, settings.trusted_keys)
    engine = Engine(model, policy(settings, model), settings.threads)
    if settings.false_alarms is not None:
        engine.judge_by(engine.policy, settings.false_alarms)
        _say_where_too_rare(model, settings.false_alarms)
    return engine


def _say_where_too_rare(model: Model, false_alarms: str) -> None:
    tail, streams = model.streams.tail, len(model.streams.names)
    if Promise.parse(false_alarms).per_day(streams) < tail.rates.min(initial=float("inf")):
        log.warning(
            "--false-alarms %s is rarer than the model's data can tell: the thresholds are those of one in %.3g days",
            false_alarms, 1 / tail.rates[-1],
        )  # fmt: skip


def policy(settings: DetectorSettings, model: Model) -> Policy:
    """When incidents open and resolve, and when baselines move. Raises SettingsError where so many readings would have
    to wait that they are not kept.
    """
    manifest = model.manifest
    most = longest_ns(max(round(manifest.interval_s * SECOND_NS), 1), manifest.values) / SECOND_NS
    if settings.lateness > most:
        raise SettingsError(
            f"--lateness {settings.lateness:g}s: of a stream that sends one reading every {manifest.interval_s:g} s "
            f"that is more than are kept: at most {most:g}s with this model"
        )
    return Policy.usual(
        manifest.smoothing_span,
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
        lateness=settings.lateness,
    )
