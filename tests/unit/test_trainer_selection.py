"""Choosing by planted faults: what is measured, and that a costlier model must earn its cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from thorough import thorough
from trainer_data import normal, table

from schemas.errors import DataError, ParityError, SettingsError
from trainer.data import prepare
from trainer.faults import KINDS
from trainer.pipeline import drafted, learn
from trainer.selection import CANDIDATES, EXCUSED, NORMAL, Rehearsal, Trial, average_precision, best_of, choose
from trainer.settings import FitSettings

SETTINGS = FitSettings(false_alarms="1/100s", epochs=3, context="none")


def test_average_precision_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    kind = rng.choice([NORMAL, EXCUSED, 0, 1], 500, p=[0.7, 0.1, 0.1, 0.1])
    score = rng.integers(0, 20, 500) + 3.0 * (kind >= 0)  # many ties
    for wanted in (0, 1):
        counted = (kind == wanted) | (kind == NORMAL)
        expected = average_precision_score(kind[counted] == wanted, score[counted])
        assert average_precision(kind, wanted, score) == pytest.approx(expected)
    assert np.isnan(average_precision(kind, 2, score))


def test_a_reading_without_a_score_ranks_lowest() -> None:
    kind = np.array([NORMAL, NORMAL, 0])
    assert average_precision(kind, 0, np.array([1.0, 0.0, np.nan])) == pytest.approx(1 / 3)


def trial(name: str, found: float, mflop: float, noise: float = 0.01) -> Trial:
    rng = np.random.default_rng(1)
    areas = found + noise * rng.normal(size=(4, len(KINDS)))
    return Trial(name, areas, parameters=1, mflop=mflop, microseconds=1.0, fit_s=1.0)


def test_the_best_wins_if_it_is_clearly_better() -> None:
    assert best_of([trial("cheap", 0.5, 1), trial("dear", 0.6, 10)]).name == "dear"


def test_a_tie_goes_to_the_cheaper() -> None:
    assert best_of([trial("dear", 0.505, 10, 0.001), trial("cheap", 0.5, 1, 0.001)]).name == "cheap"
    once = np.zeros((4, len(KINDS)))
    once[0, 0] = 0.9
    lucky = replace(trial("lucky", 0.5, 10), found=trial("", 0.5, 1).found + once)
    assert best_of([trial("cheap", 0.5, 1), lucky]).name == "cheap"


def test_every_candidate_sees_the_same_faults_and_a_better_model_finds_more() -> None:
    readings = table(normal(2500), normal(2500, seed=1))
    data = prepare(readings, 10, SETTINGS)
    one, other = (Rehearsal(readings, data, seed=0) for _ in range(2))
    for first, second in zip(one.plantings, other.plantings, strict=True):
        np.testing.assert_array_equal(first.values, second.values)
        np.testing.assert_array_equal(first.kind, second.kind)
        assert {NORMAL, EXCUSED} < set(first.kind.tolist())
    pca, again, poor = (
        one.judge(drafted(readings, SETTINGS.model_copy(update=flags), None, lambda _: None).model)
        for flags in ({"model": "pca"}, {"model": "pca"}, {"model": "pca", "latent": 32})
    )
    np.testing.assert_array_equal(pca, again)
    assert np.nanmean(pca) > np.nanmean(poor) + 0.05


@thorough
def test_where_no_model_is_named_the_manifest_says_what_was_tried() -> None:
    said: list[str] = []
    learned = learn(table(normal(1500)), SETTINGS, say=said.append)
    manifest = learned.model.manifest
    assert {candidate.model for candidate in manifest.candidates} == set(CANDIDATES)
    assert manifest.model in CANDIDATES
    baseline = next(candidate for candidate in manifest.candidates if candidate.model == CANDIDATES[0])
    assert baseline.over_baseline == 0
    assert all(c.parameters > 0 and c.mflop > 0 and c.microseconds > 0 for c in manifest.candidates)
    assert any(line.startswith("chosen: ") for line in said)


def test_when_time_is_short_the_baseline_is_what_there_is() -> None:
    said: list[str] = []
    learned = learn(table(normal(1500)), SETTINGS.model_copy(update={"fit_limit": 0.001}), say=said.append)
    assert learned.model.manifest.model == CANDIDATES[0]
    assert sum("is not tried" in line for line in said) == len(CANDIDATES) - 1


def test_a_candidate_that_cannot_be_is_passed_over_and_too_little_data_end_the_choice() -> None:
    def attempt(name: str, seconds: float) -> tuple[str, Trial]:
        if name in broken:
            raise broken[name]
        return name.upper(), trial(name, 0.5, mflop=1)

    said: list[str] = []
    broken: dict[str, Exception] = {"a": SettingsError("too large"), "b": ParityError("they differ")}
    draft, candidates = choose(("a", "b", "c"), 60, attempt, said.append)
    assert (draft, [candidate.model for candidate in candidates]) == ("C", ["c"])
    assert said[:2] == ["a is not taken: too large", "b is not taken: they differ"]
    broken["c"] = SettingsError("neither")
    with pytest.raises(SettingsError, match="neither"):
        choose(("a", "b", "c"), 60, attempt, said.append)
    broken["a"] = DataError("too few")
    with pytest.raises(DataError, match="too few"):
        choose(("a", "b", "c"), 60, attempt, said.append)
