"""The contest of a night on one page: champion, challengers and window PCA side by side."""

from __future__ import annotations

import html
from collections.abc import Iterator

import numpy as np

from detector.page.document import page
from detector.page.text import percent, table
from schemas.contest import Contender, Contest, Row
from trainer.page.charts import COLOURS, drawing, svg

CONTEST_PAGE = "contest.html"

#: How the roles are called.
ROLES = {"champion": "champion", "challenger": "challenger", "baseline": "window PCA"}


def render_contest(contest: Contest) -> str:
    """The page's text."""
    return page("Champion and challenger", _body(contest))


def _body(contest: Contest) -> Iterator[str]:
    decision, names = contest.decision, _names(contest)
    said = "promoted" if decision.promote else "not promoted by itself" if decision.by_hand else "not promoted"
    yield "<h1>Champion and challenger</h1>"
    yield (
        f'<p class="lead">{html.escape(names[contest.winner])}: {said}. Compared on normal readings from '
        f"{_day(contest.start)} to {_day(contest.end)}, which none of them has learned from, by the detector's own "
        "engine.</p>"
    )
    yield "<ul>" + "".join(f"<li>{html.escape(reason)}</li>" for reason in decision.reasons) + "</ul>"
    yield "<h2>False alarms</h2>"
    yield _alarms(contest, names)
    yield "<h2>Planted faults</h2>"
    yield _faults(contest, names)
    if any(c.rows[0].of_confirmed for c in contest.contenders):
        yield "<h2>Past faults that operators confirmed</h2>"
        yield table(
            ["", "found"],
            [
                [html.escape(name), f"{c.rows[0].confirmed} of {c.rows[0].of_confirmed}"]
                for name, c in zip(names, contest.contenders, strict=True)
            ],
            ["", "n"],
        )


def _names(contest: Contest) -> list[str]:
    return [f"{ROLES[c.role]}{'' if c.role == 'baseline' else f' ({c.model})'}" for c in contest.contenders]


def _alarms(contest: Contest, names: list[str]) -> str:
    rows = [
        [html.escape(name), html.escape(row.group or "all"), str(row.episodes), f"{row.promised:.1f}",
         f"{row.stream_days:.1f}", "kept" if row.keeps else "<b>broken</b>"]
        for name, contender in zip(names, contest.contenders, strict=True)
        for row in contender.rows
    ]  # fmt: skip
    heads = ["", "streams", "episodes", "promised", "stream-days", "promise"]
    return table(heads, rows, ["", "", "n", "n", "n", ""])


def _faults(contest: Contest, names: list[str]) -> str:
    kinds = sorted({kind for c in contest.contenders for kind in c.rows[0].planted})
    if not kinds:
        return "<p>There was no room for any.</p>"
    with drawing(0.28 * (len(contest.contenders) + 1) * len(kinds) + 0.8) as figure:
        axes = figure.subplots()
        high = 1 / (len(names) + 1)
        for number, (name, contender) in enumerate(zip(names, contest.contenders, strict=True)):
            at = np.arange(len(kinds)) + number * high
            found = [100 * contender.rows[0].found.get(kind, 0) for kind in kinds]
            axes.barh(at, found, 0.9 * high, color=COLOURS[number % len(COLOURS)], label=name)
        axes.set_yticks(np.arange(len(kinds)) + high * (len(names) - 1) / 2, kinds)
        axes.set_xlim(0, 100)
        axes.set_xlabel("found, %")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=len(names))
        picture = svg(figure)
    rows = [
        [html.escape(name), html.escape(row.group or "all"), percent(_share(row), 0), _count(row), _delay(row)]
        for name, contender in zip(names, contest.contenders, strict=True)
        for row in contender.rows
    ]
    heads = ["", "streams", "found, mean of kinds", "planted", "found after, readings"]
    return picture + table(heads, rows, ["", "", "n", "n", "n"])


def _share(row: Row) -> float | None:
    return row.share if row.found else None


def _count(row: Row) -> str:
    return str(sum(row.planted.values()))


def _delay(row: Row) -> str:
    return "–" if row.delay is None else f"{row.delay:g}"


def _day(time: str) -> str:
    return html.escape(time[:16].replace("T", " "))


def contenders_in_words(contenders: tuple[Contender, ...]) -> list[str]:
    """One line each, for a log."""
    return [
        f"{ROLES[c.role]} {c.model}: {c.rows[0].episodes} false episodes, {c.rows[0].promised:.1f} are promised; finds "
        f"{percent(_share(c.rows[0]), 0)} of the planted faults"
        for c in contenders
    ]
