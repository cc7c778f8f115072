"""Pictures for tests: a soft light that moves a little, sometimes with a bright speck where none should be."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from schemas.frame import Frame

FRAME = Frame(16, 20, 1)
#: Where the speck is: row, column.
SPECK = (3, 15)


def scenes(count: int, frame: Frame = FRAME, seed: int = 0, faulty: range = range(0)) -> NDArray[np.uint8]:
    """``[count, H, W, bands]``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: frame.height, : frame.width]
    at = np.array([frame.height, frame.width]) * (0.5 + 0.04 * rng.standard_normal((count, 2)))
    far = (y - at[:, :1, None]) ** 2 + (x - at[:, 1:, None]) ** 2
    light = 150 * np.exp(-far / (0.05 * frame.height * frame.width))
    images = light[..., None] * np.linspace(0.6, 1, frame.bands) + rng.normal(20, 3, (count, *frame))
    for number in faulty:
        images[number, SPECK[0] - 1 : SPECK[0] + 2, SPECK[1] - 1 : SPECK[1] + 2] = 250
    return images.clip(0, 255).astype(np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """One picture as a file's bytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(out, "PNG")
    return out.getvalue()
