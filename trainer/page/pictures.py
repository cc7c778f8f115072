"""Images of the calibration stretch beside what was expected of them, and what a variational model decodes."""

from __future__ import annotations

import html
from collections.abc import Iterable

from schemas.moment import SECOND_NS, format_time
from trainer.report import Report


def worst_images(report: Report) -> Iterable[str]:
    """A column for each image; nothing where the model is of sensors."""
    if not report.pictures:
        return
    yield "<h2>Worst images</h2>"
    yield (
        "<p>Where the calibration stretch scored highest, and two usual images to compare with: as it was, as it was "
        "expected to be, and the error of each pixel (black, red, yellow, white; one scale for all). What is seen here "
        "was taken as normal: if it is a fault, leave it out and fit again.</p>"
    )
    cells = []
    for picture in report.pictures:
        time = format_time(round(picture.time * SECOND_NS))
        name = f"{html.escape(picture.stream)}, {time}, score {picture.score:.3g}"
        images = (
            _image(png, f"{what}: {name}")
            for what, png in (
                ("observed", picture.observed),
                ("expected", picture.expected),
                ("error", picture.error),
            )
        )
        cells.append(f"<figure>{''.join(images)}<figcaption>{name}</figcaption></figure>")
    yield f'<div class="pictures">{"".join(cells)}</div>'


def decoded_pictures(report: Report) -> Iterable[str]:
    """Pictures decoded from codes on the two axes; nothing where the code has no distribution."""
    if report.grid is None:
        return
    yield "<h2>Decoded grid</h2>"
    yield (
        "<p>What the model makes of codes on these two axes, from two standard deviations below the middle of all "
        "codes to two above: the first axis from left to right, the second from bottom to top.</p>"
    )
    rows = ("".join(_image(png, "decoded") for png in row) for row in reversed(report.grid))
    yield f'<div class="grid">{"".join(f"<div>{row}</div>" for row in rows)}</div>'


def _image(png: str, what: str) -> str:
    return f'<img src="data:image/png;base64,{png}" alt="{what}">'
