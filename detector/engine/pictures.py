"""Error maps as small pictures: a PNG that is the same bytes on every machine.

Builds of zlib (zlib, zlib-ng, Intel's) compress the same data to different bytes, so nothing is compressed: the pixels
lie in one stored block of DEFLATE (RFC 1951, 3.2.4). A map too large for that is made smaller, keeping its peaks. PNG:
"Portable Network Graphics (PNG) Specification", W3C, 3rd edition.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.engine.alerts import LARGEST, short
from schemas.alert import ImagePeak

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

#: Most bytes of a picture: four thirds of it, as base64 in an alert, are 16 kB.
MOST_BYTES = 12_288

#: Steps from no error to the largest; the entry after them stands for pixels that do not count.
LEVELS = 64
UNKNOWN = LEVELS

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Everything that is no pixel: signature, IHDR, PLTE, IDAT's frame, zlib's and DEFLATE's headers and checksum, IEND.
_FRAME_BYTES = len(_SIGNATURE) + (12 + 13) + (12 + 3 * (LEVELS + 1)) + 12 + 2 + 5 + 4 + 12
_MOST_PIXEL_BYTES = MOST_BYTES - _FRAME_BYTES


class Peak(NamedTuple):
    """The pixel of the largest error; the first one in reading order where several are."""

    row: int
    column: int
    error: float


def peak_of(error: Floats) -> Peak:
    """The peak of an error map ``[H, W]``, NaN where a pixel does not count; (0, 0, 0) where none does."""
    known = np.where(np.isnan(error), -np.inf, error)
    row, column = divmod(int(known.argmax()), error.shape[1])
    if np.isneginf(known[row, column]):
        return Peak(0, 0, 0.0)
    return Peak(row, column, float(error[row, column]))


def image_peak(error: Floats) -> ImagePeak:
    """What an alert says of an error map ``[H, W]``."""
    peak = peak_of(error)
    picture = base64.b64encode(error_png(error)).decode()
    return ImagePeak(x=peak.column, y=peak.row, error=short(min(peak.error, LARGEST)), map=picture)


def error_png(error: Floats, most: float | None = None) -> bytes:
    """An error map ``[H, W]`` as a PNG of at most ``MOST_BYTES``: black, red, yellow, white; blue where it is NaN.

    ``most``: the error that is white, and all above it; None: the largest of the map. Larger maps shrink by a whole
    number, each pixel being the largest of those that it stands for.
    """
    pixels = _levels(shrunk(error), most)
    height, width = pixels.shape
    lines = np.zeros((height, 1 + width), np.uint8)  # each line begins with its filter, 0: none
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, palette, not interlaced
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", _PALETTE),
            _chunk(b"IDAT", _stored(lines.tobytes())),
            _chunk(b"IEND", b""),
        ]
    )


def shrunk(error: Floats) -> Floats:
    """The map ``[H, W]`` divided by the least whole number with which it fits, ``[⌈H / f⌉, ⌈W / f⌉]``."""
    height, width = error.shape
    factor = 1
    while -(-height // factor) * (1 - (-width // factor)) > _MOST_PIXEL_BYTES:
        factor += 1
    if factor == 1:
        return error
    padded = np.full((-(-height // factor) * factor, -(-width // factor) * factor), np.nan, np.float32)
    padded[:height, :width] = error
    tiles = padded.reshape(len(padded) // factor, factor, -1, factor)
    largest: Floats = np.fmax.reduce(np.fmax.reduce(tiles, axis=3), axis=1)  # NaN only where all of a tile is
    return largest


def _levels(error: Floats, most: float | None) -> Bytes:
    """0 to LEVELS - 1, or UNKNOWN, ``[H, W]``."""
    unknown = np.isnan(error)
    known = np.where(unknown, 0, error).astype(np.float64)
    finite = known[np.isfinite(known)]
    top = float(finite.max(initial=0.0)) if most is None else most
    share = np.clip(known / top, 0, 1) if top > 0 else (known > 0).astype(np.float64)
    level = np.floor(share * (LEVELS - 1) + 0.5).astype(np.uint8)
    return np.where(unknown, np.uint8(UNKNOWN), level)


def _palette() -> bytes:
    """Red, green and blue of each level, in whole numbers; the last entry is UNKNOWN's."""
    ramp = np.arange(LEVELS) * 3 * 255 // (LEVELS - 1)
    colours = np.stack([np.clip(ramp - 255 * band, 0, 255) for band in range(3)], axis=1)
    return np.vstack([colours, [40, 60, 120]]).astype(np.uint8).tobytes()


_PALETTE = _palette()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of one stored block: at most 65,535 bytes."""
    size = struct.pack("<BHH", 1, len(data), len(data) ^ 0xFFFF)
    return b"\x78\x01" + size + data + struct.pack(">I", zlib.adler32(data))
