"""report.html: what was learned from what, and how well, on one self-contained page (its plots are inline SVG)."""

from __future__ import annotations

import html
import io
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detector.engine.model import Model
from trainer.report import LISTED, Report

PAGE_FILE = "report.html"

#: Channels that are listed; those with the largest share of the error come first.
CHANNELS = 200

_COLOURS = ("#2563a8", "#c2571a", "#2f7d4f", "#7a4fa3", "#a33b4a", "#5b6470")
_THRESHOLD = "#b3261e"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a929b",
    "axes.labelcolor": "#3b434b",
    "xtick.color": "#5b6470",
    "ytick.color": "#5b6470",
    "axes.grid": True,
    "grid.color": "#e4e7ea",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "legend.frameon": False,
    "svg.hashsalt": "residual",  # the same report, the same bytes
    "svg.fonttype": "none",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c2126; background: #fff;
  max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.2rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .4rem; }}
.lead {{ color: #4a525a; margin: 0 0 1.4rem; }} p {{ margin: .3rem 0 .8rem; }}
.facts {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: .7rem; margin: 1.2rem 0; }}
.facts div {{ background: #f4f6f8; border-radius: .5rem; padding: .6rem .8rem; }}
.facts b {{ display: block; font-size: 1.2rem; font-weight: 600; }} .facts span {{ color: #5b6470; font-size: .85rem; }}
.warning {{ background: #fdf3e4; border-left: 4px solid #d58a1c; padding: .5rem .8rem; margin: .8rem 0; }}
@media (max-width: 40rem) {{ .facts {{ grid-template-columns: 1fr; }} }}
svg {{ width: 100%; height: auto; display: block; }}
table {{ border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }}
th {{ text-align: left; color: #5b6470; font-weight: 600; border-bottom: 1px solid #c6ccd2; }}
td, th {{ padding: .22rem .7rem .22rem 0; }} td {{ border-bottom: 1px solid #eceff1; }}
.n {{ text-align: right; }} .bar {{ width: 9rem; }}
.bar i {{ display: block; height: .6rem; background: #2563a8; border-radius: 2px; min-width: 1px; }}
code {{ font-size: .85em; overflow-wrap: anywhere; }} .wide {{ overflow-x: auto; }}
</style></head><body>
{body}
</body></html>
"""


def render(model: Model, report: Report) -> str:
    """The page's text."""
    manifest, training = model.manifest, model.manifest.training
    title = f"Residual: {manifest.model} model of group {manifest.group}"
    streams = _plural(training.streams, "stream")
    body = [
        f"<h1>{html.escape(manifest.model)} model</h1>",
        f'<p class="lead">Learned from {training.readings:,} readings of {streams}, {html.escape(training.start)} to '
        f"{html.escape(training.end)}. A score above 1 is anomalous.</p>",
        _facts(model, report),
        *(f'<p class="warning">{html.escape(warning)}</p>' for warning in report.warnings),
        *_chosen(model),
        "<h2>Scores of normal data</h2>",
        f"<p>The calibration stretch: the last part of each stream, which the weights never saw. "
        f"{_above(model, report)}</p>",
        _scores(model, report),
        "<h2>Training</h2>",
        *_training(report),
        f"<h2>Channels</h2>{_channels(model, report)}",
        f"<h2>Streams</h2>{_streams(model, report)}",
        f"<h2>Settings and versions</h2>{_versions(model, report)}",
    ]
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


def _facts(model: Model, report: Report) -> str:
    manifest = model.manifest
    facts = [
        (f"{len(manifest.channels)}", "channels"),
        (f"{manifest.window} readings", f"in a window, one every {_duration(manifest.interval_s)}"),
        (f"{report.windows['fit']:,}", "windows fitted on"),
        (f"{report.windows['validation']:,}", "windows to stop by"),
        (f"{manifest.calibration.readings:,}", "scores to calibrate by"),
        (f"1 in {1 / manifest.calibration.rate:,.0f}", "normal readings may score above 1"),
        *([(_duration(manifest.season.period_s), "after which the data repeat themselves")] if manifest.season else []),
    ]
    return '<div class="facts">' + "".join(f"<div><b>{b}</b><span>{s}</span></div>" for b, s in facts) + "</div>"


def _chosen(model: Model) -> Iterable[str]:
    """What the model was chosen from, best first; nothing where it was named."""
    candidates = sorted(model.manifest.candidates, key=lambda candidate: -candidate.found)
    if not candidates:
        return
    largest = max(candidate.found for candidate in candidates)
    rows = [
        (
            f"<b>{html.escape(c.model)}</b>" if c.model == model.manifest.model else html.escape(c.model),
            f"{c.found:.3f}",
            f'<i style="width:{c.found / max(largest, 1e-9):.0%}"></i>',
            f"{c.over_baseline:+.3f}",
            f"{c.standard_errors:+.1f}",
            f"{c.parameters:,}",
            f"{c.mflop:.3g}",
            f"{c.microseconds:.3g}",
            _duration(round(c.fit_s, 1)),
        )
        for c in candidates
    ]
    heads = ("model", "found", "", "over pca", "standard errors", "parameters", "MFLOP", "µs", "fit")
    yield "<h2>Why this model</h2>"
    yield (
        "<p>No model was named, so these were fitted, and faults of known kinds were planted into the calibration "
        "stretch. Found: area under precision and recall, mean over kinds. A costlier model has to find clearly more "
        "than a cheaper one. MFLOP and µs: to score one window, on one core of the machine that fitted it.</p>"
    )
    yield _table(heads, rows, ("", "n", "bar", "n", "n", "n", "n", "n", "n"))


def _above(model: Model, report: Report) -> str:
    n = model.manifest.calibration.readings
    drawn = f" Drawn: the {len(report.lines)} streams that came nearest." if len(report.lines) < len(
        model.streams.names
    ) else ""  # fmt: skip
    return (
        f"{report.above} of its {n:,} scores lie above the threshold; the raw score "
        f"{model.manifest.calibration.threshold:.4g} counts as 1 for a stream without a threshold of its own.{drawn}"
    )


def _scores(model: Model, report: Report) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        time, tail = figure.subplots(1, 2, width_ratios=(2.4, 1))
        for line, colour in zip(report.lines, _COLOURS, strict=False):
            moments = [datetime.fromtimestamp(seconds, UTC) for seconds in line.times]
            time.plot(moments, line.scores, color=colour, label=_short(line.stream), linewidth=0.9)
        time.axhline(1, color=_THRESHOLD, linestyle="--", linewidth=1.2, label="threshold")
        time.set_yscale("log")
        time.set_ylabel("score in thresholds")
        time.set_title("over time", loc="left", fontsize=9, color="#5b6470")
        _concise_dates(time)
        time.legend(loc="upper left", ncols=4, fontsize=8, bbox_to_anchor=(0, -0.12), borderaxespad=0)
        _tail(tail, model)
        return _svg(figure)


def _tail(axes: Axes, model: Model) -> None:
    streams = model.streams
    axes.plot(streams.tail_score, streams.tail_p, color=_COLOURS[0])
    axes.axvline(1, color=_THRESHOLD, linestyle="--", linewidth=1.2)
    axes.set_yscale("log")
    axes.set_xlabel("score in thresholds")
    axes.set_title("share of normal scores above", loc="left", fontsize=9, color="#5b6470")


def _concise_dates(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _training(report: Report) -> Iterable[str]:
    if len(report.fit_loss) == 1:
        validation = _value(report.validation_loss[0])
        yield (
            f"<p>Solved in closed form. Mean squared error in scaled units: {_value(report.fit_loss[0])} on the "
            f"stretch it was fitted on, {validation} on the one after it.</p>"
        )
        return
    yield (
        f"<p>Epoch {report.best + 1} of {len(report.fit_loss)} was kept: the one with the least loss on the validation "
        "stretch, which the weights never saw.</p>"
    )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        axes = figure.subplots()
        epochs = np.arange(1, len(report.fit_loss) + 1)
        for name, loss, colour in (
            ("fit", report.fit_loss, _COLOURS[0]),
            ("validation", report.validation_loss, _COLOURS[1]),
        ):
            axes.plot(epochs, [np.nan if v is None else v for v in loss], color=colour, label=name)
        axes.axvline(report.best + 1, color="#8a929b", linestyle=":", label="kept")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean squared error, scaled")
        axes.legend(loc="upper right", fontsize=8)
        yield _svg(figure)


def _channels(model: Model, report: Report) -> str:
    level, spread = model.streams.group_loc, model.streams.group_scale
    square = np.square(report.usual_error)
    share = square / max(float(square.sum()), 1e-30)
    order = np.argsort(-share, kind="stable")[:CHANNELS]
    rows = [
        (
            html.escape(model.manifest.channels[c].name),
            html.escape(model.manifest.channels[c].unit or ""),
            _value(model.manifest.channels[c].min),
            _value(model.manifest.channels[c].max),
            _value(float(level[c])),
            _value(float(spread[c])),
            _value(report.usual_error[c] * float(spread[c])),
            f"{share[c]:.1%}",
            f'<i style="width:{share[c] / max(share[order[0]], 1e-30):.0%}"></i>',
        )
        for c in order
    ]
    more = "" if len(order) == len(share) else f"<p>The first {CHANNELS} of {len(share)}.</p>"
    heads = ("channel", "unit", "least", "largest", "level", "spread", "usual error", "share", "")
    return (
        "<p>Range, level and spread of normal data over all streams. Usual error: how far off the model is on the "
        "calibration stretch (root mean square); a score weighs a channel's error against it. Share: the channel's "
        "part of all squared errors, in spreads. One that leads by far is hard to predict, or was not normal there.</p>"
        + _table(heads, rows, ("", "", "n", "n", "n", "n", "n", "n", "bar"))
        + more
    )


def _streams(model: Model, report: Report) -> str:
    rows = [
        (
            html.escape(row.name),
            f"{row.readings:,}",
            f"{row.scores:,}",
            _value(row.threshold),
            "its own" if row.own else "the group's",
        )
        for row in report.streams
    ]
    total = len(model.streams.names)
    more = "" if total <= LISTED else f"<p>The first {LISTED} of {total}.</p>"
    heads = ("stream", "readings", "calibration scores", "raw score that counts as 1", "")
    return _table(heads, rows, ("", "n", "n", "n", "")) + more


def _versions(model: Model, report: Report) -> str:
    manifest = model.manifest
    facts: dict[str, Any] = {
        **{
            f"setting {name}": f"{value:.4g}" if isinstance(value, float) else value
            for name, value in report.settings.items()
        },
        **manifest.made_with,
        "graph SHA-256": manifest.graph_sha256,
        "data SHA-256": manifest.training.data_sha256,
    }
    rows = [(html.escape(name), f"<code>{html.escape(str(value))}</code>") for name, value in facts.items()]
    return _table(("", ""), rows, ("", ""))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str]) -> str:
    """Cells are HTML already."""
    head = "".join(f'<th class="{c}">{h}</th>' for h, c in zip(heads, classes, strict=True))
    lines = "\n".join(
        "<tr>" + "".join(f'<td class="{c}">{cell}</td>' for cell, c in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _duration(seconds: float) -> str:
    """Seconds in the largest unit that gives a whole number of at least one."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _short(name: str) -> str:
    """A legend's text: not too long, no formula, and no underscore first, which matplotlib would leave out."""
    name = name if len(name) <= 24 else name[:23] + "…"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with warnings.catch_warnings():
        # letters that matplotlib's own font lacks: it only measures them, the browser draws them
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
