"""Alert events as a detector publishes them, for what reads them."""

from __future__ import annotations

from schemas.alert import Alert, AlertData, ChannelShare, EventType, Kind, Severity, incident_id
from schemas.moment import SECOND_NS, format_time


def alert(
    stream: str,
    opened_s: float,
    number: int = 0,
    kind: EventType = EventType.OPENED,
    severity: Severity = Severity.MINOR,
    group: str = "default",
    after_s: float = 0.0,
) -> bytes:
    """An event of the incident of a stream that opened then; its ``number``-th."""
    opened = format_time(round(opened_s * SECOND_NS))
    incident = incident_id(group, stream, "anomaly", round(opened_s * SECOND_NS))
    channel = ChannelShare(name="cpu.user", share=0.7, observed=97.5, expected=12.0, unit="%")
    data = AlertData(
        incident=incident, kind=Kind.ANOMALY, summary=f"{stream}: cpu.user 8× its expected level", severity=severity,
        opened=opened, began=opened, score=3.2, p_value=0.001, return_period_s=1e6, channels=(channel,), model="a" * 64,
    )  # fmt: skip
    return Alert(
        type=kind, source=f"/residual/{group}", subject=stream, id=f"{incident}-{number}", data=data,
        time=format_time(round((opened_s + after_s) * SECOND_NS)),
    ).to_bytes()  # fmt: skip
