"""Silent streams: who is told, when, and who is not. Times are minutes."""

from __future__ import annotations

import numpy as np
import pytest

from detector.engine import silence
from detector.engine.assembly import NEVER
from detector.engine.silence import Silences, limit_ns
from detector.engine.state import State

LIMIT, AHEAD = 60, 60
MINUTE, DAY = 60 * 10**9, 24 * 60

Reading = tuple[str, int]


def told(readings: list[Reading], *, limit: int = LIMIT, batch: int = 7) -> list[tuple[str, str, int]]:
    """(stream, silent or back, the partition's clock) in order, in batches of a few readings."""
    names = sorted({name for name, _ in readings})
    memory = State({
        "tail": {"time": ((), np.dtype("<i8"), NEVER)},
        "sensors": silence.fields(),
    })  # fmt: skip
    memory.grow(len(names))
    is_told, found = np.zeros(len(names), bool), []
    for start in range(0, len(readings), batch):
        part = readings[start : start + batch]
        slots = np.array([names.index(name) for name, _ in part])
        times = np.array([time for _, time in part], np.int64)
        events = Silences(limit, AHEAD).follow(
            memory, np.arange(len(names)), slots, times, np.arange(start, start + len(part)), is_told
        )
        for event in events:
            is_told[event.slot] = event.silent
            found.append((names[event.slot], "silent" if event.silent else "back", event.time))
        np.maximum.at(memory.time, slots, times)
    return found


def steady(name: str, start: int, stop: int, step: int = 5) -> list[Reading]:
    return [(name, time) for time in range(start, stop, step)]


def merged(*streams: list[Reading]) -> list[Reading]:
    """In order of time, as they would arrive."""
    return sorted((reading for stream in streams for reading in stream), key=lambda reading: reading[1])


def test_one_of_three_stops_and_is_back() -> None:
    c = steady("c", 2, 300) + steady("c", 602, 900)
    found = told(merged(steady("a", 0, 900), steady("b", 1, 900), c))
    # last heard at 297; a tells 360 at 360, but b is needed to agree
    assert found == [("c", "silent", 360), ("c", "back", 600)]


def test_two_of_three_stop_and_the_survivor_tells_later() -> None:
    found = told(merged(steady("a", 0, 900), steady("b", 1, 300), steady("c", 2, 300)))
    assert [(name, what) for name, what, _ in found] == [("b", "silent"), ("c", "silent")]
    assert {time for *_, time in found} == {360}  # told at 420, an hour on: further ahead no clock is believed


def test_one_of_two_stops_and_the_other_tells() -> None:
    assert told(merged(steady("a", 0, 900), steady("b", 1, 300)))[0][:2] == ("b", "silent")


def test_a_stream_alone_is_never_silent() -> None:
    assert told(steady("a", 0, 300) + steady("a", 2000, 2300)) == []


@pytest.mark.parametrize("ahead", [30, 59, 10**6])
def test_a_clock_that_runs_ahead_makes_nobody_silent(ahead: int) -> None:
    """Within what is accepted ahead it is not believed; a single reading from the far future is no witness."""
    wild = [("a", 400 + ahead)] if ahead > AHEAD else [("a", time + ahead) for _, time in steady("a", 0, 900)]
    fleet = [steady(name, offset, 900) for offset, name in enumerate("bcd")]
    arrival = merged(*fleet)
    for name, time in wild:  # arrives when the others are at its true time
        arrival.insert(sum(t < time - ahead for _, t in arrival), (name, time))
    assert [event for event in told(arrival) if event[0] != "a"] == []


def test_a_time_that_is_known_of_twice_is_no_second_witness() -> None:
    """With a lateness one reading releases several others, each with the newest time that is known."""
    arrival = []
    for time in range(0, 900, 5):
        arrival += [("a", time + 50), ("a", time + 50), ("b", time)] + [("c", time)] * (time % 15 == 0)
    for batch in (1, 7, 10**6):
        assert told(arrival, limit=40, batch=batch) == []


def test_after_a_night_all_come_back_one_by_one_and_nobody_is_called_silent() -> None:
    days = [
        steady(name, day * DAY + 360 + 9 * offset, day * DAY + 1200 - 9 * offset)
        for day in range(4)
        for offset, name in enumerate("abcd")
    ]
    assert told(merged(*days)) == []


def test_one_that_does_not_come_back_after_a_night_is_told_within_the_day() -> None:
    days = [steady(name, day * DAY + 360, day * DAY + 1200) for day in range(3) for name in "abc"]
    found = told(merged(*days, steady("d", 362, 1200), steady("d", DAY + 362, DAY + 1200)))
    # the first to be back is a witness at 65 minutes past, and believed less an hour
    assert found == [("d", "silent", 2 * DAY + 360 + 5)]


def test_a_stream_that_reports_less_often_than_the_limit_is_not_expected() -> None:
    assert told(merged(steady("a", 0, 3000), steady("b", 1, 3000), steady("slow", 2, 3000, 500))) == []


def test_a_backlog_is_no_return_until_it_has_caught_up() -> None:
    fleet = merged(steady("a", 0, 900), steady("b", 1, 900))
    before = [reading for reading in fleet if reading[1] < 600]
    after = [reading for reading in fleet if reading[1] >= 600]
    c = steady("c", 2, 300)
    found = told(merged(before, c) + steady("c", 302, 500) + steady("c", 502, 600) + after)
    assert [event[:2] for event in found][:2] == [("c", "silent"), ("c", "back")]
    assert found[1][2] == 595


def test_long_silence_is_told_once() -> None:
    assert len(told(merged(steady("a", 0, 20 * DAY), steady("b", 1, 20 * DAY), steady("c", 2, 300)))) == 1


def test_no_limit_tells_nothing() -> None:
    assert told(merged(steady("a", 0, 900), steady("b", 1, 900), steady("c", 2, 300)), limit=0) == []


def test_a_split_into_batches_changes_nothing() -> None:
    readings = merged(steady("a", 0, 2000), steady("b", 1, 700), steady("c", 2, 300) + steady("c", 1000, 2000))
    whole = told(readings, batch=10**6)
    assert whole
    assert all(told(readings, batch=batch) == whole for batch in (1, 2, 13))


def test_the_limit_is_what_is_set_else_what_was_learned_else_an_hour_or_ten_intervals() -> None:
    assert limit_ns(0, 7200, MINUTE) == 0
    assert limit_ns(90, 7200, MINUTE) == 90 * 10**9
    assert limit_ns(None, 7200, MINUTE) == 120 * MINUTE
    assert limit_ns(None, None, MINUTE) == 60 * MINUTE
    assert limit_ns(None, None, DAY * MINUTE) == 10 * DAY * MINUTE
