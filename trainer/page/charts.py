"""Plots as inline SVG in the page's colours, light or dark as the reader has it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.page.palette import PALETTE

COLOURS = tuple(PALETTE[f"c{number}"][0] for number in range(6))
THRESHOLD, SOFT, EDGE, BAND = (PALETTE[name][0] for name in ("threshold", "soft", "edge", "band"))

_STYLE: Any = {
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": SOFT,
    "axes.titlecolor": SOFT,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.grid": True,
    "grid.color": PALETTE["grid"][0],
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "legend.frameon": False,
    "svg.hashsalt": "residual",  # the same report, the same bytes
    "svg.fonttype": "none",
}


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """A figure as wide as the page, ``height`` in inches. What is drawn in the block has the page's style."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(9, height), layout="constrained")


def svg(figure: Figure) -> str:
    """The figure's SVG; inside the block that drew it."""
    text = io.StringIO()
    with warnings.catch_warnings():
        # letters that matplotlib's own font lacks: it only measures them, the browser draws them
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for name, (light, _) in PALETTE.items():
        drawn = drawn.replace(light, f"var(--{name})")
    return drawn


def concise_dates(axes: Axes) -> None:
    """Dates on the axis of time, as short as they can be told apart."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def short(name: str, most: int = 24) -> str:
    """A text in a plot: not too long, no formula, and no underscore first, which a legend would leave out."""
    name = name if len(name) <= most else name[: most - 1] + "…"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name
