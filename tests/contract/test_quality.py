"""The baseline finds what is labelled, through the real commands, on the measuring data.

The default is the baseline or what finds clearly more of the faults planted into the calibration stretch; choosing
takes minutes over these sets, and is measured by ``tests/bench/quality.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.metrics import mean
from bench.quality import run_model, series_of
from thorough import few

#: Macro AUC-PR below which it must not fall: .530 and .790 were measured; plain window PCA has .291 and .800.
LEAST = {"asd": 0.5, "smd": 0.77}
#: F1 of the readings under an incident below which it must not fall: .43 and .57 were measured.
LEAST_F1 = {"asd": 0.38, "smd": 0.5}
#: False episodes a week: the promise is one, and of few weeks twice as many are chance.
MOST, MOST_ALARMED = 2.0, 0.025


@pytest.mark.parametrize("name", few(["smd"], LEAST))
def test_the_baseline_ranks_anomalies_first_and_keeps_its_promise(name: str, shared_data: Path, tmp_path: Path) -> None:
    results = []
    (tmp_path / "parts").mkdir()
    for series in series_of(shared_data / name, tmp_path / "parts"):
        folder = tmp_path / series.name
        folder.mkdir()
        results.append(run_model(series, "pca", 0, folder))
    quality = mean([result.quality for result in results])
    assert quality.auc_pr >= LEAST[name], quality
    assert quality.alert_f1 >= LEAST_F1[name], quality
    weekly = sorted(7 * result.quality.episodes_per_day for result in results)
    assert weekly[-2] <= MOST, weekly
    assert max(result.quality.alarmed for result in results) <= MOST_ALARMED
