"""Each rule for a broken sensor, with an example that an operator would recognise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.engine import clocks, sensors
from detector.engine.assembly import NEVER, judge
from detector.engine.runs import MOST
from detector.engine.segments import Segments
from detector.engine.sensors import Mark, Marks, Sensors
from detector.engine.state import State
from schemas.manifest import Channel

NAN = float("nan")


def followed(channels: list[Channel], rows: list[list[float]], memory: State | None = None) -> Marks:
    """One stream's readings ``[n, C]`` in one batch."""
    memory = memory or remembered(len(channels))
    values = np.array(rows, np.float32)
    return Sensors(channels).follow(memory, Segments.of(np.zeros(len(values), np.int64)), values)


def remembered(channels: int) -> State:
    memory = State({"sensors": sensors.fields(channels)})
    memory.grow(1)
    return memory


def open_after(mark: Mark) -> list[int]:
    """0 and 1: whether an incident is open after each reading."""
    segments = Segments.of(np.zeros(len(mark.on), np.int64))
    decided = segments.latest(mark.on | mark.off)
    is_open: list[int] = np.where(decided >= 0, mark.on[decided], False).astype(int).tolist()
    return is_open


def column(*values: float) -> list[list[float]]:
    return [[value] for value in values]


def test_a_stuck_channel_is_told_after_its_limit_and_until_it_moves_again() -> None:
    found = followed([Channel(name="t", stuck_after=3)], column(1, 2, 5, 5, 5, 5, 5, 6, 7, 8, 9)).stuck
    assert open_after(found) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert found.which[:, 0].astype(int).tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_a_stuck_channel_that_moves_for_a_moment_is_one_incident() -> None:
    found = followed([Channel(name="t", stuck_after=2)], column(5, 5, 5, 6, 6, 6, 6, 7, 8, 9)).stuck
    assert open_after(found) == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0]


def test_a_stuck_channel_may_be_missing_now_and_then() -> None:
    found = followed([Channel(name="t", stuck_after=3)], column(5, NAN, 5, NAN, NAN, 5, 5, NAN, 6)).stuck
    assert open_after(found) == [0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_all_channels_frozen_together_are_one_incident_that_names_them() -> None:
    channels = [
        Channel(name="a", stuck_after=2),
        Channel(name="b", stuck_after=2),
        Channel(name="valve", stuck_after=0),
    ]
    found = followed(channels, [[1, 9, 0], [2, 8, 0], [2, 8, 0], [2, 8, 0], [2, 8, 0]]).stuck
    assert open_after(found) == [0, 0, 0, 1, 1]
    assert found.which[3].tolist() == [True, True, False]


def test_a_channel_that_is_not_watched_is_never_stuck_however_long() -> None:
    unknown, never = followed([Channel(name="t")], column(*[1] * 50)), Channel(name="t", stuck_after=0)
    assert not unknown.stuck.on.any()
    assert not followed([never], column(*[1] * 50)).stuck.on.any()


def test_runs_are_counted_up_to_what_two_bytes_hold() -> None:
    memory, channel = remembered(1), [Channel(name="t", stuck_after=60_000)]
    followed(channel, column(*[1] * (MOST + 10)), memory)
    assert memory.sensor_same[0, 0] == MOST
    assert followed(channel, column(1, 1), memory).stuck.on.all()


def test_a_missing_channel_is_told_after_its_limit_and_is_back_with_its_first_value() -> None:
    found = followed([Channel(name="t", missing_after=2)], column(1, NAN, NAN, NAN, NAN, 2, NAN)).missing
    assert open_after(found) == [0, 0, 0, 1, 1, 0, 0]


def test_a_channel_that_the_stream_never_had_is_not_missed() -> None:
    found = followed([Channel(name="t", missing_after=2)], column(NAN, NAN, NAN, NAN, 1, NAN, NAN, NAN)).missing
    assert open_after(found) == [0, 0, 0, 0, 0, 0, 0, 1]


def test_the_readings_stay_as_they_are() -> None:
    values = np.array([[1, 2, NAN]], np.float32)  # one row of a column-wise copy may be the row itself
    memory, channels = remembered(3), [Channel(name=name, missing_after=1) for name in "abc"]
    for newest in (values * 2, values):
        Sensors(channels).follow(memory, Segments.of(np.zeros(1, np.int64)), newest)
        np.testing.assert_array_equal(np.isnan(newest), [[False, False, True]])
    memory.sensor_value[0, 2] = 7
    Sensors(channels).follow(memory, Segments.of(np.zeros(1, np.int64)), values)
    assert np.isnan(values[0, 2])


def test_a_reading_without_any_value_counts_as_missing_for_all() -> None:
    channels = [Channel(name="a", missing_after=1), Channel(name="b", missing_after=1)]
    found = followed(channels, [[1, 1], [NAN, NAN], [NAN, NAN], [1, NAN], [1, 1]]).missing
    assert open_after(found) == [0, 0, 1, 1, 0]
    assert found.which.tolist()[2:4] == [[True, True], [False, True]]


def test_impossible_values_are_told_at_the_second_and_until_five_possible_ones() -> None:
    channels = [Channel(name="t", lowest=-40, highest=80)]
    found = followed(channels, column(20, 99, 20, 20, -50, 99, 20, 20, NAN, 20, 20, 20, 20, 20)).outside
    assert open_after(found) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert found.which[4:6, 0].all()


def test_a_single_impossible_value_is_no_incident_and_the_limit_itself_is_possible() -> None:
    channels = [Channel(name="t", highest=0.1)]
    assert not followed(channels, column(0.1, 0.1, 0.1, 7, 0.1)).outside.on.any()


def test_a_model_without_limits_says_that_nothing_is_wrong() -> None:
    found = followed([Channel(name="t")], column(1, 1e30, NAN))
    for mark in (found.stuck, found.missing, found.outside):
        assert not mark.on.any()
    assert found.missing.off.all()
    assert found.outside.off.all()


def clocked(times: list[int]) -> tuple[list[int], NDArray[np.int64]]:
    """Whether a clock incident is open after each reading of one stream, and by how much the clock was set back."""
    memory = State({"sensors": clocks.fields()})
    memory.grow(1)
    stamps = np.array(times, np.int64)
    segments, newest = Segments.of(np.zeros(len(stamps), np.int64)), np.array([NEVER])
    mark = clocks.follow(memory, segments, stamps, judge(segments, stamps, newest), newest)
    return open_after(Mark(mark.on, mark.off, mark.on[:, None])), mark.back


def test_a_clock_that_was_set_back_is_told_at_the_fifth_dropped_reading_until_it_has_caught_up() -> None:
    is_open, back = clocked([100, 110, 50, 60, 70, 80, 90, 100, 110, 120, 130])
    assert is_open == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert back[6] == 60


def test_late_readings_in_disorder_or_among_others_are_no_set_back_clock() -> None:
    assert not any(clocked([100, 90, 80, 70, 60, 50, 40])[0])
    assert not any(clocked([100, 50, 60, 70, 110, 80, 90, 95, 120])[0])


def test_late_readings_sent_twice_count_once() -> None:
    assert not any(clocked([100, 50, 50, 60, 60, 70, 70, 80, 80])[0])
    assert clocked([100, 50, 50, 60, 60, 70, 70, 80, 80, 90])[0][-1] == 1
