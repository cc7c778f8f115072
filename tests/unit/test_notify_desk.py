"""The desk of `detector notify`: who is told of what, when, and how often."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from alerts import alert
from hypothesis import given
from hypothesis import strategies as st

from detector.adapters.http_post import NotNowError, RefusedError
from detector.notify.courier import Courier
from detector.notify.desk import DAY_S, MUTED_S, Desk, Rules
from detector.notify.heard import Heard
from detector.notify.ledger import Parcel
from schemas.alert import EventType, Severity
from schemas.errors import TopicError
from schemas.moment import SECOND_NS
from schemas.notice import About, Happened, Notice

T0 = 1_780_000_000.0
OPENED, UPDATED, RESOLVED = EventType.OPENED, EventType.UPDATED, EventType.RESOLVED


def heard(*arguments: Any, **named: Any) -> Heard:
    return Heard.of(alert(*arguments, **named))


def drained(desk: Desk) -> list[Notice]:
    """What is on its way; it then has arrived."""
    found = [parcel.notice for parcel in desk.parcels.values()]
    for number in list(desk.parcels):
        for place in list(desk.parcels[number].left):
            desk.delivered(number, place)
    return found


def desk(**rules: Any) -> Desk:
    return Desk(Rules(("lines",), **{"wait_s": 10.0, "fleet_streams": 0, **rules}))


def said(notices: list[Notice]) -> list[tuple[str, str]]:
    return [(notice.event.value, notice.stream or notice.about.value) for notice in notices]


def test_an_incident_is_told_once_it_has_waited_and_its_end_too() -> None:
    own = desk()
    own.take(heard("a", T0), T0)
    own.tick(T0 + 5, caught_up=True)
    assert not own.parcels
    own.tick(T0 + 10, caught_up=False)
    assert not own.parcels  # its end may be among what is not read yet
    own.tick(T0 + 10, caught_up=True)
    (told,) = drained(own)
    assert (told.event, told.stream, told.channels[0].observed) == (Happened.OPENED, "a", 97.5)
    own.take(heard("a", T0, 1, UPDATED, severity=Severity.MAJOR, after_s=60), T0 + 60)
    own.take(heard("a", T0, 1, UPDATED, severity=Severity.MAJOR, after_s=60), T0 + 61)  # heard twice
    own.take(heard("a", T0, 2, RESOLVED, after_s=90), T0 + 90)
    notices = drained(own)
    assert said(notices) == [("updated", "a"), ("resolved", "a")]
    assert len({told.id, *(notice.id for notice in notices)}) == 3
    assert not own.cases


def test_what_is_over_before_anybody_is_told_is_in_the_digest() -> None:
    own = desk(day_start_s=7 * 3600)
    own.tick(T0, caught_up=True)
    own.take(heard("a", T0), T0)
    own.take(heard("a", T0, 1, RESOLVED, after_s=3), T0 + 3)
    own.take(heard("old", T0 - 30 * DAY_S), T0)  # of a month ago, read at the first start: history
    own.take(heard("old", T0 - 30 * DAY_S, 1, RESOLVED), T0)
    own.tick(T0 + 3, caught_up=True)
    assert not own.parcels
    own.tick(T0 + DAY_S, caught_up=True)
    (digest,) = drained(own)
    assert (digest.about, digest.count) == (About.DIGEST, 1)
    assert "a: cpu.user" in digest.members[0]
    own.tick(T0 + 2 * DAY_S, caught_up=True)
    assert not own.parcels  # there is nothing to tell of a quiet day


def test_the_budget_is_kept_and_leaves_room_for_what_is_severe() -> None:
    own = desk(budget=4, wait_s=0.0)
    for n in range(6):
        own.take(heard(f"minor-{n}", T0), T0)
        own.take(heard(f"major-{n}", T0, severity=Severity.MAJOR), T0)
        own.take(heard(f"critical-{n}", T0, severity=Severity.CRITICAL), T0)
    for number in range(3):
        own.tick(T0 + number, caught_up=True)
    told = drained(own)
    assert len(told) == 4
    quiet = desk(budget=4, wait_s=0.0)
    for n in range(6):
        quiet.take(heard(f"minor-{n}", T0), T0)
    quiet.tick(T0, caught_up=True)
    assert len(drained(quiet)) == 2
    quiet.take(heard("minor-5", T0, 1, UPDATED, severity=Severity.CRITICAL), T0 + 60)
    quiet.tick(T0 + 60, caught_up=True)  # it was for the digest, and is not any more
    assert said(drained(quiet)) == [("opened", "minor-5")]
    quiet.take(heard("minor-0", T0, 1, RESOLVED, after_s=90), T0 + 90)
    assert said(drained(quiet)) == [("resolved", "minor-0")]  # costs nothing
    quiet.tick(T0 + DAY_S, caught_up=True)
    (digest,) = drained(quiet)
    assert digest.count == 4
    quiet.take(heard("next", T0 + DAY_S), T0 + DAY_S)
    quiet.tick(T0 + DAY_S, caught_up=True)
    assert said(drained(quiet)) == [("opened", "next")]  # another day, another budget


def test_many_streams_that_break_together_are_one_incident() -> None:
    own = desk(fleet_streams=5)
    for n in range(8):
        own.take(heard(f"s-{n}", T0 + n), T0 + n)
    own.take(heard("other", T0, group="fans"), T0 + 8)
    own.take(heard("late", T0 + 3000), T0 + 8)
    own.tick(T0 + 20, caught_up=True)
    told = drained(own)
    assert sorted(said(told)) == [("opened", "fleet"), ("opened", "late"), ("opened", "other")]
    (fleet,) = (one for one in told if one.about is About.FLEET)
    assert (fleet.count, fleet.members) == (8, tuple(f"s-{n}" for n in range(8)))
    for n in range(8, 16):
        own.take(heard(f"s-{n}", T0 + n), T0 + 21)
    own.tick(T0 + 22, caught_up=True)
    assert [(one.event, one.count) for one in drained(own)] == [(Happened.UPDATED, 16)]
    for n in range(16):
        own.take(heard(f"s-{n}", T0 + n, 1, RESOLVED, after_s=60), T0 + 90)
        assert bool(own.parcels) is (n == 15)
    assert said(drained(own)) == [("resolved", "fleet")]
    assert not own.fleets


def test_one_stream_with_many_incidents_is_no_fleet() -> None:
    own = desk(fleet_streams=3, wait_s=0.0)
    for n in range(6):
        own.take(heard("a", T0 + n), T0 + n)
    own.tick(T0 + 10, caught_up=True)
    assert {one.about for one in drained(own)} == {About.INCIDENT}


def test_who_is_muted_is_told_when_the_silence_ends_if_it_is_still_open() -> None:
    until = T0 + 600
    own = Desk(Rules(("lines",), wait_s=0.0), lambda stream, ns: stream != "loud" and ns < until * SECOND_NS)
    for name in ("a", "b", "loud"):
        own.take(heard(name, T0), T0)
    own.tick(T0, caught_up=True)
    assert said(drained(own)) == [("opened", "loud")]
    own.take(heard("b", T0, 1, RESOLVED, after_s=60), T0 + 60)
    assert not own.parcels
    own.tick(until + MUTED_S, caught_up=True)
    assert said(drained(own)) == [("opened", "a")]
    assert own.day.count == 0  # nobody wanted to hear of b


def test_what_it_remembers_is_enough() -> None:
    """However often it dies, the same is told, and under the same ids."""
    events = [heard(f"s-{n % 7}", T0 + 400 * (n // 7), 0, OPENED) for n in range(21)]
    events += [heard(f"s-{n % 7}", T0 + 400 * (n // 7), 1, RESOLVED, after_s=90) for n in range(0, 21, 2)]
    rules = Rules(("lines", "webhook"), wait_s=5.0, budget=3, fleet_streams=5)

    def played(deaths: random.Random | None) -> tuple[list[str], dict[str, Any]]:
        own, kept = Desk(rules), dict[bytes, bytes]()
        ids: list[str] = []
        for number, event in enumerate(events):
            own.take(event, T0 + 10 * number)
            own.tick(T0 + 10 * number, caught_up=True)
            for key, value in own.changes().items():
                kept.pop(key, None)
                if value is not None:
                    kept[key] = value
            if deaths is not None and deaths.random() < 0.5:
                own = Desk(rules)
                own.restore(kept)
            ids += [one.id for one in drained(own)]
        return ids, {case.incident: case.stage for case in own.cases.values()}

    assert played(None) == played(random.Random(1)) == played(random.Random(2))
    broken = Desk(rules)
    with pytest.raises(TopicError, match=r"case/x.*--state-topic"):
        broken.restore({b"case/x": b"{}"})


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 900)), max_size=60), st.integers(0, 6))
def test_the_budget_is_never_passed_and_every_end_has_a_beginning(
    given_events: list[tuple[int, int, int]], budget: int
) -> None:
    own = desk(budget=budget, fleet_streams=4, day_start_s=int(T0) % DAY_S)
    seen: dict[int, tuple[float, int]] = {}
    told: list[Notice] = []
    now = T0
    for stream, severity, step in given_events:
        now += step
        if now >= T0 + DAY_S:
            break
        if stream in seen:
            opened, number = seen.pop(stream)
            own.take(heard(f"s-{stream}", opened, number, RESOLVED, after_s=1), now)
        else:
            seen[stream] = now, 1
            own.take(heard(f"s-{stream}", now, severity=tuple(Severity)[severity]), now)
        own.tick(now, caught_up=step % 3 > 0)
        told += drained(own)
    counts = Counter(one.event for one in told)
    assert counts[Happened.OPENED] <= budget
    opened_ids = {one.subject for one in told if one.event is Happened.OPENED}
    assert {one.subject for one in told} == opened_ids
    ended = [one.subject for one in told if one.event is Happened.RESOLVED]
    assert len(ended) == len(set(ended))


class Place:
    """A place that does as it is told."""

    name, batch = "lines", 3

    def __init__(self, *answers: Exception | None) -> None:
        self.answers, self.taken = list(answers), list[str]()

    def deliver(self, notices: Any) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.taken += [notice.stream for notice in notices]


def waiting(count: int) -> Desk:
    own = desk(wait_s=0.0)
    for n in range(count):
        own.take(heard(f"s-{n}", T0), T0)
    own.tick(T0, caught_up=True)
    return own


def test_a_place_that_is_down_is_tried_again_and_nothing_is_lost() -> None:
    own, place, aside = waiting(7), Place(NotNowError("down"), NotNowError("down", after_s=30)), list[Parcel]()
    courier = Courier(place, 60, 3600, lambda parcel, _reason, _why: aside.append(parcel))
    now, tries = T0, 0
    while own.parcels:
        courier.carry(own, now)
        now, tries = now + 0.5, tries + 1
    assert place.taken == [f"s-{n}" for n in range(7)]
    assert 31 <= now - T0 <= 33
    assert not aside


def test_one_bad_notice_stops_no_other() -> None:
    own, aside = waiting(3), list[tuple[str, str]]()
    place = Place(RefusedError("one of these"), None, RefusedError("this one"), None)
    courier = Courier(place, 60, 3600, lambda parcel, reason, why: aside.append((parcel.notice.stream or "", why)))
    courier.carry(own, T0)
    assert (place.taken, aside, own.parcels) == (["s-0", "s-2"], [("s-1", "this one")], {})


def test_no_more_than_the_rate_and_what_is_too_old_is_set_aside() -> None:
    own, place = waiting(100), Place()
    place.batch = 1
    courier = Courier(place, 10, 3600, lambda *_: None)
    for second in range(60):
        courier.carry(own, T0 + second)
    assert 10 <= len(place.taken) <= 20  # 10 at once, then one in six seconds
    aside: list[str] = []
    down = Courier(Place(*[NotNowError("down")] * 9), 10, 60, lambda _parcel, reason, _why: aside.append(reason))
    down.carry(own, T0 + 30)
    assert not aside
    down.carry(own, T0 + 61)
    assert aside == ["given up"] * 3


def test_a_first_event_belongs_to_the_day_that_it_came_in() -> None:
    own = desk()
    own.take(heard("a", T0), T0)
    own.take(heard("a", T0, 1, RESOLVED, after_s=3), T0)
    own.tick(T0, caught_up=True)
    assert (own.parcels, own.day.count) == ({}, 1)
