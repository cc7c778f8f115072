"""The past of a group of streams, as the topics tell it: readings, incidents and verdicts, silences, planned stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from detector.adapters.calendars import Calendar, read_calendars
from detector.adapters.files import Table
from detector.adapters.kafka_security import client_settings
from detector.engine.model import Model
from detector.history import read_topic, read_values
from detector.incident_log import PastIncident, past_incidents
from detector.spans import Spans
from schemas.alert import Alert
from schemas.errors import TopicError
from schemas.feedback import Feedback
from schemas.moment import MILLISECOND_NS, SECOND_NS
from schemas.promise import DAY_S
from schemas.reading import FieldNames
from schemas.silence import Silence
from trainer.data import rows_by_stream
from trainer.machine import off_spans
from trainer.normal import Drop, Reasons, of_incidents
from trainer.retrain.comeback import Level, came_back
from trainer.retrain.settings import RetrainSettings

#: Days before the readings from which on alerts are read: an incident may be open for long.
ALERTS_BEFORE = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Past:
    """What is known of a stretch of time."""

    readings: Table
    alerts: Sequence[Alert]
    incidents: Sequence[PastIncident]
    silences: Sequence[Silence]
    calendars: Sequence[Calendar]
    off: Mapping[str, Spans] = field(default_factory=dict)
    """By stream, when its machine was off."""
    levels: Mapping[str, Level] = field(default_factory=dict)
    """By stream, where the version that serves has learned it to be."""

    def gated(self, off_when: str, settle_s: float) -> Past:
        """The same, and when machines were off by their readings. Raises SettingsError."""
        return replace(self, off=off_spans(self.readings, off_when, settle_s))

    def known_to(self, model: Model) -> Past:
        """The same, and where streams are, as the version that serves has learned."""
        known = model.streams
        return replace(self, levels={
            name: Level(loc, scale) for name, loc, scale in zip(known.names, known.loc, known.scale, strict=True)
        })  # fmt: skip

    @property
    def start(self) -> int:
        """Of the readings, ns."""
        return int(self.readings.times.min())

    @property
    def end(self) -> int:
        """Of the readings, ns."""
        return int(self.readings.times.max())

    @property
    def moved(self) -> Mapping[str, Sequence[int]]:
        """By stream, when it had gone over to another normal, ns, in the order of time."""
        found: dict[str, list[int]] = {}
        for incident in self.incidents:
            if incident.moved and incident.ended is not None:
                found.setdefault(incident.stream, []).append(incident.ended)
        return {stream: sorted(ends) for stream, ends in found.items()}

    def reasons(self, margin_s: float) -> Callable[[str], Reasons]:
        """Where each stream's readings must not be learned, and why. ``margin_s``: around incidents."""
        rows = rows_by_stream(self.readings)

        def back(stream: str, began: int, ended: int) -> int | None:
            own = rows.get(stream)
            if own is None:
                return None
            own = own[np.argsort(self.readings.times[own], kind="stable")]
            return came_back(self.readings.times[own], self.readings.values[own], began, ended, self.levels.get(stream))

        of_stream = of_incidents(self.incidents, round(margin_s * SECOND_NS), back)
        start, end = self.start, self.end + 1
        planned = [(calendar, calendar.spans(start, end)) for calendar in self.calendars]

        def reasons(stream: str) -> Reasons:
            silenced = Spans.of(silence.span for silence in self.silences if silence.means(stream))
            stops = Spans.of(span for calendar, spans in planned if calendar.means(stream) for span in spans)
            off = self.off.get(stream, Spans())
            return {**of_stream.get(stream, {}), Drop.SILENCED: silenced, Drop.PLANNED: stops, Drop.OFF: off}

        return reasons


def read_past(
    settings: RetrainSettings, channels: Sequence[str] | None, say: Callable[[str], None] = lambda _: None
) -> Past:
    """Read it from Kafka. ``channels`` None: all that there are.

    Raises the errors of ``read_topic``; a topic of alerts, verdicts or silences that is not there holds none, and that
    is said.
    """
    client = client_settings(settings)
    fields = FieldNames(stream=settings.stream_field, timestamp=settings.timestamp_field, values=settings.values_field)
    readings = read_topic(
        settings.bootstrap_servers, settings.readings_topic, settings.span, channels,
        fields=fields, streams=settings.streams, max_ahead_s=settings.max_ahead,
        timeout_s=settings.startup_timeout, client=client,
    )  # fmt: skip
    say(f"read {len(readings)} readings of {settings.readings_topic}")
    since_ms = max(int(readings.times.min()) // MILLISECOND_NS - round(ALERTS_BEFORE * DAY_S * 1000), 0)

    def values(topic: str, since: int | None) -> Iterator[tuple[bytes | None, bytes | None]]:
        try:
            for _, key, value in read_values(
                settings.bootstrap_servers, topic, since, timeout_s=settings.startup_timeout, client=client
            ):
                yield key, value
        except TopicError:
            say(f"there is no topic {topic}: taken as empty")

    alerts = [Alert.model_validate_json(value) for _, value in values(settings.alerts_topic, since_ms) if value]
    feedback = _newest(values(settings.feedback_topic, None), Feedback.from_bytes, say)
    silences = _newest(values(settings.silences_topic, None), Silence.from_bytes, say)
    incidents = past_incidents(alerts, feedback)
    say(f"{len(incidents)} incidents, {len(feedback)} verdicts, {len(silences)} silences")
    return Past(readings, alerts, incidents, list(silences.values()), read_calendars(settings.calendars))


def _newest(
    values: Iterator[tuple[bytes | None, bytes | None]],
    parse: Callable[[bytes | None], T],
    say: Callable[[str], None],
) -> Mapping[str, T]:
    """Of a compacted topic, by key."""
    found: dict[str, T] = {}
    for key, value in values:
        name = (key or b"").decode(errors="replace")
        if value is None:
            found.pop(name, None)
            continue
        try:
            found[name] = parse(value)
        except ValueError as error:
            say(f"warning: {name[:80]!r} is passed over: {error}")
    return found


def described(parts: Mapping[Any, int]) -> str:
    """Counts in words: "120 incident, 30 silenced"."""
    return ", ".join(f"{count} {getattr(name, 'value', name)}" for name, count in parts.items()) or "none"
