"""The contest: what may replace the champion, and what may not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from detector.adapters.files import Table
from detector.engine.model import Model
from detector.incident_log import PastIncident
from schemas.alert import Kind
from schemas.contest import Contest
from schemas.feedback import Verdict
from schemas.moment import SECOND_NS
from trainer.page.contest import contenders_in_words, render_contest
from trainer.pipeline import learn
from trainer.retrain.contest import Entrant, decide
from trainer.retrain.ground import Ground
from trainer.retrain.trim import trim
from trainer.settings import FitSettings

STEP_NS = 600 * SECOND_NS
STREAMS = ("fan-1", "pump-1")


def table(start: int, stop: int, streams: tuple[str, ...] = STREAMS, level: float = 0.0, channels: int = 3) -> Table:
    """A reading every ten minutes, with a daily rhythm; the same moments have the same values."""
    steps = np.arange(start, stop)
    parts = []
    for number in range(len(streams)):
        rng = np.random.default_rng([7, number])
        noise = rng.normal(size=(stop, 3))[steps]
        rhythm = 2 * np.sin(2 * np.pi * (steps[:, None] / 144 + np.array([0, 0.2, 0.5])))
        parts.append((level + 10 + rhythm + noise)[:, :channels])
    values = np.stack(parts, axis=1).reshape(-1, channels).astype(np.float32)
    names = list(streams) * len(steps)
    return Table(names, np.repeat(steps, len(streams)) * STEP_NS, values, [""] * len(names), ("a", "b", "c")[:channels])


@cache
def model(channels: int = 3, window: int | None = None) -> Model:
    settings = FitSettings.load({"model": "pca", "window": window})
    return learn(table(0, 1400, channels=channels), settings).model


@cache
def ground() -> Ground:
    return Ground(table(900, 1400), table(1400, 1900), table(0, 1900), [])


def thresholds(times: float, of: Model | None = None, only: str | None = None) -> Model:
    """The model with other thresholds; ``only``: of one stream."""
    of = of or model()
    factor = np.array([times if only in (None, name) else 1.0 for name in of.streams.names])
    return replace(of, streams=replace(of.streams, threshold=of.streams.threshold * factor))


@cache
def gone_over(times: float, only: str | None = None) -> Entrant:
    changed = thresholds(times, only=only)
    return Entrant("challenger", changed, ground().run(changed))


def contest(challenger: Entrant, champion: Entrant | None, apart: bool = False) -> Contest:
    baseline = replace(gone_over(1.0), role="baseline", cost=9.0)
    entrants = [*([replace(champion, role="champion")] if champion else []), challenger, baseline]
    groups = {"pump-*": frozenset(["pump-1"]), "fan-*": frozenset(["fan-1"])} if apart else {}
    return decide(ground(), entrants if baseline.run is not challenger.run else [*entrants[:-1], baseline], groups)


def weighed(challenger: Entrant, champion: Entrant, apart: bool = False) -> Contest:
    """The challenger alone against the champion: it is the baseline as well."""
    groups = {"pump-*": frozenset(["pump-1"]), "fan-*": frozenset(["fan-1"])} if apart else {}
    return decide(ground(), [replace(champion, role="champion"), replace(challenger, role="baseline")], groups)


def test_the_same_model_is_no_worse() -> None:
    found = weighed(gone_over(1.0), gone_over(1.0))
    assert found.decision.promote, found.decision.reasons
    assert found.contenders[0].rows[0].episodes == found.contenders[1].rows[0].episodes


def test_a_blinded_model_is_refused() -> None:
    found = weighed(gone_over(100.0), gone_over(1.0))
    assert not found.decision.promote
    assert any("it finds less" in reason for reason in found.decision.reasons)


def test_a_model_that_always_alarms_is_refused() -> None:
    found = weighed(gone_over(0.2), gone_over(1.0))
    assert not found.decision.promote
    assert any("breaks the promise" in reason for reason in found.decision.reasons)


def test_a_champion_that_always_alarms_is_no_measure() -> None:
    found = contest(gone_over(1.0), gone_over(0.2))
    assert found.decision.promote, found.decision.reasons
    assert any("the champion breaks the promise" in reason for reason in found.decision.reasons)


def test_a_group_that_gets_worse_is_enough_to_refuse() -> None:
    found = weighed(gone_over(100.0, "pump-1"), gone_over(1.0), apart=True)
    assert not found.decision.promote
    assert any("in the group pump-*" in reason for reason in found.decision.reasons)
    assert not any("in the group fan-*" in reason for reason in found.decision.reasons)
    assert [row.group for row in found.contenders[0].rows] == ["", "pump-*", "fan-*"]


def test_of_candidates_the_one_that_finds_more_is_weighed() -> None:
    found = contest(gone_over(100.0), gone_over(1.0))
    assert found.contenders[found.winner].role == "baseline"
    assert found.decision.promote


def test_the_first_one_has_only_the_promise_to_keep() -> None:
    assert contest(gone_over(1.0), None).decision.promote
    found = decide(ground(), [replace(gone_over(0.2), role="baseline")], {})
    assert not found.decision.promote


@pytest.mark.parametrize(("other", "why"), [
    ({"channels": 2}, "other channels"), ({"window": 20}, "its window is 20 readings"),
])  # fmt: skip
def test_what_detectors_cannot_simply_go_on_with_is_promoted_by_hand(other: dict, why: str) -> None:
    changed = model(**other)
    run = replace(gone_over(1.0).run, model=changed)
    found = weighed(Entrant("challenger", changed, run), gone_over(1.0))
    assert (found.decision.promote, found.decision.by_hand) == (False, True)
    assert why in found.decision.reasons[0]


def test_where_nothing_can_be_planted_somebody_has_to_look() -> None:
    small = Ground(table(1300, 1400), table(1400, 1420), table(0, 1420), [])
    entrant = Entrant("baseline", model(), small.run(model()))
    found = decide(small, [entrant], {})
    assert (found.decision.promote, found.decision.by_hand) == (False, True)


def test_confirmed_incidents_have_to_be_found_again() -> None:
    past = table(0, 1900)
    hit = (np.array(past.streams) == "pump-1") & (past.times >= 1000 * STEP_NS) & (past.times < 1030 * STEP_NS)
    values = past.values.copy()
    values[hit, 0] += 12
    incident = PastIncident("1", "pump-1", Kind.ANOMALY, 1000 * STEP_NS, 1030 * STEP_NS, None, Verdict.CONFIRMED)
    told = Ground(table(900, 1400), table(1400, 1900), replace(past, values=values), [incident])
    good, blind = (Entrant("baseline", m, told.run(m)) for m in (model(), thresholds(100.0)))
    assert good.row("", None).confirmed == 1
    found = decide(told, [replace(good, role="champion"), blind], {})
    assert any("of 1 confirmed faults it finds 0" in reason for reason in found.decision.reasons)


def test_each_incident_of_a_fault_that_goes_on_is_weighed_after_normal_readings() -> None:
    """After a week of the fault itself, it would be the stream's level."""
    past = table(0, 1900)
    hit = (np.array(past.streams) == "pump-1") & (past.times >= 1000 * STEP_NS)
    values = past.values.copy()
    values[hit, 0] += 12
    known = [
        PastIncident(str(at), "pump-1", Kind.ANOMALY, at * STEP_NS, (at + 30) * STEP_NS, None, Verdict.CONFIRMED)
        for at in (1000, 1800)
    ]
    told = Ground(table(0, 700), table(700, 1000), replace(past, values=values), known)
    assert told.run(model()).confirmed == [("pump-1", True), ("pump-1", True)]


def test_a_change_that_is_known_is_no_false_alarm_on_the_ground() -> None:
    moved = table(1400, 1900)
    values = moved.values.copy()
    values[moved.times >= 1500 * STEP_NS] += 8
    after = replace(moved, values=values)
    since = {stream: [1499 * STEP_NS] for stream in STREAMS}
    loud = Ground(table(900, 1400), after, table(0, 1900), []).run(model()).episodes
    calm = Ground(table(900, 1400), after, table(0, 1900), [], moved=since).run(model()).episodes
    assert [calm[stream] < loud[stream] for stream in STREAMS] == [True] * len(STREAMS)


def test_a_stream_of_which_nothing_was_normal_has_incidents_all_the_same() -> None:
    known = [PastIncident("1", "pump-1", Kind.ANOMALY, 1000 * STEP_NS, None, None, Verdict.CONFIRMED)]
    others = ("fan-1",)
    told = Ground(table(900, 1000, others), table(1400, 1900, others), table(0, 1900), known)
    assert [stream for stream, _ in told.run(model()).confirmed] == ["pump-1"]


def test_what_was_left_out_of_the_held_out_readings_is_no_silence() -> None:
    manifest = model().manifest.model_copy(update={"silent_after_s": 6000.0})
    gapped = table(1400, 1900)
    kept = np.flatnonzero((gapped.times < 1500 * STEP_NS) | (gapped.times > 1600 * STEP_NS))
    told = Ground(table(900, 1400), gapped.rows(kept), table(0, 1900), [])
    whole = ground().run(thresholds(100.0)).episodes
    assert told.run(replace(thresholds(100.0), manifest=manifest)).episodes == whole == dict.fromkeys(STREAMS, 0)


def test_the_page_says_it(tmp_path: Path) -> None:
    found = contest(gone_over(100.0), gone_over(1.0), apart=True)
    text = render_contest(found)
    (tmp_path / "contest.html").write_text(text)
    for part in ("Champion and challenger", "pump-*", "spike", "window PCA", "<svg"):
        assert part in text
    assert len(contenders_in_words(found.contenders)) == 3
    assert Contest.model_validate_json(found.model_dump_json()) == found


# -- trimming --------------------------------------------------------------------------------------------------------


def poisoned(share: float) -> tuple[Table, np.ndarray]:
    """The newest part of a stream is bad."""
    clean = table(0, 1400)
    bad = (np.array(clean.streams) == "pump-1") & (clean.times >= round(1400 * (1 - share)) * STEP_NS)
    values = clean.values.copy()
    values[bad, 1] += 6
    return replace(clean, values=values), np.flatnonzero(bad)


def test_what_stands_out_is_left_out() -> None:
    bad, rows = poisoned(0.05)
    found = trim(bad, model(), 0.1)
    assert np.isin(rows, found.kept).mean() < 0.1
    assert found.by_stream.keys() == {"pump-1"}
    assert found.by_stream["pump-1"] < 2 * len(rows)
    assert (len(found.table), found.unsettled) == (len(bad) - found.by_stream["pump-1"], ())


def test_clean_data_are_left_as_they_are() -> None:
    assert trim(table(0, 1400), model(), 0.1).by_stream == {}


@pytest.mark.parametrize(("readings", "goes"), [(4, False), (60, True)])
def test_what_is_rather_far_stands_out_only_where_it_lasts(readings: int, goes: bool) -> None:
    clean = table(0, 1400)
    hit = (np.array(clean.streams) == "pump-1") & (clean.times >= 900 * STEP_NS)
    hit &= clean.times < (900 + readings) * STEP_NS
    values = clean.values.copy()
    values[hit, 1] += 5
    assert (trim(replace(clean, values=values), model(), 0.1).by_stream != {}) == goes


def test_a_level_that_is_known_to_have_come_stays() -> None:
    """A patch's new level was cut to pieces night after night, as it stood out from the weeks before it."""
    moved, rows = poisoned(0.05)
    since = {"pump-1": [int(moved.times[rows[0]])]}
    assert trim(moved, model(), 0.1, since).by_stream == {}


def test_never_more_than_a_share_is_left_out() -> None:
    for share in (0.12, 0.2, 0.4):
        found = trim(poisoned(share)[0], model(), 0.1)
        assert found.by_stream.get("pump-1", 0) <= 0.1 * 1400
