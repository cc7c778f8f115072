"""Plots that fill whatever width they have: lines are inline SVG that stretches, words are HTML that does not.

Inside a plot both axes run from 0 to 1, upwards and to the right; ``Scale`` brings values there.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from detector.engine.sentence import MONTHS, number
from schemas.moment import EARLIEST_NS, LATEST_NS, SECOND_NS

Floats = NDArray[np.float64]

#: What plots need of a page's style.
STYLE = """
.plot { position: relative; margin: .3rem .6rem 1.9rem 3rem; }
.plot svg { width: 100%; height: var(--h); overflow: hidden; border-left: 1px solid var(--edge);
  border-bottom: 1px solid var(--edge); }
.plot path, .plot line { vector-effect: non-scaling-stroke; fill: none; stroke-linecap: round; }
.plot .x, .plot .y { position: absolute; font-size: .72rem; line-height: 1; color: var(--soft); white-space: nowrap; }
.plot .x { top: 100%; margin-top: .35rem; transform: translateX(-50%); }
.plot .y { right: 100%; margin-right: .35rem; transform: translateY(50%); }
@media (max-width: 40rem) { .plot .x.spare { display: none; } .plot { margin-left: 2.6rem; } }
"""

#: Units of the drawing: wide enough that whole numbers are finer than a pixel.
WIDE, HIGH = 2000, 400

_S, _MIN, _H, _D = 1, 60, 3600, 86400
#: Seconds between ticks of time.
STEPS = (
    1, 5, 15, 30, _MIN, 5 * _MIN, 15 * _MIN, 30 * _MIN, _H, 3 * _H, 6 * _H, 12 * _H, _D, 2 * _D, 7 * _D, 14 * _D,
    28 * _D, 91 * _D, 182 * _D, 365 * _D, 3650 * _D, 36500 * _D,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` as places from 0 to 1; what lies outside is at the edge."""

    low: float
    high: float
    log: bool = False

    def __call__(self, values: NDArray[np.floating] | Sequence[float]) -> Floats:
        """Places; NaN stays."""
        array = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.log:
            array = np.log10(np.maximum(array, low))
            low, high = math.log10(low), math.log10(high)
        # halves: the distance between the largest numbers is no number
        return np.clip((array / 2 - low / 2) / (high / 2 - low / 2), 0, 1)


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and its words."""

    place: float
    text: str


def around(values: Iterable[float]) -> Scale:
    """A linear scale that holds all values with a little room; NaN and infinity do not count.

    >>> around([1.0, 2.0]).low < 1 < 2 < around([1.0, 2.0]).high, around([]).low < around([]).high
    (True, True)
    """
    found = np.clip([v for v in values if math.isfinite(v)] or [0.0], -1e300, 1e300)  # there is room beyond them
    low, high = float(found.min()), float(found.max())
    room = 0.06 * (high / 2 - low / 2) * 2
    if not room > 1e-9 * max(abs(low), abs(high), 1e-290):
        room = max(abs(high), abs(low)) * 0.05 or 1.0
    return Scale(low - room, high + room)


def line(x: Floats, y: Floats, colour: str, *, width: float = 1.2, dashed: bool = False, fade: float = 1) -> str:
    """A line through places ``x``, ``y`` ``[n]``, broken where one is NaN; a point alone is a dot."""
    there = ~(np.isnan(x) | np.isnan(y))
    if not there.any():
        return ""
    px = np.round(np.where(there, x, 0) * WIDE).astype(int).tolist()
    py = np.round((1 - np.where(there, y, 0)) * HIGH).astype(int).tolist()
    parts, alone = [], False
    for i, (inside, a, b) in enumerate(zip(there.tolist(), px, py, strict=True)):
        if not inside:
            continue
        first = i == 0 or not there[i - 1]
        alone = first and (i + 1 == len(px) or not there[i + 1])
        parts.append(f"{'M' if first else 'L'}{a} {b}{'h0' if alone else ''}")
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    thick = max(width, 3.0) if alone and len(parts) == 1 else width
    faded = f' opacity="{fade:g}"' if fade != 1 else ""
    return f'<path d="{"".join(parts)}" stroke="var(--{colour})" stroke-width="{thick:g}"{dash}{faded}/>'


def band(
    start: float, stop: float, colour: str, title: str = "", *, low: float = 0, high: float = 1, fade: float = 1
) -> str:
    """A filled box between places, at least so wide that it can be seen; ``title``: what the pointer shows."""
    left = min(max(start, 0.0), 0.997) * WIDE
    width = max(min(stop, 1.0) * WIDE - left, 0.003 * WIDE)
    text = f"<title>{html.escape(title)}</title>" if title else ""
    return (
        f'<rect x="{left:.0f}" y="{(1 - high) * HIGH:.0f}" width="{width:.0f}" height="{(high - low) * HIGH:.0f}" '
        f'fill="var(--{colour})" opacity="{fade:g}">{text}</rect>'
    )


def level(y: float, colour: str, dashed: bool = False) -> str:
    """A line from left to right."""
    return line(np.array([0.0, 1.0]), np.array([y, y]), colour, width=1, dashed=dashed)


def plot(shapes: Iterable[str], height_rem: float, across: Iterable[Tick], up: Iterable[Tick], label: str) -> str:
    """The shapes, the first at the back, with the words of both axes; ``label``: for who cannot see it."""
    ticks = list(across)
    columns = "".join(
        f'<span class="x{" spare" if i % 2 and len(ticks) > 4 else ""}" style="left:{100 * t.place:.2f}%">'
        f"{html.escape(t.text)}</span>"
        for i, t in enumerate(ticks)
    )
    rows = "".join(f'<span class="y" style="bottom:{100 * t.place:.1f}%">{html.escape(t.text)}</span>' for t in up)
    return (
        f'<div class="plot" style="--h:{height_rem:g}rem"><svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" '
        f'role="img" aria-label="{html.escape(label)}">{"".join(shapes)}</svg>{columns}{rows}</div>'
    )


def log_ticks(scale: Scale) -> list[Tick]:
    """Powers of ten, at most five of them."""
    first, last = math.ceil(math.log10(scale.low) - 1e-9), math.floor(math.log10(scale.high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 5))
    powers = [p for p in range(first, last + 1) if p % step == 0]
    return [Tick(float(scale([10.0**p])[0]), f"{10**p:,}" if p >= 0 else f"{10.0**p:g}") for p in powers]


def ends(scale: Scale, low: float, high: float) -> list[Tick]:
    """The least and the largest value."""
    values = [low, high] if number(low) != number(high) else [high]
    return [Tick(float(scale([v])[0]), number(v, 3 if abs(high - low) > 0.01 * abs(high) else 5)) for v in values]


def time_ticks(start: int, stop: int, most: int = 8) -> list[Tick]:
    """Whole minutes, hours, days … between two event times (nanoseconds), at most ``most`` of them."""
    first, last = start / SECOND_NS, stop / SECOND_NS
    if not last > first:
        return [Tick(0.5, f"{_day(first)} {_clock(first, 1)}")]
    step = next((s for s in STEPS if (last - first) / s <= most), STEPS[-1])
    moments = [step * n for n in range(math.ceil(first / step), math.floor(last / step) + 1)]
    many_years = last - first > 400 * _D
    texts, day = [], ""
    for seconds in moments:
        today = _day(seconds) + (f" {_date(seconds).year}" if many_years else "")
        clock = "" if seconds % _D == 0 else _clock(seconds, step)
        texts.append(clock if today == day else f"{today} {clock}".rstrip())
        day = today
    return [Tick((s - first) / (last - first), text) for s, text in zip(moments, texts, strict=True)]


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(seconds, EARLIEST_NS // SECOND_NS), LATEST_NS // SECOND_NS), UTC)


def _day(seconds: float) -> str:
    date = _date(seconds)
    return f"{date.day} {MONTHS[date.month - 1]}"


def _clock(seconds: float, step: float) -> str:
    return f"{_date(seconds):%H:%M:%S}" if step < _MIN else f"{_date(seconds):%H:%M}"


def thinned(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """At most ``most`` points of a line that still reach its least and largest value everywhere.

    ``x``, ``y`` ``[n]``: the least and the largest of each run of points are kept, in their order, and a break (NaN).
    """
    if len(x) <= most:
        return x, y
    runs = np.array_split(np.arange(len(x)), max(1, most // 3))
    keep = []
    for run in runs:
        values = y[run]
        broken = np.isnan(values)
        if broken.any():
            keep.append(run[int(broken.argmax())])
        if not broken.all():
            keep += [run[int(np.nanargmin(values))], run[int(np.nanargmax(values))]]
    places = np.unique(keep)
    return x[places], y[places]
