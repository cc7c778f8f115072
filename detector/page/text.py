"""Tables, numbers and durations as the page writes them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str]) -> str:
    """Cells are HTML already."""
    head = "".join(f'<th class="{c}">{h}</th>' for h, c in zip(heads, classes, strict=True))
    lines = "\n".join(
        "<tr>" + "".join(f'<td class="{c}">{cell}</td>' for cell, c in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'


def key(labels: Sequence[str], colours: Sequence[str]) -> str:
    """What the colours of a plot mean; ``colours``: names of the palette."""
    entries = (
        f'<span><b style="background:var(--{colour})"></b>{html.escape(label)}</span>'
        for label, colour in zip(labels, colours, strict=False)
    )
    return f'<p class="key">{"".join(entries)}</p>'


def value(number: float | None) -> str:
    """Four digits; a dash for nothing."""
    return "–" if number is None else f"{number:.4g}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash for nothing."""
    return "–" if share is None else f"{share:.{digits}%}"


def plural(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that gives a whole number of at least one."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
