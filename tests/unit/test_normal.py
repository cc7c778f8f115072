"""What of the past may be learned: incidents as they were published, what operators said, what had no values."""

from __future__ import annotations

import random

import numpy as np
import pytest

from detector.adapters.files import Table
from detector.incident_log import PastIncident, past_incidents
from detector.spans import Spans
from schemas.alert import Alert, AlertData, Ended, EventType, Kind, incident_id
from schemas.feedback import Feedback, Verdict
from schemas.moment import LATEST_NS, SECOND_NS, format_time
from trainer.normal import Drop, normal, of_incidents

CONFIRMED, REJECTED = Verdict.CONFIRMED, Verdict.REJECTED


def events(stream: str, opened: int, until: int | None, why: Ended = Ended.QUIET, updates: int = 1) -> list[Alert]:
    """The events of an incident, in seconds; it was off a second before it opened."""
    name = incident_id("default", stream, "anomaly", opened * SECOND_NS)
    steps = [(EventType.OPENED, opened)] + [(EventType.UPDATED, opened + n + 1) for n in range(updates)]
    steps += [] if until is None else [(EventType.RESOLVED, until)]
    found = []
    for number, (kind, at) in enumerate(steps):
        over = kind is EventType.RESOLVED
        data = AlertData(
            incident=name, kind=Kind.SHIFT if over and why is Ended.REBASELINED else Kind.ANOMALY,
            opened=format_time(opened * SECOND_NS), began=format_time((opened - 1) * SECOND_NS), score=2.0,
            p_value=None, channels=(), model="m", ended=why if over else None,
        )  # fmt: skip
        found.append(
            Alert(
                type=kind,
                source="/residual/default",
                subject=stream,
                time=format_time(at * SECOND_NS),
                id=f"{name}-{number}",
                data=data,
            )
        )
    return found


def judged(alerts: list[Alert], verdict: Verdict) -> dict[str, Feedback]:
    name = alerts[0].data.incident
    return {name: Feedback(incident=name, stream=alerts[0].subject, verdict=verdict)}


def table(streams: int = 1, seconds: int = 100) -> Table:
    names = [f"s{n}" for _ in range(seconds) for n in range(streams)]
    times = np.repeat(np.arange(seconds, dtype=np.int64) * SECOND_NS, streams)
    return Table(names, times, np.ones((len(names), 2), np.float32), [""] * len(names), ("a", "b"))


def test_events_in_any_order_twice_or_without_the_first_say_the_same() -> None:
    rng, told = random.Random(0), [*events("s0", 10, 20), *events("s0", 40, None), *events("s1", 30, 35)]
    wanted = past_incidents(told, {})
    assert [(one.stream, one.began, one.ended) for one in wanted] == [
        ("s0", 9 * SECOND_NS, 20 * SECOND_NS),
        ("s1", 29 * SECOND_NS, 35 * SECOND_NS),
        ("s0", 39 * SECOND_NS, None),
    ]
    for _ in range(20):
        again = [*told[1:3], *told[4:], *rng.choices(told[1:3] + told[4:], k=5)]
        rng.shuffle(again)
        assert past_incidents(again, {}) == wanted


def test_an_incident_is_left_out_with_its_margins_and_comes_back_when_it_is_rejected() -> None:
    told = events("s0", 10, 20)
    for feedback, drop in (({}, Drop.INCIDENT), (judged(told, CONFIRMED), Drop.CONFIRMED)):
        found = of_incidents(past_incidents(told, feedback), 3 * SECOND_NS)
        assert found == {"s0": {drop: Spans.of([(6 * SECOND_NS, 23 * SECOND_NS)])}}
        left = normal(table(2), lambda stream, found=found: found.get(stream, {}))
        assert left.dropped == {drop: 17}
        assert left.by_stream == {"s0": {drop: 17}}
        assert left.share == pytest.approx(183 / 200)
    assert of_incidents(past_incidents(told, judged(told, REJECTED)), SECOND_NS) == {"s0": {}}


@pytest.mark.parametrize(("verdict", "until"), [(None, 20), (CONFIRMED, 60)])
def test_a_fault_that_became_the_baseline_goes_on_until_the_stream_moves_again(
    verdict: Verdict | None, until: int
) -> None:
    fault, back = events("s0", 10, 20, Ended.REBASELINED), events("s0", 50, 60, Ended.REBASELINED)
    feedback = judged(fault, verdict) if verdict else {}
    found = of_incidents(past_incidents(fault + back, feedback | judged(back, REJECTED)), 0)["s0"]
    (span,) = [spans for drop, spans in found.items() if len(spans)]
    assert list(span) == [(9 * SECOND_NS, until * SECOND_NS)]
    alone = of_incidents(past_incidents(fault, feedback), 0)["s0"]
    assert max(end for spans in alone.values() for _, end in spans) == (LATEST_NS if verdict else 20 * SECOND_NS)


def test_an_open_incident_teaches_nothing_from_its_beginning_on() -> None:
    found = of_incidents(past_incidents(events("s0", 10, None), {}), SECOND_NS)
    assert list(found["s0"][Drop.INCIDENT]) == [(8 * SECOND_NS, LATEST_NS)]


def test_the_first_reason_counts_and_all_rows_are_accounted_for() -> None:
    rows = table(3)
    rows.values[rows.times >= 90 * SECOND_NS] = np.nan
    reasons = {
        "s0": {
            Drop.CONFIRMED: Spans.of([(0, 10 * SECOND_NS)]),
            Drop.SILENCED: Spans.of([(5 * SECOND_NS, 95 * SECOND_NS)]),
        },
        "s1": {Drop.PLANNED: Spans.of([(95 * SECOND_NS, LATEST_NS)])},
    }
    left = normal(rows, lambda stream: reasons.get(stream, {}))
    assert left.by_stream == {
        "s0": {Drop.CONFIRMED: 10, Drop.SILENCED: 85, Drop.EMPTY: 5},
        "s1": {Drop.PLANNED: 5, Drop.EMPTY: 5},
        "s2": {Drop.EMPTY: 10},
    }
    assert len(left.kept) + sum(left.dropped.values()) == len(rows)
    assert list(left.table.streams) == [rows.streams[n] for n in left.kept]
    np.testing.assert_array_equal(left.table.times, rows.times[left.kept])
    assert not np.isnan(left.table.values).any()


def test_what_of_an_incident_is_no_feedback() -> None:
    one = Feedback(incident="1", stream="s", verdict=CONFIRMED, time="2026-10-20T02:00:00Z", note="bearing")
    assert Feedback.from_bytes(one.to_bytes()) == one
    with pytest.raises(ValueError, match="verdict: Field required"):
        Feedback.from_bytes(b'{"incident":"1","stream":"s"}')


def test_one_of_several_incidents_of_one_time_is_as_good_as_another() -> None:
    one = PastIncident("a", "s", Kind.STUCK, 5, 9, Ended.QUIET)
    other = PastIncident("b", "s", Kind.ANOMALY, 5, 7, Ended.QUIET)
    assert of_incidents([one, other], 0) == of_incidents([other, one], 0) == {"s": {Drop.INCIDENT: Spans.of([(5, 9)])}}


def test_another_normal_is_what_was_accepted_or_became_the_baseline() -> None:
    def moved(kind: Kind, why: Ended, verdict: Verdict | None = None) -> bool:
        return PastIncident("a", "s", kind, 5, 9, why, verdict).moved

    assert moved(Kind.SHIFT, Ended.REBASELINED)
    assert moved(Kind.ANOMALY, Ended.ACCEPTED)
    assert not moved(Kind.SHIFT, Ended.QUIET)
    assert not moved(Kind.SHIFT, Ended.REBASELINED, Verdict.CONFIRMED)
