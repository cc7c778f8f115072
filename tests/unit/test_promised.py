"""Which incidents of the past are taken for the false alarms that a model promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.incident_log import PastIncident
from schemas.alert import Ended, Kind, Severity
from schemas.feedback import Verdict
from trainer.retrain.promised import DAY_NS, promised

END = 14 * DAY_NS
WEEKLY = 1 / 7


def incident(day: float, stream: str = "a", **other: object) -> PastIncident:
    began = round(day * DAY_NS)
    one = PastIncident(f"{stream}{day}", stream, Kind.ANOMALY, began, began + DAY_NS // 100, Ended.QUIET)
    return replace(one, **other)


def test_as_many_minor_ones_as_the_promise_makes_likely_are_taken_for_false_alarms() -> None:
    own = [incident(day) for day in range(5)]  # two are expected in two weeks; five are no surprise, six are
    assert promised(own, WEEKLY, 0, END) == own
    longer = incident(6, ended=round(6.1 * DAY_NS))
    assert promised([longer, *own], WEEKLY, 0, END) == own
    assert promised([*own, incident(6, "b")], WEEKLY, 0, END) == [*own, incident(6, "b")]
    assert promised([*own, incident(15)], WEEKLY, 0, END) == own


@pytest.mark.parametrize("other", [
    {"verdict": Verdict.CONFIRMED}, {"verdict": Verdict.REJECTED}, {"kind": Kind.SHIFT}, {"kind": Kind.STUCK},
    {"severity": Severity.MAJOR}, {"why": Ended.REBASELINED}, {"why": None, "ended": None}, {"why": Ended.EXPIRED},
])  # fmt: skip
def test_what_is_judged_rare_or_not_over_by_itself_is_not(other: dict[str, object]) -> None:
    assert promised([incident(1), incident(2, **other)], WEEKLY, 0, END) == [incident(1)]


def test_a_fault_that_goes_on_uses_up_what_is_likely() -> None:
    fault = [incident(day / 4, severity=Severity.CRITICAL) for day in range(6)]
    assert promised([*fault, incident(9)], WEEKLY, 0, END) == []


@given(st.lists(st.floats(0, 14), max_size=12, unique=True), st.floats(0.01, 2))
def test_a_laxer_promise_takes_no_fewer(days: list[float], rate: float) -> None:
    own = [incident(day) for day in days]
    assert len(promised(own, rate, 0, END)) <= len(promised(own, 2 * rate, 0, END))
