"""The promise: how often normal data reach which score, what of it was seen, and what looks like faults."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from detector.engine.model import Model
from detector.page.text import duration, percent, plural, table
from schemas.manifest import Calibration
from schemas.promise import DAY_S, Promise
from trainer.page.charts import COLOURS, EDGE, THRESHOLD, drawing, svg
from trainer.report import Report, ReturnLevels

#: Return periods that the axis may name.
NAMED = {
    "1 s": 1, "10 s": 10, "1 min": 60, "10 min": 600, "1 h": 3600, "6 h": 6 * 3600, "1 day": DAY_S,
    "1 week": 7 * DAY_S, "1 month": 30.4 * DAY_S, "1 year": 365.25 * DAY_S, "10 years": 3652.5 * DAY_S,
    "100 years": 36525 * DAY_S, "1000 years": 365250 * DAY_S,
}  # fmt: skip

#: Scores below this are not drawn.
LOWEST = 0.05

#: How a tail came about, in words.
METHODS = {
    "none": "not calibrated",
    "ranks": "the ranks of the episodes themselves",
    "pot-exponential": "an exponential tail over the largest episodes",
    "pot-gpd": "a generalised Pareto tail over the largest episodes",
    "bulk-exponential": "an exponential tail of the ordinary episodes, because the largest look like faults",
    "bulk-gpd": "a generalised Pareto tail of the ordinary episodes, because the largest look like faults",
}


def promise(model: Model, report: Report) -> Iterable[str]:
    """The promise in words, the return levels as a plot, and the episodes that look like faults."""
    if report.returns is None:
        return
    yield "<h2>The promise</h2>"
    yield f"<p>{_words(model)}</p>"
    with drawing(3.4) as figure:
        axes = figure.subplots()
        _draw(axes, model, report.returns)
        yield svg(figure)
    yield from _suspects(model.manifest.calibration)


def _words(model: Model) -> str:
    calibration = model.manifest.calibration
    kept = f"{percent(calibration.share, 0)} of the data" if calibration.share else "the data"
    said = in_words(calibration, len(model.streams.names))
    text = (
        f"{said}, as long as normal data come as these did. The threshold is "
        f"taken from {METHODS[calibration.method]}: {plural(calibration.peaks, 'episode')} of "
        f"{calibration.days:,.4g} stream-days, {kept}."
    )
    if calibration.reach_s:
        text += f" The data reach to one episode in {about(calibration.reach_s)}; what is rarer is extrapolated."
    if calibration.interval is not None:
        low, high = (bound / calibration.threshold for bound in calibration.interval)
        text += f" In nine of ten such stretches the threshold would lie between {low:.2f} and {high:.2f} of this one."
    return text


def in_words(calibration: Calibration, streams: int) -> str:
    """The promise as a sentence without its end."""
    asked = Promise.parse(calibration.false_alarms)
    number = f"{asked.count:g} false-alarm {'episode' if asked.count == 1 else 'episodes'}"
    if not asked.fleet:
        return f"At most {number} of a stream in {about(asked.period_s)}"
    each = about(DAY_S / calibration.rate)
    return f"At most {number} of all {plural(streams, 'stream')} in {about(asked.period_s)}, one in {each} of each"


def about(seconds: float) -> str:
    """A long time in two digits and one unit."""
    for unit, size in (("years", 365.25 * DAY_S), ("weeks", 7 * DAY_S), ("days", DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return duration(round(seconds, 1))


def _draw(axes: Axes, model: Model, shown: ReturnLevels) -> None:
    """Levels in thresholds against return periods of one stream, both logarithmic."""
    calibration, tail = model.manifest.calibration, model.streams.tail
    promised = DAY_S / calibration.rate
    period, level = np.array(shown.period_s), np.array(shown.level)
    last = max(10 * promised, 2 * period.max(initial=0))
    first = max(period.min(initial=promised), promised / 1e4)
    if shown.band_s:
        axes.fill_between(
            shown.band_s, shown.least, shown.most, color=COLOURS[0], alpha=0.2, linewidth=0, label="nine of ten"
        )
    curve = np.geomspace(first, last, 200)
    levels = np.array([tail.level(DAY_S / one) for one in curve]) / calibration.threshold
    axes.plot(curve, levels, color=COLOURS[0], label="tail")
    suspect = np.array(shown.suspect, bool)
    style: Any = {"linestyle": "", "marker": "o", "markersize": 4}
    axes.plot(period[~suspect], level[~suspect], color=COLOURS[5], alpha=0.7, label="episodes", **style)
    if suspect.any():
        axes.plot(
            period[suspect], level[suspect], color=COLOURS[1], fillstyle="none", label="look like faults", **style
        )
    axes.axhline(1, color=THRESHOLD, linestyle="--", linewidth=1.2, label="threshold")
    axes.axvline(promised, color=EDGE, linestyle=":", label="promised")
    axes.set(xscale="log", yscale="log", xlim=(first, last))
    seen = np.concatenate([level[period >= first], levels, [1.0]])
    seen = seen[seen > 0]
    axes.set_ylim(max(seen.min() / 1.3, LOWEST), seen.max() * 1.6)
    _name_periods(axes, first, last)
    axes.set_xlabel("one episode of normal data in")
    axes.set_ylabel("score in thresholds")
    axes.legend(loc="upper left", fontsize=8, ncols=3)


def _name_periods(axes: Axes, first: float, last: float) -> None:
    inside = {name: period for name, period in NAMED.items() if first <= period <= last}
    axes.set_xticks(list(inside.values()), list(inside))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _suspects(calibration: Calibration) -> Iterable[str]:
    if not calibration.suspected:
        return
    more = "" if calibration.suspected == len(calibration.suspects) else ", the worst of them"
    yield (
        f"<p>{plural(calibration.suspected, 'episode')} of these data would raise an alarm and "
        f"{'looks like a fault' if calibration.suspected == 1 else 'look like faults'}{more}: leave real faults out "
        "and fit again.</p>"
    )
    rows = [(html.escape(one.stream), html.escape(one.time), f"{one.score:.3g}") for one in calibration.suspects]
    yield table(("stream", "at", "score in thresholds"), rows, ("", "", "n"))
