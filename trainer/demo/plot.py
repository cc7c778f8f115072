"""The plot of what happened: the score against its threshold, and the sensors that gave it away, over local time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from schemas.moment import SECOND_NS
from trainer.demo.story import Incident, Span

#: Sensors that are drawn.
PANELS = 6

_LINE, _EXPECTED, _THRESHOLD = "#2563a8", "#c2571a", "#b3261e"
_FAULT, _LEARNED, _INCIDENT = "#f3c9a5", "#e3ecf5", "#b3261e"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a929b",
    "axes.labelcolor": "#3b434b",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": "#5b6470",
    "ytick.color": "#5b6470",
    "axes.grid": True,
    "grid.color": "#e9ecef",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, and it can be searched
    "font.family": ["DejaVu Sans", "sans-serif"],
}
#: The least score that is drawn, in thresholds: below it there is nothing to see.
_LEAST_SCORE = 0.02

Times = NDArray[np.int64]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Panel:
    """One sensor: ``times`` ``[N]`` ns and ``observed`` ``[N]``; ``expected`` ``[M]`` at ``expected_times``."""

    name: str
    unit: str | None
    times: Times
    observed: Floats
    expected_times: Times
    expected: Floats


@dataclass(frozen=True)
class Picture:
    """Everything the plot shows. Times in ns; ``score`` in thresholds, NaN where there is none."""

    times: Times
    score: Floats
    score_title: str
    panels: Sequence[Panel]
    learned: Span | None = None
    faults: Sequence[Span] = field(default_factory=tuple)
    incidents: Sequence[Incident] = field(default_factory=tuple)


def draw(picture: Picture) -> str:
    """The plot as an SVG element."""
    with mpl.rc_context(_STYLE):
        rows = -(-len(picture.panels) // 2)
        height = 3.3 + 1.55 * rows
        figure = Figure(figsize=(11, height))
        # placed by hand: an automatic layout doubles the time of drawing, which is part of what is watched
        grid = figure.add_gridspec(
            1 + rows, 2, height_ratios=[2.1, *[1] * rows], left=0.065, right=0.99, bottom=0.5 / height,
            top=1 - 0.3 / height, wspace=0.16, hspace=0.34,
        )  # fmt: skip
        score = figure.add_subplot(grid[0, :])
        _score(score, picture)
        for number, panel in enumerate(picture.panels):
            axes = figure.add_subplot(grid[1 + number // 2, number % 2], sharex=score)
            _panel(axes, panel, picture, legend=number == 0)
            if number < len(picture.panels) - 2:
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(f"local time ({datetime.now().astimezone():%Z})")
        return _svg(figure)


def _score(axes: Axes, picture: Picture) -> None:
    drawn = np.clip(picture.score, _LEAST_SCORE, None)
    top = max(float(np.nanmax(drawn, initial=1.0)) * 2.2, 5.0)
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_SCORE, top)
    _shade(axes, picture, label=True)
    axes.plot(_dates(picture.times), drawn, color=_LINE)
    axes.axhline(1, color=_THRESHOLD, linewidth=1, linestyle=(0, (5, 3)))
    axes.annotate(
        "threshold", (1, 1), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
        ha="right", color=_THRESHOLD,
    )  # fmt: skip
    now = int(picture.times[-1]) if len(picture.times) else 0
    for number, incident in enumerate(picture.incidents):
        ends = _dates(np.array([incident.opened, incident.resolved or max(now, incident.opened)]))
        axes.plot(ends, [top / 1.25] * 2, color=_INCIDENT, linewidth=5, solid_capstyle="butt")
        if number == 0:
            axes.annotate(
                "incident", (float(ends[0]), top / 1.25), xytext=(-4, 0), textcoords="offset points", ha="right",
                va="center", color=_INCIDENT, fontsize=8,
            )  # fmt: skip
    axes.set_ylabel("score, in thresholds")
    axes.set_title(picture.score_title)
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=4, maxticks=9))  # type: ignore[no-untyped-call]
    local = datetime.now().astimezone().tzinfo
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S", tz=local))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _panel(axes: Axes, panel: Panel, picture: Picture, legend: bool) -> None:
    factor, unit = _scaled_unit(panel)
    _shade(axes, picture)
    axes.plot(_dates(panel.times), panel.observed / factor, color=_LINE, label="observed")
    axes.plot(_dates(panel.expected_times), panel.expected / factor, color=_EXPECTED, linewidth=0.9, label="expected")
    values = panel.observed[np.isfinite(panel.observed)] / factor
    axes.set_ylim(*_limits(values))
    axes.set_title(panel.name)
    axes.set_ylabel(unit)
    if legend:
        axes.legend(loc="upper left", ncols=2, fontsize=8, borderaxespad=0.1)


def _limits(values: Floats) -> tuple[float, float]:
    """Room for what was observed; an expected value that strays beyond is cut off."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low < 0.5 * high:
        low = 0.0
    margin = max(0.08 * (high - low), 0.01 * abs(high), 1e-3)
    return low - margin * 0.4, high + margin * 2.5


def _shade(axes: Axes, picture: Picture, label: bool = False) -> None:
    if picture.learned is not None:
        _stretch(axes, picture.learned, _LEARNED, "#4a6b8c" if label else None)
    for fault in picture.faults:
        _stretch(axes, fault, _FAULT, "#8a4a12" if label else None)


def _stretch(axes: Axes, span: Span, colour: str, text: str | None) -> None:
    start, end = _dates(np.array([span.start, span.end])).tolist()
    axes.axvspan(start, end, color=colour, alpha=0.6, linewidth=0)
    if text:
        axes.annotate(
            span.name, ((start + end) / 2, 0), xycoords=("data", "axes fraction"), xytext=(0, 4),
            textcoords="offset points", ha="center", color=text, fontsize=8,
        )  # fmt: skip


def _scaled_unit(panel: Panel) -> tuple[float, str]:
    top = float(np.nanmax(np.abs(panel.observed), initial=0.0)) if len(panel.observed) else 0.0
    if panel.unit == "B/s":
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if top >= factor:
                return factor, f"{prefix}B/s"
        return 1.0, "B/s"
    if panel.unit == "1/s" and top >= 10_000:
        return 1e3, "1000/s"
    return 1.0, panel.unit or "number"


def _dates(times: Times) -> NDArray[np.float64]:
    """Days since 1970, as matplotlib counts."""
    return times / (86400 * SECOND_NS)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
