"""From settings to an engine, and to the one after it."""

from __future__ import annotations

import logging
from functools import partial

from detector.adapters.folder import read_model
from detector.adapters.store import Store, is_store
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.reorder import longest_ns
from detector.succession import Followed, Succession
from schemas.errors import ModelError, SettingsError
from schemas.moment import SECOND_NS
from schemas.promise import Promise
from schemas.settings import DetectorSettings

log = logging.getLogger(__name__)


def load_model(settings: DetectorSettings) -> Model:
    """The model of a folder, or the champion of a store. Raises ModelError, and the errors of ``Store``."""
    if not is_store(settings.model):
        return read_model(settings.model, settings.trusted_keys)
    champion = Champion(settings)
    return champion.model(champion.version())


def load_engine(settings: DetectorSettings) -> Engine:
    """The engine of the model that serves under these settings. Raises likewise, and SettingsError."""
    return engine_of(load_model(settings), settings)


def engine_of(model: Model, settings: DetectorSettings) -> Engine:
    """A model's engine under these settings. Raises SettingsError."""
    chosen = policy(settings, model)
    try:
        engine = Engine(model, chosen, settings.threads)
    except ValueError as error:
        raise SettingsError(f"--{str(error).replace('_', '-', 1)}") from None
    if settings.false_alarms is not None:
        engine.judge_by(engine.policy, settings.false_alarms)
        _say_where_too_rare(model, settings.false_alarms)
    return engine


def succession(settings: DetectorSettings, now: Model) -> Succession:
    """What follows ``now``, which serves: of a store, the champion."""
    if not is_store(settings.model):
        return Succession()
    return Followed(Champion(settings), partial(_warm, settings=settings), now, settings.model_poll)


def _warm(model: Model, settings: DetectorSettings) -> Engine:
    engine = engine_of(model, settings)
    engine.scorer.warm()
    return engine


class Champion:
    """The pointer of a group in a store."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._store, self._settings = Store(settings.model), settings

    def version(self) -> str:
        """See ``Pointer``: the SHA-256 of the champion's manifest."""
        group = self._settings.model_group
        champion = self._store.champion(group)
        if champion is None:
            groups = ", ".join(self._store.groups()) or "none"
            raise ModelError(
                f"the store {self._store} has no champion of the group {group} (groups there: {groups}): promote a "
                f"model with `trainer promote DIR --store {self._store}`"
            )
        return champion.now.manifest_sha256

    def find(self, model: str) -> Model | None:
        """See ``Pointer``."""
        group = self._settings.model_group
        version = self._store.find(group, model)
        found = None if version is None else self._store.read(group, version, self._settings.trusted_keys)
        return found if found is not None and found.version == model else None

    def model(self, version: str) -> Model:
        """The same, where it has to be there. Raises ModelError."""
        found = self.find(version)
        if found is None:
            raise ModelError(
                f"the store {self._store} points at a version {version[:12]}… that it does not have: promote another"
            )
        return found


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
        off_when=settings.off_when,
        settle=settings.settle,
        lateness=settings.lateness,
    )
