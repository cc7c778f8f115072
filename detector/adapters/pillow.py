"""One picture, PNG or JPEG, through Pillow, which is loaded only where a picture is read."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from schemas.frame import Frame

#: Pixels of one picture beyond which a file is refused before it is unpacked: a few kB may claim to be gigabytes.
MOST_PIXELS = 50_000_000

#: Scans of one JPEG. Cameras write 1, progressive ones about 10; each is decoded over the whole picture, and may take
#: 13 bytes, so that a megabyte of them held a picture of 1000×1000 up for 84 s.
MOST_SCANS = 100
_SCAN = b"\xff\xda"

Floats = NDArray[np.float32]


class BadPictureError(Exception):
    """Bytes that are no picture; the text says why."""


def require_pillow(what: str) -> None:
    """Raises UserError where Pillow, which reads pictures, is not installed; ``what`` needs it."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise UserError(f"{what}: pictures need Pillow: pip install 'residual[images]'") from None


def picture(data: bytes, expected: Frame | None = None) -> Floats:
    """The pixels of a PNG or JPEG file, ``[H, W, bands]``; grey: one band, else three; transparency is left out.

    Raises BadPictureError where it is neither, is damaged, is not of the ``expected`` frame or, without one, is larger
    than ``MOST_PIXELS``. The frame is looked at before anything is unpacked.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures: ours to judge
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                found = Frame(image.height, image.width, 1 if image.mode in _GREY else 3)
                _check(found, expected)
                if image.format == "JPEG" and data.count(_SCAN) > MOST_SCANS:
                    raise BadPictureError(f"it has {data.count(_SCAN)} scans, more than {MOST_SCANS}")
                grey = image.convert("L") if image.mode in ("1", "LA") else image
                pixels = np.asarray(grey if found.bands == 1 else image.convert("RGB"))
    except BadPictureError:
        raise
    except UnidentifiedImageError as error:  # it names an object of ours, by its address
        raise BadPictureError("it goes on as none does") from error
    except Exception as error:  # Pillow's own share no base
        raise BadPictureError(one_line(error)) from error
    return pixels.astype(np.float32).reshape(found)


#: Pillow's names of pictures with one band: black and white, 8 bits, with transparency, 16 bits, 32 bits.
_GREY = frozenset({"1", "L", "LA", "I;16", "I;16B", "I", "F"})


def _check(found: Frame, expected: Frame | None) -> None:
    if expected is not None:
        if found != expected:
            raise BadPictureError(f"it is {found}, not {expected}")
    elif found.height * found.width > MOST_PIXELS:
        raise BadPictureError(f"it is {found}, more than {MOST_PIXELS} pixels")


def one_line(error: BaseException) -> str:
    """What an error says, on one short line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"
