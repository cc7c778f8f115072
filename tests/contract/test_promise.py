"""The promise is kept on normal series, and faults are caught under it: ``tests/bench/promise.py`` made small."""

from __future__ import annotations

import pytest
from bench.promise import watched
from thorough import few


@pytest.mark.parametrize("kind", few(["ar.99"], ["iid", "ar.99"]))
def test_a_fleet_has_about_as_many_false_alarms_as_were_promised(kind: str) -> None:
    """16 streams for 20 days are 46 stream-weeks: at one in two of them chance alone makes a fifth."""
    model, (one, half) = watched(
        kind, "pca+linear", 16, fit_days=12, watch_days=20, fault_days=1, seed=1, promises=("1/7d", "1/14d"),
        context="none",
    )  # fmt: skip
    assert model.manifest.calibration.suspected == 0
    for kept in (one, half):
        assert 0.4 <= kept.realised / kept.promised <= 2.2, kept
        assert kept.within >= 0.8, kept
        assert kept.alarmed <= 0.03, kept
        assert kept.caught >= 0.9, kept
