"""Machines that are off: by which readings, and what of it is told."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import tiny_model

from detector.engine.engine import Engine, Scored
from detector.engine.incidents import Policy
from detector.engine.readings import Readings
from schemas.alert import Ended, EventType, Kind
from schemas.machine import parse_off_when

W = 4
QUIET, LOUD, OFF = [0.1, -0.1, 1.2], [9.0, 0.1, 1.2], [0.0, 0.0, 0.0]


def engine(off_when: str = "c2 < 1", **policy: float) -> Engine:
    return Engine(tiny_model(window=W, span=1), Policy(off_when=off_when, shift_after=0, drift_after=0, **policy))


def feed(e: Engine, rows: list[list[float]], start: int = 0, stream: str = "a") -> Scored:
    times = np.arange(start, start + len(rows), dtype=np.int64) * 10**9
    return e.process([Readings(0, [stream] * len(rows), times, np.array(rows, np.float32))])


def told(scored: Scored) -> list[tuple[EventType, Kind, Ended | None, str | None]]:
    return [(p.alert.type, p.alert.data.kind, p.alert.data.ended, p.alert.data.machine_state) for p in scored.published]


def test_a_machine_that_is_off_has_no_score_and_comes_back_without_an_alert() -> None:
    e = engine()
    out = feed(e, [QUIET] * 6 + [OFF] * 3 + [QUIET] * 2)
    assert np.isnan(out.score).tolist() == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 2
    assert out.counts["machine_off"] == 3
    assert out.counts["gap_rows"] == 3
    assert not out.published
    assert not out.alert.any()


def test_after_longer_it_warms_up_again() -> None:
    e = engine()
    out = feed(e, [QUIET] * 6 + [OFF] * 9 + [QUIET] * 4)
    assert np.isnan(out.score[15:]).tolist() == [True] * 3 + [False]


def test_without_a_rule_the_same_readings_are_an_anomaly() -> None:
    e = engine("")
    out = feed(e, [QUIET] * 6 + [[-9.0, -9.0, 0.0]] * 3)
    assert [(what, machine) for what, _, _, machine in told(out)] == [(EventType.OPENED, None)]
    assert "machine_state" not in out.published[0].alert.to_bytes().decode()


def test_what_is_open_ends_when_it_is_switched_off() -> None:
    e = engine()
    out = feed(e, [QUIET] * 6 + [LOUD] * 2 + [OFF] * 2)
    assert told(out) == [
        (EventType.OPENED, Kind.ANOMALY, None, "on"),
        (EventType.RESOLVED, Kind.ANOMALY, Ended.SWITCHED_OFF, "off"),
    ]
    assert out.published[1].index == 8
    assert out.published[1].record is None
    assert "was switched off" in out.published[1].alert.data.summary
    assert out.alert.tolist() == [False] * 6 + [True] * 2 + [False] * 2
    assert e.open_incidents == 0


def test_what_is_not_told_changes_nothing() -> None:
    e = engine()
    feed(e, [QUIET] * 6 + [OFF] * 2)
    out = feed(e, [[0.1, -0.1, np.nan]] * 2, 8)
    assert out.counts["machine_off"] == 2
    assert feed(e, [QUIET, [0.1, -0.1, np.nan]], 10).counts["machine_off"] == 0


def test_a_machine_that_starts_is_not_judged() -> None:
    e = engine(settle=3)
    out = feed(e, [QUIET] * 6 + [OFF] + [LOUD] * 3 + [QUIET] * 3)
    assert out.counts["machine_off"] == 4
    assert not out.published


def test_only_the_streams_that_are_meant() -> None:
    e = engine("c2 < 1 for pump-*")
    rows = [QUIET] * 6 + [[-9.0, -9.0, 0.0]] * 3
    assert told(feed(e, rows, stream="pump-1")) == []
    (event,) = told(feed(e, rows, stream="a"))
    assert event[3] is None


def test_late_and_repeated_readings_of_a_machine_that_is_off() -> None:
    e = engine()
    feed(e, [QUIET] * 6 + [OFF] * 3)
    out = feed(e, [OFF, OFF], 7)
    assert (out.counts["late"], out.counts["duplicate"], out.counts["machine_off"]) == (1, 1, 0)


def silence(off_when: str) -> list[tuple[str, EventType, str | None]]:
    """Three streams, of which one stops sending when it is off, for 30 s."""
    e = engine(off_when, silent_after=10)
    names, times, rows = [], [], []
    for second in range(90):
        for name in ("a", "b", "pump"):
            if name == "pump" and 40 < second < 70:
                continue
            names.append(name)
            times.append(second * 10**9)
            rows.append(OFF if name == "pump" and second == 40 else QUIET)
    out = e.process([Readings(0, names, np.array(times), np.array(rows, np.float32))])
    return [
        (p.stream, p.alert.type, p.alert.data.machine_state) for p in out.published if p.alert.data.kind is Kind.SILENT
    ]


def test_a_machine_that_is_off_may_be_silent() -> None:
    assert silence("c2 < 1 for a") == [("pump", EventType.OPENED, None), ("pump", EventType.RESOLVED, None)]
    assert silence("c2 < 1 for pump") == []


@pytest.mark.parametrize("text", ["rpm", "rpm <", "rpm < fast", "rpm < nan", "< 5", "rpm = 5", "rpm < 5 or load < 1"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="no condition"):
        parse_off_when(text)


def test_a_channel_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"'rpm'.*c0, c1, c2"):
        engine("rpm < 5")


def test_several_rules_and_conditions() -> None:
    e = engine("c0 == 0 and c1 == 0; c2 > 100")
    assert feed(e, [QUIET, OFF, [0.0, 1.0, 0.0], [1.0, 1.0, 101.0], [np.nan, 1.0, 0.0]]).counts["machine_off"] == 2
