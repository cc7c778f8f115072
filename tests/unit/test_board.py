"""What the page remembers: bounded, newest first, and what a verdict changes."""

from __future__ import annotations

import orjson
import pytest
from alerts import alert

from detector.live import board as module
from detector.live.board import Board, likeness
from schemas.alert import EventType
from schemas.feedback import Feedback, Verdict

T0 = 1_780_000_000.0


def test_newest_first_and_open_apart_from_past() -> None:
    board = Board()
    for stream, opened in (("late", T0 + 100), ("early", T0), ("over", T0 + 50)):
        board.alert(alert(stream, opened))
    board.alert(alert("over", T0 + 50, 1, EventType.RESOLVED, after_s=200))
    for junk in (None, b"", b"[]", b"{}", b'{"data":{}}', b"\xff"):
        board.alert(junk)
        board.score(junk)
        board.feedback(b"k", junk)
    state = board.state()
    assert [one["stream"] for one in state["open"]] == ["late", "early"]
    assert [one["stream"] for one in state["past"]] == ["over"]
    assert state["streams"] == []


def test_a_verdict_is_shown_and_can_be_taken_back() -> None:
    board = Board()
    event = alert("a", T0)
    board.alert(event)
    incident = orjson.loads(event)["data"]["incident"]
    board.feedback(incident.encode(), Feedback(incident=incident, stream="a", verdict=Verdict.REJECTED).to_bytes())
    assert board.state()["open"][0]["verdict"] == "rejected"
    board.feedback(incident.encode(), None)
    assert board.state()["open"][0]["verdict"] is None
    assert board.incident("none") is None


def test_it_keeps_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAST", 5)
    monkeypatch.setattr(module, "MOST_STREAMS", 3)
    board = Board()
    for n in range(20):
        board.alert(alert(f"s-{n}", T0 + n))
        board.alert(alert(f"s-{n}", T0 + n, 1, EventType.RESOLVED, after_s=1))
        board.score(orjson.dumps({"stream": f"s-{n}", "timestamp": "2026-03-04T02:20:00Z", "score": 0.1 * n}))
    board.alert(alert("open", T0))
    state = board.state()
    assert [one["stream"] for one in state["past"]] == [f"s-{n}" for n in range(19, 14, -1)]
    assert [one["stream"] for one in state["streams"]] == ["s-19", "s-18", "s-17"]
    assert len(state["open"]) == 1


def test_likeness_is_that_of_shares() -> None:
    assert likeness({"a": 0.5, "b": 0.5}, {"a": 0.2, "b": 0.2}) == pytest.approx(1)
    assert likeness({"a": 1.0}, {"b": 1.0}) == 0
    assert likeness({}, {"b": 1.0}) == 0
