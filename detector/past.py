"""What the records of a topic hold, as far as it shows: how to read the past of readings, and of images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

import orjson

from detector.adapters.pillow import BadPictureError, picture, require_pillow
from detector.adapters.port import Records
from detector.decoding.decoded import Decoder
from detector.decoding.images import ImageDecoder
from detector.decoding.json_readings import JsonDecoder
from detector.decoding.of_streams import OfStreams
from schemas.errors import DataError
from schemas.frame import Frame
from schemas.reading import FieldNames

Known = TypeVar("Known")


class Form(Protocol[Known]):
    """A kind of records."""

    @property
    def topic(self) -> str:
        """Where they lie."""

    def discover(self, records: Iterable[Records]) -> Known | None:
        """What a decoder has to know, as the records show it; None where they show nothing."""

    def decoder(self, known: Known) -> Decoder:
        """One that knows it."""

    def nothing(self) -> DataError:
        """What to say where nothing was found."""


@dataclass(frozen=True)
class JsonForm:
    """Readings as JSON; a decoder has to know the channels' names."""

    topic: str
    fields: FieldNames
    max_ahead_s: float
    streams: Sequence[str] = ()
    """Patterns of the streams that are meant; none: all are."""

    def discover(self, records: Iterable[Records]) -> Sequence[str] | None:
        """Names of channels that have a number, in the order of appearance."""
        found: dict[str, None] = {}
        for part in records:
            for value in part.values:
                for values in self._values(value):
                    if values.keys() - found.keys():
                        found |= {name: None for name, v in values.items() if type(v) in (int, float)}
        return list(found) or None

    def _values(self, value: bytes | None) -> Iterator[dict[str, Any]]:
        try:
            document = orjson.loads(value or b"null")
        except ValueError:
            return
        for reading in document if isinstance(document, list) else [document]:
            values = reading.get(self.fields.values) if isinstance(reading, dict) and self._means(reading) else None
            if isinstance(values, dict):
                yield values

    def _means(self, reading: dict[str, Any]) -> bool:
        stream = reading.get(self.fields.stream)
        return not self.streams or any(fnmatchcase(str(stream), pattern) for pattern in self.streams)

    def decoder(self, known: Sequence[str]) -> Decoder:
        """See ``Form.decoder``."""
        return OfStreams(JsonDecoder(known, self.topic, self.fields, self.max_ahead_s), self.streams)

    def nothing(self) -> DataError:
        """See ``Form.nothing``."""
        return DataError(f"topic {self.topic} holds no reading with a number (field {self.fields.values!r})")


@dataclass(frozen=True)
class ImageForm:
    """One image a record; a decoder has to know their size. Raises UserError where Pillow is not installed."""

    topic: str

    def __post_init__(self) -> None:
        require_pillow(f"topic {self.topic}")

    def discover(self, records: Iterable[Records]) -> Frame | None:
        """The size of the first picture."""
        for part in records:
            for value in part.values:
                with contextlib.suppress(BadPictureError):
                    return Frame(*picture(value or b"").shape)
        return None

    def decoder(self, known: Frame) -> Decoder:
        """See ``Form.decoder``."""
        return ImageDecoder(known, self.topic)

    def nothing(self) -> DataError:
        """See ``Form.nothing``."""
        return DataError(
            f"topic {self.topic} holds no PNG and no JPEG: where its images are raw bytes, tell their size with "
            "--set frame=HEIGHTxWIDTHxBANDS"
        )
