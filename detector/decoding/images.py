"""Images as the values of Kafka records: PNG, JPEG, or raw bytes.

A record is one image: its key is the stream, its timestamp the event time. Raw bytes are the pixels row by row, one
byte for each band, and nothing else: exactly H·W·bands of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.adapters.columns import is_stream
from detector.adapters.pillow import BadPictureError, picture, require_pillow
from detector.adapters.port import Records
from detector.decoding.decoded import Decoded
from detector.engine.readings import Readings
from schemas.dead_letter import DeadLetter, Reason
from schemas.frame import Frame
from schemas.moment import MILLISECOND_NS

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

#: Bytes of a value, for each of an image's own, beyond which nobody looks into it.
MOST_EXCESS = 4
#: What a small picture may carry besides its pixels (colour profiles, a camera's notes).
MOST_EXTRA = 1 << 20

Floats = NDArray[np.float32]


class ImageDecoder:
    """Decodes images of one size; ``topic``: for the dead letters. Raises UserError where Pillow is not installed."""

    def __init__(self, frame: Frame, topic: str) -> None:
        require_pillow(f"topic {topic}")
        self._frame, self._topic = frame, topic

    def decode(self, records: Records) -> Decoded:
        """See ``Decoder.decode``."""
        places: list[int] = []
        streams: list[str] = []
        dead: list[DeadLetter] = []
        values = np.empty((len(records.values), self._frame.values), np.float32)
        for place, value in enumerate(records.values):
            found = self._read(records, place)
            if isinstance(found, tuple):
                letter = DeadLetter(
                    value, records.keys[place], *found, self._topic, records.partition, records.offsets[place], -1
                )
                dead.append(letter)
                continue
            values[len(places)] = found
            places.append(place)
            streams.append((records.keys[place] or b"").decode())
        times = _of(records.timestamps, places) * MILLISECOND_NS
        readings = Readings(records.partition, streams, times, values[: len(places)])
        return Decoded(readings, _of(records.offsets, places), dead, Counter())

    @property
    def terms(self) -> dict[str, Any]:
        """See ``Decoder.terms``."""
        return {}

    def under(self, terms: Mapping[str, Any]) -> ImageDecoder:  # noqa: ARG002 — there are none
        """See ``Decoder.under``."""
        return self

    def _read(self, records: Records, place: int) -> Floats | tuple[Reason, str]:
        """The pixels ``[P]``, or why there are none."""
        value = records.values[place]
        if not value:
            return Reason.EMPTY, "the record has no value"
        if not _is_name(records.keys[place]):
            return Reason.STREAM, "the record's key, which names the stream, is not UTF-8 of 1 to 1024 characters"
        if not 0 <= records.timestamps[place] <= _LATEST_MS:
            return Reason.TIMESTAMP, "the record has no timestamp between 1970 and 2262"
        pixels = decode_image(value, self._frame)
        return (Reason.NOT_A_READING, pixels) if isinstance(pixels, str) else pixels.reshape(-1)


_LATEST_MS = np.iinfo(np.int64).max // MILLISECOND_NS


def decode_image(value: bytes, frame: Frame) -> Floats | str:
    """The pixels ``[H, W, bands]`` of a record's value, or a text that says why it is no image of this size.

    Never raises for what is in it. Raw bytes may begin as a picture does, so a value of just their length that is no
    picture is raw.
    """
    if value.startswith((PNG, JPEG)) and len(value) <= MOST_EXCESS * frame.values + MOST_EXTRA:
        try:
            return picture(value, frame)
        except BadPictureError as error:
            why = f"no {'PNG' if value.startswith(PNG) else 'JPEG'} of {frame}: {error}"
    else:
        why = f"{len(value)} bytes are neither PNG nor JPEG, nor the {frame.values} of a raw image of {frame}"
    if len(value) != frame.values:
        return why
    return np.frombuffer(value, np.uint8).astype(np.float32).reshape(frame)


def _is_name(key: bytes | None) -> bool:
    try:
        return key is not None and is_stream(key.decode())
    except UnicodeDecodeError:
        return False


def _of(numbers: Sequence[int], places: Sequence[int]) -> NDArray[np.int64]:
    return np.array([numbers[place] for place in places], np.int64)
