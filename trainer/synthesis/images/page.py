"""The report of a generator of images: the measures, and sheets of what it makes beside what was measured."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.page.document import page
from schemas.moment import format_time
from trainer.synthesis.images.lesson import Pixels
from trainer.synthesis.images.pipeline import FittedImages
from trainer.synthesis.page import ROWS, game, measures

Floats = NDArray[np.float32]

#: Images in a row of a sheet, and pixels of the sheet's width at least.
ACROSS, WIDTH = 16, 640

STYLE = ".sheet { width: 100%; image-rendering: pixelated; border: 1px solid var(--rule); }"


def render(fitted: FittedImages) -> str:
    """The page's text."""
    return page("Generator", _body(fitted), STYLE)


def _body(fitted: FittedImages) -> Iterator[str]:
    manifest = fitted.recipe.manifest
    start, stop = (format_time(ns)[:10] for ns in (manifest.start_ns, manifest.stop_ns))
    yield "<h1>Generator</h1>"
    yield (
        f'<p class="lead">The {ROWS[manifest.model]} one, of images of {manifest.frame}; learned from '
        f"{manifest.images} images from {start} to {stop}.</p>"
    )
    yield "<h2>How good it is</h2>"
    yield (
        "<p>Images, compared with real ones of stretches of time that nothing has learned from; the rows of an image "
        "stand for the readings of a window. The first row is what is possible, the last one what is cheap.</p>"
    )
    yield measures(manifest.quality)
    for name, images in fitted.sheets.items():
        yield f"<h3>{ROWS[name]}</h3>"
        png = base64.b64encode(sheet(images, fitted.recipe.pixels)).decode()
        yield f'<img class="sheet" alt="{ROWS[name]}" src="data:image/png;base64,{png}">'
    if fitted.course is not None:
        yield from game(fitted.course)


def sheet(images: Floats, pixels: Pixels) -> bytes:
    """Images ``[n, H, W, bands]`` beside each other, as PNG."""
    n, H, W, bands = images.shape
    shown = (255 * pixels.scaled(images)).round().clip(0, 255).astype(np.uint8)
    shown = shown if bands == 3 else shown[:, :, :, :1]  # of other bands the first
    across = min(ACROSS, n)
    down = -(-n // across)
    whole = np.full((down * (H + 1), across * (W + 1), shown.shape[3]), 127, np.uint8)
    for place, image in enumerate(shown):
        y, x = place // across * (H + 1), place % across * (W + 1)
        whole[y : y + H, x : x + W] = image
    times = max(-(-WIDTH // whole.shape[1]), 1)
    whole = whole.repeat(times, axis=0).repeat(times, axis=1)
    out = io.BytesIO()
    Image.fromarray(whole if whole.shape[2] == 3 else whole[:, :, 0]).save(out, "PNG")
    return out.getvalue()
