"""Places that notices are told at: Prometheus Alertmanager, a webhook, lines on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import orjson

from detector.adapters.http_post import NotNowError, RefusedError, post
from schemas.alert import Severity
from schemas.errors import SettingsError
from schemas.moment import SECOND_NS, format_time
from schemas.notice import About, Happened, Notice
from schemas.printable import printable

#: Seconds after which what is open is told to Alertmanager again: it keeps alerts in memory only.
AGAIN_S = 60.0

#: Seconds for which Alertmanager takes an incident for open without being told again. Long, since when nobody tells it
#: any more the incident is not over for that.
HOLD_S = 86_400.0

#: Seconds that a digest is shown.
DIGEST_S = 3600.0


class Sink(Protocol):
    """One place."""

    name: str
    batch: int
    """Notices of one request, at most."""

    def deliver(self, notices: Sequence[Notice]) -> None:
        """Raises RefusedError or NotNowError: then it has none of them."""
        ...


class Alertmanager:
    """Alertmanager by its API v2. The labels of an incident stay the same, so telling it twice is telling it once.

    Labels: ``alertname`` (ResidualIncident, ResidualFleet, ResidualDigest), ``incident``, ``stream``, ``model_group``,
    ``severity``. An incident that becomes more severe is another alert there: the one before ends.
    """

    name, batch = "alertmanager", 100

    def __init__(self, url: str, now: Callable[[], float] = time.time) -> None:
        self._url, self._now = f"{url.rstrip('/')}/api/v2/alerts", now

    def deliver(self, notices: Sequence[Notice]) -> None:
        """See ``Sink``."""
        alerts = [alert for notice in notices for alert in self._alerts(notice)]
        post(self._url, orjson.dumps(alerts), {"Content-Type": "application/json"})

    def _alerts(self, notice: Notice) -> list[dict[str, Any]]:
        now = self._now()
        over = format_time(int(now) * SECOND_NS)
        hold_s = DIGEST_S if notice.about is About.DIGEST else HOLD_S
        ends = over if notice.event is Happened.RESOLVED else format_time(round(now + hold_s) * SECOND_NS)
        found = [self._alert(notice, notice.severity, ends, over)]
        if notice.event is not Happened.OPENED:
            found += [self._alert(notice, other, over, over) for other in Severity if other != notice.severity]
        return found

    @staticmethod
    def _alert(notice: Notice, severity: Severity, ends: str, now: str) -> dict[str, Any]:
        labels = {
            "alertname": f"Residual{notice.about.value.capitalize()}", "incident": notice.subject,
            "severity": severity.value, "model_group": notice.model_group, "stream": notice.stream or "",
        }  # fmt: skip
        notes = {
            "summary": notice.summary, "description": description(notice), "kind": notice.kind,
            "opened": notice.opened, "score": "" if notice.score is None else f"{notice.score:.3g}",
        }  # fmt: skip
        # it refuses what ends before it starts; a stream's clock may be ahead
        starts = min(notice.opened, ends, now) if notice.opened[-1] == "Z" else now
        alert = {
            "labels": {name: text for name, text in labels.items() if text},
            "annotations": {name: text for name, text in notes.items() if text},
            "startsAt": starts, "endsAt": ends,
        }  # fmt: skip
        return alert | ({"generatorURL": notice.url} if notice.url else {})


def description(notice: Notice) -> str:
    """A line for each channel, or member."""
    lines = []
    for one in notice.channels:
        unit = f" {one.unit}" if one.unit else ""
        seen = "missing" if one.observed is None else f"{one.observed:.4g}{unit}"
        wanted = "" if one.expected is None else f", expected {one.expected:.4g}{unit}"
        lines.append(f"{one.name}: {seen}{wanted} ({one.share:.0%} of the error)")
    return "\n".join([*lines, *notice.members])


class Webhook:
    """Any address: a notice is a POST of its JSON, or of what a Jinja template makes of it.

    ``Idempotency-Key`` is the notice's id: after a crash it may be told once more. Raises SettingsError where the
    template is none.
    """

    name, batch = "webhook", 1

    def __init__(
        self, url: str, template: str | None = None, kind: str = "application/json", bearer: str | None = None
    ) -> None:
        self._url, self._kind, self._bearer = url, kind, bearer
        self._render = _template(template) if template else None

    def deliver(self, notices: Sequence[Notice]) -> None:
        """See ``Sink``."""
        for notice in notices:
            headers = {"Content-Type": self._kind, "Idempotency-Key": notice.id}
            if self._bearer:
                headers["Authorization"] = f"Bearer {self._bearer}"
            post(self._url, self._body(notice), headers)

    def _body(self, notice: Notice) -> bytes:
        if self._render is None:
            return notice.to_bytes()
        try:
            return self._render(notice).encode()
        except Exception as error:  # what a template does with a notice is its author's: one bad notice stops no other
            raise RefusedError(f"the template cannot be filled in: {error}") from error


def _template(path: str) -> Callable[[Notice], str]:
    try:
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import SandboxedEnvironment
    except ImportError:
        raise SettingsError("webhook_template needs Jinja: pip install 'residual[notify]'") from None
    try:
        text = Path(path).read_text(encoding="utf-8")
        template = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False).from_string(text)
        render: Callable[[Notice], str] = lambda notice: template.render(  # noqa: E731
            **notice.model_dump(mode="json"), description=description(notice)
        )
        render(EXAMPLE)  # a slip is found now, and not at night
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"webhook_template {path} cannot be read: {error}") from error
    except TemplateError as error:
        raise SettingsError(f"webhook_template {path}: {error}") from error
    return render


#: By which a template is tried.
EXAMPLE = Notice(
    id="0123456789abcdef-0-opened", about=About.INCIDENT, event=Happened.OPENED, subject="0123456789abcdef",
    stream="pump-7", model_group="default", kind="anomaly", severity=Severity.MINOR,
    summary="pump-7: bearing_temp 9× its expected level", opened="2026-03-04T02:20:00Z", score=2.1,
)  # fmt: skip


class Lines:
    """A line per notice."""

    name, batch = "lines", 100

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out

    def deliver(self, notices: Sequence[Notice]) -> None:
        """See ``Sink``."""
        out = self._out or sys.stdout
        try:
            for notice in notices:
                print(printable(notice.line), file=out)
            out.flush()
        except OSError as error:  # whoever read them has gone, or the disk is full: the other places go on
            raise NotNowError(f"standard output: {error.strerror or error}") from error
