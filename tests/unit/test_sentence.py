"""The sentence of an alert: an example of each kind and each end, and no failure whatever the facts are."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.engine.sentence import LONGEST, Facts, number, sentence, span
from schemas.alert import ChannelShare, Ended, Kind
from schemas.moment import SECOND_NS, parse_time

NAN, INF = float("nan"), float("inf")
DAY = 86_400.0

BEGAN = parse_time("2024-03-12T02:14:00Z")
NOW = parse_time("2024-03-12T05:14:30Z")


def channel(
    name: str = "coolant",
    observed: float | None = 88.2,
    expected: float | None = 61.5,
    unit: str | None = "°C",
    share: float = 0.6,
) -> ChannelShare:
    return ChannelShare(name=name, share=share, observed=observed, expected=expected, unit=unit)


WAIT = channel("disk wait", 45.0, 5.0, "ms")
LOAD = channel("load", 9.0, 2.0, None, share=0.25)
NET = channel("net in", 9.0, 2.0, None, share=0.1)

ANOMALY = Facts("db-3", Kind.ANOMALY, (WAIT, LOAD, NET), BEGAN, NOW, return_period_s=43 * DAY, spreads=(2.0, 1.0, 1.0))
OF_COOLANT = replace(ANOMALY, channels=(channel(),), spreads=(3.0,))


def test_an_anomaly() -> None:
    assert sentence(ANOMALY) == (
        "db-3: disk wait 9× its expected level since 02:14 UTC, with load; an error this large comes once in 43 days"
    )


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (OF_COOLANT, "db-3: coolant at 88.2 °C, expected 61.5, since 02:14 UTC; an error this large comes once in 43"),
        (replace(ANOMALY, channels=()), "db-3: unlike normal data since 02:14 UTC; an error this large comes"),
        (replace(ANOMALY, return_period_s=None), "since 02:14 UTC, with load; no normal data reached it"),
        (replace(ANOMALY, return_period_s=4e9), "once in over 10 years"),
        (replace(ANOMALY, channels=(), spot=(12, 5)),
         "db-3: unlike normal images, most at column 12, row 5, since 02:14 UTC;"),
        (replace(OF_COOLANT, channels=(channel(observed=None),)), "db-3: coolant missing since 02:14 UTC;"),
        (replace(OF_COOLANT, channels=(channel(expected=None),)), "db-3: coolant at 88.2 °C since 02:14 UTC;"),
    ],
)  # fmt: skip
def test_anomalies_of_other_sorts(facts: Facts, says: str) -> None:
    assert says in sentence(facts)


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        (Kind.SHIFT, {}, "db-3: coolant has moved from 61.5 to 88.2 °C since 02:14 UTC and stays there"),
        (Kind.SHIFT, {"moved_from": 60.0, "moved_to": 90.04},
         "db-3: coolant has moved from 60 to 90 °C since 02:14 UTC and stays there"),
        (Kind.SHIFT, {"scatters": 4.04}, "db-3: coolant scatters 4.04× as much as usual since 02:14 UTC, and stays so"),
        (Kind.SHIFT, {"scatters": 0.0}, "db-3: coolant unlike before since 02:14 UTC, and stays so"),
        (Kind.DRIFT, {"drifted": 4.21},
         "db-3: coolant has drifted away from its usual level by 4.21 times its usual spread since 02:14 UTC"),
        (Kind.STUCK, {}, "db-3: coolant stuck at 88.2 °C for 3 hours, since 02:14 UTC"),
        (Kind.STUCK, {"value": 0.0}, "db-3: coolant stuck at 0 °C for 3 hours, since 02:14 UTC"),
        (Kind.MISSING, {}, "db-3: coolant missing since 02:14 UTC"),
        (Kind.RANGE, {"limit": 80.0}, "db-3: coolant at 88.2 °C, above its limit of 80, since 02:14 UTC"),
        (Kind.RANGE, {"limit": 90.0}, "db-3: coolant at 88.2 °C, below its limit of 90, since 02:14 UTC"),
        (Kind.RANGE, {}, "db-3: coolant outside of what is possible since 02:14 UTC"),
        (Kind.CLOCK, {"set_back_s": 7200.0},
         "db-3: its clock was set back by 2 hours at 02:14 UTC; its readings are dropped until it has caught up"),
        (Kind.SILENT, {}, "db-3: nothing received since 02:14 UTC, while other streams report"),
    ],
)  # fmt: skip
def test_each_kind(kind: Kind, more: dict[str, float], says: str) -> None:
    assert sentence(replace(OF_COOLANT, kind=kind, **more)) == says


@pytest.mark.parametrize(
    ("kind", "ended", "says"),
    [
        (Kind.ANOMALY, Ended.QUIET, "coolant back to normal after 3 hours; its worst error comes once in 43 days"),
        (Kind.SHIFT, Ended.QUIET, "coolant back to normal after 3 hours"),
        (Kind.DRIFT, Ended.QUIET, "coolant has drifted: not told again until it is back, or accepted"),
        (Kind.STUCK, Ended.QUIET, "coolant moves again after 3 hours"),
        (Kind.MISSING, Ended.QUIET, "coolant reports again after 3 hours"),
        (Kind.RANGE, Ended.QUIET, "coolant back in range after 3 hours"),
        (Kind.CLOCK, Ended.QUIET, "its clock has caught up after 3 hours"),
        (Kind.SILENT, Ended.QUIET, "reports again after 3 hours of silence"),
        (Kind.SHIFT, Ended.REBASELINED,
         "coolant has moved from 61.5 to 88.2 °C since 02:14 UTC and stayed there; taken as normal from now on unless "
         "someone says it is still wrong"),
        (Kind.SHIFT, Ended.ACCEPTED, "coolant accepted as normal by an operator, after 3 hours"),
        (Kind.ANOMALY, Ended.EXPIRED,
         "coolant not back to normal after 3 hours, as long as an incident may stay open: closed"),
        (Kind.CLOCK, Ended.EXPIRED,
         "its clock not back to normal after 3 hours, as long as an incident may stay open: closed"),
    ],
)  # fmt: skip
def test_each_end(kind: Kind, ended: Ended, says: str) -> None:
    assert sentence(replace(OF_COOLANT, kind=kind, ended=ended)) == f"db-3: {says}"


@pytest.mark.parametrize(
    ("observed", "expected", "unit", "spread", "says"),
    [
        (45.0, 5.0, "ms", 2.0, "9× its expected level"),
        (62.0, 5.0, "ms", 2.0, "12× its expected level"),
        (6.0, 5.0, "ms", 2.0, "at 6 ms, expected 5,"),
        (7.4, 5.0, "ms", 2.0, "at 7.4 ms, expected 5,"),
        (7.5, 5.0, "ms", 2.0, "1.5× its expected level"),
        (1.5, 5.0, "ms", 2.0, "30% of its expected level"),
        (0.001, 5.0, "ms", 2.0, "at 0.001 ms, expected 5,"),  # far below: a share of nothing says nothing
        (0.0, 5.0, "ms", 2.0, "at 0 ms, expected 5,"),
        (-45.0, 5.0, "ms", 2.0, "at -45 ms, expected 5,"),  # signs differ
        (-45.0, -5.0, "V", 2.0, "9× its expected level"),
        (45.0, 1.9, "ms", 2.0, "at 45 ms, expected 1.9,"),  # expected near 0 beside the spread
        (45.0, 5.0, "ms", None, "at 45 ms, expected 5,"),  # no spread is known
        (45.0, 5.0, "°C", 2.0, "at 45 °C, expected 5,"),  # degrees count from no true zero
        (9e9, 5.0, None, 2.0, "over 1,000× its expected level"),
        (1013.3, 1013.1, "hPa", 0.01, "at 1,013.3 hPa, expected 1,013.1,"),  # digits enough to tell them apart
        (5.0, 5.0, "ms", 2.0, "off"),
    ],
)  # fmt: skip
def test_how_a_level_is_said(
    observed: float, expected: float, unit: str | None, spread: float | None, says: str
) -> None:
    spreads = () if spread is None else (spread,)
    facts = replace(ANOMALY, channels=(channel("x", observed, expected, unit),), spreads=spreads)
    assert f"db-3: x {says} since 02:14 UTC" in sentence(facts)


def test_which_channels_are_named() -> None:
    third = replace(ANOMALY, channels=(WAIT, LOAD, channel("net in", 9.0, 2.0, None, share=0.2)))
    assert ", with load and net in;" in sentence(third)
    one = replace(ANOMALY, channels=(WAIT, channel("load", share=0.19)))
    assert ", with" not in sentence(one)


@pytest.mark.parametrize(
    ("began", "says"),
    [
        ("2024-03-12T00:00:00Z", "since 00:00 UTC"),
        ("2024-03-11T23:59:59Z", "since 11 Mar 23:59 UTC"),
        ("2023-12-31T23:59:59Z", "since 31 Dec 2023 23:59 UTC"),
    ],
)
def test_the_date_is_said_where_it_is_another(began: str, says: str) -> None:
    assert says in sentence(replace(ANOMALY, began=parse_time(began)))


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "less than a minute"), (60, "1 minute"), (119 * 60, "119 minutes"), (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"), (2 * DAY, "2 days"), (59 * DAY, "59 days"), (70 * DAY, "10 weeks"),
        (300 * DAY, "10 months"), (731 * DAY, "2 years"), (NAN, "less than a minute"), (-5, "less than a minute"),
    ],
)  # fmt: skip
def test_spans_are_in_one_unit(seconds: float, says: str) -> None:
    assert span(seconds) == says


def test_what_it_was_stuck_at_is_still_known_when_it_moves() -> None:
    facts = replace(OF_COOLANT, kind=Kind.STUCK, ended=Ended.QUIET, value=70.0)
    assert sentence(facts) == "db-3: coolant moves again after 3 hours stuck at 70 °C"


def test_long_names_are_cut_until_the_sentence_fits() -> None:
    long = replace(ANOMALY, stream="s" * 1000, channels=(channel("c" * 1000), channel("d" * 1000, share=0.5)))
    said = sentence(long)
    assert len(said) <= LONGEST
    assert said.startswith("s" * 13 + "...: " + "c" * 13 + "... at 88.2 °C, expected 61.5, since")
    fits = replace(ANOMALY, stream="rack-7/blade-12/db-3.internal.example")
    assert sentence(fits).startswith("rack-7/blade-12/db-3.internal.example: disk wait")


def test_names_stay_on_one_line() -> None:
    assert sentence(replace(ANOMALY, stream=" a\nb\x07\u202e", channels=())).startswith("a b??: ")
    assert sentence(replace(ANOMALY, stream="", channels=())).startswith("(no name): ")


odd = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e-320, 1e308, 3.4e38]))
maybe = st.none() | odd
name = st.one_of(st.text(min_size=0, max_size=12), st.sampled_from(["x", "n" * 1000, "\n", "温度"]))
channels = st.lists(
    st.builds(
        ChannelShare, name=name, share=odd, observed=maybe, expected=maybe, unit=st.none() | name,
        observed_window=st.none(), expected_window=st.none(),
    ),
    max_size=4,
).map(tuple)  # fmt: skip
moments = st.integers(-(2**63), 2**63 - 1)


@given(
    st.builds(
        Facts, stream=name, kind=st.sampled_from(Kind), channels=channels, began=moments, now=moments,
        return_period_s=maybe, ended=st.none() | st.sampled_from(Ended), spreads=st.lists(odd, max_size=4).map(tuple),
        moved_from=maybe, moved_to=maybe, value=maybe, limit=maybe, set_back_s=maybe, drifted=maybe,
        spot=st.none() | st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    )
)  # fmt: skip
@example(ANOMALY)
def test_it_never_fails_and_says_one_short_line(facts: Facts) -> None:
    said = sentence(facts)
    assert 0 < len(said) <= LONGEST + 60
    assert said.isprintable()
    assert "nan" not in _without_names(said, facts)
    assert "inf" not in _without_names(said, facts)
    assert said == sentence(facts)


def _without_names(said: str, facts: Facts) -> str:
    for found in (facts.stream, *(c.name for c in facts.channels), *(c.unit or "" for c in facts.channels)):
        if "nan" in found or "inf" in found or found in "naninf":
            return ""
    return said


@given(st.sampled_from(Kind), st.none() | st.sampled_from(Ended))
def test_of_plain_names_it_is_plain_and_short(kind: Kind, ended: Ended | None) -> None:
    facts = replace(ANOMALY, kind=kind, ended=ended, limit=10.0, set_back_s=7200.0, drifted=4.2)
    said = sentence(facts)
    assert len(said) <= LONGEST
    assert all(c.isascii() or c in "×°" for c in unicodedata.normalize("NFC", said))
    assert not said.endswith((".", ",", ";"))


@given(st.floats(-1e300, 1e300), st.integers(3, 7))
def test_a_number_reads_back(value: float, digits: int) -> None:
    assert float(number(value, digits).replace(",", "")) == pytest.approx(value, rel=10.0 ** (1 - digits), abs=1e-300)


def test_times_are_those_of_the_readings() -> None:
    assert NOW - BEGAN == 10_830 * SECOND_NS
