"""Unpacking a batch: what every client packs comes back, and what would be too much does not."""

from __future__ import annotations

import gzip
import subprocess
import sys
from contextlib import suppress

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

from detector.adapters import kafka_codecs
from detector.adapters.kafka_codecs import MOST_UNPACKED, UnpackedTooLongError, unpack

PACKED = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}


@given(st.sampled_from([*PACKED]), st.binary(max_size=3000), st.integers(0, 2000))
def test_what_was_packed_comes_back(codec: int, data: bytes, times: int) -> None:
    whole = data * times
    assert unpack(codec, memoryview(PACKED[codec](whole))) == whole
    assert unpack(0, memoryview(data)) == data


def test_other_ways_to_pack() -> None:
    """Java's snappy is in blocks, librdkafka's is not; frames and members may follow each other."""
    text = b"reading " * 100_000
    assert unpack(2, memoryview(snappy.compress(text))) == text
    assert unpack(1, memoryview(gzip.compress(text) + gzip.compress(b"more"))) == text + b"more"
    packed = zstandard.ZstdCompressor().compress(text)
    assert unpack(4, memoryview(packed + packed)) == text + text
    assert unpack(3, memoryview(lz4.frame.compress(text, block_linked=True, content_checksum=True))) == text


@given(st.sampled_from([1, 2, 3, 4]), st.binary(max_size=200), st.data())
def test_anything_else_is_a_value_error(codec: int, data: bytes, choice: st.DataObject) -> None:
    packed = bytearray(PACKED[codec](data * 5))
    for place in choice.draw(st.lists(st.integers(0, len(packed) - 1), max_size=3)):
        packed[place] ^= choice.draw(st.integers(1, 255))
    for value in (data, bytes(packed), bytes(packed[: choice.draw(st.integers(0, len(packed)))])):
        with suppress(ValueError):
            unpack(codec, memoryview(value))
    with pytest.raises(ValueError, match="codec 7"):
        unpack(7, memoryview(b""))


def test_as_much_as_is_allowed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_codecs, "MOST_UNPACKED", 3_000_000)
    for codec, pack in PACKED.items():
        assert len(unpack(codec, memoryview(pack(bytes(3_000_000))))) == 3_000_000
        with pytest.raises(UnpackedTooLongError):
            unpack(codec, memoryview(pack(bytes(3_000_001))))


@pytest.mark.parametrize("lie", [b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x04"])
def test_a_block_of_snappy_that_says_it_is_gigabytes(lie: bytes) -> None:
    with pytest.raises(UnpackedTooLongError):
        unpack(2, memoryview(lie + b"\0\0\0"))


BOMB = """
import sys, resource, gzip, lz4.frame, zstandard, zlib
from detector.adapters.kafka_codecs import unpack, UnpackedTooLongError
codec = int(sys.argv[1])
size = 1 << 28 if codec == 1 else 2 << 30  # gzip takes its time to pack
if codec == 4:
    made = b"".join([zstandard.ZstdCompressor().compress(bytes(1 << 26))] * (size >> 26))
elif codec == 3:
    made = lz4.frame.compress(bytes(1 << 26), block_linked=False, store_size=False)
    made = made[:7] + made[7:-4] * (size >> 26) + made[-4:]
else:
    packer = zlib.compressobj(9, wbits=31)
    made = b"".join([packer.compress(bytes(1 << 26)) for _ in range(size >> 26)] + [packer.flush()])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(codec, memoryview(made))
except UnpackedTooLongError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (1 if sys.platform == "linux" else 1024))
"""


@pytest.mark.parametrize("codec", [1, 3, 4])
def test_a_bomb_takes_no_more_than_the_bound(codec: int) -> None:
    done = subprocess.run([sys.executable, "-c", BOMB, str(codec)], capture_output=True, text=True, check=True)
    assert 0 <= int(done.stdout) < 2 * MOST_UNPACKED // 1024, "kB"
