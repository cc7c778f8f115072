"""Every decoder under garbage: whatever comes, each element is a reading or a dead letter, and nothing else happens."""

from __future__ import annotations

import functools
import io
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from garbage import Grammar, Sample, elements, pictures, scans, spoil
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import few

from detector.adapters.port import Records
from detector.decoding.decoded import Decoded
from detector.decoding.images import ImageDecoder, decode_image
from detector.decoding.json_readings import JsonDecoder
from schemas.dead_letter import DeadLetter, Reason
from schemas.frame import Frame
from schemas.moment import LATEST_NS

CHANNELS = ("a", "b", "c")


def records_of(samples: Sequence[Sample]) -> Records:
    return Records(
        3,
        range(100, 100 + len(samples)),
        [s.stamp_ms for s in samples],
        [s.key for s in samples],
        [s.value for s in samples],
    )


def decode(samples: Sequence[Sample]) -> Decoded:
    return JsonDecoder(CHANNELS, "readings").decode(records_of(samples))


def check(samples: Sequence[Sample], found: Decoded) -> None:
    """Each element is accounted for once, and what is accepted can be scored."""
    readings = Counter(found.offsets.tolist())
    letters: dict[int, list[DeadLetter]] = {}
    for letter in found.dead_letters:
        letters.setdefault(letter.offset, []).append(letter)
    for offset, sample in enumerate(samples, 100):
        own = letters.get(offset, [])
        got = readings[offset] + sum(letter.elements for letter in own)
        assert got == sample.elements, (sample, own)
        if sample.bad is not None:
            reasons: Counter[Reason] = Counter()
            for letter in own:
                reasons[letter.reason] += letter.elements
            assert (readings[offset], reasons) == (sample.good, sample.bad), (sample, own)
        for letter in own:
            check_letter(sample, letter)
    order = [letter.offset for letter in found.dead_letters]
    assert order == sorted(order)
    assert found.offsets.tolist() == sorted(found.offsets.tolist())
    check_readings(found)


def check_letter(sample: Sample, letter: DeadLetter) -> None:
    assert letter.key == sample.key
    if letter.index < 0:
        assert letter.value == sample.value
    else:
        assert letter.value in (sample.value or b""), "an element's own bytes"
        assert letter.elements == 1
    for name, value in letter.headers():
        assert value.decode().isprintable(), (name, value)
        assert len(value) <= 1000


def check_readings(found: Decoded) -> None:
    readings = found.readings
    assert readings.values.dtype == np.float32
    assert readings.values.shape == (len(readings), len(CHANNELS))
    assert not np.isinf(readings.values).any()
    assert readings.times.dtype == np.int64
    assert ((readings.times >= 0) & (readings.times <= LATEST_NS)).all()
    assert all(type(stream) is str and 0 < len(stream) <= 1024 for stream in readings.streams)
    for stream in set(readings.streams):
        assert stream.encode().decode() == stream


GRAMMAR = Grammar(CHANNELS, 0)


@pytest.mark.parametrize("kind", [*GRAMMAR.good, *GRAMMAR.bad])
def test_each_kind_of_record_becomes_what_it_is(kind: str) -> None:
    grammar = Grammar(CHANNELS, 1)
    make = grammar.good.get(kind) or grammar.bad[kind]
    for _ in range(30):
        sample = make()
        check([sample], decode([sample]))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_good_ones_survive_beside_bad_ones(seed: int, garbage: float) -> None:
    samples = list(Grammar(CHANNELS, seed).any(100, garbage))
    check(samples, decode(samples))


@settings(max_examples=500)
@given(st.integers(0, 2**32))
def test_spoiled_bytes_are_accounted_for(seed: int) -> None:
    samples = [Grammar(CHANNELS, seed).spoiled() for _ in range(3)]
    check(samples, decode(samples))


def test_what_counts_as_an_element() -> None:
    cases = {b"": 1, b"[]": 1, b"[1,2]": 2, b"[1,2": 1, b"5": 1, b"{}": 1, b"[[1,2],NaN]": 2, b"[" * 10**5: 1, None: 1}
    assert {value: elements(value) for value in cases} == cases


@settings(max_examples=300)
@given(st.text(max_size=70) | st.from_regex(r"[0-9T:Z+.-]{8,40}") | st.integers() | st.floats(), st.integers(0, 9))
def test_any_time_is_sane_or_a_reason(moment: object, seed: int) -> None:
    sample = Grammar(CHANNELS, seed).sample("time", {"stream": "s", "timestamp": moment, "values": {"a": 1}})
    check_readings(decode([sample]))


@pytest.mark.parametrize(
    "kind", few(["digits", "many_elements"], ["large", "digits", "deep", "deep_but_closed", "many_elements", "stream"])
)
def test_a_large_record_costs_no_more_than_it_weighs(kind: str) -> None:
    """Beside ordinary readings of as many bytes and elements; what grows with the square takes thousands of times."""
    grammar = Grammar(CHANNELS, 2)
    large = [grammar.bad[kind]() for _ in range(10)]
    weight = sum(len(sample.value or b"") for sample in large)
    ordinary = [grammar.good_reading() for _ in range(sum(sample.elements for sample in large))]
    while sum(len(sample.value or b"") for sample in ordinary) < weight:
        ordinary += [grammar.good_reading() for _ in range(100)]
    assert cpu(large) < 10 * cpu(ordinary)


def cpu(samples: Sequence[Sample]) -> float:
    """CPU seconds that it takes to decode them: the least of three."""
    took = []
    for _ in range(3):
        began = time.process_time()
        decode(samples)
        took.append(time.process_time() - began)
    return min(took)


# -- images ----------------------------------------------------------------------------------------------------------

FRAME = Frame(64, 48, 1)


@pytest.mark.parametrize("seed", range(5))
def test_pictures_of_every_kind(seed: int) -> None:
    pytest.importorskip("PIL")
    made = pictures(random.Random(seed), FRAME.height, FRAME.width)
    names = [*made, *made]  # one that is broken leaves nothing behind for the next
    records = Records(1, range(len(names)), [1000] * len(names), [b"camera"] * len(names), [made[n] for n in names])
    found = ImageDecoder(FRAME, "images").decode(records)
    letters = {letter.offset: letter for letter in found.dead_letters}
    for offset, name in enumerate(names):
        assert (offset in letters) != (offset in found.offsets), name
        if name.startswith("good "):
            assert offset not in letters, (name, letters[offset])
        elif not name.startswith("spoiled "):
            assert offset in letters, name
    for letter in letters.values():
        assert letter.value == made[names[letter.offset]]
        assert all(value.decode().isprintable() for _, value in letter.headers())
        assert "0x" not in letter.detail, "an address of ours"
    assert not np.isnan(found.readings.values).any()
    assert not np.isinf(found.readings.values).any()


@functools.cache
def small_pictures() -> list[bytes]:
    return [value for value in pictures(random.Random(0), 12, 16).values() if len(value) < 100_000]


@settings(max_examples=500)
@given(st.integers(0, 2**32))
def test_spoiled_pictures_are_pixels_or_a_reason(seed: int) -> None:
    pytest.importorskip("PIL")
    rng = random.Random(seed)
    value = spoil(rng, rng.choice(small_pictures()))
    found = decode_image(value, Frame(12, 16, 1))
    assert isinstance(found, str) or found.shape == (12, 16, 1)


def test_a_jpeg_of_many_scans_holds_nothing_up() -> None:
    """83,000 scans of 13 bytes, each over the whole picture, took 84 s: longer than a batch may."""
    Image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    Image.new("L", (1000, 1000)).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    began = time.process_time()
    found = decode_image(scans(whole, 1_000_000), Frame(1000, 1000, 1))
    assert isinstance(found, str)
    assert "scans" in found
    assert time.process_time() - began < 5
    assert not isinstance(decode_image(whole, Frame(1000, 1000, 1)), str)


BOMBS = """
import random, resource, sys
from garbage import Grammar, pictures
from detector.adapters.port import Records
from detector.decoding.images import ImageDecoder
from detector.decoding.json_readings import JsonDecoder
from schemas.frame import Frame

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "linux" else 1024)

grammar = Grammar(("a", "b"), 1)
small = [make() for make in grammar.good.values()]
bombs = [make() for make in grammar.bad.values() for _ in range(20)]
images = list(pictures(random.Random(1), 64, 48).values()) if sys.argv[1] == "images" else []
decoder, before = JsonDecoder(("a", "b"), "t"), None
for samples in (small, bombs):
    for sample in samples:
        decoder.decode(Records(0, [0], [sample.stamp_ms], [sample.key], [sample.value]))
    before = before or peak()
if images:
    images_decoder = ImageDecoder(Frame(64, 48, 1), "t")
    for image in images:
        images_decoder.decode(Records(0, [0], [0], [b"c"], [image]))
print(peak() - before)
"""


def test_no_record_takes_much_memory() -> None:
    """A process of its own, whose peak is its own: bombs of gigabytes, a megabyte of brackets, 30,000×30,000 pixels."""
    try:
        import PIL.Image  # noqa: F401

        what = "images"
    except ImportError:
        what = "none"
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, what],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 300_000, "kB"
