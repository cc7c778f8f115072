"""The default model finds what is labelled, through the real commands, on the measuring data."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.metrics import mean
from bench.quality import run_model, series_of

#: Macro AUC-PR below which the default model must not fall: plain window PCA has .291 and .800 on these sets.
LEAST = {"asd": 0.28, "smd": 0.77}


@pytest.mark.parametrize("name", LEAST)
def test_the_default_model_ranks_anomalies_first(name: str, shared_data: Path, tmp_path: Path) -> None:
    results = []
    for series in series_of(shared_data / name):
        folder = tmp_path / series.name
        folder.mkdir()
        results.append(run_model(series, None, 0, folder))
    quality = mean([result.quality for result in results])
    assert quality.auc_pr >= LEAST[name], quality
    # a score that ranks well and never alarms, or always, is of no use to anybody
    assert quality.alerted > 0, quality
    assert quality.alarmed < 0.2, quality
