"""Fetches taken apart: the same records as the client finds, and what it does not bear costs itself only."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence

import pytest
from batches import FIELDS, HEADER, batch, places, record, sealed, varint
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords

from detector.adapters.kafka_batches import FetchedRecords, MetError, Record, Watch
from detector.adapters.port import Damaged
from schemas.dead_letter import Reason

TP = TopicPartition("readings", 0)
PACK = {0: bytes, 1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
TRANSACTIONAL, CONTROL = 0x10, 0x20


def at(made: bytes, base: int, *, producer: int = -1, attributes: int = 0) -> bytes:
    """The batch as a broker keeps it: with its first offset, perhaps with a producer."""
    spoilt = bytearray(made)
    struct.pack_into(">q", spoilt, 0, base)
    struct.pack_into(">q", spoilt, 43, producer)
    struct.pack_into(">h", spoilt, 21, struct.unpack_from(">h", spoilt, 21)[0] | attributes)
    return sealed(spoilt)


def log_of(values: Sequence[Sequence[bytes | None]], codec: int = 0) -> bytes:
    """A log with a batch for each list of values."""
    made, base = b"", 0
    for batch_values in values:
        records = b"".join(record(step, b"k", value) for step, value in enumerate(batch_values))
        made += at(batch(PACK[codec](records), len(batch_values), codec=codec), base)
        base += len(batch_values)
    return made


class Reader:
    """Reads a log in memory as a consumer does: fetch by fetch, each from the batch that holds the position."""

    def __init__(self, log: bytes, end: int, aborted: Sequence[object] = ()) -> None:
        self._log, self._aborted = log, aborted
        self.watch = Watch()
        self.watch.ends[TP] = end

    def fetch(self, position: int, most: int, log: bytes) -> FetchedRecords:
        found = list(places(self._log))  # whatever befell the log meanwhile: a broker has an index
        first = found[max(bisect_right([base for _, _, base in found], position) - 1, 0)][0]
        records = MemoryRecords(log[first : first + most])
        return FetchedRecords(
            self.watch,
            position,
            TP,
            records,
            isolation_level=IsolationLevel.READ_COMMITTED,
            aborted_transactions=self._aborted,
        )

    def read(
        self, position: int = 0, most: int = 1 << 30, log: bytes | None = None
    ) -> tuple[list[Record], int, Damaged | None]:
        """What one fetch brings, the position after it, and what ended it."""
        fetched, found = self.fetch(position, most, self._log if log is None else log), list[Record]()
        try:
            while fetched:
                found += fetched.take(7)
        except MetError:
            pass
        met = self.watch.met.get(TP)
        return found, fetched.next_fetch_offset, met.damaged if met else None


# -- what is right ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(
            st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=300), st.integers(-9, 9**9)),
            min_size=1,
            max_size=9,
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([*PACK]),
    st.integers(0, 10),
)
def test_the_same_as_the_client_finds(
    batches: list[list[tuple[bytes | None, bytes | None, int]]], codec: int, start: int
) -> None:
    log, base = b"", 0
    for rows in batches:
        packed = PACK[codec](
            b"".join(record(n, key, value, [(b"h", None)], delta) for n, (key, value, delta) in enumerate(rows))
        )
        log += at(batch(packed, len(rows), codec=codec), base)
        base += len(rows)
    theirs = Fetcher.PartitionRecords(start, TP, MemoryRecords(log))
    wanted = theirs.take()
    found, position, damaged = Reader(log, base).read(start)
    assert [(r.offset, r.timestamp, r.key, r.value) for r in wanted if r.offset >= start] == [tuple(r) for r in found]
    assert (position, damaged) == (max(base, start), None)


def test_a_header_whose_name_is_no_text() -> None:
    """Clients in C send it and brokers take it; the client's own way made the whole batch unreadable."""
    made = batch(record(0, b"k", b"1", [(b"\xff\xfe", b"x")]) + record(1, b"k", b"2", [(b"", None)] * 300), 2)
    assert [r.value for r in Reader(made, 2).read()[0]] == [b"1", b"2"]


def test_times() -> None:
    far = batch(record(0, None, b"a", delta=2**63 - 1) + record(1, None, b"b", delta=-(2**62)), 2, time_ms=2**62)
    assert [r.timestamp for r in Reader(far, 2).read()[0]] == [-1, 0]
    appended = batch(record(0, None, b"a", delta=77), 1, time_ms=5, attributes=0x08)
    assert [r.timestamp for r in Reader(appended, 1).read()[0]] == [5]


class Aborted:
    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id, self.first_offset = producer_id, first_offset


def test_records_of_an_aborted_transaction_are_left_out() -> None:
    def mark(kind: int, base: int, producer: int) -> bytes:
        made = batch(record(0, struct.pack(">hh", 0, kind), b"\0\0\0\0\0\0"), 1)
        return at(made, base, producer=producer, attributes=TRANSACTIONAL | CONTROL)

    def one(value: bytes, base: int, producer: int) -> bytes:
        return at(batch(record(0, b"k", value), 1), base, producer=producer, attributes=TRANSACTIONAL)

    log = one(b"no", 0, 7) + one(b"yes", 1, 8) + mark(0, 2, 7) + mark(1, 3, 8) + one(b"yes", 4, 7) + mark(1, 5, 7)
    found, position, damaged = Reader(log, 6, [Aborted(7, 0)]).read()
    assert [(r.offset, r.value) for r in found] == [(1, b"yes"), (4, b"yes")]
    assert (position, damaged) == (6, None)


# -- what is damaged -------------------------------------------------------------------------------------------------

VALUES = [[b"%d-%d" % (number, step) for step in range(3)] for number in range(5)]
FLAT = [value for values in VALUES for value in values]
#: Neither the checksum nor anything else tells that these are not right; nor does anybody mind.
HARMLESS = range(*FIELDS["epoch"])


@pytest.mark.parametrize("codec", [*PACK])
@pytest.mark.parametrize("number", [0, 2, 4])
def test_any_bit_of_a_batch(codec: int, number: int) -> None:
    """Nothing is delivered that was not sent, at no other offset; what comes before and after is, once."""
    log = log_of(VALUES, codec)
    first, end, base = list(places(log))[number]
    for place in range(first, end):
        for bit in range(8):
            spoilt = bytearray(log)
            spoilt[place] ^= 1 << bit
            found, damaged = read_past(bytes(spoilt), log)
            assert all(r.value == FLAT[r.offset] for r in found), (place - first, bit)
            offsets = [r.offset for r in found]
            assert offsets == sorted(set(offsets))
            if place - first in HARMLESS:
                assert (offsets, damaged) == ([*range(15)], None)
                continue
            assert offsets[:base] == [*range(base)]
            if 8 <= place - first < 12:  # nobody knows where the next one begins, nor whether it is all there
                assert not set(offsets) & {base, base + 1, base + 2}
                continue
            assert damaged is not None
            assert (damaged.reason, damaged.first) == (Reason.CORRUPT, base)
            assert damaged.data == bytes(spoilt[first:end])
            if number < 4:
                assert damaged.next == base + 3
                assert offsets == [*range(base), *range(base + 3, 15)]
            else:  # it alone says how long it is
                assert base < damaged.next <= 15
                assert offsets == [*range(base)]


def read_past(spoilt: bytes, log: bytes) -> tuple[list[Record], Damaged | None]:
    """Reads to the end, once past what is damaged."""
    reader = Reader(log, 15)
    found, _, damaged = reader.read(log=spoilt)
    if damaged is None or damaged.next >= 15:
        return found, damaged
    reader.watch.met.clear()
    return found + reader.read(damaged.next, log=spoilt)[0], damaged


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([*PACK]), st.integers(0, 2**31 - 1), st.integers(0, 200))
def test_a_batch_with_a_right_checksum_and_anything_in_it(data: bytes, codec: int, count: int, last: int) -> None:
    """It is not damaged, so it is bad input; what could be read of it was, and nothing of it raises."""
    made = bytearray(batch(data, 1, codec=codec))
    struct.pack_into(">i", made, 23, last)
    struct.pack_into(">i", made, 57, count)
    reader = Reader(sealed(made), last + 1)
    found, position, damaged = reader.read()
    if damaged is not None:
        assert damaged.reason in (Reason.UNREADABLE, Reason.TOO_LONG)
        assert (damaged.first, damaged.next) == (len(found) and found[-1].offset + 1, last + 1)
        assert position == damaged.first
    else:
        assert position == last + 1
        assert len(found) == count


@pytest.mark.parametrize(
    "spoilt",
    [
        record(0, b"k", b"v")[:-1],
        record(5, b"k", b"v"),
        record(-1, b"k", b"v"),
        varint(6) + b"\0" + varint(0) + varint(0) + varint(90) + b"kv",
        varint(-5) + b"\0\0\0\0\0",
        varint(2**40) + b"\0",
        b"\xff" * 30,
        b"",
    ],
)
def test_no_records(spoilt: bytes) -> None:
    good = at(batch(record(0, b"k", b"good"), 1), 1)
    reader = Reader(batch(spoilt, 1) + good, 2)
    found, _, damaged = reader.read()
    assert damaged is not None
    assert (found, damaged.reason, damaged.first, damaged.next) == ([], Reason.UNREADABLE, 0, 1)
    assert reader.read(1)[0] == [Record(1, 1_700_000_000_000, b"k", b"good")]


def test_what_follows_the_last_record_is_nobodys() -> None:
    found, position, damaged = Reader(batch(record(0, b"k", b"v") + b"more", 1), 1).read()
    assert (len(found), position, damaged) == (1, 1, None)


def test_offsets_that_go_back() -> None:
    made = batch(record(0, b"k", b"a") + record(1, b"k", b"b") + record(1, b"k", b"c"), 3)
    found, position, damaged = Reader(made, 3).read()
    assert [r.value for r in found] == [b"a", b"b"]
    assert damaged is not None
    assert (damaged.first, damaged.next, position) == (2, 3, 2)


def test_a_fetch_that_ends_within_a_batch_is_the_usual_thing() -> None:
    log = log_of(VALUES)
    for most in range(len(log)):
        found, position, damaged = Reader(log, 15).read(0, most)
        assert damaged is None
        assert position == len(found)
        assert [r.value for r in found] == FLAT[:position]


def test_a_poll_unpacks_so_much_and_no_more() -> None:
    values = [[bytes(5_000_000)] for _ in range(10)]
    reader = Reader(log_of(values, codec=4), 10)
    found, position, damaged = reader.read()
    assert (len(found), position, damaged) == (4, 4, None)
    assert reader.read(4)[0] == [], "the poll has had its share"
    reader.watch.unpacked = 0
    assert [r.offset for r in reader.read(4)[0]] == [4, 5, 6, 7]


def test_a_head_of_a_batch_is_as_long_as_it_says() -> None:
    assert HEADER.size == max(end for _, end in FIELDS.values())
