"""Alerts: what is published about an incident, from the numbers of the reading that caused it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.alert import Alert, AlertData, ChannelShare, EventType, ImagePeak, Kind, incident_id
from schemas.manifest import Manifest
from schemas.moment import format_time

#: Channels named in an alert: more than three nobody reads at night.
TOP_CHANNELS = 3

#: The one kind of incident so far: the score stayed above the threshold.
ANOMALY = Kind.ANOMALY


@dataclass(frozen=True, slots=True)
class Published:
    """An alert, the partition and stream it belongs to, and the reading (index in the batch) that caused it."""

    partition: int
    stream: str
    index: int
    alert: Alert
    opened: int
    """Event time of the opening, nanoseconds since 1970."""
    events: int
    """Events of the incident published with this one."""

    @property
    def resolved(self) -> bool:
        """The incident is over."""
        return self.alert.type is EventType.RESOLVED


def describe(
    manifest: Manifest,
    *,
    partition: int,
    stream: str,
    index: int,
    opened: int,
    number: int,
    resolved: bool,
    time: int,
    score: float,
    p_value: float,
    error: NDArray[np.float32],
    observed: NDArray[np.float32],
    expected: NDArray[np.float32],
    image: ImagePeak | None = None,
) -> Published:
    """The alert of an incident's ``number``-th event (from 0). ``error``, ``observed``, ``expected``: ``[C]``."""
    incident = incident_id(manifest.group, stream, ANOMALY, opened)
    alert = Alert(
        type=EventType.RESOLVED if resolved else EventType.OPENED,
        source=f"/residual/{manifest.group}",
        subject=stream,
        time=format_time(time),
        id=f"{incident}-{number}",
        data=AlertData(
            incident=incident,
            kind=ANOMALY,
            opened=format_time(opened),
            score=short(score),
            p_value=short(p_value),
            channels=_largest(manifest.channel_names, error, observed, expected),
            model=manifest.graph_sha256,
            image=image,
        ),
    )
    return Published(partition, stream, index, alert, opened, number + 1)


def _largest(
    names: tuple[str, ...], error: NDArray[np.float32], observed: NDArray[np.float32], expected: NDArray[np.float32]
) -> tuple[ChannelShare, ...]:
    total = float(error.sum(dtype=np.float64))
    shares = error.astype(np.float64) / total if total > 0 else np.zeros(len(error))
    top = [c for c in np.argsort(-shares, kind="stable")[:TOP_CHANNELS] if shares[c] > 0]
    return tuple(
        ChannelShare(
            name=names[c],
            share=short(shares[c]),
            observed=None if np.isnan(observed[c]) else short(observed[c]),
            expected=short(expected[c]),
        )
        for c in top
    )


def short(value: float | np.floating) -> float:
    """The shortest decimal that is this value as a 32-bit float: no digits that the data does not have."""
    return float(str(np.float32(value)))
