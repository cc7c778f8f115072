"""Faults that are planted into normal images, to see which model finds them; exact truth, no labels.

Values are scaled to about [0, 1]. Axes: H rows, W columns, ``bands`` of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Side of a fault as a share of the image's shorter side, smallest and largest.
LEAST, MOST = 0.15, 0.45


def spot(image: Floats, other: Floats, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """A disc that is lighter or darker: dirt, a hot spot, a hole."""
    H, W = image.shape[:2]
    rows, columns = _place(H, W, rng)
    y, x = np.mgrid[:H, :W]
    middle, radius = ((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2), _length(rows) / 2
    inside = (y + 0.5 - middle[0]) ** 2 + (x + 0.5 - middle[1]) ** 2 <= radius**2
    light = np.float32(rng.choice([0.0, 1.0]) if rng.random() < 0.5 else rng.random())
    return np.where(inside[:, :, None], light, image)


def patch(image: Floats, other: Floats, rng: np.random.Generator) -> Floats:
    """A square of another image in another place: a wrong part (Li et al., "CutPaste", CVPR 2021)."""
    H, W = image.shape[:2]
    rows, columns = _place(H, W, rng)
    down = int(rng.integers(0, H - _length(rows) + 1))
    right = int(rng.integers(0, W - _length(columns) + 1))
    changed = image.copy()
    changed[rows, columns] = other[down : down + _length(rows), right : right + _length(columns)]
    return changed


def blank(image: Floats, other: Floats, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """A band of rows that is black: a broken read-out, a thing in the way."""
    H, W = image.shape[:2]
    rows, _ = _place(H, W, rng)
    changed = image.copy()
    changed[rows] = 0
    return changed


def noise(image: Floats, other: Floats, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """Grain over all pixels: too little light, a failing sensor."""
    deviation = rng.uniform(0.05, 0.3)
    return (image + deviation * rng.standard_normal(image.shape)).clip(0, 1).astype(np.float32)


def upside_down(image: Floats, other: Floats, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """The whole image turned by half a turn: what it shows lies wrongly."""
    return image[::-1, ::-1]


#: (image ``[H, W, bands]``, another one, draw) → the image with a fault.
KINDS: dict[str, Callable[[Floats, Floats, np.random.Generator], Floats]] = {
    "spot": spot, "patch": patch, "blank": blank, "noise": noise, "upside_down": upside_down,
}  # fmt: skip


def _place(H: int, W: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a square somewhere in the image."""
    side = max(round(min(H, W) * rng.uniform(LEAST, MOST)), 1)
    down, right = int(rng.integers(0, H - side + 1)), int(rng.integers(0, W - side + 1))
    return slice(down, down + side), slice(right, right + side)


def _length(places: slice) -> int:
    return int(places.stop - places.start)
