"""The page of a rehearsal: what it comes to, each stream over time, each incident with its picture."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from detector.engine.sentence import moment, number, span
from detector.page.document import page
from detector.page.plots import STYLE as PLOTS
from detector.page.text import duration, key, percent, plural, table
from detector.rehearsal.charts import BINS, COLOURS, picture, timeline, used
from detector.rehearsal.record import WEEK_S, Record
from detector.rehearsal.sent import IN_FULL, Incident, only_in
from schemas.alert import Ended, Kind, Severity
from schemas.moment import SECOND_NS, format_time

#: Streams that are drawn, rows of the table of streams, and incidents of a table.
DRAWN, LISTED, ROWS = 50, 500, 2000

KINDS = {
    Kind.ANOMALY: "unlike normal data",
    Kind.SHIFT: "moved to another level or spread, and stayed",
    Kind.DRIFT: "crept away from its usual level",
    Kind.STUCK: "a channel repeats one value",
    Kind.MISSING: "a channel is absent",
    Kind.RANGE: "outside of what is possible",
    Kind.CLOCK: "its clock was set back",
    Kind.SILENT: "sends nothing",
}

ENDS = {
    Ended.QUIET: "back to normal",
    Ended.REBASELINED: "taken as the new normal",
    Ended.ACCEPTED: "accepted by an operator",
    Ended.EXPIRED: "open for too long",
    Ended.SWITCHED_OFF: "the machine was switched off",
    Ended.FORGOTTEN: "the stream is no longer followed",
}

#: Ends of which the page says what would have been sent; that all is as before needs no words.
UNUSUAL = (Ended.REBASELINED, Ended.ACCEPTED, Ended.EXPIRED, Ended.SWITCHED_OFF, Ended.FORGOTTEN)

STYLE = (
    PLOTS
    + """
nav a { color: var(--c0); margin-right: 1rem; }
.facts div b { overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .85rem; } h3 .soft { font-weight: 400; }
.lanes .plot { margin-bottom: .15rem; } .lanes svg { border-bottom: 0; } .narrow { max-width: 34rem; }
.kinds td { vertical-align: top; } .one { white-space: nowrap; }
.incident { border-top: 1px solid var(--rule); padding: .8rem 0 .2rem; }
.incident h3 { font-size: 1rem; margin: 0; } .incident p { margin: .15rem 0 .3rem; }
.charts { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0 1rem; }
.charts figure { margin: .4rem 0 0; min-width: 0; } .charts figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.map { margin: .5rem 0; max-width: 22rem; } .map img { width: 100%; image-rendering: pixelated; display: block; }
.map figcaption { font-size: .85rem; color: var(--soft); }
.chip { display: inline-block; font-size: .75rem; font-weight: 600; border-radius: .3rem; padding: .05rem .45rem;
  border: 1px solid currentcolor; margin-right: .5rem; }
.dot { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%; margin-right: .4rem; }
.critical { color: var(--page); background: var(--threshold); border-color: var(--threshold); }
.major { color: var(--threshold); } .minor { color: var(--soft); }
@media (max-width: 40rem) {
  .charts { grid-template-columns: 1fr; } .facts { grid-template-columns: 1fr 1fr; } .wordy { display: none; }
  .rows thead { display: none; } .rows tr { display: block; border-bottom: 1px solid var(--faint); padding: .35rem 0; }
  .rows td { display: inline-block; border: 0; padding: 0 .9rem 0 0; } .rows td.said { display: block; } }
"""
)


def render(record: Record, other: Record | None = None, changed: dict[str, str] | None = None) -> str:
    """The page's text. ``other``: the same readings under other settings, ``changed``: which, by name."""
    start, stop = record.span
    n, streams = len(record.table), int((record.tally.readings > 0).sum())
    when = f", {_when(start)} to {_when(stop)}" if n else ""
    body = [
        "<h1>Rehearsal</h1>",
        f'<p class="lead">What would have been sent over {plural(n, "reading")} of {plural(streams, "stream")}{when}.'
        "</p>",
        '<nav><a href="#streams">Streams</a><a href="#incidents">Incidents</a><a href="#settings">Settings</a></nav>',
        _facts(record),
        *_verdict(record),
        *_kinds(record),
        *_side_by_side(record, other, changed or {}),
        *_streams(record, other),
        *_incidents(record),
        *_settings(record),
    ]
    return page("Residual: rehearsal", body, STYLE)


# -- in all ------------------------------------------------------------------------------------------------------------


def _facts(record: Record) -> str:
    incidents, weeks = record.sent.incidents, record.weeks()
    readings, alarmed = len(record.table), int(record.tally.alarmed.sum())
    noisy = len({incident.stream for incident in incidents})
    facts = (
        (f"{len(incidents):,}", f"{'incident' if len(incidents) == 1 else 'incidents'}; "
         f"{plural(record.sent.events, 'message')} sent"),
        (_rate(len(incidents), weeks), "incidents a week per stream; promised: false ones at most "
         f"{_promised(record)}"),
        (percent(alarmed / readings) if readings else "–", "of the readings under alarm"),
        (f"{noisy:,}", f"of {plural(len(record.ranked), 'stream')} had any"),
        (_watched(weeks), "watched, of all streams together"),
        (_worst(record), "highest score, in thresholds"),
    )  # fmt: skip
    return f'<div class="facts">{"".join(f"<div><b>{b}</b><span>{text}</span></div>" for b, text in facts)}</div>'


def _verdict(record: Record) -> Iterable[str]:
    """One line where it can be said at once."""
    if not len(record.table):
        yield '<p class="warning">There are no readings in these data.</p>'
        return
    if not record.tally.scored.sum():
        yield '<p class="warning">No reading was scored: all were in warm-up, late or twice there.</p>'
    if hidden := record.counts["not_published"]:
        yield (
            f'<p class="warning">{plural(hidden, "score")} above the threshold would not have been published: a stream '
            f"that the model was not fitted on publishes nothing for its first {record.settings.unseen_readings:,} "
            "readings (--unseen-readings).</p>"
        )
    if dropped := record.counts["late"] + record.counts["duplicate"]:
        yield f'<p class="warning">{plural(dropped, "reading")} came late or twice and would have been dropped.</p>'
    if off := record.counts["machine_off"]:
        yield f"<p>{plural(off, 'reading')} came while the machine was off or starting (--off-when): passed over.</p>"
    if record.waiting:
        yield (
            f'<p class="warning">{plural(record.waiting, "reading")} at the end of the data would still have waited '
            "for others that are late (--lateness) and had no score.</p>"
        )
    if early := record.counts["released_early"]:
        yield (
            f'<p class="warning">{plural(early, "reading")} would have been scored before the lateness was over: more '
            "were waiting than are kept of a stream.</p>"
        )
    if not record.sent.incidents:
        yield "<p><b>Nothing would have been sent.</b></p>"


def _kinds(record: Record) -> Iterable[str]:
    incidents = record.sent.incidents
    if not incidents:
        return
    weeks = record.weeks()
    rows = []
    for kind in used(incidents):
        mine = [incident for incident in incidents if incident.kind is kind]
        by = Counter(incident.severity for incident in mine)
        lengths = sorted(_length(incident, record) for incident in mine)
        rows.append((
            f"{_dot(kind)}{kind}", KINDS[kind], f"{len(mine):,}", _rate(len(mine), weeks),
            *(f"{by[severity]:,}" if by[severity] else "–" for severity in reversed(Severity)),
            span(lengths[len(lengths) // 2]), span(lengths[-1]),
        ))  # fmt: skip
    heads = ("kind", "", "incidents", "a week per stream", "critical", "major", "minor", "median length", "longest")
    listed = table(heads, rows, ("one", "wordy", "n", "n wordy", "n", "n", "n", "n wordy", "n one"))
    yield f'<div class="kinds">{listed}</div>'


def _side_by_side(record: Record, other: Record | None, changed: dict[str, str]) -> Iterable[str]:
    """Both settings' numbers, and what only one of them would have sent."""
    if other is None:
        return
    own = record.settings.model_dump()
    # where not set, they are the model's
    own["false_alarms"] = record.manifest.calibration.false_alarms
    own["incident_k"], own["incident_n"] = record.policy.k, record.policy.n
    here = ", ".join(f"{name}={own[name]}" for name in changed)
    there = ", ".join(f"{name}={value}" for name, value in changed.items())
    yield "<h2>Two settings side by side</h2>"
    yield f"<p><b>A</b>: {html.escape(here)} (this page). <b>B</b>: {html.escape(there)}.</p>"
    columns = [_column(side) for side in (record, other)]
    rows = [(name, a, b) for (name, a), (_, b) in zip(*columns, strict=True) if (a, b) != ("0", "0")]
    bold = [(name, a, b) if a == b else (f"<b>{name}</b>", f"<b>{a}</b>", f"<b>{b}</b>") for name, a, b in rows]
    yield f'<div class="narrow">{table(("", "A", "B"), bold, ("", "n", "n"))}</div>'
    mine, others = record.sent.incidents, other.sent.incidents
    for name, only in (("A", only_in(mine, others)), ("B", only_in(others, mine))):
        if not only:
            yield f"<p>Every incident of {name} has one in {'B' if name == 'A' else 'A'} at the same time.</p>"
            continue
        yield f"<h3>Only with {name}: {plural(len(only), 'incident')}</h3>"
        yield _rows(sorted(only, key=lambda incident: incident.rank, reverse=True)[:LISTED], record)
        if len(only) > LISTED:
            yield f'<p class="soft">And {len(only) - LISTED:,} more.</p>'


def _column(record: Record) -> list[tuple[str, str]]:
    incidents, weeks = record.sent.incidents, record.weeks()
    by_kind, by_severity = Counter(i.kind for i in incidents), Counter(i.severity for i in incidents)
    readings = len(record.table)
    return [
        ("incidents", f"{len(incidents):,}"),
        *((f"{_dot(kind)}{kind}", f"{by_kind[kind]:,}") for kind in Kind),
        *((str(severity), f"{by_severity[severity]:,}") for severity in reversed(Severity)),
        ("a week per stream", _rate(len(incidents), weeks)),
        ("promised: false ones at most", _promised(record)),
        ("readings under alarm", percent(int(record.tally.alarmed.sum()) / readings) if readings else "–"),
        ("streams with any", f"{len(record.kinds):,}"),
        ("messages", f"{record.sent.events:,}"),
    ]


# -- streams -----------------------------------------------------------------------------------------------------------


def _streams(record: Record, other: Record | None) -> Iterable[str]:
    yield '<h2 id="streams">Streams</h2>'
    ranked = record.ranked
    if not ranked or not len(record.table):
        yield "<p>None.</p>"
        return
    drawn = ranked[:DRAWN]
    few = (
        f" Drawn: the {len(drawn)} of {len(ranked):,} streams with the most incidents."
        if len(drawn) < len(ranked)
        else ""
    )
    lanes = " Above each: the incidents of both settings, A over B." if other is not None else ""
    yield (
        "<p>Scores over time, the highest of each stretch, against the threshold (dashed, at 1); incidents are shaded."
        f"{lanes}{few}</p>"
    )
    shown = used([*record.sent.incidents, *(other.sent.incidents if other else ())])
    yield key(("score", *map(str, shown)), ("c0", *(COLOURS[kind] for kind in shown)))
    mine, others = _by_stream(record), _by_stream(other) if other is not None else None
    for slot, maxima in zip(drawn, record.maxima(drawn, BINS), strict=True):
        name = record.names[slot]
        had = mine.get(name, [])
        yield f'<h3>{html.escape(name)} <span class="soft">{_line(record, slot, had)}</span></h3>'
        yield timeline(record, name, maxima, had, None if others is None else others.get(name, []))
    if len(ranked) > 1:
        yield from _stream_table(record, ranked)


def _line(record: Record, slot: int, had: Sequence[Incident]) -> str:
    alarmed, readings = int(record.tally.alarmed[slot]), int(record.tally.readings[slot])
    share = percent(alarmed / readings) if readings else "–"
    kinds = Counter(incident.kind for incident in had)
    named = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common()) or "no incident"
    return f"{named}; {_rate(len(had), record.weeks(slot))} a week; {share} of its readings under alarm"


def _stream_table(record: Record, ranked: Sequence[int]) -> Iterable[str]:
    tally, rows = record.tally, []
    for slot in ranked[:LISTED]:
        kinds = record.kinds.get(record.names[slot], Counter())
        readings = int(tally.readings[slot])
        highest = tally.highest[slot]
        rows.append((
            html.escape(record.names[slot]), f"{readings:,}", f"{kinds.total():,}",
            html.escape(", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())),
            _rate(kinds.total(), record.weeks(slot)), percent(tally.alarmed[slot] / readings) if readings else "–",
            "–" if math.isnan(highest) else number(highest),
        ))  # fmt: skip
    heads = ("stream", "readings", "incidents", "kinds", "a week", "under alarm", "highest score")
    yield (
        "<h3>All streams</h3>"
        if len(ranked) <= LISTED
        else f"<h3>The noisiest {LISTED} of {len(ranked):,} streams</h3>"
    )
    yield table(heads, rows, ("", "n", "n", "wordy", "n", "n", "n"))


def _by_stream(record: Record) -> dict[str, list[Incident]]:
    found: dict[str, list[Incident]] = {}
    for incident in record.sent.incidents:
        found.setdefault(incident.stream, []).append(incident)
    return found


# -- incidents ---------------------------------------------------------------------------------------------------------


def _incidents(record: Record) -> Iterable[str]:
    yield '<h2 id="incidents">Incidents</h2>'
    worst_first = sorted(record.sent.incidents, key=lambda incident: incident.rank, reverse=True)
    if not worst_first:
        yield "<p>None: nothing would have been sent.</p>"
        return
    yield (
        "<p>The most severe first: what would have been sent while it was open, and the readings around it"
        f"{'' if record.manifest.frame else ', with the share that each channel had in the score'}.</p>"
    )
    if record.manifest.frame is None:
        yield key(("observed", "expected"), ("c0", "c1"))
    for place, incident in enumerate(worst_first[:IN_FULL], 1):
        yield _in_full(record, place, incident)
    rest = worst_first[IN_FULL:]
    if rest:
        yield f"<h3>The other {len(rest):,}</h3>"
        yield _rows(rest[:ROWS], record)
    if len(rest) > ROWS:
        yield f'<p class="soft">And {len(rest) - ROWS:,} more, less severe.</p>'


def _in_full(record: Record, place: int, incident: Incident) -> str:
    now = record.span[1] if incident.ended is None else incident.ended
    until = "still open at the end of the data"
    if incident.ended is not None:
        reason = ENDS[incident.reason or Ended.QUIET]
        until = f"over at {moment(incident.ended, incident.opened)} ({reason})"
    modelled = incident.kind in (Kind.ANOMALY, Kind.SHIFT) and not math.isnan(incident.score)
    score = f" · score {number(incident.score)}" if modelled else ""
    told = f"<p>When it ended: {html.escape(incident.last_said)}</p>" if incident.reason in UNUSUAL else ""
    came_back = incident.data.reopened
    again = f" · came back {plural(came_back, 'time')} lately" if came_back else ""
    return (
        f'<section class="incident"><h3><span class="chip {incident.severity}">{incident.severity}</span>'
        f"{place}. {html.escape(incident.said)}</h3>"
        f'<p class="soft">{_dot(incident.kind)}{incident.kind} · opened {_when(incident.opened)} · {until}, after '
        f"{span((now - incident.began) / SECOND_NS)}{score}{again} · {plural(incident.events, 'message')}</p>"
        f"{told}{picture(record, incident)}</section>"
    )


def _rows(incidents: Iterable[Incident], record: Record) -> str:
    rows = [
        (
            _when(incident.opened), f"{_dot(incident.kind)}{incident.kind}", str(incident.severity),
            html.escape(incident.said), span(_length(incident, record)),
        )
        for incident in incidents
    ]  # fmt: skip
    listed = table(("opened", "kind", "severity", "", "lasted"), rows, ("top", "top", "top", "said", "top"))
    return f'<div class="rows">{listed}</div>'


def _length(incident: Incident, record: Record) -> float:
    return ((record.span[1] if incident.ended is None else incident.ended) - incident.began) / SECOND_NS


# -- words -------------------------------------------------------------------------------------------------------------


def _settings(record: Record) -> Iterable[str]:
    manifest, own = record.manifest, record.settings
    calibration, when = manifest.calibration, record.policy
    yield '<h2 id="settings">Settings</h2>'
    rows = [
        ("model", f"{html.escape(manifest.model)} of group {html.escape(manifest.group)}, "
         f"<code>{manifest.graph_sha256}</code>"),
        ("an incident opens", f"at {when.k} anomalous of {when.n} readings, one every "
         f"{duration(manifest.interval_s)}; it ends after {when.quiet} normal ones"),
        ("a stream never seen", f"publishes nothing for its first {plural(own.unseen_readings, 'reading')}"),
        *([("readings wait", f"until their stream is {duration(when.lateness)} past them")] if when.lateness else []),
        ("promise", f"{html.escape(calibration.false_alarms)}: false-alarm episodes at most {_promised(record)} a week "
         "per stream"),
        ("a week", "of scored readings, each as long as the model's interval; every kind of incident counts, and "
         "nothing here says which were false"),
    ]  # fmt: skip
    yield table(("", ""), rows, ("top", ""))


def _promised(record: Record) -> str:
    return f"{number(7 * record.manifest.calibration.rate)}"


def _rate(count: int, weeks: float) -> str:
    """A week's; of less than a day it would say nothing."""
    return "–" if 7 * weeks < 1 else number(count / weeks)


def _watched(weeks: float) -> str:
    if weeks * 7 < 1:
        return span(weeks * WEEK_S)
    return f"{number(weeks * 7)} days" if weeks < 10 else f"{number(weeks)} weeks"


def _worst(record: Record) -> str:
    highest = [score for score in record.tally.highest.tolist() if not math.isnan(score)]
    return number(max(highest)) if highest else "–"


def _when(ns: int) -> str:
    """To the minute where nothing is lost by it."""
    text = format_time(ns).replace("T", " ")
    return f"{text[:16]} UTC" if text.endswith(":00Z") else f"{text[:-1]} UTC"


def _dot(kind: Kind) -> str:
    return f'<b class="dot" style="background:var(--{COLOURS[kind]})"></b>'
