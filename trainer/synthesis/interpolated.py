"""The picture of an interpolation: each channel a row, from one end to the other in steps."""

from __future__ import annotations

import html
from collections.abc import Iterator

import numpy as np

from detector.page.document import page
from schemas.moment import SECOND_NS
from trainer.page.charts import COLOURS, SOFT, drawing, short, svg
from trainer.synthesis.interpolation import Path
from trainer.synthesis.page import spread


def render(path: Path) -> str:
    """The page's text."""
    return page("From one to the other", _body(path))


def _body(path: Path) -> Iterator[str]:
    one, other = (html.escape(name) for name in path.names)
    yield "<h1>From one to the other</h1>"
    measured = path.measured[0] is not None
    told = (
        "The codes of two measured windows, mixed evenly; the thin grey line is what was measured."
        if measured
        else "The noise of two seeds, mixed so that each mixture is as much noise as either."
    )
    yield f'<p class="lead">{one} (left) to {other} (right), in {len(path.steps)} steps. {told}</p>'
    moving = np.flatnonzero(np.ptp(path.steps, axis=(0, 1)) > 0)
    for place in spread(len(moving)):
        c = int(moving[place])
        yield f"<h3>{html.escape(path.channels[c])}</h3>"
        yield _channel(path, c)
    yield f"<p>Each picture shows {path.steps.shape[1]} readings, one every {path.interval_ns / SECOND_NS:g} s.</p>"


def _channel(path: Path, c: int) -> str:
    values = path.steps[:, :, c]
    ends = [end[:, c] for end in path.measured if end is not None]
    drawn = np.concatenate([values.ravel(), *ends])
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    room = 0.05 * max(high - low, 1e-9)
    with drawing(1.5) as figure:
        axes = figure.subplots(1, len(values), sharey=True)
        for number, ax in enumerate(np.atleast_1d(axes)):
            beside = {0: path.measured[0], len(values) - 1: path.measured[1]}.get(number)
            if beside is not None:
                ax.plot(beside[:, c], color=SOFT, linewidth=0.8)
            ax.plot(values[number], color=COLOURS[0], linewidth=0.9)
            ax.set_ylim(low - room, high + room)
            ax.set_xticks([])
            share = number / max(len(values) - 1, 1)
            ax.set_title(short(path.names[share == 1]) if share in (0, 1) else f"{share:.0%}")
        return svg(figure)
