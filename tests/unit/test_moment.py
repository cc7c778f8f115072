"""Event time to the nanosecond, with NumPy's datetime64 as the oracle."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.moment import EARLIEST_NS, LATEST_NS, format_time, parse_duration, parse_time

moments = st.integers(EARLIEST_NS, LATEST_NS)


@given(moments)
@example(EARLIEST_NS)
@example(LATEST_NS)
@example(1_700_000_000_000_000_001)
@example(1_700_000_000_100_000_000)
def test_what_is_formatted_is_read_back_to_the_nanosecond(ns: int) -> None:
    text = format_time(ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", text)
    assert parse_time(text) == ns == np.datetime64(text[:-1], "ns").astype(np.int64)


@given(moments, st.sampled_from(["T", " ", "t"]), st.sampled_from(["", "Z", "z"]), st.sampled_from([".", ","]))
def test_the_spellings_of_iso_8601_mean_the_same(ns: int, between: str, zone: str, point: str) -> None:
    text = str(np.datetime64(ns, "ns"))  # nine digits, no zone
    assert parse_time(text.replace("T", between).replace(".", point) + zone) == ns
    basic = text.replace("-", "").replace(":", "")  # 20240101T000000.000000001
    assert parse_time(basic + zone.upper()) == ns


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2261, 1, 1)),
    st.integers(-23 * 60, 23 * 60),
    st.integers(0, 999),
)
def test_an_offset_moves_the_moment_and_not_the_fraction(local: datetime, minutes: int, nanoseconds: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    text = local.replace(tzinfo=zone).isoformat(timespec="microseconds")
    text = f"{text[:26]}{nanoseconds:03d}{text[26:]}"
    moved = np.datetime64(local.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None), "ns").astype(np.int64)
    assert parse_time(text) == moved + nanoseconds


@given(st.integers(0, LATEST_NS // 1_000_000))
def test_milliseconds_mean_the_same_as_a_whole_number_a_fractional_one_and_a_text(ms: int) -> None:
    text = str(np.datetime64(ms, "ms"))
    assert parse_time(ms) == parse_time(float(ms)) == parse_time(text) == ms * 1_000_000


def test_a_float_of_today_is_not_rounded_to_256_nanoseconds() -> None:
    assert parse_time(1_700_000_000_123.0) == 1_700_000_000_123_000_000
    assert parse_time(1_700_000_000_123.5) == 1_700_000_000_123_500_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-02", 86_400_000_000_000),
        ("1970-01-01T01", 3_600_000_000_000),
        ("1970-01-01T00:00:00.1234567891234Z", 123_456_789),  # beyond the ninth digit: cut, not rounded
        ("1970-01-01T00:00:00.9999999999", 999_999_999),
        ("1970-01-01T00:00:00.1234567", 123_456_700),
        ("19700101T000000.1234567", 123_456_700),
        ("1970-01-01.000000.123456789", 123_456_789),  # a point may stand between date and time
        ("1970-01-01T00:00:00-00:00:01", 1_000_000_000),
    ],
)
def test_texts_at_the_edges(text: str, ns: int) -> None:
    assert parse_time(text) == ns


@pytest.mark.parametrize(
    "value",
    [
        "", "1", "now", "NaN", "2024-13-01T00:00:00Z", "2024-02-30", "2024-01-01T25:00:00", "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+01:00:00.5", "2024-01-01T00:00:00Zz", "2024-01-01T00:00:00z ", "x" * 100_000,
        "1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00+00:01", "2262-04-11T23:47:16.854775808Z", "9999-12-31",
        "0001-01-01T00:00:00+23:59", "٢٠٢٤-01-01T00:00:00", "2024-01-01T00:00:00.12345678٣",
        -1, 2**63, 10**400, -0.5, 1e300, float("inf"), float("-inf"), float("nan"), True, False,
    ],
)  # fmt: skip
def test_what_is_no_time_or_out_of_range_is_a_value_error(value: str | float) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_time(value)
    assert len(str(raised.value)) < 500 or isinstance(value, int)


@given(st.text(max_size=70) | st.floats() | st.integers())
def test_anything_else_is_a_moment_in_range_or_a_value_error(value: str | float) -> None:
    try:
        ns = parse_time(value)
    except ValueError:
        return
    assert isinstance(ns, int)
    assert EARLIEST_NS <= ns <= LATEST_NS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("60s", 60), ("5min", 300), ("5m", 300), ("1h", 3600), ("14d", 1_209_600), ("2w", 1_209_600),
     (" 1.5 H ", 5400), ("10", 10), ("1e3", 1000), (3, 3), (0.25, 0.25)],
)  # fmt: skip
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1 y", "1h30", "nan", "inf", float("inf"), 10**400, True, None, [1], "٣s"])
def test_what_is_no_duration_is_a_value_error(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)  # type: ignore[arg-type]
