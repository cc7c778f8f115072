"""The README's picture of the three commonest kinds of incident, drawn from what the engine says of planted faults.

    python docs/kinds.py [FILE]          # writes docs/kinds.svg; some ten seconds

Three pumps are made up, a model learns ten normal days of them, and the engine watches two more, in which each pump
has a fault of its own. Every line, mark and sentence is what the engine gave out. One installation draws the same bytes
each time.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from detector.adapters.files import Table
from detector.adapters.texts import Names, Stamps
from detector.engine.engine import Engine
from detector.page import plots
from detector.page.palette import variables
from detector.page.plots import Scale, Tick, around, band, ends, level, line, log_ticks, time_ticks
from schemas.alert import Alert, Ended, EventType, Kind
from schemas.manifest import Channel
from schemas.moment import SECOND_NS, parse_time
from trainer.faults import Fault, plant
from trainer.faults import Kind as FaultKind
from trainer.pipeline import learn
from trainer.settings import FitSettings

Floats = NDArray[np.float32]
Places = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED = 7
START_NS = parse_time("2026-03-02T00:00:00Z")
MINUTE_NS, DAY = 60 * SECOND_NS, 1440
LEARNED_DAYS, DAYS = 10, 12

CHANNELS = tuple(
    Channel(name=name, unit=unit)
    for name, unit in (
        ("motor_current", "A"), ("flow", "m³/h"), ("discharge_pressure", "bar"), ("bearing_temp", "°C"),
        ("vibration", "mm/s"), ("oil_level", "%"),
    )
)  # fmt: skip
#: Of each channel: its level, what full load adds, minutes by which it follows the load, its noise, and for how many
#: minutes that lasts.
MAKE = (
    (9.0, 6.0, 1, 0.15, 3), (30.0, 22.0, 2, 0.5, 3), (4.2, 1.6, 2, 0.03, 3), (48.0, 16.0, 25, 0.35, 8),
    (1.9, 0.9, 1, 0.06, 3), (71.0, -4.0, 40, 0.12, 20),
)  # fmt: skip


@dataclass(frozen=True)
class Story:
    """A pump with its fault, and what of it is drawn: from ``first`` to ``last``, hours of the last day."""

    stream: str
    kind: Kind
    heading: str
    channel: str
    fault: FaultKind
    size: float
    begins: float
    lasts: float
    first: float
    last: float

    @property
    def place(self) -> int:
        """The channel's number."""
        return [channel.name for channel in CHANNELS].index(self.channel)


STORIES = (
    Story("pump-3", Kind.ANOMALY, "unlike normal data", "bearing_temp", FaultKind.DRIFT, 2.5, 9, 2, 8.5, 12.5),
    Story("pump-5", Kind.SHIFT, "moved to another level, and stays there", "flow", FaultKind.SHIFT, -2.5, 9, 15, 7, 18),
    Story(
        "pump-7", Kind.STUCK, "a sensor repeats one value, which the score alone does not show",
        "vibration", FaultKind.STUCK, 0, 9.25, 1.2, 8, 12,
    ),
)  # fmt: skip


# -- what happens ------------------------------------------------------------------------------------------------------


def normal_readings() -> Floats:
    """``[N, S, C]``: a load with a daily rhythm drives all channels of a pump, each in its own way and time."""
    rng = np.random.default_rng(SEED)
    rows, S = DAYS * DAY, len(STORIES)
    hour = np.arange(rows)[:, None] / 60
    load = 0.5 + 0.25 * np.sin(2 * np.pi * (hour - 8 - np.arange(S)) / 24) + 0.12 * noise(rng, (rows, S), 90)
    values = np.zeros((rows, S, len(MAKE)))
    for c, (usual, gain, follows, spread, lasts) in enumerate(MAKE):
        values[..., c] = usual + gain * smooth(load, follows) + spread * noise(rng, (rows, S), lasts)
    return values.astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int], minutes: float) -> Places:
    """AR(1) of unit variance along the first axis, which forgets within so many minutes."""
    phi = float(np.exp(-1 / minutes))
    made: Places = lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], rng.standard_normal(shape), axis=0)
    return made


def smooth(values: Places, minutes: float) -> Places:
    """Exponential mean along the first axis."""
    phi = float(np.exp(-1 / minutes))
    made, _ = lfilter([1 - phi], [1.0, -phi], values, axis=0, zi=phi * values[:1])
    return np.asarray(made, np.float64)


def with_faults(values: Floats) -> Floats:
    """A copy in which each pump has its fault on the last day."""
    spoilt = values.copy()
    for s, story in enumerate(STORIES):
        start, length = round((DAYS - 1) * DAY + story.begins * 60), round(story.lasts * 60)
        fault = Fault(story.fault, start, length, (story.place,), story.size)
        spoilt[:, s] = plant(values[:, s], [fault], values[:, s].std(axis=0), SEED).values
    return spoilt


def table(values: Floats, first: int, stop: int) -> Table:
    """Readings of all pumps, from one row to another."""
    S = len(STORIES)
    times = np.repeat(START_NS + np.arange(first, stop) * MINUTE_NS, S)
    names = Names([story.stream for story in STORIES], np.tile(np.arange(S, dtype=np.int32), stop - first))
    flat = values[first:stop].reshape(len(times), -1)
    return Table(names, times, flat, Stamps(times, np.empty(0, np.uint8), None), tuple(c.name for c in CHANNELS))


@dataclass(frozen=True)
class Seen:
    """What became of one pump's channel, ``[n]`` each, and all events of the pump."""

    times: Ints
    observed: Places
    expected: Places
    score: Places
    alerts: list[Alert]


def watched() -> list[Seen]:
    """A model of the first days, and what its engine says of the others: of each pump what is drawn."""
    values = with_faults(normal_readings())
    learned = learn(table(values, 0, LEARNED_DAYS * DAY), FitSettings(model="pca", context="1d"), CHANNELS)
    readings = table(values, LEARNED_DAYS * DAY, DAYS * DAY)
    scored = Engine(learned.model).process(readings.slice(0, len(readings)))
    seen = []
    for s, story in enumerate(STORIES):
        begin = DAY + np.array([story.first, story.last]) * 60
        rows = np.arange(round(begin[0]), round(begin[1]) + 1) * len(STORIES) + s
        rows = rows[rows < len(readings)]
        seen.append(
            Seen(
                readings.times[rows],
                readings.values[rows, story.place].astype(np.float64),
                scored.expected[rows, story.place].astype(np.float64),
                scored.score[rows],
                [published.alert for published in scored.published if published.stream == story.stream],
            )
        )
    return seen


# -- how it is drawn ---------------------------------------------------------------------------------------------------

#: Pixels: the picture, where words and plots begin and where both end, the plots' heights, and lines of words.
WIDE, MARGIN, LEFT, RIGHT = 900, 18, 64, 878
CHANNEL_HIGH, SCORE_HIGH, GAP, LINE = 92, 54, 10, 18
#: Characters of a line, and the width of one of a mark's, pixels.
LETTERS, LETTER = 120, 6.6
#: Scores that are drawn, in thresholds.
SCORES = Scale(0.03, 12, log=True)
COLOURS = {Kind.ANOMALY: "threshold", Kind.SHIFT: "c3", Kind.STUCK: "c2"}
ON_TRIAL = "against the old level"
FOOTNOTES = (
    "Shaded: from the first reading that was off, over its opening, to the event that says it is over. Times are UTC.",
    "For a day after a shift the score still compares with the level before it, in case the stream goes back there.",
)

STYLE = """
svg {{ --page: #fff; {light}; font: 12.5px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }}
@media (prefers-color-scheme: dark) {{ svg {{ --page: #0d1117; {dark}; }} }}
text {{ fill: var(--ink); font-variant-numeric: tabular-nums; }} .soft {{ fill: var(--soft); }}
.red {{ fill: var(--threshold); }} .small {{ font-size: 11px; }} .b {{ font-weight: 600; font-size: 14px; }}
.plot path {{ vector-effect: non-scaling-stroke; fill: none; stroke-linecap: round; stroke-linejoin: round; }}
"""


def picture(seen: Sequence[Seen]) -> str:
    """The three stories below each other, as one SVG file."""
    light, dark = variables()
    y, parts = 28.0, [legend(28)]
    for story, one in zip(STORIES, seen, strict=True):
        panel = Panel(story, one, y)
        parts += panel.parts()
        y = panel.bottom + 38
    for words in FOOTNOTES:
        parts.append(text(MARGIN, y - 6, words, "soft small"))
        y += 15
    size = f'width="{WIDE}" height="{y:g}"'
    label = html.escape("; ".join(f"{story.kind}: {story.heading}" for story in STORIES))
    style = STYLE.format(light=light, dark=dark)
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y:g}" {size} role="img" aria-label="{label}">',
        f'<style>{style}</style><rect {size} rx="6" fill="var(--page)"/>', *parts, "</svg>\n",
    ))  # fmt: skip


def legend(y: float) -> str:
    """What the two lines of the upper plots are, at the right."""
    parts = []
    for x, name, colour in ((RIGHT - 158, "observed", "c0"), (RIGHT - 74, "expected", "c1")):
        parts.append(f'<path d="M{x} {y - 4:g}h16" stroke="var(--{colour})" stroke-width="2"/>')
        parts.append(text(x + 21, y, name, "soft small"))
    return "".join(parts)


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start", fill: str = "") -> str:
    """Words at a place; ``fill``: a name of the palette."""
    filled = f' style="fill: var(--{fill})"' if fill else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}"{filled}>{html.escape(words)}</text>'


def clock(time: str) -> str:
    """HH:MM of an event's time."""
    return f"{datetime.fromtimestamp(parse_time(time) / SECOND_NS, UTC):%H:%M}"


class Panel:
    """One story, its heading's base line at ``top``."""

    def __init__(self, story: Story, seen: Seen, top: float) -> None:
        self._story, self._seen, self._top = story, seen, top
        self._colour = COLOURS[story.kind]
        self._start, self._stop = int(seen.times[0]), int(seen.times[-1])
        self._events = [alert for alert in seen.alerts if self._start <= parse_time(alert.time) <= self._stop]
        over = self._events[-1].data
        if len({alert.data.incident for alert in self._events}) != 1 or over.ended is None or over.kind != story.kind:
            raise ValueError(f"{story.stream}: not one {story.kind} from its opening to its end")
        self._said = [line for alert in (self._events[0], self._events[-1]) for line in said(alert)]
        self._channel_top = top + LINE * len(self._said) + 34
        self._score_top = self._channel_top + CHANNEL_HIGH + GAP

    @property
    def bottom(self) -> float:
        """Base line of the lowest words."""
        return self._score_top + SCORE_HIGH + 15

    def parts(self) -> Iterator[str]:
        """All of it, what lies behind first."""
        yield f'<circle cx="{MARGIN + 5}" cy="{self._top - 4.5:g}" r="5" fill="var(--{self._colour})"/>'
        yield (
            f'<text x="{MARGIN + 17}" y="{self._top:g}"><tspan class="b">{self._story.kind}</tspan>'
            f'<tspan class="soft" dx="10">{html.escape(self._story.heading)}</tspan></text>'
        )
        for number, (time, words) in enumerate(self._said, 1):
            yield text(MARGIN, self._top + LINE * number + 4, time, "soft")
            yield text(LEFT, self._top + LINE * number + 4, words)
        yield from self._channel()
        yield from self._score()
        yield from self._marks()
        for tick in time_ticks(self._start, self._stop, 14):
            shown = tick.text.split()[-1]  # the day says nothing
            yield text(self._across(tick.place), self.bottom, shown, "soft small", "middle")

    def _channel(self) -> Iterator[str]:
        seen, story = self._seen, self._story
        both = np.concatenate([seen.observed, seen.expected])
        scale = around(both.tolist())
        shapes = [*self._shades(), self._line(scale(seen.expected), "c1"), self._line(scale(seen.observed), "c0")]
        yield self._plot(self._channel_top, CHANNEL_HIGH, shapes, ends(scale, float(both.min()), float(both.max())))
        words = f"{story.channel}, {CHANNELS[story.place].unit}"
        yield text(LEFT, self._channel_top - 9, words, "soft small")

    def _score(self) -> Iterator[str]:
        ticks, threshold = log_ticks(SCORES), float(SCORES([1.0])[0])
        shapes = [*(level(tick.place, "grid") for tick in ticks), *self._shades()]
        shapes += [self._line(SCORES(self._seen.score), "soft"), level(threshold, "threshold", dashed=True)]
        yield self._plot(self._score_top, SCORE_HIGH, shapes, ticks)
        y = self._score_top + SCORE_HIGH * (1 - threshold)
        yield (
            f'<text x="{LEFT + 6}" y="{y - 5:.1f}" class="small"><tspan class="soft">score,</tspan> '
            '<tspan class="red">threshold at 1</tspan></text>'
        )
        if self._events[-1].data.ended is Ended.REBASELINED:
            yield text(RIGHT - 4, y + 16, ON_TRIAL, "soft small", "end")

    def _shades(self) -> Iterator[str]:
        """From the first reading that was off to the opening, and from there to the end."""
        data = self._events[0].data
        began, opened, over = (self._at(time) for time in (data.began, data.opened, self._events[-1].time))
        yield band(began, opened, self._colour, fade=0.09)
        yield band(opened, over, self._colour, fade=0.17)

    def _marks(self) -> Iterator[str]:
        """A line for each event, its words above: to the right of it, or to the left where the next one is near."""
        places = [self._across(self._at(alert.time)) for alert in self._events]
        for x, following, alert in zip(places, [*places[1:], np.inf], self._events, strict=True):
            begin, end = self._channel_top - 18, self._score_top + SCORE_HIGH
            yield f'<path d="M{x:.1f} {begin:g}V{end:g}" stroke="var(--{self._colour})" opacity=".75"/>'
            words = f"{what(alert)} {clock(alert.time)}"
            left = following - x < LETTER * len(words)
            yield text(x - 4 if left else x + 4, begin + 9, words, "small", "end" if left else "start", self._colour)

    def _plot(self, top: float, high: float, shapes: Sequence[str], up: Sequence[Tick]) -> str:
        """Shapes of ``detector.page.plots`` in a box, with the words of its upright axis."""
        box = (
            f'<svg class="plot" x="{LEFT}" y="{top:g}" width="{RIGHT - LEFT}" height="{high:g}" '
            f'viewBox="0 0 {plots.WIDE} {plots.HIGH}" preserveAspectRatio="none">{"".join(shapes)}</svg>'
            f'<path d="M{LEFT} {top:g}v{high:g}H{RIGHT}" fill="none" stroke="var(--edge)"/>'
        )
        return box + "".join(
            text(LEFT - 6, top + high * (1 - tick.place) + 4, tick.text, "soft small", "end") for tick in up
        )

    def _line(self, y: Places, colour: str) -> str:
        x = (self._seen.times - self._start) / (self._stop - self._start)
        return line(x, y, colour, width=1.4)

    def _at(self, time: str) -> float:
        """A time's place between both ends, from 0 to 1."""
        return (parse_time(time) - self._start) / (self._stop - self._start)

    @staticmethod
    def _across(place: float) -> float:
        return LEFT + place * (RIGHT - LEFT)


def said(alert: Alert) -> list[tuple[str, str]]:
    """When, and its sentence, in lines."""
    words = alert.data.summary
    first, part, rest = words.partition("; ") if len(words) > LETTERS else (words, "", "")
    return [(clock(alert.time), first + part.rstrip()), *([("", rest)] if rest else [])]


def what(alert: Alert) -> str:
    """A mark's word."""
    if alert.type is EventType.UPDATED and alert.data.kind is Kind.SHIFT:
        return "updated: a shift"
    return alert.type.rpartition(".")[2]


def main(path: Path) -> None:
    """Draw it."""
    path.write_text(picture(watched()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
