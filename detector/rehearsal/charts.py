"""The plots of a rehearsal: scores of a stream over time, and the readings around an incident."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from detector.engine.sentence import number, tidy
from detector.page.plots import (
    Floats,
    Scale,
    Tick,
    around,
    band,
    ends,
    level,
    line,
    log_ticks,
    plot,
    thinned,
    time_ticks,
)
from detector.rehearsal.record import Record, Trace
from detector.rehearsal.sent import Incident
from schemas.alert import ChannelShare, Kind
from schemas.moment import SECOND_NS

#: Colours of kinds, names of the palette.
COLOURS = {
    Kind.ANOMALY: "threshold", Kind.SHIFT: "c3", Kind.DRIFT: "c1", Kind.STUCK: "c0", Kind.MISSING: "c5",
    Kind.RANGE: "c4", Kind.CLOCK: "c2", Kind.SILENT: "edge",
}  # fmt: skip

#: Points of a timeline, and of a line of an incident's picture.
BINS, POINTS = 720, 300
#: Readings drawn before an incident began and after its end, and in all.
LEAD, MOST = 60, 1200
#: Charts of an incident side by side, and the share from which on a channel is drawn.
CHARTS, LEAST_SHARE = 3, 0.01
#: Scores are drawn from a hundredth of the threshold to ten thousand times it.
LOWEST, HIGHEST = 0.01, 1e4


def timeline(
    record: Record,
    name: str,
    maxima: NDArray[np.float32],
    incidents: Sequence[Incident],
    other: Sequence[Incident] | None,
) -> str:
    """The highest scores of a stream over the whole span, incidents shaded; below them those of other settings."""
    start, stop = record.span
    scale = _of_scores(_most(maxima.astype(np.float64)))
    shapes = [level(tick.place, "grid") for tick in log_ticks(scale)]
    shapes += [_shade(incident, start, stop, fade=0.3) for incident in incidents]
    x = (np.arange(len(maxima)) + 0.5) / len(maxima)
    shapes.append(line(x, scale(maxima), "c0", width=1))
    shapes.append(level(float(scale([1.0])[0]), "threshold", dashed=True))
    words = f"scores of {name} over time: {len(incidents)} incidents"
    drawn = plot(shapes, 6, time_ticks(start, stop), log_ticks(scale), words)
    return drawn if other is None else _lanes(incidents, other, start, stop) + drawn


def _of_scores(highest: float) -> Scale:
    return Scale(LOWEST, min(max(10.0, 2 * highest), HIGHEST) if highest > 0 else 10.0, log=True)


def _lanes(first: Sequence[Incident], second: Sequence[Incident], start: int, stop: int) -> str:
    """Incidents of two settings, one lane each."""
    shapes = [_shade(incident, start, stop, fade=1, low=0.56) for incident in first]
    shapes += [_shade(incident, start, stop, fade=1, low=0.0, high=0.44) for incident in second]
    drawn = plot(shapes, 1.6, (), (Tick(0.78, "A"), Tick(0.22, "B")), "incidents with settings A and B")
    return f'<div class="lanes">{drawn}</div>'


def _shade(incident: Incident, start: int, stop: int, *, fade: float, low: float = 0, high: float = 1) -> str:
    span = max(stop - start, 1)
    left = (incident.began - start) / span
    right = 1.0 if incident.ended is None else (incident.ended - start) / span
    return band(left, right, COLOURS[incident.kind], incident.said, low=low, high=high, fade=fade)


def picture(record: Record, incident: Incident) -> str:
    """The channels that an incident names, observed against expected; of images the map of errors. Then the score."""
    manifest, image = record.manifest, incident.data.image
    shown = [] if manifest.frame else _shown(incident, manifest.channel_names)
    places = [manifest.channel_names.index(channel.name) for channel in shown]
    trace = record.trace(incident, places, LEAD, MOST)
    if not len(trace.times):
        return '<p class="soft">There are no readings around it in these data.</p>'
    view = _View(record, incident, trace)
    charts = [] if image is None else [_map(image.map, image.x, image.y)]
    for k, (channel, place) in enumerate(zip(shown, places, strict=True)):
        unit = channel.unit or manifest.channels[place].unit
        charts.append(view.channel(channel, unit, trace.observed[:, k], trace.expected[:, k]))
    if len(charts) < CHARTS:
        charts.append(view.score())
    return f'<div class="charts">{"".join(charts)}</div>'


def _shown(incident: Incident, names: Sequence[str]) -> list[ChannelShare]:
    """The channels worth a chart: the first, and those with a share. Where none is named, the model's first."""
    named = [channel for channel in incident.data.channels if channel.name in names]
    if not named:  # no channel is at fault: it shows when readings came
        return [ChannelShare(name=names[0], share=0, observed=None, expected=None, unit=None)]
    return [channel for place, channel in enumerate(named[:CHARTS]) if place == 0 or channel.share >= LEAST_SHARE]


class _View:
    """Charts of one stretch of time, side by side."""

    def __init__(self, record: Record, incident: Incident, trace: Trace) -> None:
        self._incident, self._times = incident, trace.times
        self._start, self._stop = int(trace.times[0]), int(trace.times[-1])
        self._scores = trace.score
        self._gap = 1.5 * record.manifest.interval_s * SECOND_NS
        since = (trace.times - self._start).astype(np.float64)
        self._x = since / (self._stop - self._start) if self._stop > self._start else np.full(len(since), 0.5)

    def channel(
        self, channel: ChannelShare, unit: str | None, observed: NDArray[np.float32], expected: NDArray[np.float32]
    ) -> str:
        """Observed over expected."""
        drawn = [self._broken(values) for values in (observed, expected)]
        least, most = (f(np.concatenate([values for _, values in drawn])) for f in (_least, _most))
        scale = around((least, most))
        shapes = [
            line(*thinned(places, scale(values), POINTS), colour, width=1.4)
            for (places, values), colour in zip(reversed(drawn), ("c1", "c0"), strict=True)
        ]
        share = f" {100 * channel.share:.0f}%" if channel.share > 0 else ""
        title = f"<b>{html.escape(tidy(channel.name, 60))}</b>{share}{f', {html.escape(unit)}' if unit else ''}"
        up = ends(scale, least, most) if np.isfinite(least) else []
        return self._figure(title, shapes, up, f"{channel.name}: observed and expected")

    def score(self) -> str:
        """The score against its threshold."""
        scale = _of_scores(_most(self._scores.astype(np.float64)))
        x, values = self._broken(self._scores)
        shapes = [
            line(*thinned(x, scale(values), POINTS), "soft", width=1.4),
            level(float(scale([1.0])[0]), "threshold", dashed=True),
        ]
        return self._figure("<b>score</b>, threshold at 1", shapes, log_ticks(scale), "score in thresholds")

    def _figure(self, title: str, shapes: list[str], up: list[Tick], words: str) -> str:
        shade = [_shade(self._incident, self._start, self._stop, fade=0.16)] if self._stop > self._start else []
        drawn = plot([*shade, *shapes], 7, time_ticks(self._start, self._stop, 4), up, words)
        return f"<figure><figcaption>{title}</figcaption>{drawn}</figure>"

    def _broken(self, values: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """The line with a break wherever readings are missing."""
        holes = np.flatnonzero(np.diff(self._times) > self._gap) + 1
        return np.insert(self._x, holes, self._x[holes]), np.insert(values.astype(np.float64), holes, np.nan)


def _least(values: Floats) -> float:
    return float(np.nanmin(values)) if not np.isnan(values).all() else float("nan")


def _most(values: Floats) -> float:
    return float(np.nanmax(values)) if not np.isnan(values).all() else float("nan")


def _map(png: str, x: int, y: int) -> str:
    return (
        f'<figure class="map"><img src="data:image/png;base64,{html.escape(png)}" alt="errors of the pixels">'
        f"<figcaption>error of each pixel; the largest at column {number(x)}, row {number(y)}</figcaption></figure>"
    )


def used(incidents: Iterable[Incident]) -> list[Kind]:
    """Kinds that occur, in the order in which kinds are listed."""
    found = {incident.kind for incident in incidents}
    return [kind for kind in Kind if kind in found]
