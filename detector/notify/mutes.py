"""When nobody wants to be told: silences from their topic, and planned stops from calendars."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from schemas.moment import SECOND_NS
from schemas.silence import Silence

log = logging.getLogger(__name__)


class Mutes:
    """Raises SettingsError where a calendar cannot be read. ``calendars``: ``[STREAMS=]FILE`` each."""

    def __init__(self, calendars: Sequence[str] = ()) -> None:
        self._silences: list[Silence] = []
        self._bad: set[bytes] = set()
        if not calendars:
            self._calendars = []
            return
        from detector.adapters.calendars import read_calendars  # here: they need a library of their own

        self._calendars = read_calendars(calendars)

    def tell(self, values: Sequence[bytes]) -> None:
        """All silences as they are now."""
        self._silences = []
        for value in values:
            try:
                self._silences.append(Silence.from_bytes(value))
            except ValueError as error:
                if value not in self._bad:
                    self._bad.add(value)
                    log.warning("a silence that is none: %s", error)

    def hold(self, stream: str, ns: int) -> bool:
        """Whether a stream is muted at a moment."""
        for silence in self._silences:
            start, end = silence.span
            if start <= ns < end and silence.means(stream):
                return True
        return any(
            calendar.means(stream) and len(calendar.spans(ns, ns + SECOND_NS)) > 0 for calendar in self._calendars
        )
