"""The worst windows of the calibration stretch: observed against expected."""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detector.engine.model import Model
from detector.page.text import key, percent
from schemas.manifest import Manifest
from schemas.moment import SECOND_NS, format_time
from trainer.page.charts import BAND, COLOURS, drawing, short, svg
from trainer.report import Report
from trainer.worst import TRACES, Trace, Worst


def worst_windows(model: Model, report: Report) -> Iterable[str]:
    """A row of small charts for each window; nothing where none was kept."""
    if not report.worst:
        return
    reconstructed = report.worst[0].reconstructed
    expected = (
        "the window as the model reconstructs it"
        if reconstructed
        else "what the model expected of each reading from those before it"
    )
    yield "<h2>Worst windows</h2>"
    yield (
        "<p>Where the calibration stretch scored highest: the readings up to the one that was scored, and "
        f"{expected}, in the channels that the score was made from. The shaded part is the model's window. What is "
        "seen here was taken as normal: if it is a fault, leave it out and fit again.</p>"
    )
    yield key(("observed", "expected"), ("c0", "c1"))
    for number, worst in enumerate(report.worst, 1):
        time = format_time(round(worst.time * SECOND_NS))
        yield f"<h3>{number}. {html.escape(worst.stream)}, {time}, score {worst.score:.3g}</h3>"
        yield _row(model.manifest, worst)


def _row(manifest: Manifest, worst: Worst) -> str:
    with drawing(1.9) as figure:
        places = figure.subplots(1, TRACES, squeeze=False)[0]
        for axes, trace in zip(places, worst.traces, strict=False):
            _chart(axes, manifest, worst, trace)
        for axes in places[len(worst.traces) :]:
            axes.set_axis_off()
        return svg(figure)


def _chart(axes: Axes, manifest: Manifest, worst: Worst, trace: Trace) -> None:
    span_s = (len(trace.observed) - 1) * worst.step * manifest.interval_s
    unit, size = unit_of(span_s)
    before = np.arange(1 - len(trace.observed), 1) * worst.step * manifest.interval_s / size
    axes.axvspan(before[-min(worst.window, len(before))], 0, color=BAND, linewidth=0)
    marker = "." if len(before) < 3 else ""
    for values, colour in ((trace.observed, COLOURS[0]), (trace.expected, COLOURS[1])):
        axes.plot(before, [np.nan if v is None else v for v in values], color=colour, marker=marker)
    channel = manifest.channels[trace.channel]
    axes.set_title(f"{short(channel.name, 22)}, {percent(trace.share, 0)}")
    axes.set_xlabel(f"{unit} before", fontsize=8)
    if channel.unit:
        axes.set_ylabel(short(channel.unit), fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)


def unit_of(span_s: float) -> tuple[str, float]:
    """The largest unit of which a span holds at least two, and its seconds."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if span_s >= 2 * size:
            return unit, size
    return "seconds", 1.0
