"""Scores and thresholds over the calibration stretch, and how the training went."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detector.engine.model import Model
from detector.page.text import value
from trainer.page.charts import COLOURS, EDGE, THRESHOLD, concise_dates, drawing, short, svg
from trainer.report import Report


def scores(model: Model, report: Report) -> Iterable[str]:
    """The calibration stretch: scores over time, and the tail that p-values come from."""
    yield "<h2>Scores of normal data</h2>"
    yield (
        "<p>The calibration stretch: the last part of each stream, which the weights never saw. "
        f"{_above(model, report)}</p>"
    )
    with drawing(3.6) as figure:
        time, tail = figure.subplots(1, 2, width_ratios=(2.4, 1))
        for line, colour in zip(report.lines, COLOURS, strict=False):
            moments = [datetime.fromtimestamp(seconds, UTC) for seconds in line.times]
            time.plot(moments, line.scores, color=colour, label=short(line.stream), linewidth=0.9)
        time.axhline(1, color=THRESHOLD, linestyle="--", linewidth=1.2, label="threshold")
        time.set_yscale("log")
        time.set_ylabel("score in thresholds")
        time.set_title("over time")
        concise_dates(time)
        time.legend(loc="upper left", ncols=4, fontsize=8, bbox_to_anchor=(0, -0.12), borderaxespad=0)
        _tail(tail, model)
        yield svg(figure)


def _above(model: Model, report: Report) -> str:
    n = model.manifest.calibration.readings
    drawn = f" Drawn: the {len(report.lines)} streams that came nearest." if len(report.lines) < len(
        model.streams.names
    ) else ""  # fmt: skip
    return (
        f"{report.above} of its {n:,} scores lie above the threshold; the raw score "
        f"{model.manifest.calibration.threshold:.4g} counts as 1 for a stream never seen.{drawn}"
    )


def _tail(axes: Axes, model: Model) -> None:
    streams = model.streams
    axes.plot(streams.tail_score / model.manifest.calibration.threshold, streams.tail_p, color=COLOURS[0])
    axes.axvline(1, color=THRESHOLD, linestyle="--", linewidth=1.2)
    axes.set_yscale("log")
    axes.set_xlabel("score in thresholds")
    axes.set_title("share of normal scores above")


def training(report: Report) -> Iterable[str]:
    """The losses by epoch, or what was left of the data where there was a closed form."""
    yield "<h2>Training</h2>"
    if len(report.fit_loss) == 1:
        validation = value(report.validation_loss[0])
        yield (
            f"<p>Solved in closed form. Mean squared error in scaled units: {value(report.fit_loss[0])} on the "
            f"stretch it was fitted on, {validation} on the one after it.</p>"
        )
        return
    unit = "epoch"
    if report.pictures:
        unit = "part of the way"
        yield "<p>The rate of learning goes up and down to nothing; the weights at its end were kept.</p>"
    else:
        yield (
            f"<p>Epoch {report.best + 1} of {len(report.fit_loss)} was kept: the one with the least loss on the "
            "validation stretch, which the weights never saw.</p>"
        )
    with drawing(2.6) as figure:
        axes = figure.subplots()
        epochs = np.arange(1, len(report.fit_loss) + 1)
        for name, loss, colour in (
            ("fit", report.fit_loss, COLOURS[0]),
            ("validation", report.validation_loss, COLOURS[1]),
        ):
            axes.plot(epochs, [np.nan if v is None else v for v in loss], color=colour, label=name)
        axes.axvline(report.best + 1, color=EDGE, linestyle=":", label="kept")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(unit)
        axes.set_ylabel("mean squared error, scaled")
        axes.legend(loc="upper right", fontsize=8)
        yield svg(figure)
