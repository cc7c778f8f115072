"""Calendars: when streams are planned to be off, as iCalendar files (RFC 5545), events that recur among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import recurring_ical_events

from detector.spans import Spans
from schemas.errors import SettingsError
from schemas.moment import EARLIEST_NS, LATEST_NS, SECOND_NS

#: Bytes of a calendar, at most.
MOST_BYTES = 16 << 20

#: Events of a calendar that are followed over one stretch of time: one that recurs by the second is a slip.
MOST_EVENTS = 100_000

#: Seconds that are asked for at a time, so that so many events are not all made before anybody counts them.
AT_ONCE = timedelta(days=31)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar and the streams that it is about."""

    streams: str
    """A name, or a pattern with ``*`` and ``?``."""
    path: str
    events: icalendar.Calendar
    zone: tzinfo
    """Of its days, and of its times without a zone."""

    def means(self, stream: str) -> bool:
        """Whether this stream is among those that it is about."""
        return fnmatchcase(stream, self.streams)

    def spans(self, start: int, end: int) -> Spans:
        """When its events take place, of ``[start, end)`` in nanoseconds since 1970.

        Events that are cancelled do not; one of whole days lasts from midnight to midnight, and a time without a zone
        is meant, in the zone of the calendar (X-WR-TIMEZONE), else in UTC. An event without an end lasts a day where
        its start is a day, else no time at all (RFC 5545, 3.6.1). Raises SettingsError where there are too many.
        """
        found: list[tuple[int, int]] = []
        last = _moment(end)
        query, at = recurring_ical_events.of(self.events), _moment(start)
        while at < last:
            until = min(at + AT_ONCE, last)
            try:
                events = query.between(at, until)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise SettingsError(f"calendar {self.path}: its events cannot be followed: {error}") from error
            found += [
                _span(event, self.zone) for event in events if str(event.get("STATUS", "")).upper() != "CANCELLED"
            ]
            if len(found) > MOST_EVENTS:
                raise SettingsError(
                    f"calendar {self.path}: more than {MOST_EVENTS:,} events from {_moment(start):%Y-%m-%d} to "
                    f"{last:%Y-%m-%d}: let them recur less often"
                )
            at = until
        return Spans.of(found).within(start, end)


def _moment(ns: int) -> datetime:
    return _EPOCH + timedelta(seconds=min(ns, LATEST_NS) // SECOND_NS)


def _span(event: Any, zone: tzinfo) -> tuple[int, int]:
    return _ns(event.start, zone), _ns(event.end, zone)


def _ns(moment: date, zone: tzinfo) -> int:
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    since = zoned.astimezone(UTC) - _EPOCH
    return int(min(max((since.days * 86400 + since.seconds) * SECOND_NS, EARLIEST_NS), LATEST_NS))


def read_calendars(pairs: Sequence[str]) -> list[Calendar]:
    """Calendars from ``STREAMS=FILE`` each, where STREAMS is a name or a pattern; a FILE alone is about all streams.

    Raises SettingsError where a file is missing, too large or no calendar.
    """
    return [_read(*_parted(pair)) for pair in pairs]


def _parted(pair: str) -> tuple[str, str]:
    streams, equals, path = pair.rpartition("=")
    if equals and not streams:
        raise SettingsError(f"calendar {pair}: write STREAMS=FILE, or FILE for all streams")
    return (streams, path) if equals else ("*", pair)


def _read(streams: str, path: str) -> Calendar:
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise SettingsError(f"calendar {path}: more than {MOST_BYTES:,} bytes: it is no calendar of events")
        data = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"calendar {path} cannot be read: {error.strerror}") from error
    try:
        events = icalendar.Calendar.from_ical(data)
        if events.name != "VCALENDAR" or not data.rstrip().upper().endswith(b"END:VCALENDAR"):
            raise ValueError("it does not go from BEGIN:VCALENDAR to END:VCALENDAR")
        for (
            part
        ) in events.walk():  # the library passes over what it cannot read; an event that is left out mutes nothing
            for name, why in part.errors:
                raise ValueError(f"{name or part.name}: {why}")
    except (ValueError, KeyError, IndexError) as error:
        said = " ".join(str(error).split())[:200]
        raise SettingsError(f"calendar {path} is not iCalendar (RFC 5545): {said}") from error
    return Calendar(streams, path, events, _zone(events, path))


def _zone(events: Any, path: str) -> tzinfo:
    named = events.get("X-WR-TIMEZONE")
    try:
        return UTC if named is None else ZoneInfo(str(named))
    except (ValueError, OSError, KeyError) as error:  # (KeyError: there is none of this name)
        raise SettingsError(f"calendar {path}: X-WR-TIMEZONE {named} is no time zone") from error
