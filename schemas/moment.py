"""Event time: nanoseconds since 1970-01-01T00:00:00Z as a 64-bit integer, read from and written as RFC 3339."""

from __future__ import annotations

import contextlib
import math
import re
from datetime import UTC, datetime

#: The range in which nanoseconds fit 64 bits; a time outside it is bad input.
EARLIEST_NS = 0
LATEST_NS = 9_223_372_036_854_775_807
SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION = re.compile(r"[^+-]*?\d[.,](\d{7,})", re.ASCII)  # of more than microseconds, and not the offset's
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)", re.ASCII)
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_time(value: str | int | float) -> int:
    """Nanoseconds since 1970 of an RFC 3339 / ISO 8601 text (without a zone: UTC) or of a number of milliseconds.

    Digits beyond the ninth of a fraction are cut off; 1500.0 is the same moment as 1500. Raises ValueError where the
    text is no time or lies outside 1970–2262 (the range of 64-bit nanoseconds).

    >>> parse_time("1970-01-01T00:00:01.5Z"), parse_time(1500)
    (1500000000, 1500000000)
    """
    if isinstance(value, bool):
        raise ValueError(f"not a time: {value!r}")  # noqa: TRY004 — callers expect one type
    if isinstance(value, str):
        ns = _parse_text(value)
    elif isinstance(value, int):
        ns = value * MILLISECOND_NS
    else:
        try:
            whole = math.floor(value)
            ns = whole * MILLISECOND_NS + round((value - whole) * MILLISECOND_NS)  # the product would round to 256 ns
        except (OverflowError, ValueError):  # infinity, nan
            raise ValueError(f"not a time: {value!r}") from None
    if not EARLIEST_NS <= ns <= LATEST_NS:
        raise ValueError(f"outside 1970–2262: {value!r}")
    return ns


def _parse_text(text: str) -> int:
    if len(text) < 10 or len(text) > 64 or not text.isprintable():  # fromisoformat passes over what follows a NUL
        raise ValueError(f"not a time: {text[:64]!r}")
    moment = datetime.fromisoformat(f"{text[:-1]}Z" if text[-1] == "z" else text)  # cuts the fraction to microseconds
    offset = moment.utcoffset()
    if offset is not None and offset.microseconds:
        raise ValueError(f"not a time: {text!r}")
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    seconds = since.days * 86400 + since.seconds
    fraction = since.microseconds * 1000
    if len(text) > 22 and (found := _FRACTION.match(text, 11)):  # 20240101T000000.1234567 has 23
        fraction = int(found[1][:9].ljust(9, "0"))
    return seconds * SECOND_NS + fraction


def format_time(ns: int) -> str:
    """RFC 3339 in UTC with as many digits of the fraction as needed.

    >>> format_time(1500000000)
    '1970-01-01T00:00:01.5Z'
    """
    seconds, fraction = divmod(int(ns), SECOND_NS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"


def parse_duration(text: str | int | float) -> float:
    """Seconds of a text such as ``500ms``, ``60s``, ``5min``, ``1h``, ``14d``; a bare number is seconds.

    Raises ValueError where it is none of these.
    """
    seconds = math.nan
    if isinstance(text, str) and (found := _DURATION.fullmatch(text.strip().lower())):
        seconds = float(found[1]) * _UNIT_SECONDS[found[2]]
    elif isinstance(text, str | int | float) and not isinstance(text, bool):
        with contextlib.suppress(ValueError, OverflowError):
            seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(f"not a duration: {text!r} (write 500ms, 60s, 5min, 1h or 14d)")
    return seconds
