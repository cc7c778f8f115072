"""JSON readings: what is taken, what is set aside and why, and that the schema says the same."""

from __future__ import annotations

import json
import random
import struct
from collections import Counter

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from detector.adapters.port import Records
from detector.decoding.decoded import Decoded
from detector.decoding.json_readings import MOST_BYTES, MOST_ELEMENTS, MOST_LETTERS, JsonDecoder
from schemas.dead_letter import Reason
from schemas.moment import LATEST_NS
from schemas.reading import FieldNames, Reading

CHANNELS = ("a", "b")
GOOD = b'{"stream":"s","timestamp":1000,"values":{"a":1,"b":2.5}}'


def decode(
    *values: bytes | None, key: bytes | None = b"k", stamp: int = 5000, decoder: JsonDecoder | None = None
) -> Decoded:
    n = len(values)
    records = Records(3, list(range(100, 100 + n)), [stamp] * n, [key] * n, list(values))
    return (decoder or JsonDecoder(CHANNELS, "readings")).decode(records)


def reading(**changes: object) -> bytes:
    fields = {"stream": "s", "timestamp": 1000, "values": {"a": 1, "b": 2.5}, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def test_a_reading() -> None:
    found = decode(GOOD)
    assert list(found.readings.streams) == ["s"]
    assert found.readings.times.tolist() == [10**9]
    assert found.readings.values.tolist() == [[1.0, 2.5]]
    assert found.readings.partition == 3
    assert found.offsets.tolist() == [100]
    assert not found.dead_letters


@pytest.mark.parametrize(
    ("record", "row", "unknown"),
    [
        (reading(values={"a": 1}), [1, np.nan], 0),
        (reading(values={"a": None, "b": 2}), [np.nan, 2], 0),
        (reading(values={"a": 1, "b": 2, "z": "text"}), [1, 2], 1),
        (reading(values={"a": None, "b": None}), [np.nan, np.nan], 0),
        (reading(values={"a": 0.1, "b": 123456789}), [np.float32(0.1), np.float32(123456789)], 0),
        (reading(extra={"anything": []}), [1, 2.5], 0),
    ],
)
def test_missing_and_unknown_channels(record: bytes, row: list[float], unknown: int) -> None:
    found = decode(record)
    np.testing.assert_array_equal(found.readings.values, np.array([row], np.float32))
    assert found.counts["unknown_channel"] == unknown


def test_stream_and_timestamp_from_the_record() -> None:
    found = decode(reading(stream=..., timestamp=...), key=b"Ofen 7", stamp=1234)
    assert list(found.readings.streams) == ["Ofen 7"]
    assert found.readings.times.tolist() == [1_234_000_000]


@pytest.mark.parametrize("stamp", ["1970-01-01T00:00:01Z", "1970-01-01T01:00:01+01:00", 1000, 1000.0])
def test_times(stamp: object) -> None:
    assert decode(reading(timestamp=stamp)).readings.times.tolist() == [10**9]


def test_field_names_are_settings() -> None:
    decoder = JsonDecoder(CHANNELS, "t", FieldNames(stream="host", timestamp="ts", values="fields"))
    found = decode(b'{"host":"h","ts":1,"fields":{"a":1,"b":2}}', GOOD, decoder=decoder)
    assert list(found.readings.streams) == ["h"]
    assert [d.reason for d in found.dead_letters] == [Reason.VALUES]


BAD = [
    (None, Reason.EMPTY),
    (b"", Reason.EMPTY),
    (b" ", Reason.EMPTY),
    (b"null", Reason.EMPTY),
    (b"[]", Reason.EMPTY),
    (b"[\n ]", Reason.EMPTY),
    (b"{", Reason.NOT_JSON),
    (b"\xff\xfe", Reason.NOT_JSON),
    (b"[" * 100_000, Reason.NOT_JSON),
    (GOOD + GOOD, Reason.NOT_JSON),
    (b"5", Reason.NOT_A_READING),
    (b'"text"', Reason.NOT_A_READING),
    (reading(stream=5), Reason.STREAM),
    (reading(stream=None), Reason.STREAM),
    (reading(stream=""), Reason.STREAM),
    (reading(stream="x" * 1025), Reason.STREAM),
    (reading(timestamp="yesterday"), Reason.TIMESTAMP),
    (reading(timestamp=True), Reason.TIMESTAMP),
    (reading(timestamp=None), Reason.TIMESTAMP),
    (reading(timestamp=[]), Reason.TIMESTAMP),
    (reading(timestamp=-1), Reason.TIMESTAMP),
    (reading(timestamp=10**15), Reason.TIMESTAMP),
    (reading(timestamp="2263-01-01T00:00:00Z"), Reason.TIMESTAMP),
    (reading(timestamp=5000 + 3_600_000 + 1), Reason.AHEAD),
    (reading(values=[1, 2]), Reason.VALUES),
    (reading(values=...), Reason.VALUES),
    (reading(values={"a": "1"}), Reason.NOT_A_NUMBER),
    (reading(values={"a": True, "b": 1}), Reason.NOT_A_NUMBER),
    (reading(values={"a": {}, "b": 1}), Reason.NOT_A_NUMBER),
    (b'{"stream":"s","timestamp":1,"values":{"a":NaN,"b":1}}', Reason.NOT_A_NUMBER),
    (b'{"stream":"s","timestamp":1,"values":{"a":-Infinity,"b":1}}', Reason.NOT_A_NUMBER),
    (reading(values={"a": 1e39, "b": 1}), Reason.OUT_OF_RANGE),
    (b'{"stream":"s","timestamp":1,"values":{"a":1e400,"b":1}}', Reason.OUT_OF_RANGE),
    (reading(values={}), Reason.NO_KNOWN_CHANNEL),
    (reading(values={"z": 1}), Reason.NO_KNOWN_CHANNEL),
]


@pytest.mark.parametrize(("record", "reason"), BAD, ids=lambda x: x.value if isinstance(x, Reason) else None)
def test_what_is_set_aside(record: bytes | None, reason: Reason) -> None:
    found = decode(GOOD, record, GOOD)
    assert found.offsets.tolist() == [100, 102]
    (letter,) = found.dead_letters
    assert (letter.value, letter.reason, letter.offset, letter.index) == (record, reason, 101, -1)
    assert letter.detail
    headers = dict(letter.headers())
    assert headers["residual-reason"] == reason.value.encode()
    assert headers["residual-topic"] == b"readings"
    assert (headers["residual-partition"], headers["residual-offset"]) == (b"3", b"101")


def can_be_told_from_its_neighbours(record: bytes | None) -> bool:
    try:
        json.loads(record or b"")
    except (ValueError, RecursionError):
        return False
    return True


@pytest.mark.parametrize(
    ("record", "reason"),
    [(b, r) for b, r in BAD if r is not Reason.EMPTY and can_be_told_from_its_neighbours(b)],
)
def test_in_a_list_only_the_bad_element(record: bytes, reason: Reason) -> None:
    found = decode(b"[ " + GOOD + b",\n" + record + b" ," + GOOD + b"]")
    assert len(found.readings) == 2
    (letter,) = found.dead_letters
    assert (letter.value, letter.index) == (record, 1)
    assert letter.reason is reason


def test_a_list_that_cannot_be_split_is_set_aside_whole() -> None:
    record = b"[" + GOOD + b", oops, " + GOOD + b"]"
    found = decode(record)
    assert not len(found.readings)
    assert [(d.value, d.index) for d in found.dead_letters] == [(record, -1)]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_become_readings_or_one_dead_letter(value: bytes) -> None:
    found = decode(value)
    assert len(found.readings) or found.dead_letters


KEYS = ["stream", "timestamp", "values", "a", "b"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional={"stream": JSON, "timestamp": JSON, "values": JSON}))
def test_the_decoder_and_the_schema_agree(document: dict) -> None:
    value = json.dumps(document).encode()
    taken = len(decode(value).readings) == 1
    try:
        orjson.loads(value)
        Reading.model_validate_json(value, strict=True)
        described = True
    except (ValidationError, ValueError):
        described = False
    if taken:  # the decoder asks for more: a time that is one, a channel that is known, 32 bits
        values = document["values"]
        known = {c: values[c] for c in CHANNELS if c in values}
        assert described or not set(values) <= set(CHANNELS), document
        assert known


def test_values_round_as_single_precision_would() -> None:
    rng = random.Random(0)
    rows = [[struct.unpack("f", rng.randbytes(4))[0] for _ in CHANNELS] for _ in range(500)]
    rows = [[0.0 if np.isnan(v) or np.isinf(v) else v for v in row] for row in rows]
    found = decode(*(reading(values=dict(zip(CHANNELS, row, strict=True))) for row in rows))
    np.testing.assert_array_equal(found.readings.values, np.array(rows, np.float32))


def test_a_long_list_of_bad_elements_is_split() -> None:
    record = b"[" + b",".join([b'{"stream":1}'] * MOST_LETTERS) + b"]"
    found = decode(record)
    assert [(d.value, d.index, d.elements) for d in found.dead_letters] == [
        (b'{"stream":1}', index, 1) for index in range(MOST_LETTERS)
    ]


def test_bad_elements_beyond_what_a_transaction_bears_share_one_letter() -> None:
    bad = b"[" + b",".join([b"0"] * (MOST_LETTERS // 2)) + b"," + GOOD + b"]"
    found = decode(bad, bad, bad, reading(timestamp="then"), GOOD)
    assert found.offsets.tolist() == [100, 101, 102, 104]
    elements = Counter({100: MOST_LETTERS // 2, 101: MOST_LETTERS // 2, 102: 1, 103: 1})
    assert Counter(d.offset for d in found.dead_letters) == elements
    shared, single = found.dead_letters[-2:]
    assert (shared.value, shared.index, shared.elements) == (bad, -1, MOST_LETTERS // 2)
    assert dict(shared.headers())["residual-elements"] == str(MOST_LETTERS // 2).encode()
    assert (single.index, single.elements, single.reason) == (-1, 1, Reason.TIMESTAMP)
    assert "residual-elements" not in dict(single.headers())


@pytest.mark.parametrize("element", [b"0", b"NaN"])
def test_a_list_longer_than_any_of_readings_is_set_aside_whole(element: bytes) -> None:
    record = b"[" + b",".join([element] * (MOST_ELEMENTS + 1)) + b"]"
    (letter,) = decode(record).dead_letters
    assert (letter.value, letter.index, letter.elements) == (record, -1, MOST_ELEMENTS + 1)
    assert letter.reason is Reason.TOO_LONG


def test_a_record_longer_than_any_sender_means_is_not_taken_apart() -> None:
    longest = GOOD + b" " * (MOST_BYTES - len(GOOD))
    found = decode(longest, longest + b" ")
    assert found.offsets.tolist() == [100]
    assert [(d.offset, d.reason) for d in found.dead_letters] == [(101, Reason.TOO_LONG)]


def test_a_record_dated_after_2262_gives_no_time() -> None:
    """Its nanoseconds did not fit 64 bits, and the whole batch with it."""
    for stamp in (2**63 - 1, LATEST_NS // 1_000_000 + 1):
        (letter,) = decode(reading(timestamp=...), stamp=stamp).dead_letters
        assert letter.reason is Reason.TIMESTAMP
        assert len(decode(reading(), stamp=stamp).readings) == 1
    assert decode(reading(timestamp=...), stamp=LATEST_NS // 1_000_000).readings.times.tolist() == [
        LATEST_NS // 1_000_000 * 1_000_000
    ]


@pytest.mark.parametrize("values", [{"a": 3.4028235e38, "b": 1}, {"a": 3.4028235e38}, {"a": -3.4028235e38, "z": 0}])
def test_the_largest_number_of_32_bits_is_taken_by_either_way(values: dict[str, float]) -> None:
    """The long way refused what is written as the largest of 32 bits, since it is a little more in 64."""
    assert abs(decode(reading(values=values)).readings.values[0, 0]) == np.finfo(np.float32).max
    (letter,) = decode(reading(values={**values, "a": 3.4028236e38})).dead_letters
    assert letter.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("stamp", [5000 + 3_600_000, 5000 + 3_600_001])
def test_too_far_ahead_is_the_same_alone_and_in_a_list(stamp: int) -> None:
    alone, listed = decode(reading(timestamp=stamp)), decode(b"[" + reading(timestamp=stamp) + b"]")
    assert len(alone.readings) == len(listed.readings) == (stamp == 3_605_000)
    assert [d.reason for d in alone.dead_letters] == [d.reason for d in listed.dead_letters]


def test_one_channel() -> None:
    found = decode(b'{"stream":"s","timestamp":1,"values":{"a":4}}', decoder=JsonDecoder(["a"], "t"))
    assert found.readings.values.tolist() == [[4.0]]


def test_a_list_too_deep_to_be_split_is_set_aside_once() -> None:
    record = b"[" + b"0," * 5000 + b"[" * 1000 + b"]" * 1000 + b"," + GOOD + b"]"
    found = decode(record)
    assert [(d.value, d.index, d.elements) for d in found.dead_letters] == [(record, -1, 5001)]
    assert len(found.readings) == 1
