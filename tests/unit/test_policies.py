"""Each policy of the engine: what it does, and that it is counted."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from tiny_model import tiny_model

from detector.engine.engine import Engine, smoothed, smoothing_weights
from detector.engine.incidents import Policy
from detector.engine.readings import Readings
from schemas.manifest import Batching

QUIET = [0.1, -0.1, 0.1]
LOUD = [9.0, 0.1, -0.1]
W = 4


def engine(**policy: int) -> Engine:
    return Engine(tiny_model(window=W, span=1), Policy(**policy))


def feed(e: Engine, seconds: list[float], rows: list[list[float]] | None = None, stream: str = "a"):
    times = (np.array(seconds) * 1e9).astype(np.int64)
    values = np.array(rows or [QUIET] * len(times), np.float32)
    return e.process([Readings(0, [stream] * len(times), times, values)])


def scored(e: Engine, *args, **kwargs) -> list[bool]:
    return (~np.isnan(feed(e, *args, **kwargs).score)).tolist()


def test_a_window_must_fill_before_there_is_a_score() -> None:
    result = feed(engine(), [0, 1, 2, 3, 4])
    assert (~np.isnan(result.score)).tolist() == [False, False, False, True, True]
    assert result.counts["warming_up"] == 3
    assert result.counts["warm_ups"] == 1
    assert np.isnan(result.p_value[0])
    assert 0 < result.p_value[-1] <= 1


def test_a_second_reading_of_the_same_moment_is_a_duplicate() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    result = feed(e, [3, 4])
    assert np.isnan(result.score).tolist() == [True, False]
    assert result.counts["duplicate"] == 1
    assert result.counts["late"] == 0


def test_a_reading_older_than_what_was_scored_is_late() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    result = feed(e, [2, 4, 1])
    assert np.isnan(result.score).tolist() == [True, False, True]
    assert result.counts["late"] == 2


def test_dropped_readings_leave_the_state_alone() -> None:
    with_drops, without = engine(), engine()
    feed(with_drops, [0, 1, 2, 3])
    feed(without, [0, 1, 2, 3])
    feed(with_drops, [3, 2], [LOUD, LOUD])
    for e in (with_drops, without):
        feed(e, [4])  # until then the state knows that a reading came late: many of them are a clock set back
    assert with_drops.dump(0, with_drops.streams.bucket(np.array([0]))[0]) == without.dump(
        0, without.streams.bucket(np.array([0]))[0]
    )


def test_a_short_gap_becomes_missing_rows() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    result = feed(e, [6])  # two readings are missing
    assert not np.isnan(result.score[0])
    assert result.counts["gap_rows"] == 2
    raw = e.state.raw[0]
    assert np.isnan(raw[1:3]).all()
    assert not np.isnan(raw[[0, 3]]).any()


@pytest.mark.parametrize(("step", "rows"), [(1.4, 0), (1.5, 0), (1.6, 1), (2.4, 1), (2.6, 2)])
def test_a_gap_is_over_one_and_a_half_intervals(step: float, rows: int) -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    assert feed(e, [3 + step]).counts["gap_rows"] == rows


def test_a_gap_of_a_window_starts_the_warm_up_again() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    assert scored(e, [3 + W + 1, 9, 10, 11]) == [False, False, False, True]
    again = engine()
    feed(again, [0, 1, 2, 3])
    assert scored(again, [3 + W]) == [True]  # one row less is missing: the window holds the newest reading


def test_a_gap_of_years_does_not_fill_memory() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    result = feed(e, [9e9])
    assert result.counts["gap_rows"] == 0
    assert result.counts["warm_ups"] == 1


def test_missing_values_are_masked_and_cost_only_their_share() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    result = feed(e, [4], [[np.nan, 0.1, -0.1]])
    assert np.isfinite(result.score[0])


def test_a_reading_without_any_value_has_no_score() -> None:
    e = engine()
    feed(e, [0, 1, 2, 3])
    result = feed(e, [4, 5], [[np.nan] * 3, QUIET])
    assert np.isnan(result.score).tolist() == [True, False]
    assert result.counts["all_missing"] == 1


def test_a_stream_never_seen_is_scored_with_the_groups_values_and_publishes_nothing_at_first() -> None:
    e = engine(unseen=10, k=1, n=1)
    result = feed(e, list(range(12)), [LOUD if t in (8, 11) else QUIET for t in range(12)], "new")
    assert result.score[8] > 1
    assert result.counts["not_published"] == 1
    assert result.alert.tolist() == [False] * 11 + [True]
    assert [p.index for p in result.published] == [11]


def test_a_stream_in_two_partitions_is_two_streams() -> None:
    e = engine()
    times = np.arange(4, dtype=np.int64) * 10**9
    values = np.array([QUIET] * 4, np.float32)
    result = e.process([Readings(p, ["a"] * 4, times, values) for p in (0, 1)])
    assert result.counts["duplicate"] == 0
    assert len(e.streams) == 2


def test_k_of_n_opens_and_quiet_resolves() -> None:
    e = engine(k=2, n=3, quiet=3)
    feed(e, [0, 1, 2, 3])
    loud = [False, True, False, True, True, False, False, True, False, False, False, False]
    result = feed(e, list(range(4, 16)), [LOUD if x else QUIET for x in loud])
    assert ((result.score > 1) == loud).all()
    #                                 L      -      L: opens
    expected = [False, False, False, True, True, True, True, True, True, True, False, False]
    assert result.alert.tolist() == expected
    opened, resolved = (p.alert for p in result.published)
    assert (opened.type, resolved.type) == ("residual.incident.opened", "residual.incident.resolved")
    assert opened.data.incident == resolved.data.incident
    assert (opened.id, resolved.id) == (f"{opened.data.incident}-0", f"{opened.data.incident}-1")
    assert opened.time == opened.data.opened == resolved.data.opened == "1970-01-01T00:00:07Z"
    assert resolved.time == "1970-01-01T00:00:14Z"


def test_an_alert_says_which_channel_and_what_was_expected() -> None:
    e = engine(k=1, n=1)
    feed(e, [0, 1, 2, 3])
    (published,) = feed(e, [4], [LOUD]).published
    top = published.alert.data.channels[0]
    assert (top.name, top.observed) == ("c0", 9.0)
    assert top.share > 0.99
    assert top.expected == pytest.approx((0.3 + 9) / W / 2, rel=1e-5)
    assert orjson.loads(published.alert.to_bytes())["data"]["channels"][0]["observed"] == 9.0


def test_an_open_incident_outlives_a_gap_and_needs_quiet_readings_to_resolve() -> None:
    e = engine(k=1, n=1, quiet=2)
    feed(e, [0, 1, 2, 3, 4], [QUIET] * 4 + [LOUD])
    result = feed(e, [1000, 1001, 1002, 1003, 1004])
    assert result.alert.tolist() == [True, True, True, True, False]


def test_a_fixed_batch_size_gives_the_same_scores() -> None:
    rows = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32).tolist()
    results = [
        feed(Engine(tiny_model(batching=b)), list(range(50)), rows).score for b in (Batching(), Batching(fixed=5))
    ]
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_smoothing_is_a_weighted_mean_of_the_scores_that_are_there() -> None:
    weights = smoothing_weights(3)
    assert weights.tolist() == [0.5**age for age in (5, 4, 3, 2, 1, 0)]
    history = np.array([[np.nan, np.nan, np.nan, 4.0, np.nan, 1.0], [1, 1, 1, 1, 1, np.nan]])
    found = smoothed(history, weights)
    assert found[0] == pytest.approx((4 * 0.25 + 1) / 1.25)
    assert np.isnan(found[1])


def test_nothing_to_do() -> None:
    result = engine().process([])
    assert len(result.score) == 0
    assert result.published == []


@pytest.mark.parametrize(("span", "opens"), [(4, 4), (1, 5)])
def test_a_smoothed_score_opens_an_incident_at_once_and_others_take_a_second_reading(span: int, opens: int) -> None:
    e = Engine(tiny_model(window=W, span=span))
    feed(e, [0, 1, 2, 3])
    result = feed(e, [4, 5, 6, 7, 8], [LOUD, LOUD, QUIET, QUIET, QUIET])
    assert (result.score[:2] > 1).all()
    assert 4 + int(np.argmax(result.alert)) == opens


@pytest.mark.parametrize(
    ("span", "named", "expected"),
    [(8, {}, (1, 1)), (1, {}, (2, 3)), (8, {"k": 3}, (3, 3)), (1, {"k": 2}, (2, 3)), (1, {"n": 1}, (1, 1)),
     (8, {"n": 4}, (1, 4)), (8, {"k": 2, "n": 5}, (2, 5))],
)  # fmt: skip
def test_what_is_not_named_of_k_and_n_is_as_usual(
    span: float, named: dict[str, int], expected: tuple[int, int]
) -> None:
    policy = Policy.usual(span, **named)
    assert (policy.k, policy.n) == expected
