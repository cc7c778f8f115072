"""Readings as JSON: ``{"stream": …, "timestamp": …, "values": {channel: number | null}}``, or a list of these.

``schemas.reading.Reading`` describes the shape; this module reads it without building an object per reading. One path
is short and takes what is right; whatever it does not take goes the long way, which finds out what is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.adapters.port import Records
from detector.decoding.decoded import Decoded
from detector.engine.readings import Readings
from schemas.dead_letter import DeadLetter, Reason
from schemas.moment import MILLISECOND_NS, SECOND_NS, parse_time
from schemas.reading import FieldNames

_NUMBERS = frozenset({float, int, type(None)})
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_WHOLE = -1  # index of a dead letter that is the whole record

Row = Sequence[float | int | None]


class _BadError(Exception):
    """An element that is no reading."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class JsonDecoder:
    """Decodes JSON readings for the channels of a model.

    ``channels``: C names in the model's order; ``topic``: for the dead letters; ``max_ahead_s``: a reading dated more
    than this past its record's own timestamp is a dead letter, so that one bad clock cannot push a stream's time ahead.
    """

    def __init__(
        self, channels: Sequence[str], topic: str, fields: FieldNames | None = None, max_ahead_s: float = 3600.0
    ) -> None:
        self._channels = tuple(channels)
        self._topic = topic
        self._fields = fields or FieldNames()
        self._max_ahead_s = max_ahead_s
        self._max_ahead_ns = round(max_ahead_s * SECOND_NS)
        self._pick: Callable[[dict[str, Any]], Row] = (
            itemgetter(*channels) if len(channels) > 1 else lambda values: (values[channels[0]],)
        )

    @property
    def terms(self) -> dict[str, Any]:
        """See ``Decoder.terms``."""
        return {"fields": self._fields.model_dump(), "max_ahead_s": self._max_ahead_s}

    def under(self, terms: Mapping[str, Any]) -> JsonDecoder:
        """See ``Decoder.under``."""
        fields = FieldNames.model_validate(terms["fields"])
        return JsonDecoder(self._channels, self._topic, fields, float(terms["max_ahead_s"]))

    def decode(self, records: Records) -> Decoded:
        """See ``Decoder.decode``."""
        batch = _Batch(records, self._topic)
        stream_field, time_field, values_field = self._fields.stream, self._fields.timestamp, self._fields.values
        width, pick, loads = len(self._channels), self._pick, orjson.loads
        for place, value in enumerate(records.values):
            try:
                document = loads(value)  # type: ignore[arg-type]
                values = document[values_field]
                row = pick(values)
                stream = document[stream_field]
                moment = document[time_field]
                if (
                    len(values) == width
                    and type(stream) is str
                    and 0 < len(stream) <= 1024
                    and _NUMBERS.issuperset(map(type, row))
                ):
                    batch.add(place, _WHOLE, stream, parse_time(moment), row)
                    continue
            except (ValueError, TypeError, LookupError, AttributeError):
                pass  # the long way says what is wrong, or that nothing is
            self._long_way(batch, place)
        return batch.finish(width, self._max_ahead_ns)

    def _long_way(self, batch: _Batch, place: int) -> None:
        value = batch.records.values[place]
        if not value or value.strip() in (b"", b"null"):
            batch.reject(place, _WHOLE, value, Reason.EMPTY, "the record has no value")
            return
        try:
            document = orjson.loads(value)
        except ValueError as error:
            elements = list(_elements(value))
            if not elements:
                batch.reject(place, _WHOLE, value, *_why_not_json(value, error))
            for index, element in enumerate(elements):
                self._element_bytes(batch, place, index, element)
            return
        if not isinstance(document, list):
            self._element(batch, place, _WHOLE, document)
            return
        if not document:
            batch.reject(place, _WHOLE, value, Reason.EMPTY, "the list holds no reading")
        for index, element in enumerate(document):
            self._element(batch, place, index, element)

    def _element_bytes(self, batch: _Batch, place: int, index: int, element: bytes) -> None:
        """An element of a list that is no JSON as a whole."""
        try:
            document = orjson.loads(element)
        except ValueError as error:
            batch.reject(place, index, element, *_why_not_json(element, error))
        else:
            self._element(batch, place, index, document)

    def _element(self, batch: _Batch, place: int, index: int, document: object) -> None:
        try:
            batch.add(place, index, *self._read(batch, place, document))
        except _BadError as bad:
            batch.reject_element(place, index, bad.reason, bad.detail)

    def _read(self, batch: _Batch, place: int, document: object) -> tuple[str, int, Row]:
        if not isinstance(document, dict):
            raise _BadError(Reason.NOT_A_READING, f"a reading is an object, not {_kind(document)}")
        stream = self._stream(document, batch.records.keys[place])
        moment = self._moment(document, batch.records.timestamps[place])
        values = document.get(self._fields.values)
        if not isinstance(values, dict):
            raise _BadError(Reason.VALUES, f"{self._fields.values!r} is {_kind(values)}, not an object of channels")
        row = [values.get(channel) for channel in self._channels]
        known = sum(channel in values for channel in self._channels)
        if not known:
            raise _BadError(Reason.NO_KNOWN_CHANNEL, "no channel of the model is among the values")
        for channel, number in zip(self._channels, row, strict=True):
            if type(number) not in _NUMBERS:
                raise _BadError(Reason.NOT_A_NUMBER, f"channel {channel!r} is {_kind(number)}, not a number")
            if number is not None and abs(number) > _FLOAT32_MAX:
                raise _BadError(Reason.OUT_OF_RANGE, f"channel {channel!r}: {number!r} does not fit 32 bits")
        batch.counts["unknown_channel"] += len(values) - known
        return stream, moment, row

    def _stream(self, document: dict[str, Any], key: bytes | None) -> str:
        name = self._fields.stream
        if name in document:
            stream = document[name]
        elif key is None:
            raise _BadError(Reason.STREAM, f"there is no {name!r} and the record has no key")
        else:
            try:
                stream = key.decode()
            except UnicodeDecodeError:
                raise _BadError(Reason.STREAM, f"there is no {name!r} and the record's key is not UTF-8") from None
        if not isinstance(stream, str) or not 0 < len(stream) <= 1024:
            raise _BadError(Reason.STREAM, f"{name!r} is {_kind(stream)}, not a text of 1 to 1024 characters")
        return stream

    def _moment(self, document: dict[str, Any], stamp_ms: int) -> int:
        name = self._fields.timestamp
        if name not in document:
            if stamp_ms < 0:
                raise _BadError(Reason.TIMESTAMP, f"there is no {name!r} and the record has no timestamp")
            return stamp_ms * MILLISECOND_NS
        moment = document[name]
        if type(moment) not in (str, int, float):
            raise _BadError(Reason.TIMESTAMP, f"{name!r} is {_kind(moment)}, not RFC 3339 or milliseconds since 1970")
        try:
            return parse_time(moment)
        except (ValueError, OverflowError) as error:
            raise _BadError(Reason.TIMESTAMP, f"{name!r}: {error}") from None


class _Batch:
    """Columns in the making."""

    def __init__(self, records: Records, topic: str) -> None:
        self.records, self._topic = records, topic
        self.counts: Counter[str] = Counter()
        self._places: list[int] = []
        self._indices: list[int] = []
        self._streams: list[str] = []
        self._times: list[int] = []
        self._rows: list[Row] = []
        self._dead: list[tuple[int, int, DeadLetter]] = []
        self._split: dict[int, list[bytes]] = {}

    def add(self, place: int, index: int, stream: str, moment: int, row: Row) -> None:
        self._places.append(place)
        self._indices.append(index)
        self._streams.append(stream)
        self._times.append(moment)
        self._rows.append(row)

    def reject(self, place: int, index: int, value: bytes | None, reason: Reason, detail: str) -> None:
        records = self.records
        letter = DeadLetter(
            value,
            records.keys[place],
            reason,
            detail,
            self._topic,
            records.partition,
            records.offsets[place],
            index,
        )
        self._dead.append((place, index, letter))

    def reject_element(self, place: int, index: int, reason: Reason, detail: str) -> None:
        """Set one element aside with its own bytes; where the record cannot be split, the whole record, once."""
        value = self.records.values[place]
        if index == _WHOLE or value is None:
            self.reject(place, _WHOLE, value, reason, detail)
            return
        if place not in self._split:  # once per record: a list may hold thousands of bad elements
            self._split[place] = list(_elements(value))
            if not self._split[place]:
                self.reject(place, _WHOLE, value, reason, detail)
        if self._split[place]:
            self.reject(place, index, self._split[place][index], reason, detail)

    def finish(self, width: int, max_ahead_ns: int) -> Decoded:
        """The columns, after the checks that are done on all readings at once."""
        places = np.array(self._places, dtype=np.int64)
        times = np.array(self._times, dtype=np.int64)
        with np.errstate(over="ignore"):  # what overflows is found just below
            values = np.array(self._rows, dtype=np.float64).reshape(len(places), width).astype(np.float32)
        stamps = np.asarray(self.records.timestamps, dtype=np.int64)[places]
        ahead = (stamps >= 0) & (times // MILLISECOND_NS > stamps + max_ahead_ns // MILLISECOND_NS)
        beyond: NDArray[np.bool_] = np.logical_or.reduce(np.isinf(values), axis=1)
        streams: Sequence[str] = self._streams
        bad = ahead | beyond
        if bad.any():
            for n in np.flatnonzero(bad).tolist():
                reason, detail = (
                    (Reason.OUT_OF_RANGE, "a value does not fit 32 bits")
                    if beyond[n]
                    else (Reason.AHEAD, "the reading is dated too far past the record's own timestamp")
                )
                place, index = self._places[n], self._indices[n]
                self.reject_element(place, index, reason, detail)
            good = np.flatnonzero(~bad)
            places, times, values = places[good], times[good], values[good]
            streams = [self._streams[n] for n in good.tolist()]
        self._dead.sort(key=itemgetter(0, 1))
        offsets: NDArray[np.int64] = np.asarray(self.records.offsets, dtype=np.int64)[places]
        readings = Readings(self.records.partition, streams, times, values)
        return Decoded(readings, offsets, [letter for _, _, letter in self._dead], self.counts)


def _elements(value: bytes) -> Iterator[bytes]:
    """The elements of a JSON list, each with its own bytes; nothing where the list cannot be split.

    The standard library's scanner also reads NaN and Infinity, so a list that is no JSON for their sake can be split.
    """
    found = []
    try:
        text = value.decode()
        scanner = json.JSONDecoder()
        at = _past_space(text, 0)
        if text[at] != "[":
            return
        at = _past_space(text, at + 1)
        while True:
            _, end = scanner.raw_decode(text, at)
            found.append(text[at:end].encode())
            at = _past_space(text, end)
            if text[at] == "]" and _past_space(text, at + 1) == len(text):
                break
            if text[at] != ",":
                return
            at = _past_space(text, at + 1)
    except (ValueError, IndexError, RecursionError):
        return
    yield from found


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at


def _why_not_json(value: bytes, error: ValueError) -> tuple[Reason, str]:
    """Tell NaN and overlong numbers, which senders write by accident, from text that is no JSON at all."""
    if "infinity" in str(error):
        return Reason.OUT_OF_RANGE, str(error)
    tokens: list[str] = []
    try:
        json.loads(value, parse_constant=tokens.append)
    except (ValueError, RecursionError):
        return Reason.NOT_JSON, str(error)
    return (Reason.NOT_A_NUMBER, f"{tokens[0]} is not JSON") if tokens else (Reason.NOT_JSON, str(error))


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "an empty text" if not value else "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
