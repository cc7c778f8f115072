"""What a model can see: measured with faults of known sizes, and a gate for one that has gone blind."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from trainer_data import normal, table, write_csv

from detector.engine.model import Model
from schemas.contest import Contender, Contest, Decision, Row
from schemas.errors import SettingsError
from trainer.cli import main as trainer
from trainer.detectability.gate import Requirement, gated, refusals
from trainer.detectability.measure import CHANNELS, GRIDS, SIZES, measure, with_detectability
from trainer.detectability.result import Detectability, KindResult, Level
from trainer.faults import KINDS, Kind
from trainer.page import render
from trainer.pipeline import Learned, learn
from trainer.settings import FitSettings
from trainer.track import COPIES, Runner, laps_at_once, track_of


@cache
def learned() -> Learned:
    readings = table(normal(2600), normal(2600, seed=1, phase=13))
    return with_detectability(learn(readings, FitSettings.load({"model": "pca", "false_alarms": "1/20min"})))


def seen() -> Detectability:
    found = learned().report.detectability
    assert found is not None
    return found


def blinded(model: Model, times: float = 1e6) -> Model:
    """Whose threshold nothing reaches."""
    return replace(model, streams=replace(model.streams, threshold=model.streams.threshold * times))


def test_the_larger_a_fault_the_more_it_is_caught() -> None:
    for kind in seen().kinds:
        shares = [level.share for level in kind.levels if level.planted]
        assert shares[-1] >= shares[0] - 0.1, kind.kind
        assert [level.size for level in kind.levels] == list(GRIDS[Kind(kind.kind)].sizes)
        assert len(kind.levels) == SIZES
        assert all(level.delay is None or level.delay >= 0 for level in kind.levels)
    shift = seen().of("shift")
    assert shift is not None
    assert shift.smallest is not None
    assert shift.smallest.size <= 4
    smallest, largest = (sum(kind.levels[n].share for kind in seen().kinds) for n in (0, -1))
    assert smallest < largest
    assert [one.channel for one in seen().channels] == ["c0", "c1", "c2", "c3"][:CHANNELS]


def test_the_same_seed_the_same_result_and_another_another() -> None:
    track = learned().track
    assert track is not None
    assert measure(learned().model, track) == seen()
    assert measure(learned().model, track, seed=1) != seen()


def test_laps_together_tell_what_each_tells_alone() -> None:
    track, model = learned().track, learned().model
    assert track is not None
    runner, rng = Runner(track, model), np.random.default_rng(0)
    laps = []
    for _ in range(COPIES // 2 + 2):  # more than go at once
        spoilt = track.values.copy()
        at = rng.integers(100, len(spoilt) - 100)
        spoilt[at : at + 60] += 8 * spoilt.std(axis=0)
        laps.append(spoilt)
    together = laps_at_once(track, model, laps)
    assert len(together) == len(laps)
    for lap in (0, 1, len(laps) - 1):
        np.testing.assert_array_equal(together[lap], runner.alerts(laps[lap]))
        assert together[lap].any()


def test_too_few_readings_are_said_to_be_few() -> None:
    readings = table(normal(420))
    short = learn(readings, FitSettings.load({"model": "pca", "window": 4, "false_alarms": "1/2min"}))
    track = track_of(readings, np.array([readings.times[-70]]))
    found = measure(short.model, track)
    assert found is not None
    assert found.truncated
    planted = {kind.kind: sum(level.planted for level in kind.levels) for kind in found.kinds}
    assert planted["shift"] == 0  # a fault of 64 readings has no room


def test_a_blinded_model_is_refused_and_one_as_good_is_not() -> None:
    track = learned().track
    assert track is not None
    blind = measure(blinded(learned().model), track)
    assert blind is not None
    # missing values and a stuck sensor are told without any model
    assert {kind.kind for kind in blind.kinds if any(level.caught for level in kind.levels)} <= {"dropout", "stuck"}
    said = refusals(blind, {"the champion": seen()})
    assert any("it catches a shift not even of 8 deviations in 90% of cases, the champion from" in why for why in said)
    assert refusals(seen(), {"the champion": seen()}) == []
    assert refusals(seen(), {"the champion": blind}) == []


def contest(promote: bool = True) -> Contest:
    row = Row(episodes=0, stream_days=1, promised=1, keeps=True, found={}, planted={})
    roles = ("champion", "challenger", "baseline")
    return Contest(
        start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z", plantings=6, winner=1,
        contenders=tuple(Contender(role=r, model="pca", false_alarms="1/7d", rows=(row,)) for r in roles),
        decision=Decision(promote=promote, by_hand=not promote, reasons=("because",)),
    )  # fmt: skip


def test_the_gate_is_shut_for_a_winner_that_is_blind() -> None:
    track = learned().track
    assert track is not None
    blind = measure(blinded(learned().model), track)
    assert gated(contest(), {0: seen(), 1: seen(), 2: blind}, []) == contest()
    shut = gated(contest(), {0: seen(), 1: blind, 2: seen()}, []).decision
    assert not shut.promote
    assert shut.by_hand
    assert any("the champion" in why for why in shut.reasons)
    assert any("window PCA" in why for why in shut.reasons)
    assert "because" in gated(contest(promote=False), {1: blind, 2: seen()}, []).decision.reasons
    asked = [Requirement(Kind.SHIFT, 0.5)]
    assert "0.5 is asked for" in gated(contest(), {1: blind}, asked).decision.reasons[0]
    assert gated(contest(), {1: seen()}, [Requirement(Kind.SHIFT, 4)]) == contest()
    assert gated(contest(), {1: None}, []) == contest()
    assert not gated(contest(), {1: None}, asked).decision.promote


def test_what_is_asked_for_is_read_or_refused() -> None:
    assert Requirement.parse(" shift <= 4 ") == Requirement(Kind.SHIFT, 4)
    for wrong in ("shift", "shift<4", "bang<=3", "shift<=0.1", "shift<=1.2.3", "shift<="):
        with pytest.raises(SettingsError) as error:
            Requirement.parse(wrong)
        assert "\n" not in str(error.value)


def test_caught_from_on_is_where_no_larger_size_is_missed() -> None:
    def levels(*shares: float) -> KindResult:
        made = tuple(Level(size=2.0**n, planted=20, caught=round(20 * s), delay=None) for n, s in enumerate(shares))
        return KindResult(kind="shift", unit="deviations", lasts=64, levels=made)

    for shares, wanted in (((0.0, 1.0, 1.0), 2.0), ((1.0, 0.5, 1.0), 4.0), ((1.0, 1.0, 0.5), None), ((1.0,), 1.0)):
        smallest = levels(*shares).smallest
        assert (None if smallest is None else smallest.size) == wanted


def test_a_fit_measures_it_unless_told_not_to(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "normal.csv", table(normal(900)))
    fit = ["fit", str(data), "--model", "pca", "--false-alarms", "1/10min"]
    assert trainer([*fit, "--out", str(tmp_path / "with"), "--set", "detectability=true"]) == 0
    assert trainer([*fit, "--out", str(tmp_path / "without"), "--set", "detectability=false"]) == 0
    pages = [(tmp_path / name / "report.html").read_text() for name in ("with", "without")]
    assert ["What it can see" in page for page in pages] == [True, False]
    assert FitSettings.model_fields["detectability"].default is True


def test_the_page_shows_it() -> None:
    page = render(learned().model, learned().report)
    assert "What it can see" in page
    assert "one reading far off" in page
    assert page.count('class="heat"') >= SIZES * (len(KINDS) - 1)
    without = learned().report.model_copy(update={"detectability": None})
    assert "What it can see" not in render(learned().model, without)
