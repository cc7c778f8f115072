from __future__ import annotations

import numpy as np
import pytest

from detector.incident_log import PastIncident
from schemas.alert import Ended, Kind
from schemas.feedback import Verdict
from schemas.moment import LATEST_NS, SECOND_NS
from trainer.normal import Drop, faults_of, of_incidents
from trainer.retrain.comeback import Level, came_back
from trainer.retrain.promised import DAY_NS

STEP_NS = 300 * SECOND_NS
PER_DAY = DAY_NS // STEP_NS
CONFIRMED = Verdict.CONFIRMED


def stream(fault: tuple[float, float], size: float, days: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Three channels with a daily rhythm, one of them off for some days."""
    rng = np.random.default_rng(3)
    step = np.arange(days * PER_DAY)
    values = rng.normal(size=(len(step), 3)) + 3 * np.sin(2 * np.pi * (step[:, None] / PER_DAY + [0, 0.3, 0.6]))
    values[(step >= fault[0] * PER_DAY) & (step < fault[1] * PER_DAY), 1] += size
    return step * STEP_NS, values.astype(np.float32)


@pytest.mark.parametrize("size", [5, -8, 20])
@pytest.mark.parametrize("hours", [0.0, 7.0, 18.5])
def test_a_stream_is_back_when_its_readings_are(size: float, hours: float) -> None:
    over = 9 + hours / 24
    times, values = stream((5, over), size)
    found = came_back(times, values, 5 * DAY_NS, 7 * DAY_NS)
    assert found is not None
    assert over * DAY_NS <= found < (over + 0.5) * DAY_NS


def test_one_that_stays_away_is_not_back() -> None:
    assert came_back(*stream((5, 14), 5), 5 * DAY_NS, 7 * DAY_NS) == LATEST_NS


def test_where_nothing_is_away_nobody_can_tell() -> None:
    """A fault that no level shows may go on: it is not taken to be over."""
    assert came_back(*stream((5, 9), 0), 5 * DAY_NS, 7 * DAY_NS) is None


def test_nor_where_nothing_is_known_from_before() -> None:
    times, values = stream((0, 9), 5)
    assert came_back(times, values, 0, 7 * DAY_NS) is None
    assert came_back(times[:0], values[:0], 5 * DAY_NS, 7 * DAY_NS) is None


def test_where_no_reading_is_from_before_what_was_learned_tells() -> None:
    """A fault that was as long as the span kept the stream from being learned for as long again."""
    times, values = stream((0, 9), 6)
    level = Level(np.zeros(3, np.float32), np.full(3, 2.3, np.float32))
    found = came_back(times, values, 0, 7 * DAY_NS, level)
    assert found is not None
    assert 9 * DAY_NS <= found < 9.5 * DAY_NS
    assert came_back(*stream((0, 14), 6), 0, 7 * DAY_NS, level) == LATEST_NS


def test_missing_values_and_a_channel_that_is_never_there() -> None:
    times, values = stream((5, 9), 5)
    values[:, 0] = np.nan
    values[::2, 1] = np.nan
    found = came_back(times, values, 5 * DAY_NS, 7 * DAY_NS)
    assert found is not None
    assert abs(found - 9 * DAY_NS) < DAY_NS // 2


def test_what_came_back_is_learned_again() -> None:
    """Each confirmed incident that had become the baseline forbade the rest of the stream's life; and what lay between
    the incidents of a fault was learned, for it was not loud enough.
    """

    def confirmed(began: float, ended: float, why: Ended) -> PastIncident:
        at, until = int(began * DAY_NS), int(ended * DAY_NS)
        return PastIncident(str(began), "s", Kind.SHIFT, at, until, why, CONFIRMED)

    asked: list[tuple[str, int, int]] = []

    def back(*told: object) -> int:
        asked.append(told)  # type: ignore[arg-type]
        return 9 * DAY_NS

    incidents = [confirmed(5, 6, Ended.QUIET), confirmed(7, 8, Ended.REBASELINED)]
    spans = of_incidents(incidents, 0, back)["s"][Drop.CONFIRMED]
    assert list(spans) == [(5 * DAY_NS, 9 * DAY_NS)]
    assert asked == [("s", 5 * DAY_NS, 8 * DAY_NS)]  # the fault began with the first of them
    assert list(of_incidents(incidents, 0)["s"][Drop.CONFIRMED]) == [(5 * DAY_NS, LATEST_NS)]
    assert list(of_incidents(incidents[:1], 0, lambda *_: LATEST_NS)["s"][Drop.CONFIRMED]) == [(5 * DAY_NS, LATEST_NS)]
    assert list(of_incidents(incidents[:1], 0)["s"][Drop.CONFIRMED]) == [(5 * DAY_NS, 6 * DAY_NS)]


def test_incidents_of_one_fault_count_once() -> None:
    """Whether each of twenty crumbs of one fault was found again kept models from being promoted for a week."""

    def one(stream: str, began: float, ended: float | None, verdict: Verdict | None = CONFIRMED) -> PastIncident:
        until = None if ended is None else int(ended * DAY_NS)
        return PastIncident(f"{stream}{began}", stream, Kind.ANOMALY, int(began * DAY_NS), until, None, verdict)

    crumbs = [
        one("a", 1, 1.5),
        one("a", 3, 3.1),
        one("b", 3.2, None),
        one("a", 5, 5.2, None),
        one("a", 7, 8),
        one("b", 20, 21),
    ]
    found = [(fault.incident, fault.ended) for fault in faults_of(reversed(crumbs))]
    assert found == [("a1", int(3.1 * DAY_NS)), ("b3.2", None), ("a7", 8 * DAY_NS)]
