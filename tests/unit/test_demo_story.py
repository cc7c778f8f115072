"""The demo's verdict: which fault was caught, and what was a false alarm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.engine.alerts import Published
from schemas.alert import Alert, AlertData, ChannelShare, EventType
from schemas.moment import SECOND_NS, format_time
from trainer.demo.run import shown
from trainer.demo.story import Cause, Incident, Incidents, Provoked, judge

CPU = Provoked("cpu", 100 * SECOND_NS, 115 * SECOND_NS, 130 * SECOND_NS)
DISK = Provoked("disk", 150 * SECOND_NS, 165 * SECOND_NS, 180 * SECOND_NS)


def incident(opened_s: float, resolved_s: float | None = None, channels: tuple[str, ...] = ()) -> Incident:
    shares = tuple(ChannelShare(name=name, share=0.5, observed=1.0, expected=0.0) for name in channels)
    resolved = None if resolved_s is None else round(resolved_s * SECOND_NS)
    return Incident(f"at-{opened_s}", round(opened_s * SECOND_NS), resolved, 2.0, shares)


@pytest.mark.parametrize(
    ("opened_s", "resolved_s", "cause"),
    [
        (100, 110, Cause.FAULT),
        (115, None, Cause.FAULT),
        (119.9, 125, Cause.FAULT),
        (120.1, 125, Cause.WAKE),
        (130, 131, Cause.WAKE),
        (130.1, 131, Cause.FALSE_ALARM),
        (99.9, 131, Cause.FALSE_ALARM),
        (10, 20, Cause.SETTLING),
        (10, 51, Cause.FALSE_ALARM),
        (10, None, Cause.FALSE_ALARM),
    ],
)
def test_every_incident_has_its_cause(opened_s: float, resolved_s: float | None, cause: Cause) -> None:
    one = incident(opened_s, resolved_s)
    verdict = judge([CPU, DISK], [one], watched_from=50 * SECOND_NS, grace_s=5)
    assert verdict.causes[one.id][0] is cause
    assert verdict.missed == (("disk",) if cause is Cause.FAULT else ("cpu", "disk"))
    assert not verdict.clean


def test_clean_is_every_fault_caught_and_nothing_else() -> None:
    caught = [incident(103, 121), incident(152, 170)]
    assert judge([CPU, DISK], caught, 0, 5).clean
    alarmed = judge([CPU, DISK], [*caught, incident(140, 145)], 0, 5)
    assert alarmed.missed == ()
    assert alarmed.false_alarms == 1
    assert not alarmed.clean


@given(st.lists(st.floats(0, 200), max_size=8, unique=True))
def test_a_fault_is_missed_exactly_when_no_incident_is_its_own(opened: list[float]) -> None:
    verdict = judge([CPU, DISK], [incident(second) for second in opened], 0, 5)
    names = {name for cause, name in verdict.causes.values() if cause is Cause.FAULT}
    assert set(verdict.missed) == {"cpu", "disk"} - names
    assert set(verdict.causes) == {incident(second).id for second in opened}


def published(kind: EventType, opened_s: int, time_s: int, number: int) -> Published:
    opened = opened_s * SECOND_NS
    data = AlertData(
        incident="i",
        kind="anomaly",
        opened=format_time(opened),
        score=1.5 + number,
        p_value=0.1,
        channels=(),
        model="m",
    )
    time = format_time(time_s * SECOND_NS)
    alert = Alert(type=kind, source="/residual/default", subject="host", time=time, id=f"i-{number}", data=data)
    return Published(0, "host", 0, alert)


def test_incidents_follow_their_alerts() -> None:
    incidents = Incidents()
    assert not incidents.open()
    incidents.add(published(EventType.OPENED, 7, 7, 0))
    assert incidents.open()
    incidents.add(published(EventType.UPDATED, 7, 12, 1))
    incidents.add(published(EventType.RESOLVED, 7, 19, 2))
    assert not incidents.open()
    (one,) = incidents.all()
    assert (one.opened, one.seconds(), one.score) == (7 * SECOND_NS, 12.0, 1.5)


def test_the_sensors_of_incidents_are_drawn_first() -> None:
    names = ["cpu.user", "memory.used", "disk.write", "x", "y", "z", "cpu.system"]
    found = [incident(1, 2, ("x", "y")), incident(3, 4, ("z", "x"))]
    assert [names[c] for c in shown(found, names)][:3] == ["x", "z", "y"]
    assert len(shown([], names)) == 6
    assert shown([], ["only"]) == [0]
