"""The report of a generator on one page: how good it is beside real readings and a Gaussian, and how it looks."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from detector.page.document import page
from detector.page.text import table
from schemas.moment import format_time
from trainer.page.charts import COLOURS, drawing, short, svg
from trainer.synthesis.game import LOOK, Course
from trainer.synthesis.pipeline import Fitted
from trainer.synthesis.quality import Quality

PAGE_FILE = "report.html"

#: Rows, in order, as they are called.
ROWS = {"real": "real, another time", "gan": "adversarial", "vae": "variational", "gaussian": "Gaussian (95 %)"}

#: Channels that are drawn, and made windows of each.
CHANNELS, DRAWN = 6, 12

#: Steps of the game of which a mean is drawn.
SMOOTHED = 20

Floats = NDArray[np.float32]


def render(fitted: Fitted) -> str:
    """The page's text."""
    return page("Generator", _body(fitted))


def _body(fitted: Fitted) -> Iterator[str]:
    manifest = fitted.recipe.manifest
    start, stop = (format_time(ns)[:10] for ns in (manifest.start_ns, manifest.stop_ns))
    yield "<h1>Generator</h1>"
    others = len(manifest.channels) - len(manifest.varying)
    beside = f", {others} of which are constant or the same as another" if others else ""
    yield (
        f'<p class="lead">The {ROWS[manifest.model]} one, of {len(manifest.channels)} channels{beside}; learned from '
        f"{manifest.readings} readings from {start} to {stop}.</p>"
    )
    yield "<h2>How good it is</h2>"
    yield (
        f"<p>Windows of {manifest.window} readings, compared with real ones of stretches of time that nothing has "
        "learned from. No measure stands alone: copies are told apart from nothing, a Gaussian forecasts well, and a "
        "generator of fifty windows has a fine precision. The first row is what is possible, the last one what is "
        "cheap.</p>"
    )
    yield measures(manifest.quality)
    for c in _shown(fitted):
        yield f"<h3>{html.escape(manifest.channels[c])}</h3>"
        yield _channel(fitted, c)
    if fitted.course is not None:
        yield from game(fitted.course)


def measures(quality: Mapping[str, Quality]) -> str:
    """The table of measures, and what they are."""
    head = [
        "",
        "told apart",
        "forecast error",
        "MMD²",
        "precision",
        "recall",
        "nearest",
        "copied",
        "autocorr.",
        "corr.",
    ]
    rows = [
        [
            ROWS[name], f"{q.discriminative:.3f}", f"{q.tstr:.3f}", f"{q.mmd:.4f}", f"{q.precision:.2f}",
            f"{q.recall:.2f}", f"{q.nearest:.2f}", f"{q.copied:.3f}", f"{q.autocorrelation:.3f}",
            f"{q.crosscorrelation:.3f}",
        ]
        for name in ROWS if (q := quality.get(name)) is not None
    ]  # fmt: skip
    said = (
        "<p>Told apart: by how much the better of two classifiers beats guessing, at most .5. Forecast error: of the "
        "last reading of real windows, learned from these. Precision: lies where real windows lie; recall: real "
        "windows lie where it does. Nearest: distance to the nearest training window, 1 for real windows; copied: "
        "share nearer than 95 of 100 real ones are, .05 for real windows. Autocorr., corr.: mean differences.</p>"
    )
    return table(head, rows, ["", *("n" for _ in head[1:])]) + said


def _shown(fitted: Fitted) -> list[int]:
    varying = fitted.recipe.manifest.varying
    return [varying[place] for place in spread(len(varying))]


def spread(count: int) -> list[int]:
    """Places of the channels that are drawn, of so many: some, evenly spread."""
    places: list[int] = np.unique(np.linspace(0, count - 1, min(CHANNELS, count)).round().astype(int)).tolist()
    return places


def _channel(fitted: Fitted, c: int) -> str:
    """Windows of each kind, and how often each value is."""
    kinds = [("real", fitted.real), *((n, fitted.made[n]) for n in ("gan", "vae", "gaussian") if n in fitted.made)]
    with drawing(1.9) as figure:
        axes = figure.subplots(1, len(kinds) + 1)
        low, high = np.nanmin(fitted.real[:, :, c]), np.nanmax(fitted.real[:, :, c])
        room = 0.05 * max(float(high - low), 1e-6)
        for number, (name, windows) in enumerate(kinds):
            ax, colour = axes[number], COLOURS[number]
            # by chance: even steps would meet the same time of day again and again
            for place in np.random.default_rng(0).choice(len(windows), min(DRAWN, len(windows)), replace=False):
                ax.plot(windows[place, :, c], color=colour, alpha=0.6, linewidth=0.8)
            ax.set_title(short(ROWS[name]))
            ax.set_ylim(low - room, high + room)
            bins = np.linspace(low, high, 30) if high > low else 3
            axes[-1].hist(windows[:, :, c].ravel(), bins=bins, density=True, histtype="step", color=colour)
        axes[-1].set_title("values")
        axes[-1].set_yticks([])
        return svg(figure)


def game(course: Course) -> Iterator[str]:
    """How the game went."""
    yield "<h2>The game</h2>"
    yield (
        "<p>Told apart: by classifiers, what is made from what was learned; the best one was kept. Gap: how much more "
        "real measured data look to the critic than made ones. Variety: how much made data differ, in units of how "
        "much measured ones do.</p>"
    )
    with drawing(1.9) as figure:
        ends = np.minimum(LOOK * np.arange(len(course.told_apart)), len(course.gap))
        steps = np.arange(1, len(course.gap) + 1)
        drawn = (
            ("told apart", ends, np.array(course.told_apart)),
            *((title, steps, _smooth(values)) for title, values in (("gap", course.gap), ("variety", course.variety))),
        )
        for ax, (title, at, values) in zip(figure.subplots(1, 3), drawn, strict=True):
            ax.plot(at, values, color=COLOURS[0])
            ax.set_title(title)
            ax.set_xlabel("step")
        yield svg(figure)


def _smooth(values: list[float]) -> NDArray[np.float64]:
    """Means of so many steps up to each."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - SMOOTHED, 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means
