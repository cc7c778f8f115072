"""Readings as JSON: ``{"stream": …, "timestamp": …, "values": {channel: number | null}}``, or a list of these.

``schemas.reading.Reading`` describes the shape; this module reads it without building an object per reading. One path
is short and takes what is right; whatever it does not take goes the long way, which finds out what is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.adapters.columns import LONGEST_STREAM
from detector.adapters.port import Records
from detector.decoding.decoded import Decoded
from detector.engine.readings import Readings
from schemas.dead_letter import DeadLetter, Reason
from schemas.moment import LATEST_NS, MILLISECOND_NS, SECOND_NS, parse_time
from schemas.reading import FieldNames

_NUMBERS = frozenset({float, int, type(None)})
_TOO_LARGE = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in 32 bits
_WHOLE = -1  # index of a dead letter that is the whole record
_UNREAD = object()  # in the place of a document that nobody has looked into

Row = Sequence[float | int | None]

#: Bytes of a record beyond which nobody looks into it. JSON that is taken apart needs up to 21 bytes of memory for one
#: of its own (``[[],[],…``), and Kafka's limit of a batch (1 MiB by default) is one of packed bytes.
MOST_BYTES = 8 * 1024 * 1024

#: Elements of a list: more than ``MOST_BYTES`` of readings would be.
MOST_ELEMENTS = 100_000

# Elements after which it pays to see first whether a list can be split.
_MANY = 100

#: Dead letters of one element each that the records of one call may give; after that a record's bad elements share one.
#: A megabyte of ``0,0,0,…`` would else be half a million letters, all in one transaction, which has 10 s.
MOST_LETTERS = 10_000


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
        self._max_ahead_ms = round(max_ahead_s * SECOND_NS) // MILLISECOND_NS
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
            document: Any = _UNREAD
            try:
                if len(value) <= MOST_BYTES:  # type: ignore[arg-type]
                    document = loads(value)  # type: ignore[arg-type]
                values = document[values_field]
                row = pick(values)
                stream = document[stream_field]
                moment = document[time_field]
                if (
                    len(values) == width
                    and type(stream) is str
                    and 0 < len(stream) <= LONGEST_STREAM
                    and _NUMBERS.issuperset(map(type, row))
                ):
                    batch.add(place, stream, parse_time(moment), row)
                    continue
            except orjson.JSONDecodeError as error:
                self._no_json(batch, place, value or b"", error)
                continue
            except (ValueError, TypeError, LookupError, AttributeError):
                pass  # the long way says what is wrong, or that nothing is
            self._long_way(batch, place, document)
        return batch.finish(width, self._max_ahead_ms)

    def _long_way(self, batch: _Batch, place: int, document: Any) -> None:
        """What of a document is readings, and what is wrong with the rest."""
        value = batch.records.values[place]
        if value is None or document is None:
            batch.reject(place, Reason.EMPTY, "the record has no value")
        elif document is _UNREAD:
            batch.reject(place, Reason.TOO_LONG, f"the record has {len(value)} bytes, more than {MOST_BYTES}")
        elif isinstance(document, list):
            self._list(batch, place, document, self._read)
        else:
            try:
                batch.add(place, *self._read(batch, place, document))
            except _BadError as bad:
                batch.reject(place, bad.reason, bad.detail)

    def _no_json(self, batch: _Batch, place: int, value: bytes, error: ValueError) -> None:
        if not value or value.isspace():
            batch.reject(place, Reason.EMPTY, "the record has no value")
        elif value.lstrip()[:1] == b"[" and (parts := _elements(value)):
            self._list(batch, place, parts, self._read_bytes)
        else:
            batch.reject(place, *_why_not_json(value, error))

    def _list(
        self,
        batch: _Batch,
        place: int,
        elements: Sequence[Any],
        read: Callable[[_Batch, int, Any], tuple[str, int, Row]],
    ) -> None:
        """The elements of a list: parsed, or as bytes where it is no JSON as a whole."""
        if not elements:
            batch.reject(place, Reason.EMPTY, "the list holds no reading")
            return
        if len(elements) > MOST_ELEMENTS:
            detail = f"the list has {len(elements)} elements, more than {MOST_ELEMENTS}"
            batch.reject(place, Reason.TOO_LONG, detail, len(elements))
            return
        bad: list[tuple[int, Reason, str]] = []
        for index, element in enumerate(elements):
            try:
                batch.add(place, *read(batch, place, element))
            except _BadError as error:
                bad.append((index, error.reason, error.detail))
        if bad:
            batch.reject_elements(place, bad, elements if read == self._read_bytes else None)

    def _read_bytes(self, batch: _Batch, place: int, element: bytes) -> tuple[str, int, Row]:
        try:
            document = orjson.loads(element)
        except ValueError as error:
            raise _BadError(*_why_not_json(element, error)) from None
        return self._read(batch, place, document)

    def _read(self, batch: _Batch, place: int, document: object) -> tuple[str, int, Row]:
        if not isinstance(document, dict):
            raise _BadError(Reason.NOT_A_READING, f"a reading is an object, not {_kind(document)}")
        stamp_ms = batch.records.timestamps[place]
        stream = self._stream(document, batch.records.keys[place])
        moment = self._moment(document, stamp_ms)
        if 0 <= stamp_ms < moment // MILLISECOND_NS - self._max_ahead_ms:
            raise _BadError(Reason.AHEAD, _AHEAD)
        return stream, moment, self._row(batch, document.get(self._fields.values))

    def _row(self, batch: _Batch, values: object) -> Row:
        if not isinstance(values, dict):
            raise _BadError(Reason.VALUES, f"{self._fields.values!r} is {_kind(values)}, not an object of channels")
        try:  # most are whole, and then this takes a tenth of the time
            row = self._pick(values)
            fits = max(row) < _TOO_LARGE and min(row) > -_TOO_LARGE  # type: ignore[type-var, operator]
            if fits and len(values) == len(row) and _NUMBERS.issuperset(map(type, row)):
                return row
        except (TypeError, LookupError):
            pass
        row = [values.get(channel) for channel in self._channels]
        known = sum(channel in values for channel in self._channels)
        if not known:
            raise _BadError(Reason.NO_KNOWN_CHANNEL, "no channel of the model is among the values")
        for channel, number in zip(self._channels, row, strict=True):
            if type(number) not in _NUMBERS:
                raise _BadError(Reason.NOT_A_NUMBER, f"channel {channel!r} is {_kind(number)}, not a number")
            if number is not None and abs(number) >= _TOO_LARGE:
                raise _BadError(Reason.OUT_OF_RANGE, f"channel {channel!r}: {number!r} does not fit 32 bits")
        batch.counts["unknown_channel"] += len(values) - known
        return row

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
        if not isinstance(stream, str) or not 0 < len(stream) <= LONGEST_STREAM:
            raise _BadError(
                Reason.STREAM, f"{name!r} is {_kind(stream)}, not a text of 1 to {LONGEST_STREAM} characters"
            )
        return stream

    def _moment(self, document: dict[str, Any], stamp_ms: int) -> int:
        name = self._fields.timestamp
        if name not in document:
            if stamp_ms < 0:
                raise _BadError(Reason.TIMESTAMP, f"there is no {name!r} and the record has no timestamp")
            if stamp_ms * MILLISECOND_NS > LATEST_NS:
                raise _BadError(Reason.TIMESTAMP, f"there is no {name!r} and the record's own is after 2262")
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
        self._streams: list[str] = []
        self._times: list[int] = []
        self._rows: list[Row] = []
        self._dead: list[tuple[int, int, DeadLetter]] = []

    def add(self, place: int, stream: str, moment: int, row: Row) -> None:
        self._places.append(place)
        self._streams.append(stream)
        self._times.append(moment)
        self._rows.append(row)

    def reject(self, place: int, reason: Reason, detail: str, elements: int = 1) -> None:
        """Set the whole record aside; ``elements``: how many of a list are meant."""
        self._letter(place, _WHOLE, self.records.values[place], reason, detail, elements)

    def reject_elements(
        self, place: int, bad: Sequence[tuple[int, Reason, str]], parts: Sequence[bytes] | None = None
    ) -> None:
        """Set elements of a list aside, each with its own bytes; the whole record once, where it cannot be split.

        ``parts``: the bytes of all elements, where they are known.
        """
        value = self.records.values[place]
        if len(self._dead) + len(bad) > MOST_LETTERS:
            parts = []
        elif parts is None:
            parts = _elements(value or b"", bad[-1][0] + 1)
        if parts:
            for index, reason, detail in bad:
                self._letter(place, index, parts[index], reason, detail)
        else:
            index, reason, detail = bad[0]
            also = f"element {index}, and {len(bad) - 1} more are bad: " if len(bad) > 1 else f"element {index}: "
            self.reject(place, reason, also + detail, len(bad))

    def _letter(
        self, place: int, index: int, value: bytes | None, reason: Reason, detail: str, elements: int = 1
    ) -> None:
        records = self.records
        offset = records.offsets[place]
        letter = DeadLetter(
            value, records.keys[place], reason, detail, self._topic, records.partition, offset, index, elements
        )
        self._dead.append((place, index, letter))

    def finish(self, width: int, max_ahead_ms: int) -> Decoded:
        """The columns, after the checks that are done on all readings at once.

        What the long way took has passed them; so what fails them is a record of one reading.
        """
        places = np.array(self._places, dtype=np.int64)
        times = np.array(self._times, dtype=np.int64)
        with np.errstate(over="ignore"):  # what overflows is found just below
            values = np.array(self._rows, dtype=np.float64).reshape(len(places), width).astype(np.float32)
        stamps = np.asarray(self.records.timestamps, dtype=np.int64)[places]
        ahead = (stamps >= 0) & (times // MILLISECOND_NS - max_ahead_ms > stamps)
        beyond: NDArray[np.bool_] = np.logical_or.reduce(np.isinf(values), axis=1)
        streams: Sequence[str] = self._streams
        bad = ahead | beyond
        if bad.any():
            for n in np.flatnonzero(bad).tolist():
                why = (Reason.OUT_OF_RANGE, "a value does not fit 32 bits") if beyond[n] else (Reason.AHEAD, _AHEAD)
                self.reject(self._places[n], *why)
            good = np.flatnonzero(~bad)
            places, times, values = places[good], times[good], values[good]
            streams = [self._streams[n] for n in good.tolist()]
        self._dead.sort(key=itemgetter(0, 1))
        offsets: NDArray[np.int64] = np.asarray(self.records.offsets, dtype=np.int64)[places]
        readings = Readings(self.records.partition, streams, times, values)
        return Decoded(readings, offsets, [letter for _, _, letter in self._dead], self.counts)


_AHEAD = "the reading is dated too far past the record's own timestamp"


def _elements(value: bytes, most: int | None = None) -> list[bytes]:
    """The elements of a JSON list, each with its own bytes; nothing where the list cannot be split.

    ``most``: of a list that is JSON, how many are wanted.

    The standard library's scanner also reads NaN and Infinity, so a list that is no JSON for their sake can be split.
    """
    found: list[bytes] = []
    try:
        text = value.decode()
        at = _past_space(text, 0)
        if text[at] != "[":
            return []
        scanner = json.JSONDecoder()
        at = _past_space(text, at + 1)
        while True:
            if most is None and len(found) == _MANY:
                json.loads(text)  # all at once is 20 times faster: whether it can be split is known by that
            _, end = scanner.raw_decode(text, at)
            found.append(text[at:end].encode() if len(found) < MOST_ELEMENTS else b"")  # the rest is counted only
            if len(found) == most:
                return found
            at = _past_space(text, end)
            if text[at] == "]" and _past_space(text, at + 1) == len(text):
                return found
            if text[at] != ",":
                return []
            at = _past_space(text, at + 1)
    except (ValueError, IndexError, RecursionError):
        return []


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at


def _why_not_json(value: bytes, error: ValueError) -> tuple[Reason, str]:
    """Tell NaN and overlong numbers, which senders write by accident, from text that is no JSON at all."""
    said = str(error)
    if "infinity" in said:
        return Reason.OUT_OF_RANGE, said
    tokens: list[str] = []
    if b"NaN" in value or b"Infinity" in value:
        with suppress(ValueError, RecursionError):
            json.loads(value, parse_constant=tokens.append)
            if tokens:
                return Reason.NOT_A_NUMBER, f"{tokens[0]} is not JSON"
    return Reason.NOT_JSON, said


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
