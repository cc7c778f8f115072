"""The page's tables: facts, candidates, channels, streams, settings and versions."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np

from detector.engine.model import Model
from detector.page.text import duration, percent, plural, table, value
from trainer.report import LISTED, Report

#: Channels that are listed; those with the largest share of the error come first.
CHANNELS = 200


def facts(model: Model, report: Report) -> str:
    """The numbers that matter most, in boxes."""
    manifest = model.manifest
    every = f"one every {duration(manifest.interval_s)}"
    noun = "images" if manifest.frame else "windows"
    first = [
        (f"{len(manifest.channels)}", "channels"),
        (plural(manifest.window, "reading"), f"in a window, {every}"),
    ]
    if manifest.frame:
        first = [(html.escape(str(manifest.frame)), "pixels"), (plural(1, "image"), f"at a time, {every}")]
    boxes = [
        *first,
        (f"{report.windows['fit']:,}", f"{noun} fitted on"),
        (f"{report.windows['validation']:,}", f"{noun} to see how it goes" if manifest.frame else f"{noun} to stop by"),
        (f"{manifest.calibration.readings:,}", "scores to calibrate by"),
        (html.escape(manifest.calibration.false_alarms), "false alarms at most"),
        *([(duration(manifest.season.period_s), "after which the data repeat themselves")] if manifest.season else []),
    ]
    return '<div class="facts">' + "".join(f"<div><b>{b}</b><span>{s}</span></div>" for b, s in boxes) + "</div>"


def chosen(model: Model) -> Iterable[str]:
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
            duration(round(c.fit_s, 1)),
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
    yield table(heads, rows, ("", "n", "bar", "n", "n", "n", "n", "n", "n"))


def channels(model: Model, report: Report) -> Iterable[str]:
    """Each channel's normal range, and how far off the model usually is."""
    level, spread = model.streams.group_loc, model.streams.group_scale
    square = np.square(report.usual_error)
    share = square / max(float(square.sum()), 1e-30)
    order = np.argsort(-share, kind="stable")[:CHANNELS]
    rows = [
        (
            html.escape(model.manifest.channels[c].name),
            html.escape(model.manifest.channels[c].unit or ""),
            value(model.manifest.channels[c].min),
            value(model.manifest.channels[c].max),
            value(float(level[c])),
            value(float(spread[c])),
            value(report.usual_error[c] * float(spread[c])),
            f"{share[c]:.1%}",
            f'<i style="width:{share[c] / max(share[order[0]], 1e-30):.0%}"></i>',
        )
        for c in order
    ]
    heads = ("channel", "unit", "least", "largest", "level", "spread", "usual error", "share", "")
    yield "<h2>Channels</h2>"
    yield (
        "<p>Range, level and spread of normal data over all streams. Usual error: how far off the model is on the "
        "calibration stretch (root mean square); a score weighs a channel's error against it. Share: the channel's "
        "part of all squared errors, in spreads. One that leads by far is hard to predict, or was not normal there.</p>"
    )
    yield table(heads, rows, ("", "", "n", "n", "n", "n", "n", "n", "bar"))
    if len(order) < len(share):
        yield f"<p>The first {CHANNELS} of {len(share)}.</p>"


def streams(model: Model, report: Report) -> Iterable[str]:
    """Each stream's threshold, and how it fares in its calibration stretch."""
    rows = [
        (
            html.escape(row.name),
            f"{row.readings:,}",
            f"{row.scores:,}",
            value(row.threshold),
            f"{row.factor:.3g}",
            value(row.median),
            value(row.largest),
            percent(row.above),
            "–" if row.episodes is None else f"{row.episodes:.2f}",
            "–" if row.error is None else f"{row.error:.3f}",
        )
        for row in report.streams
    ]
    heads = (
        "stream", "readings", "calibration scores", "raw score that counts as 1", "times the group's", "median score",
        "largest score", "above 1", "episodes a day", "mean error",
    )  # fmt: skip
    yield "<h2>Streams</h2>"
    yield (
        "<p>Scores and errors of the calibration stretch, scores in thresholds. Episodes: incidents that the detector "
        "would have opened there, by its default of 2 anomalous readings in 3; false ones, if the stretch is normal. "
        "Mean error: how far off the newest reading is expected, over all channels, in spreads.</p>"
    )
    yield table(heads, rows, ("", "n", "n", "n", "n", "n", "n", "n", "n", "n"))
    total = len(model.streams.names)
    if total > LISTED:
        yield f"<p>The first {LISTED} of {total}.</p>"


def versions(model: Model, report: Report) -> Iterable[str]:
    """All that would be needed to fit the model again."""
    manifest = model.manifest
    known: dict[str, Any] = {
        **{
            f"setting {name}": f"{value:.4g}" if isinstance(value, float) else value
            for name, value in report.settings.items()
        },
        **manifest.made_with,
        "graph SHA-256": manifest.graph_sha256,
        "data SHA-256": manifest.training.data_sha256,
    }
    rows = [(html.escape(name), f"<code>{html.escape(str(value))}</code>") for name, value in known.items()]
    yield "<h2>Settings and versions</h2>"
    yield table(("", ""), rows, ("", ""))
