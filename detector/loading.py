"""From settings to an engine."""

from __future__ import annotations

from detector.adapters.folder import read_model
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from schemas.settings import DetectorSettings


def load_engine(settings: DetectorSettings) -> Engine:
    """The engine of a model folder under these settings. Raises ModelError."""
    return Engine(read_model(settings.model), policy(settings), settings.threads)


def policy(settings: DetectorSettings) -> Policy:
    """When incidents open and resolve."""
    return Policy(
        k=settings.incident_k, n=settings.incident_n, quiet=settings.incident_quiet, unseen=settings.unseen_readings
    )
