"""The codes of an autoencoder in two dimensions, and what a variational one makes of them."""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np

from detector.engine.model import Model
from detector.page.text import key, percent, plural
from trainer.latent import Decoded
from trainer.page.charts import COLOURS, THRESHOLD, drawing, svg
from trainer.report import Report

#: Share of a cell of the grid that its lines may fill.
FILLED = 0.86


def latent_space(report: Report) -> Iterable[str]:
    """Windows by the first two principal axes of their codes; nothing where the model has none."""
    latent = report.latent
    if latent is None:
        return
    both = percent(sum(latent.share), 0)
    drawn = len(latent.fit.x) + len(latent.calibration.x)
    yield "<h2>Codes</h2>"
    model = html.escape(latent.model)
    noun = "images" if report.pictures else "windows"
    yield (
        f"<p>The codes of {drawn:,} {noun} ({plural(latent.size, 'number')} each, {model}) on their first two "
        f"principal axes, which carry {both} of their variance. Where calibration lies elsewhere than fit, the data "
        f"moved on after the fit.{' The worst windows are numbered as above.' if latent.worst.x else ''}</p>"
    )
    marks = ("fit stretch", "calibration stretch", *(["worst windows"] if latent.worst.x else []))
    yield key(marks, ("c0", "c1", "threshold"))
    with drawing(4.2) as figure:
        axes = figure.subplots()
        for points, colour in ((latent.fit, COLOURS[0]), (latent.calibration, COLOURS[1])):
            axes.plot(points.x, points.y, ".", color=colour, alpha=0.55, markersize=4, markeredgewidth=0)
        axes.plot(latent.worst.x, latent.worst.y, "o", color=THRESHOLD, fillstyle="none", markersize=9)
        for number, place in enumerate(zip(latent.worst.x, latent.worst.y, strict=True), 1):
            axes.annotate(f"{number}", place, (6, 6), textcoords="offset points", color=THRESHOLD, weight="bold")
        axes.set_xlabel(f"first axis, {percent(latent.share[0], 0)} of the variance")
        axes.set_ylabel(f"second axis, {percent(latent.share[1], 0)}")
        yield svg(figure)


def decoded_grid(model: Model, report: Report) -> Iterable[str]:
    """Windows decoded from codes on the two axes; nothing where the code has no distribution."""
    decoded = report.decoded
    if decoded is None:
        return
    names = [model.manifest.channels[c].name for c in decoded.channels]
    low, high = _range(decoded)
    season = ", at the season's mean" if model.manifest.season else ""
    yield "<h2>Decoded grid</h2>"
    yield (
        "<p>What the model makes of codes on these two axes, so many standard deviations from the middle of all "
        f"codes{season}: each cell is a whole window of the channels that differ most over the grid. All cells reach "
        f"from {_signed(low)} to {_signed(high)} spreads about a channel's level.</p>"
    )
    yield key(names, [f"c{number}" for number in range(len(names))])
    with drawing(5.6) as figure:
        axes = figure.subplots()
        for row, cells in enumerate(decoded.windows):
            for column, lines in enumerate(cells):
                for line, colour in zip(lines, COLOURS, strict=False):
                    x = column + 0.5 + FILLED * np.linspace(-0.5, 0.5, len(line))
                    y = row + 0.5 + FILLED * ((np.asarray(line) - low) / (high - low) - 0.5)
                    axes.plot(x, y, color=colour, marker="." if len(line) == 1 else "")
        count = len(decoded.steps)
        axes.set(xlim=(0, count), ylim=(0, count))
        for axis, label in ((axes.xaxis, "first axis"), (axes.yaxis, "second axis")):
            axis.set_ticks(np.arange(count + 1), [""] * (count + 1))  # a line between cells, a number below each
            axis.set_ticks(np.arange(count) + 0.5, [_signed(step) for step in decoded.steps], minor=True)
            axis.set_tick_params(which="both", length=0)
            axis.set_label_text(f"{label}, standard deviations")
        yield svg(figure)


def _range(decoded: Decoded) -> tuple[float, float]:
    """Least and largest value of all cells; apart, where they are the same."""
    values = np.array(decoded.windows)
    low, high = float(values.min()), float(values.max())
    return low, high if high - low > 1e-9 else low + 1


def _signed(number: float) -> str:
    """With its sign, as long as the plus."""
    return f"{number:+.2g}".replace("-", "−") if number else "0"
