"""Calendars and silences: what an operator writes down, and the spans that come of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.adapters import calendars
from detector.adapters.calendars import read_calendars
from schemas.errors import SettingsError
from schemas.moment import format_time, parse_time
from schemas.silence import Silence

NO_TIME = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART:soon\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
NO_SPAN = b'{"id":"1","streams":"*","start":"x","end":"y"}'
START, END = parse_time("2026-10-19T00:00:00Z"), parse_time("2026-11-02T00:00:00Z")


def write(folder: Path, *events: str, head: str = "") -> Path:
    """A calendar with these events, each the lines of one."""
    body = "".join(
        f"BEGIN:VEVENT\r\nUID:{n}\r\nDTSTAMP:20260101T000000Z\r\n{e}\r\nEND:VEVENT\r\n" for n, e in enumerate(events)
    )
    path = folder / "plant.ics"
    path.write_text(f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\n{head}{body}END:VCALENDAR\r\n")
    return path


def told(path: Path, start: int = START, end: int = END) -> list[tuple[str, str]]:
    (calendar,) = read_calendars([str(path)])
    return [(format_time(a), format_time(b)) for a, b in calendar.spans(start, end)]


def test_an_event_that_recurs_keeps_its_hour_when_the_clocks_change(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "DTSTART;TZID=Europe/Berlin:20260901T020000\r\nDTEND;TZID=Europe/Berlin:20260901T040000\r\n"
        "RRULE:FREQ=WEEKLY;BYDAY=TU\r\nEXDATE;TZID=Europe/Berlin:20260922T020000",
    )
    assert told(path) == [
        ("2026-10-20T00:00:00Z", "2026-10-20T02:00:00Z"),
        ("2026-10-27T01:00:00Z", "2026-10-27T03:00:00Z"),
    ]
    assert told(path, parse_time("2026-09-21T00:00:00Z"), parse_time("2026-09-28T00:00:00Z")) == []


def test_days_and_times_without_a_zone_are_of_the_calendars_zone(tmp_path: Path) -> None:
    events = ("DTSTART;VALUE=DATE:20261026\r\nDTEND;VALUE=DATE:20261027", "DTSTART:20261030T100000\r\nDURATION:PT30M")
    path = write(tmp_path, *events)
    assert told(path) == [
        ("2026-10-26T00:00:00Z", "2026-10-27T00:00:00Z"),
        ("2026-10-30T10:00:00Z", "2026-10-30T10:30:00Z"),
    ]
    path = write(tmp_path, *events, head="X-WR-TIMEZONE:America/New_York\r\n")
    assert told(path) == [
        ("2026-10-26T04:00:00Z", "2026-10-27T04:00:00Z"),
        ("2026-10-30T14:00:00Z", "2026-10-30T14:30:00Z"),
    ]


def test_what_began_before_counts_from_the_start_and_what_is_cancelled_does_not(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "DTSTART:20261001T000000Z\r\nDTEND:20261020T000000Z",
        "DTSTART:20261022T000000Z\r\nDTEND:20261023T000000Z\r\nSTATUS:CANCELLED",
        "DTSTART:20261024T000000Z",
    )
    assert told(path) == [("2026-10-19T00:00:00Z", "2026-10-20T00:00:00Z")]


def test_a_moved_event_is_where_it_was_moved_to(tmp_path: Path) -> None:
    path = tmp_path / "moved.ics"
    path.write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\n"
        "BEGIN:VEVENT\r\nUID:a\r\nDTSTAMP:20260101T000000Z\r\nDTSTART:20261020T020000Z\r\nDTEND:20261020T030000Z\r\n"
        "RRULE:FREQ=WEEKLY;COUNT=2\r\nEND:VEVENT\r\n"
        "BEGIN:VEVENT\r\nUID:a\r\nDTSTAMP:20260101T000000Z\r\nRECURRENCE-ID:20261027T020000Z\r\n"
        "DTSTART:20261028T050000Z\r\nDTEND:20261028T060000Z\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    assert told(path) == [
        ("2026-10-20T02:00:00Z", "2026-10-20T03:00:00Z"),
        ("2026-10-28T05:00:00Z", "2026-10-28T06:00:00Z"),
    ]


def test_which_streams_a_calendar_is_about(tmp_path: Path) -> None:
    path = write(tmp_path)
    one, every = read_calendars([f"plant-7/*={path}", str(path)])
    assert (one.means("plant-7/pump"), one.means("plant-8/pump"), every.means("plant-8/pump")) == (True, False, True)


def test_what_is_no_calendar_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"gone\.ics cannot be read: No such file"):
        read_calendars([str(tmp_path / "gone.ics")])
    with pytest.raises(SettingsError, match="write STREAMS=FILE"):
        read_calendars(["=x.ics"])
    for text in ("", "BEGIN:VCALENDAR", "no calendar at all", "BEGIN:VCALENDAR\r\nEND:VEVENT\r\n", NO_TIME):
        (tmp_path / "bad.ics").write_text(text)
        with pytest.raises(SettingsError, match=r"bad\.ics is not iCalendar") as error:
            read_calendars([str(tmp_path / "bad.ics")])
        assert "\n" not in str(error.value)
    with pytest.raises(SettingsError, match=r"Nowhere/Land is no time zone"):
        told(write(tmp_path, "DTSTART:20261030T100000", head="X-WR-TIMEZONE:Nowhere/Land\r\n"))
    monkeypatch.setattr(calendars, "MOST_EVENTS", 100)
    with pytest.raises(SettingsError, match="more than 100 events"):
        told(write(tmp_path, "DTSTART:20260101T000000Z\r\nDTEND:20260101T000100Z\r\nRRULE:FREQ=HOURLY"))


def test_a_silence_and_what_is_none() -> None:
    one = Silence(
        id="1", streams="plant-7/*", start="2026-10-20T02:00:00+02:00", end="2026-10-20T01:00:00Z", note="belt"
    )
    assert Silence.from_bytes(one.to_bytes()) == one
    assert one.span == (parse_time("2026-10-20T00:00:00Z"), parse_time("2026-10-20T01:00:00Z"))
    assert one.means("plant-7/pump")
    assert not one.means("Plant-7/pump")
    with pytest.raises(ValueError, match=r"ends .* before it begins"):
        Silence(id="1", streams="*", start="2026-10-20T02:00:00Z", end="2026-10-20T02:00:00Z")
    for value, said in ((None, "EOF"), (b"{}", "id: Field required"), (NO_SPAN, "start|not a time|Invalid")):
        with pytest.raises(ValueError, match=said):
            Silence.from_bytes(value)
