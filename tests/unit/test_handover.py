"""What becomes of a stream's memory when another model takes it over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_model import tiny_model

from detector.engine.engine import Engine
from detector.engine.handover import handed_over
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from schemas.alert import Kind
from schemas.command import Command, Verb
from schemas.errors import ModelError

POLICY = Policy(k=2, n=3, quiet=3, unseen=0, shift_after=120, trial_after=0, drift_after=600)


def learned(level: float = 0.0, spread: float = 1.0, threshold: float = 3.0, **kinds: object) -> Model:
    model = tiny_model(span=2.0, **kinds)  # type: ignore[arg-type]
    values = model.streams
    return replace(
        model,
        version=f"{level} {spread} {threshold}",
        streams=replace(
            values,
            loc=values.loc + np.float32(level),
            scale=values.scale * np.float32(spread),
            threshold=np.full(len(values.names), threshold),
        ),
    )


def feed(engine: Engine, start: int, stop: int, level: float = 0.0, seed: int = 0) -> list[str]:
    """One reading of stream a each second; the types and kinds of what is published."""
    rng = np.random.default_rng([seed, start])
    times = np.arange(start, stop) * 10**9
    values = (level + 0.3 * rng.standard_normal((stop - start, 3))).astype(np.float32)
    scored = engine.process([Readings(0, ["a"] * len(times), times, values)])
    return [f"{p.alert.type.value.rpartition('.')[2]} {p.alert.data.kind.value}" for p in scored.published]


def handed(engine: Engine, model: Model) -> Engine:
    other = Engine(model, POLICY)
    other.take_over(0, engine, list(engine.streams.of_partition(0)))
    assert not engine.streams.of_partition(0)
    return other


def level_of(engine: Engine) -> np.ndarray:
    slots = np.array([engine.streams.of_partition(0)["a"]])
    return engine.scaling(slots)[0][0]


def test_where_no_baseline_moves_nothing_changes_under_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "POLICY", POLICY.model_copy(update={"shift_after": 0.0, "drift_after": 0.0}))
    one, other = Engine(learned(), POLICY), Engine(learned(), POLICY)
    for engine in (one, other):
        feed(engine, 0, 50)
    again = handed(other, learned())
    assert feed(one, 50, 90, 0.5) == feed(again, 50, 90, 0.5)
    assert [one.dump(0, b) for b in range(256)] == [again.dump(0, b) for b in range(256)]


def test_the_moving_average_goes_on_in_thresholds() -> None:
    engine = Engine(learned(), POLICY)
    feed(engine, 0, 50)
    slot = engine.streams.of_partition(0)["a"]
    before = engine.state.scores[slot] / 3.0
    other = handed(engine, learned(threshold=6.0))
    np.testing.assert_allclose(other.state.scores[other.streams.of_partition(0)["a"]] / 6.0, before)


def shifted(level: float) -> Engine:
    """Stream a has moved there, and was re-baselined."""
    engine = Engine(learned(), POLICY)
    assert feed(engine, 0, 60) == []
    events = feed(engine, 60, 400, level)
    assert events[0] == "opened anomaly"
    assert "resolved shift" in events
    np.testing.assert_allclose(level_of(engine), level, atol=0.3)
    return engine


def test_a_level_that_the_new_model_was_not_taught_stays() -> None:
    other = handed(shifted(6.0), learned(spread=1.5))
    np.testing.assert_allclose(level_of(other), 6.0, atol=0.3)
    assert feed(other, 400, 500, 6.0) == []
    assert feed(other, 500, 520, 0.0)[0] == "opened anomaly"


def test_a_level_that_the_new_model_has_learned_is_its_own() -> None:
    other = handed(shifted(6.0), learned(level=5.8))
    assert (other.state.base_anchor == 0).all(), "no part of it is a shift any more"
    np.testing.assert_allclose(level_of(other), 6.0, atol=0.1)
    assert feed(other, 400, 500, 6.0) == []


def test_a_level_that_is_half_learned_is_where_it_was() -> None:
    other = handed(shifted(6.0), learned(level=3.0))
    np.testing.assert_allclose(level_of(other), 6.0, atol=0.3)
    assert feed(other, 400, 500, 6.0) == []


@pytest.mark.parametrize("level", [0.0, 0.1, 0.4])
def test_what_crept_stays_where_it_was(level: float) -> None:
    """Else each night would take the stream back to the mean of weeks, which lies behind."""
    engine = Engine(learned(), POLICY)
    for n in range(40):
        feed(engine, 60 * n, 60 * n + 60, 0.02 * n)
    assert 0.2 < level_of(engine)[0] < 1
    before = level_of(engine)
    other = handed(engine, learned(level=level))
    np.testing.assert_allclose(level_of(other), before, atol=1e-6)
    assert (other.state.base_anchor == 0).all()


@pytest.mark.parametrize(("mean", "stays"), [(0.5, True), (0.9, False), (2.0, False), (np.nan, True)])
def test_what_crept_goes_where_what_is_learned_is_nearer_to_the_season(mean: float, stays: bool) -> None:
    """Beside a season a level creeps so slowly that every night held it further behind, until all was an alarm."""
    engine = Engine(learned(), POLICY)
    for n in range(40):
        feed(engine, 60 * n, 60 * n + 60, 0.02 * n)
    slots = np.array([engine.streams.of_partition(0)["a"]])
    crept = engine.state.base_level[slots]
    assert 0.2 < crept[0, 0] < 0.6
    was = engine.learned(slots)
    now = replace(was, loc=was.loc + np.float32(0.8))
    saved = engine.state.copy(["a"], slots, "")
    season = np.full((1, 3), mean, np.float32)
    left = handed_over(saved, was, now, tail=8, season=season).sections["baseline"]["base_level"]
    np.testing.assert_allclose(left, crept - 0.8 if stays else 0, atol=1e-6)


def test_an_open_incident_goes_on_and_becomes_a_shift_in_its_time() -> None:
    engine = Engine(learned(), POLICY)
    feed(engine, 0, 60)
    assert feed(engine, 60, 150, 6.0)[0] == "opened anomaly"
    other = handed(engine, learned(level=0.3, spread=1.2, threshold=2.0))
    assert other.open_incidents == 1
    events = feed(other, 150, 400, 6.0)
    assert events[0] == "updated shift"
    assert "resolved shift" in events
    assert not [e for e in events if e.startswith("opened")]
    np.testing.assert_allclose(level_of(other), 6.0, atol=0.3)


def test_an_operators_word_holds() -> None:
    engine = Engine(learned(), POLICY)
    feed(engine, 0, 60)
    feed(engine, 60, 90, 6.0)
    engine.apply(0, Command(id="1", command=Verb.CONFIRM, stream="a"))
    other = handed(engine, learned(threshold=2.5))
    assert not [e for e in feed(other, 90, 600, 6.0) if "shift" in e], "confirmed: it never becomes normal"


def test_a_longer_window_has_to_fill() -> None:
    engine = Engine(learned(window=4), POLICY)
    feed(engine, 0, 60)
    other = handed(engine, learned(window=8))
    times = np.arange(60, 70) * 10**9
    scored = other.process([Readings(0, ["a"] * 10, times, np.zeros((10, 3), np.float32))])
    assert np.isnan(scored.score[:3]).all()
    assert not np.isnan(scored.score[3:]).any()


def test_other_channels_cannot_be_taken_over() -> None:
    engine = Engine(learned(), POLICY)
    feed(engine, 0, 10)
    with pytest.raises(ModelError, match="other channels"):
        handed(engine, learned(channels=4))
    assert "a" in engine.streams.of_partition(0)


def test_a_kind_of_every_incident_survives() -> None:
    engine = Engine(learned(), POLICY)
    feed(engine, 0, 60)
    feed(engine, 60, 70, 6.0)
    late = np.array([10, 11, 12, 13, 14, 15]) * 10**9
    scored = engine.process([Readings(0, ["a"] * 6, late, np.zeros((6, 3), np.float32))])
    assert [p.alert.data.kind for p in scored.published] == [Kind.CLOCK]
    assert handed(engine, learned()).open_incidents == 2
