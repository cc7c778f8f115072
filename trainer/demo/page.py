"""The page: one HTML file with everything in it, rewritten while the demo runs and once more at its end."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.adapters.aside import aside
from schemas.errors import SettingsError
from schemas.manifest import Channel
from schemas.moment import SECOND_NS
from trainer.demo.console import clock
from trainer.demo.sensors import amount, expected
from trainer.demo.story import Cause, Incident, Span, Verdict

NAME = "index.html"

#: By this a page is known for ours, which may be replaced.
_OURS = '<meta name="generator" content="Residual demo">'

_STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c2126; background: #fff;
  max-width: 66rem; margin: 2.2rem auto 4rem; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
.lead { color: #4a525a; margin: 0 0 1.2rem; } p { margin: .3rem 0 .8rem; max-width: 52rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.facts div { background: #f4f6f8; border-radius: .5rem; padding: .6rem .8rem; border-left: 4px solid #8a929b; }
.facts .good { border-color: #2f7d4f; } .facts .bad { border-color: #b3261e; }
.facts b { display: block; font-size: 1.15rem; font-weight: 600; } .facts span { color: #5b6470; font-size: .87rem; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: #5b6470; font-weight: 600; border-bottom: 1px solid #c6ccd2; }
td, th { padding: .3rem .8rem .3rem 0; vertical-align: top; } td { border-bottom: 1px solid #eceff1; }
td div { white-space: nowrap; } .key td:first-child { white-space: nowrap; width: 15rem; color: #4a525a; }
"""


@dataclass(frozen=True)
class Content:
    """What the page says. ``running``: the stretch that is under way, None at the end; ``facts``: setting, value."""

    host: str
    plot: str
    running: str | None
    channels: Sequence[Channel]
    faults: Sequence[tuple[Span, str]] = field(default_factory=tuple)
    incidents: Sequence[Incident] = field(default_factory=tuple)
    verdict: Verdict | None = None
    note: str = "It learned what is normal for this machine, then faults were provoked on it."
    settings: Sequence[tuple[str, str]] = field(default_factory=tuple)
    left_out: Sequence[tuple[str, str]] = field(default_factory=tuple)


def check_place(folder: Path) -> None:
    """Make the folder. Raises SettingsError where it cannot be, or where a page lies that is not ours."""
    page = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if page.exists() and _OURS not in page.read_text(encoding="utf-8", errors="replace"):
            raise SettingsError(f"{page} was not written by the demo: name another folder with --out")
    except OSError as error:
        raise SettingsError(f"{folder} cannot be used: {error.strerror}: name another folder with --out") from error


def write(folder: Path, content: Content) -> Path:
    """Write the page, in the place of the last one."""
    with aside(folder / NAME) as file:
        file.write(render(content))
    return folder / NAME


def render(content: Content) -> str:
    """The whole file."""
    title = f"Residual watches {content.host}"
    refresh = '<meta http-equiv="refresh" content="3">' if content.running is not None else ""
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>{_OURS}',
            f'<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *_body(content),
            "</body></html>\n",
        ]
    )


def _body(content: Content) -> Iterable[str]:
    if content.running is not None:
        yield f'<p class="lead">Running: {html.escape(content.running)} …</p>'
    else:
        yield f'<p class="lead">{html.escape(content.note)}</p>'
    if content.verdict is not None:
        yield '<div class="facts">' + "".join(_facts(content, content.verdict)) + "</div>"
    yield f'<div class="wide">{content.plot}</div>'
    if content.verdict is not None:
        yield "<h2>Incidents</h2>"
        yield _incidents(content, content.verdict)
    if content.settings:
        yield "<h2>How it was done</h2>"
        yield _table((), content.settings, "key")
    if content.left_out:
        yield "<h2>Channels that were not watched</h2>"
        yield _table((), content.left_out, "key")


def _facts(content: Content, verdict: Verdict) -> Iterable[str]:
    for fault, what in content.faults:
        first = _caught_by(fault, content.incidents, verdict)
        how = f"caught after {(first.opened - fault.start) / SECOND_NS:.1f} s" if first else "missed"
        when = f"{clock(fault.start)}–{clock(fault.end)}"
        yield _fact(f"{fault.name}: {how}", f"{what}; {when}", first is not None)
    count = verdict.false_alarms
    yield _fact(f"{count} false alarm{'s' * (count != 1)}", "incidents that no fault caused", not count)
    yield _fact(f"clean: {'yes' if verdict.clean else 'no'}", "every fault caught, nothing else said", verdict.clean)


def _caught_by(fault: Span, incidents: Sequence[Incident], verdict: Verdict) -> Incident | None:
    return next((i for i in incidents if verdict.causes.get(i.id) == (Cause.FAULT, fault.name)), None)


def _fact(head: str, text: str, good: bool) -> str:
    kind = "good" if good else "bad"
    return f'<div class="{kind}"><b>{html.escape(head)}</b><span>{html.escape(text)}</span></div>'


def _incidents(content: Content, verdict: Verdict) -> str:
    if not content.incidents:
        return "<p>None.</p>"
    channels = {channel.name: channel for channel in content.channels}
    rows = []
    for incident in content.incidents:
        cause, fault = verdict.causes.get(incident.id, (Cause.FALSE_ALARM, ""))
        lasted = incident.seconds()
        rows.append(
            (
                clock(incident.opened),
                "still open" if incident.resolved is None else f"{clock(incident.resolved)}, after {lasted:.1f} s",
                f"{cause.value}: {fault}" if fault else cause.value,
                "–" if incident.score is None else f"{incident.score:.3g}",
                *_shares(incident, channels),
            )
        )
    heads = ("opened", "resolved", "cause", "score", "sensor", "observed", "expected", "share of error")
    return _table(heads, rows, "")


def _shares(incident: Incident, channels: dict[str, Channel]) -> list[str]:
    """Four columns with a line per sensor."""
    units = {name: channel.unit for name, channel in channels.items()}
    return [
        "\n".join(s.name for s in incident.channels),
        "\n".join(amount(s.observed, units.get(s.name)) for s in incident.channels),
        "\n".join(amount(expected(s.expected, channels.get(s.name)), units.get(s.name)) for s in incident.channels),
        "\n".join(f"{s.share:.0%}" for s in incident.channels),
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    head = "<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in heads) + "</tr>" if heads else ""
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}">{head}{body}</table></div>'


def _cell(text: str) -> str:
    lines = html.escape(text).split("\n")
    return lines[0] if len(lines) == 1 else "".join(f"<div>{line}</div>" for line in lines)
