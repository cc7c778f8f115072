"""One plain sentence about an incident, for who reads it at night.

>>> from schemas.alert import ChannelShare, Kind
>>> wait = ChannelShare(name="disk wait", share=0.6, observed=45.1, expected=5.0, unit="ms")
>>> load = ChannelShare(name="load", share=0.3, observed=9.0, expected=2.0)
>>> sentence(Facts("db-3", Kind.ANOMALY, (wait, load), began=8_040_000_000_000, now=8_100_000_000_000,
...                return_period_s=43 * 86400, spreads=(2.0, 0.5)))
'db-3: disk wait 9× its expected level since 02:14 UTC, with load; an error this large comes once in 43 days'

The rules:

- A value is a multiple of its expected level ("9× its expected level", "30% of its expected level") where that says
  something: both have one sign, the expected one is at least one of the channel's usual spreads away from 0, the ratio
  is at least 1.5 or at most 1/1.5 and not under 1 %, and the unit counts from a true zero (degrees do not). Otherwise
  it is given as it is: "at 88.2 °C, expected 61.5". Without a value the channel is "missing".
- The second and third channel are named where their share is at least a third of the first's.
- Times are HH:MM UTC, with the date where it is not that of now, and the year where that differs.
- A return period is rounded to whole minutes, hours, days (below 60), weeks (below 26), months (below 24) or years;
  above ten years it is "over 10 years"; unknown, it is "no normal data reached it". Kinds that need no model have none.
- A sentence of more than 160 characters has its names cut, and then goes without the further channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard

from schemas.alert import ChannelShare, Ended, Kind
from schemas.moment import EARLIEST_NS, LATEST_NS, SECOND_NS

#: Characters of a sentence, and the lengths that names are cut to, one after the other, until it fits.
LONGEST = 160
NAME_LENGTHS = (400, 60, 32, 16)

#: A ratio between these is nothing to speak of.
NOTABLE = 1.5
#: Ratios beyond these are no longer given as a number.
SMALLEST, LARGEST = 0.01, 1000.0
#: A further channel is named from this part of the first's share on.
WITH_SHARE = 1 / 3

#: Units whose zero is arbitrary: twice as many of them means nothing.
NO_RATIO = frozenset({"°c", "°f", "degc", "degf", "deg c", "deg f", "celsius", "fahrenheit", "db", "dbm", "dba", "ph"})

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
#: (unit, its seconds, used below this many of it): a month is a twelfth of a year of 365.25 days.
UNITS = (
    ("minute", MINUTE, 120), ("hour", HOUR, 48), ("day", DAY, 60), ("week", 7 * DAY, 26), ("month", 30.4375 * DAY, 24),
    ("year", 365.25 * DAY, math.inf),
)  # fmt: skip
TEN_YEARS = 3652.5 * DAY

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

AS_NORMAL = "taken as normal from now on unless someone says it is still wrong"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a sentence is made of. What is None is not said, or taken from the first channel where that holds it."""

    stream: str
    kind: Kind
    channels: tuple[ChannelShare, ...]
    """Largest share first; of kinds about one channel, that one."""
    began: int
    """Event time of the first reading that was off, nanoseconds since 1970; of a silent stream, of its last reading."""
    now: int
    """Event time of the reading that causes the event."""
    return_period_s: float | None = None
    ended: Ended | None = None
    spreads: tuple[float, ...] = ()
    """The channels' usual spreads, in their order and units; where absent no ratio is given."""
    moved_from: float | None = None
    """Shift: the level before; the first channel's expected value where None."""
    moved_to: float | None = None
    """Shift: the level now; the first channel's observed value where None."""
    scatters: float | None = None
    """Shift: times its usual spread that the first channel scatters, where its level did not move; 0: nor does that
    say what changed.
    """
    value: float | None = None
    """Stuck: what it repeats; the first channel's observed value where None."""
    limit: float | None = None
    """Range: the bound that was passed."""
    set_back_s: float | None = None
    """Clock: by how much."""
    drifted: float | None = None
    """Drift: how far the level has crept, in spreads of the channel."""
    spot: tuple[int, int] | None = None
    """Images: column and row of the worst pixel."""


def sentence(facts: Facts) -> str:
    """The sentence, without a full stop. It never fails, whatever the numbers and names are."""
    text = ""
    for further in (2, 0):
        for length in NAME_LENGTHS:
            text = _Words(facts, length, further).sentence()
            if len(text) <= LONGEST:
                return text
    return text


class _Words:
    """A sentence whose names have at most ``length`` characters and that names ``further`` more channels at most."""

    def __init__(self, facts: Facts, length: int, further: int) -> None:
        self._facts, self._length, self._further = facts, length, further
        self._first = facts.channels[0] if facts.channels else None
        self._lasted = span((facts.now - facts.began) / SECOND_NS)

    def sentence(self) -> str:
        facts = self._facts
        over: dict[Ended, Callable[[], str]] = {
            Ended.QUIET: self._quiet,
            Ended.REBASELINED: self._rebaselined,
            Ended.ACCEPTED: lambda: f"{self._what()} accepted as normal by an operator, after {self._lasted}",
            Ended.EXPIRED: lambda: (
                f"{self._what()} not back to normal after {self._lasted}, as long as an incident may stay open: closed"
            ),
            Ended.SWITCHED_OFF: lambda: f"the machine was switched off; what was open for {self._lasted} is closed",
            Ended.FORGOTTEN: lambda: f"no longer followed here; what was open for {self._lasted} is closed",
        }
        said = over[facts.ended]() if facts.ended is not None else self._open()
        return f"{tidy(facts.stream, self._length)}: {said}"

    def _open(self) -> str:
        kinds: dict[Kind, Callable[[], str]] = {
            Kind.ANOMALY: self._anomaly, Kind.SHIFT: self._shift, Kind.DRIFT: self._drift, Kind.STUCK: self._stuck,
            Kind.MISSING: lambda: f"{self._name()} missing {self._since()}", Kind.RANGE: self._range,
            Kind.CLOCK: self._clock,
            Kind.SILENT: lambda: f"nothing received {self._since()}, while other streams report",
        }  # fmt: skip
        return kinds[self._facts.kind]()

    # -- while it is open ------------------------------------------------------------------------------------------

    def _anomaly(self) -> str:
        return f"{self._off()} {self._since()}{self._with()}; {self._rarity('an error this large')}"

    def _off(self) -> str:
        """What is wrong, to be followed by a time."""
        if self._facts.spot is not None:
            column, row = self._facts.spot
            return f"unlike normal images, most at column {column}, row {row},"
        if self._first is None:
            return "unlike normal data"
        spread = self._facts.spreads[0] if self._facts.spreads else None
        return f"{self._name()} {_level(self._first, spread)}"

    def _shift(self) -> str:
        if self._facts.scatters is not None:
            return f"{self._moved()} {self._since()}, and stays so{self._with()}"
        return f"{self._moved()} {self._since()} and stays there{self._with()}"

    def _moved(self) -> str:
        if self._facts.scatters is not None:
            times = self._facts.scatters
            how = f"scatters {number(times)}× as much as usual" if times and _is_number(times) else "unlike before"
            return f"{self._name()} {how}"
        before, after, unit = self._levels()
        if before is None or after is None:
            return f"{self._name()} has moved to another level"
        return f"{self._name()} has moved from {before} to {after}{unit}"

    def _levels(self) -> tuple[str | None, str | None, str]:
        facts, first = self._facts, self._first
        before = facts.moved_from if facts.moved_from is not None or first is None else first.expected
        after = facts.moved_to if facts.moved_to is not None or first is None else first.observed
        if not _is_number(before) or not _is_number(after):
            return None, None, ""
        texts = _apart(before, after)
        return (None, None, "") if texts[0] == texts[1] else (*texts, self._unit())

    def _drift(self) -> str:
        far = self._facts.drifted
        how = f" by {number(abs(far))} times its usual spread" if _is_number(far) else ""
        return f"{self._name()} has drifted away from its usual level{how} {self._since()}"

    def _stuck(self) -> str:
        value = self._facts.value
        if value is None and self._first is not None:
            value = self._first.observed
        return f"{self._name()} stuck{self._held(value)} for {self._lasted}, {self._since()}"

    def _held(self, value: float | None) -> str:
        return f" at {number(value)}{self._unit()}" if _is_number(value) else ""

    def _range(self) -> str:
        limit, observed = self._facts.limit, self._first.observed if self._first else None
        if not _is_number(observed) or not _is_number(limit):
            return f"{self._name()} outside of what is possible {self._since()}"
        texts = _apart(observed, limit)
        side = "below" if observed < limit else "above"
        return f"{self._name()} at {texts[0]}{self._unit()}, {side} its limit of {texts[1]}, {self._since()}"

    def _clock(self) -> str:
        back = self._facts.set_back_s
        by = f" by {span(back)}" if _is_number(back) else ""
        at = moment(self._facts.began, self._facts.now)
        return f"its clock was set back{by} at {at}; its readings are dropped until it has caught up"

    # -- once it is over -------------------------------------------------------------------------------------------

    def _quiet(self) -> str:
        kind = self._facts.kind
        if kind is Kind.STUCK:
            held = self._held(self._facts.value)  # what is observed now is no longer that
            return f"{self._name()} moves again after {self._lasted}{' stuck' if held else ''}{held}"
        if kind is Kind.MISSING:
            return f"{self._name()} reports again after {self._lasted}"
        if kind is Kind.RANGE:
            return f"{self._name()} back in range after {self._lasted}"
        if kind is Kind.CLOCK:
            return f"its clock has caught up after {self._lasted}"
        if kind is Kind.DRIFT:  # it is told once, however long it lasts
            return f"{self._name()} has drifted: not told again until it is back, or accepted"
        if kind is Kind.SILENT:
            return f"reports again after {self._lasted} of silence"
        worst = f"; {self._rarity('its worst error')}" if kind is Kind.ANOMALY else ""
        return f"{self._what()} back to normal after {self._lasted}{worst}"

    def _rebaselined(self) -> str:
        stayed = "stayed there" if self._facts.scatters is None else "stayed so"
        return f"{self._moved()} {self._since()} and {stayed}; {AS_NORMAL}"

    # -- parts -----------------------------------------------------------------------------------------------------

    def _what(self) -> str:
        """What the incident was about, before "back to normal"."""
        if self._facts.kind is Kind.CLOCK:
            return "its clock"
        return self._name() if self._first is not None and self._facts.spot is None else "it is"

    def _name(self) -> str:
        return tidy(self._first.name, self._length) if self._first is not None else "a channel"

    def _unit(self) -> str:
        return _unit_of(self._first)

    def _since(self) -> str:
        return f"since {moment(self._facts.began, self._facts.now)}"

    def _with(self) -> str:
        first = self._first
        if first is None or self._facts.spot is not None or not first.share > 0:
            return ""
        others = [
            tidy(channel.name, self._length)
            for channel in self._facts.channels[1 : 1 + self._further]
            if channel.share >= WITH_SHARE * first.share
        ]
        return f", with {' and '.join(others)}" if others else ""

    def _rarity(self, what: str) -> str:
        period = self._facts.return_period_s
        if period is None or math.isnan(period) or period <= 0:
            return "no normal data reached it"
        return f"{what} comes once in {'over 10 years' if period > TEN_YEARS else span(period)}"


def _level(channel: ChannelShare, spread: float | None) -> str:
    """Where a channel is, beside where it should be: see the module's rules."""
    observed, expected, unit = channel.observed, channel.expected, _unit_of(channel)
    if not _is_number(observed):
        return "missing"
    if not _is_number(expected):
        return f"at {number(observed)}{unit}"
    ratio = _ratio(observed, expected, spread) if (channel.unit or "").strip().lower() not in NO_RATIO else None
    if ratio is not None and ratio > LARGEST:
        return f"over {LARGEST:,.0f}× its expected level"
    if ratio is not None and ratio >= NOTABLE:
        return f"{ratio:.2g}× its expected level" if ratio < 9.95 else f"{ratio:,.0f}× its expected level"
    if ratio is not None and SMALLEST <= ratio <= 1 / NOTABLE:
        return f"{100 * ratio:.0f}% of its expected level"
    texts = _apart(observed, expected)
    if texts[0] == texts[1]:  # the newest reading is as expected: what was off lies in those before it
        return "off"
    return f"at {texts[0]}{unit}, expected {texts[1]},"


def _ratio(observed: float, expected: float, spread: float | None) -> float | None:
    """How many times the expected value was observed; None where that says nothing."""
    near_zero = spread is None or not abs(expected) >= abs(spread)
    if near_zero or expected == 0 or observed == 0 or (observed > 0) != (expected > 0):
        return None
    return abs(observed) / abs(expected)


def _unit_of(channel: ChannelShare | None) -> str:
    return f" {tidy(channel.unit, 16)}" if channel is not None and channel.unit and channel.unit.strip() else ""


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers with as many digits as show that they differ: three where that is enough, seven at most."""
    for digits in range(3, 8):
        texts = number(one, digits), number(other, digits)
        if texts[0] != texts[1]:
            return texts
    return texts


def number(value: float, digits: int = 3) -> str:
    """A number with at most so many digits, whole where it is large.

    >>> number(88.24), number(1234567.0), number(0.00001234), number(12345.6)
    ('88.2', '1.23e6', '1.23e-5', '12,346')
    """
    size = abs(value)
    if size != 0 and (size >= 1e6 or size < 1e-3):
        mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
        if not exponent:  # digits enough to write it out
            return mantissa
        return f"{mantissa}e{int(exponent)}"
    whole = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    text = f"{value:,.{whole}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def span(seconds: float) -> str:
    """A length of time in words, in one unit.

    >>> span(43 * 86400), span(90), span(100 * 86400), span(3 * 365.25 * 86400), span(5)
    ('43 days', '2 minutes', '14 weeks', '3 years', 'less than a minute')
    """
    if not seconds >= MINUTE / 2:  # NaN too
        return "less than a minute"
    for unit, size, below in UNITS:
        count = round(min(seconds / size, 1e6))
        if count < below:
            return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
    raise AssertionError("years have no end")


def moment(ns: int, now: int) -> str:
    """HH:MM UTC of a time, with the date where it is not that of ``now``.

    >>> moment(8_040_000_000_000, 8_100_000_000_000), moment(8_040_000_000_000, 108_100_000_000_000)
    ('02:14 UTC', '1 Jan 02:14 UTC')
    """
    then, today = (datetime.fromtimestamp(min(max(t, EARLIEST_NS), LATEST_NS) // SECOND_NS, UTC) for t in (ns, now))
    text = f"{then:%H:%M} UTC"
    if then.date() == today.date():
        return text
    year = "" if then.year == today.year else f" {then.year}"
    return f"{then.day} {MONTHS[then.month - 1]}{year} {text}"


def tidy(name: str, length: int) -> str:
    """A name on one line, of at most ``length`` characters; what cannot be printed is a question mark."""
    name = "".join(c if c.isprintable() else "?" for c in " ".join(name.split()))
    if not name:
        return "(no name)"
    return name if len(name) <= length else f"{name[: length - 3]}..."
