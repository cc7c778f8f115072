"""Alerts: what is published about an event of an incident, from the numbers of the reading that caused it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.engine.incidents import TOP_CHANNELS, Change
from detector.engine.sentence import Facts, sentence
from schemas.alert import Alert, AlertData, ChannelShare, EventType, ImagePeak, Kind, Severity, incident_id
from schemas.machine import MachineState
from schemas.manifest import Manifest
from schemas.moment import format_time
from schemas.promise import DAY_S

Floats = NDArray[np.float32]

#: An incident is major, critical where its worst score is so many times rarer than the false alarms that were promised.
MAJOR, CRITICAL = 10.0, 100.0

#: What counts for an infinite error: a sum of them is still a number.
LARGEST = float(np.finfo(np.float32).max)

#: Severity of the kinds that need no model.
FIXED = {
    Kind.DRIFT: Severity.MINOR,
    Kind.STUCK: Severity.MINOR,
    Kind.MISSING: Severity.MINOR,
    Kind.RANGE: Severity.MAJOR,
    Kind.CLOCK: Severity.MAJOR,
    Kind.SILENT: Severity.MAJOR,
}


@dataclass(frozen=True, slots=True)
class Published:
    """An alert, the partition and stream it belongs to, and the reading (index in the batch) that caused it, or -1."""

    partition: int
    stream: str
    index: int
    alert: Alert
    record: bytes | None = None
    """All open incidents of the stream after the batch, as ``Engine.set_incidents`` takes them; None: none is open."""

    @property
    def resolved(self) -> bool:
        """The incident is over."""
        return self.alert.type is EventType.RESOLVED


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a reading shows of an incident; None where it shows nothing of the kind."""

    score: float | None = None
    p_value: float | None = None
    return_period_s: float | None = None
    """Of the incident's worst score."""
    channels: tuple[ChannelShare, ...] = ()
    spreads: tuple[float, ...] = ()
    """Of the channels named, engineering units."""
    image: ImagePeak | None = None
    facts: dict[str, Any] | None = None
    """What else the sentence says, by the kind of incident."""


def describe(
    manifest: Manifest, change: Change, evidence: Evidence, *, partition: int, stream: str, index: int, time: int,
    machine: MachineState | None = None,
) -> Published:  # fmt: skip
    """The alert about a change of an incident; ``time``: event time, ns; ``machine``: what it is doing."""
    incident = incident_id(manifest.group, stream, change.opening_kind, change.opened)
    period = evidence.return_period_s
    facts = Facts(
        stream,
        change.kind,
        evidence.channels,
        began=change.began,
        now=time,
        return_period_s=period,
        ended=change.ended,
        spreads=evidence.spreads,
        spot=None if evidence.image is None else (evidence.image.x, evidence.image.y),
        **(evidence.facts or {}),
    )
    alert = Alert(
        type=change.type,
        source=f"/residual/{manifest.group}",
        subject=stream,
        time=format_time(time),
        id=f"{incident}-{change.number}",
        data=AlertData(
            incident=incident,
            kind=change.kind,
            summary=sentence(facts),
            severity=severity(change.kind, period, manifest.calibration.rate),
            opened=format_time(change.opened),
            began=format_time(change.began),
            ended=change.ended,
            score=_short(evidence.score),
            p_value=_short(evidence.p_value),
            return_period_s=_short(period),
            reopened=change.reopened,
            channels=evidence.channels,
            machine_state=machine,
            model=manifest.graph_sha256,
            image=evidence.image,
        ),
    )
    return Published(partition, stream, index, alert)


def severity(kind: Kind, return_period_s: float | None, promised: float) -> Severity:
    """How urgent; ``promised``: false-alarm episodes per stream and day."""
    if kind in FIXED:
        return FIXED[kind]
    times = 0.0 if return_period_s is None else return_period_s * promised / DAY_S
    return Severity.CRITICAL if times >= CRITICAL else Severity.MAJOR if times >= MAJOR else Severity.MINOR


def largest(error: Floats) -> list[int]:
    """The channels with the largest part of the error ``[C]``, largest first, at most TOP_CHANNELS."""
    return [int(c) for c in np.argsort(-np.nan_to_num(error), kind="stable")[:TOP_CHANNELS] if error[c] > 0]


def channel_shares(
    manifest: Manifest,
    chosen: list[int],
    weight: Floats,
    observed: Floats,
    expected: Floats,
    windows: tuple[Floats, Floats] | None = None,
) -> tuple[ChannelShare, ...]:
    """What an alert says of the ``chosen`` channels.

    ``weight`` ``[C]``: what shares are parts of; ``observed``, ``expected`` ``[C]``; ``windows``: both ``[W, C]``.
    """
    parts = np.nan_to_num(weight.astype(np.float64), posinf=LARGEST)
    total = float(parts.sum())
    shares = parts / total if total > 0 else np.zeros(len(parts))
    return tuple(
        ChannelShare(
            name=manifest.channels[c].name,
            unit=manifest.channels[c].unit,
            share=short(shares[c]),
            observed=_short(observed[c]),
            expected=_short(expected[c]),
            observed_window=None if windows is None else tuple(_short(v) for v in windows[0][:, c]),
            expected_window=None if windows is None else tuple(_short(v) for v in windows[1][:, c]),
        )
        for c in chosen
    )


def short(value: float | np.floating) -> float:
    """The shortest decimal that is this value as a 32-bit float: no digits that the data does not have."""
    return float(str(np.float32(value)))


def _short(value: float | np.floating | None) -> float | None:
    return None if value is None or not np.isfinite(np.float32(value)) else short(value)
