"""Made images as the records of a topic: a PNG each, or raw bytes where a PNG cannot hold it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError
from schemas.moment import MILLISECOND_NS
from trainer.synthesis.images.recipe import ImageManifest
from trainer.synthesis.records import Record

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Bands of the pixels that a PNG can hold: grey, or red, green and blue.
OF_PNG = (1, 3)


class Pictures:
    """Records of images of one generator. Raises SettingsError where its images are no records."""

    def __init__(self, manifest: ImageManifest) -> None:
        if not fit_bytes(manifest):
            raise SettingsError(
                f"its pixels lie between {manifest.low:g} and {manifest.high:g}: a topic takes pictures of "
                "8 bits, whole numbers from 0 to 255; write them to an .npz"
            )
        if manifest.interval_ns < MILLISECOND_NS:
            raise SettingsError("its images lie less than a millisecond apart, and records have no finer times")
        self._raw = manifest.frame.bands not in OF_PNG

    def records(self, times: Ints, images: Floats) -> Iterator[Record]:
        """Of images ``[S, n, H, W, bands]`` at ``times`` ``[n]``, ns, in the order of time."""
        pixels = images.astype(np.uint8)
        for place, moment in enumerate(times.tolist()):
            for stream in range(len(pixels)):
                value = pixels[stream, place].tobytes() if self._raw else _png(pixels[stream, place])
                yield Record(stream, moment, 1, value, moment // MILLISECOND_NS)


def fit_bytes(manifest: ImageManifest) -> bool:
    """Whether a pixel's band is a byte."""
    return manifest.whole and manifest.low >= 0 and manifest.high <= 255


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
