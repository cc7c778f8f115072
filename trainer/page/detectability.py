"""What the model can see: the smallest fault of each kind that is caught, as a table and as heat maps."""

from __future__ import annotations

import html
from collections.abc import Iterable

from detector.page.text import plural, table
from trainer.detectability.result import CAUGHT, Detectability, KindResult, Level

#: What a kind of fault is, for whoever reads the page.
WORDS = {
    "spike": "one reading far off",
    "shift": "the level moves at once",
    "drift": "the level moves slowly, by so much in the end",
    "stuck": "the value stays the same",
    "dropout": "values are missing",
    "noise": "noise is added",
    "frequency": "the course goes faster",
    "correlation": "the channel's own course of another time",
    "delay": "the values come late",
}

#: How much of the colour a cell has at most, %.
DEEPEST = 80


def detectability(found: Detectability | None) -> Iterable[str]:
    """The section of the report; nothing where it was not measured."""
    if found is None:
        return
    yield "<h2>What it can see</h2>"
    yield (
        "<p>Faults of known kinds and sizes, in one channel at a time, planted into normal readings that the weights "
        f"have not learned from ({_day(found.start)} to {_day(found.end)}), past the detector's own engine under the "
        f"promise of {html.escape(found.false_alarms)} false alarms. A size counts as caught where {CAUGHT:.0%} of its "
        "faults open an incident while they last or shortly after. Without any fault there were "
        f"{plural(found.episodes, 'incident')} in {found.stream_days:.1f} stream-days, where the promise allows "
        f"{found.promised:.1f}.</p>"
    )
    if found.truncated:
        yield '<p class="warning">The readings are few: not all faults had room, so the shares are rough.</p>'
    yield table(
        ["fault", "", "lasts, readings", "caught from", "after, readings"],
        [_row(kind) for kind in found.kinds],
        ["", "", "n", "n", "n"],
    )
    yield "<h3>Share caught by size</h3>"
    yield _by_size(found)
    if len(found.channels) > 1:
        yield "<h3>Share caught by channel, over all sizes</h3>"
        yield _by_channel(found)
        yield "<p>A pale row is a sensor that may fail without anybody being told.</p>"


def _row(kind: KindResult) -> list[str]:
    smallest = kind.smallest
    lasts = "its size" if kind.lasts is None else str(kind.lasts)
    if smallest is None:
        most = max((level.size for level in kind.levels if level.planted), default=None)
        said = "no size" if most is None else f"more than {most:g} {kind.unit}"
        return [kind.kind, WORDS.get(kind.kind, ""), lasts, said, "–"]
    return [kind.kind, WORDS.get(kind.kind, ""), lasts, f"{smallest.size:g} {kind.unit}", _delay(smallest)]


def _delay(level: Level) -> str:
    return "–" if level.delay is None else f"{level.delay:g}"


def _by_size(found: Detectability) -> str:
    most = max(len(kind.levels) for kind in found.kinds)
    rows = [
        [kind.kind, *(_cell(f"{level.size:g}", level.caught, level.planted) for level in kind.levels), kind.unit]
        for kind in found.kinds
    ]
    heads = ["fault", "small", *([""] * (most - 2)), "large", "size in"]
    return table(heads, rows, ["", *(["n"] * most), ""])


def _by_channel(found: Detectability) -> str:
    kinds = [kind.kind for kind in found.kinds if any(level.planted for level in kind.levels)]
    rows = [
        [html.escape(one.channel), *(_cell("", one.caught.get(kind, 0), one.planted.get(kind, 0)) for kind in kinds)]
        for one in found.channels
    ]
    return table(["channel", *kinds], rows, ["", *(["n"] * len(kinds))])


def _cell(size: str, caught: int, planted: int) -> str:
    """A share, the deeper its colour the more."""
    if not planted:
        return "–"
    share = caught / planted
    label = f"<small>{size}:</small> " if size else ""
    colour = f"color-mix(in srgb, var(--c0) {DEEPEST * share:.0f}%, transparent)"
    return f'<span class="heat" style="background:{colour}" title="{caught} of {planted}">{label}{share:.0%}</span>'


def _day(time: str) -> str:
    return html.escape(time[:16].replace("T", " "))
