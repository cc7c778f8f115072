"""Incidents of the past that were promised: as many false alarms as the model may raise, of the kind that it may raise.

An honest promise is kept by being wrong now and then. Were the readings of every incident left out, the highest normal
scores would be missing night after night: thresholds fitted on what is left are lower, raise more alarms, and leave out
more. So of the incidents that nobody has judged, that are minor (no rarer than false alarms are) and were over by
themselves, as many of each stream as its promise makes likely are taken for what was promised, and learned: the
shortest ones. Where there were more, the rest is left out. Were all of them left out then, a stream that changes slowly
would have more and more of them, as nothing new of it would be learned.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import poisson

from detector.engine.model import Model
from detector.incident_log import PastIncident
from schemas.alert import Ended, Kind, Severity
from schemas.moment import SECOND_NS
from schemas.promise import DAY_S, Promise

#: A count that is rarer than this under the promise is no chance.
CHANCE = 0.05

DAY_NS = round(DAY_S) * SECOND_NS


def promised_rate(model: Model) -> float:
    """False-alarm episodes per stream and day that a model promises."""
    return Promise.parse(model.manifest.calibration.false_alarms).per_day(max(len(model.streams.names), 1))


def promised(incidents: Sequence[PastIncident], rate: float, start: int, end: int) -> list[PastIncident]:
    """Those from ``start`` to ``end`` (nanoseconds) that were promised; ``rate``: false alarms per stream and day."""
    by_stream: dict[str, list[PastIncident]] = {}
    for one in incidents:
        if start <= one.began <= end and one.kind in (Kind.ANOMALY, Kind.SHIFT):
            by_stream.setdefault(one.stream, []).append(one)
    likely = poisson.ppf(1 - CHANCE, rate * (end - start) / DAY_NS)
    found: set[PastIncident] = set()
    for own in by_stream.values():
        ordinary = [one for one in own if _is_ordinary(one)]
        room = max(int(likely) - (len(own) - len(ordinary)), 0)
        found.update(sorted(ordinary, key=_length)[:room])
    return [one for one in incidents if one in found]


def _length(one: PastIncident) -> int:
    assert one.ended is not None
    return one.ended - one.began


def _is_ordinary(one: PastIncident) -> bool:
    return (
        one.verdict is None and one.kind is Kind.ANOMALY and one.severity is Severity.MINOR and one.why is Ended.QUIET
    )
