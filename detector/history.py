"""The past of a topic as a table, for learning: read without a group, and nothing is committed.

The detector's own decoder reads the records, so that what is learned is what will be scored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from detector.adapters.columns import LABEL
from detector.adapters.files import Table
from detector.adapters.images import Images
from detector.adapters.kafka_clients import Clients, left_out, read_from
from detector.adapters.kafka_errors import VENDOR, translate
from detector.adapters.overflow import Budget, Growing, taken
from detector.adapters.port import Records
from detector.adapters.texts import Names, Stamps
from detector.engine.readings import Readings
from detector.past import Form, ImageForm, JsonForm, Known
from schemas.errors import BrokerUnavailable, DataError, TopicError
from schemas.frame import Frame
from schemas.moment import MILLISECOND_NS, SECOND_NS
from schemas.reading import FieldNames

log = logging.getLogger(__name__)

#: Records at the end of each partition from which the newest event time is guessed before the range is read.
TAIL = 500

#: Seconds without a record after which the broker counts as gone: the client itself goes on asking for ever.
SILENCE_S = 60.0

#: Records of a poll.
POLL = 5000


def read_topic(
    bootstrap_servers: str,
    topic: str,
    span_s: float,
    channels: Sequence[str] | None = None,
    *,
    fields: FieldNames | None = None,
    streams: Sequence[str] = (),
    max_ahead_s: float = 3600.0,
    timeout_s: float = 60.0,
    client: Mapping[str, Any] | None = None,
) -> Table:
    """The readings of a topic whose event time lies within ``span_s`` seconds of the newest one.

    ``channels`` None: every channel that has a number, in the order of appearance. ``streams``: patterns of those that
    are meant; none: all. Records that cannot be read are left out and counted in the log. Rows are in the order of the
    partitions, within them of the offsets.
    ``client``: settings of kafka-python that its connections need (security).

    Raises BrokerUnavailable, TopicError where there is no such topic, DataError where it holds no reading.
    """
    form = JsonForm(topic, fields or FieldNames(), max_ahead_s, streams)
    reader = _reader(bootstrap_servers, timeout_s, client)
    names, table = _read(reader, form, span_s, channels, max_ahead_s)
    if any(name.lower() == LABEL for name in names):
        raise DataError(f"topic {topic}: a channel is called {LABEL}: answers must not be learned; leave it out")
    return replace(table, channels=tuple(names))


def read_image_topic(
    bootstrap_servers: str,
    topic: str,
    span_s: float,
    frame: Frame | None = None,
    *,
    timeout_s: float = 60.0,
    client: Mapping[str, Any] | None = None,
) -> Images:
    """The images of a topic, likewise. ``frame`` None: the size of the first PNG or JPEG; images of another size are
    left out, as the detector sets them aside.
    """
    return Images(*_read(_reader(bootstrap_servers, timeout_s, client), ImageForm(topic), span_s, frame, 0.0))


def read_values(
    bootstrap_servers: str,
    topic: str,
    since_ms: int | None = None,
    *,
    timeout_s: float = 60.0,
    client: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Partitions, keys and values of what is committed on a topic, in the partitions' orders.

    ``since_ms``: from the first record of this timestamp on; None: all.

    Raises BrokerUnavailable, and TopicError where there is no such topic.
    """
    reader = _reader(bootstrap_servers, timeout_s, client)
    try:
        found = _Range(reader, topic)
        for records in found.all() if since_ms is None else found.since(since_ms):
            yield from ((records.partition, *pair) for pair in zip(records.keys, records.values, strict=True))
    except VENDOR as error:
        raise translate(error, f"reading {topic}") from error
    finally:
        reader.close(autocommit=False, timeout_ms=2000)


def _reader(bootstrap_servers: str, timeout_s: float, client: Mapping[str, Any] | None) -> KafkaConsumer:
    clients = Clients(bootstrap_servers, "residual-history", client)
    return clients.consumer(time.monotonic() + timeout_s, passes=left_out)


def _read(
    reader: KafkaConsumer, form: Form[Known], span_s: float, known: Known | None, max_ahead_s: float
) -> tuple[Known, Table]:
    """What a decoder had to know, and the readings; of no channels. Closes the reader."""
    try:
        past = _Past(reader, form, known, max_ahead_s)
        if known is None:
            known = form.discover(past.records(span_s))
        if known is None:
            raise form.nothing()
        return known, past.table(known, span_s)
    except VENDOR as error:
        raise translate(error, f"reading {form.topic}") from error
    finally:
        reader.close(autocommit=False, timeout_ms=2000)


class _Range:
    """A topic's partitions, from their first records to their ends as they were at the start."""

    def __init__(self, reader: KafkaConsumer, topic: str) -> None:
        self._reader, self._topic = reader, topic
        partitions = reader.partitions_for_topic(topic)
        if not partitions:  # the client is told of neither
            raise TopicError(f"there is no topic {topic}, or this user has no right to it: name another, or allow Read")
        self._partitions = [TopicPartition(topic, p) for p in sorted(partitions)]
        reader.assign(self._partitions)
        self._first = reader.beginning_offsets(self._partitions)
        self._end = reader.end_offsets(self._partitions)

    def since(self, moment_ms: int) -> Iterator[Records]:
        """Records with this timestamp, and all after the first such one of each partition."""
        starts = self._reader.offsets_for_times({tp: max(moment_ms, 0) for tp in self._partitions})
        yield from self._read({tp: found.offset if found else self._end[tp] for tp, found in starts.items()})

    def all(self) -> Iterator[Records]:
        """Every record."""
        yield from self._read(dict(self._first))

    def _read(self, starts: dict[TopicPartition, int]) -> Iterator[Records]:
        left = {tp for tp in self._partitions if starts[tp] < self._end[tp]}
        for tp in self._partitions:
            read_from(self._reader, tp, starts[tp])
            if tp not in left:
                self._reader.pause(tp)
        deadline = time.monotonic() + SILENCE_S
        while left:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"reading topic {self._topic}: nothing came for {SILENCE_S:g} s; try again")
            for tp, batch in self._reader.poll(timeout_ms=500, max_records=POLL).items():
                kept = [record for record in batch if record.offset < self._end[tp]]
                deadline = time.monotonic() + SILENCE_S
                if kept:
                    yield Records(
                        tp.partition,
                        [record.offset for record in kept],
                        [record.timestamp for record in kept],
                        [record.key for record in kept],
                        [record.value for record in kept],
                    )
            for tp in [tp for tp in left if self._reader.position(tp) >= self._end[tp]]:
                left.discard(tp)
                self._reader.pause(tp)


class _Past(_Range, Generic[Known]):
    """A range of readings: from the offsets whose records may lie within the span."""

    def __init__(self, reader: KafkaConsumer, form: Form[Known], told: Known | None, max_ahead_s: float) -> None:
        super().__init__(reader, form.topic)
        self._form, self._told, self._max_ahead_s = form, told, max_ahead_s

    def table(self, known: Known, span_s: float) -> Table:
        """The readings within the span; where they are many, on disk."""
        decoder, found, bad = self._form.decoder(known), _Found(span_s), 0
        for records in self.records(span_s):
            decoded = decoder.decode(records)
            bad += len(decoded.dead_letters)
            found.add(decoded.readings)
        if bad:
            log.warning("topic %s: %d records or elements cannot be read and are left out", self._topic, bad)
        if not len(found):
            raise DataError(f"topic {self._topic} holds no reading that can be read")
        return found.table()

    def records(self, span_s: float) -> Iterator[Records]:
        """Records that may lie within the span.

        A reading is dated at most ``max_ahead`` past its record, so one within the span of the newest event has a
        record timestamp no older than that; the newest event is at least the newest in the tails.
        """
        tails = {tp: max(self._end[tp] - TAIL, self._first[tp]) for tp in self._partitions}
        newest = self._newest(tails)
        if newest is None:
            return
        since_ms = newest // MILLISECOND_NS - round((span_s + self._max_ahead_s) * 1000)
        yield from self.since(since_ms)

    def _newest(self, starts: dict[TopicPartition, int]) -> int | None:
        """Event time of the newest reading from these offsets on."""
        tails = list(self._read(starts))
        known = self._form.discover(tails) or self._told
        if known is None:
            return None
        decoder = self._form.decoder(known)
        times = [decoder.decode(records).readings.times for records in tails]
        return max((int(t.max()) for t in times if len(t)), default=None)


class _Found:
    """Readings as they are read, up to so many seconds before the newest of them."""

    def __init__(self, span_s: float) -> None:
        self._span_ns, self._newest = round(span_s * SECOND_NS), 0
        self._budget = Budget()
        self._times, self._codes = Growing(self._budget, np.int64), Growing(self._budget, np.int32)
        self._values: Growing | None = None
        self._place: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._times)

    def add(self, readings: Readings) -> None:
        """The next ones; what is too old already is passed over."""
        if not len(readings):
            return
        self._newest = max(self._newest, int(readings.times.max()))
        rows = np.flatnonzero(readings.times >= self._newest - self._span_ns)
        names = [readings.streams[row] for row in rows.tolist()]
        for name in names:
            self._place.setdefault(name, len(self._place))
        if self._values is None:
            self._values = Growing(self._budget, readings.values.dtype, readings.values.shape[1:])
        self._times.append(readings.times[rows])
        self._codes.append(np.fromiter(map(self._place.__getitem__, names), np.int32, len(names)))
        self._values.append(readings.values[rows])

    def table(self) -> Table:
        """All that lie within the span. Nothing can be added any more."""
        assert self._values is not None
        times, codes, values = self._times.finish(), self._codes.finish(), self._values.finish()
        rows = np.flatnonzero(times >= self._newest - self._span_ns)
        if len(rows) < len(times):
            times, codes, values = times[rows], codes[rows], taken(values, rows)
        stamps = Stamps(times, np.empty(0, np.uint8), None, None)
        return Table(Names(tuple(self._place), codes), times, values, stamps, ())
