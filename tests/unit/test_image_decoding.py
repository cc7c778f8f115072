"""Images as records: whatever bytes come, the answer is pixels or a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector.adapters.port import Records
from detector.decoding.images import ImageDecoder, decode_image
from schemas.dead_letter import Reason
from schemas.frame import Frame

Image = pytest.importorskip("PIL.Image")

GREY, COLOUR = Frame(16, 24, 1), Frame(16, 24, 3)


def pixels_of(size: Frame) -> NDArray[np.uint8]:
    y, x, band = np.mgrid[: size.height, : size.width, : size.bands]
    return (x * 5 + y * 4 + band * 20).astype(np.uint8)  # smooth: JPEG keeps it


def encoded(size: Frame, kind: str) -> bytes:
    pixels, out = pixels_of(size), io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if size.bands == 1 else pixels).save(out, kind)
    return out.getvalue()


def pixels(value: bytes, size: Frame) -> NDArray[np.float32]:
    found = decode_image(value, size)
    assert not isinstance(found, str), found
    assert found.dtype == np.float32
    assert found.shape == size
    return found


def reason(value: bytes, size: Frame) -> str:
    found = decode_image(value, size)
    assert isinstance(found, str)
    assert "\n" not in found
    assert len(found) < 200
    return found


@pytest.mark.parametrize("size", [GREY, COLOUR])
def test_each_format(size: Frame) -> None:
    np.testing.assert_array_equal(pixels(encoded(size, "PNG"), size), pixels_of(size))
    np.testing.assert_allclose(pixels(encoded(size, "JPEG"), size), pixels_of(size), atol=30)
    np.testing.assert_array_equal(pixels(pixels_of(size).tobytes(), size), pixels_of(size))


def test_raw_bytes_of_more_bands() -> None:
    size = Frame(2, 3, 5)
    np.testing.assert_array_equal(pixels(pixels_of(size).tobytes(), size), pixels_of(size))


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_raw_bytes_may_begin_as_a_picture_does(start: bytes) -> None:
    value = start + bytes(GREY.values - len(start))
    assert pixels(value, GREY).reshape(-1)[: len(start)].tolist() == list(start)


def test_wrong_sizes() -> None:
    assert "it is 16×24, not 24×16" in reason(encoded(GREY, "PNG"), Frame(24, 16, 1))
    assert "it is 16×24×3, not 16×24" in reason(encoded(COLOUR, "JPEG"), GREY)
    assert "it is 16×24, not 16×24×3" in reason(encoded(GREY, "PNG"), COLOUR)
    assert "383 bytes" in reason(bytes(383), GREY)
    assert "385 bytes" in reason(bytes(385), GREY)


def test_other_formats() -> None:
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        assert "neither PNG nor JPEG" in reason(encoded(GREY, kind), GREY)
    assert "neither PNG nor JPEG" in reason(b'{"stream": "a"}', GREY)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def test_bombs() -> None:
    """Small messages that unpack to gigabytes: by their size, their data, a text beside it."""
    lots = zlib.compress(bytes(50_000_000))
    assert "not 16×24" in reason(png(9_000, 9_000, chunk(b"IDAT", lots)), GREY)
    assert "bomb" in reason(png(60_000, 60_000, chunk(b"IDAT", lots)), GREY)
    assert np.count_nonzero(pixels(png(24, 16, chunk(b"IDAT", lots)), GREY)) == 0, "only what belongs to the image"
    decode_image(png(24, 16, chunk(b"zTXt", b"a\0\0" + lots), chunk(b"IDAT", lots)), GREY)
    decode_image(png(24, 16, chunk(b"iCCP", b"a\0\0" + lots), chunk(b"IDAT", lots)), GREY)
    assert "neither PNG nor JPEG" in reason(encoded(GREY, "PNG") + bytes(2_000_000), GREY)


@given(st.sampled_from(["PNG", "JPEG"]), st.sampled_from([GREY, COLOUR]), st.data())
def test_damaged_pictures_never_raise(kind: str, size: Frame, data: st.DataObject) -> None:
    whole = encoded(size, kind)
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        if place < len(broken):
            broken[place] ^= data.draw(st.integers(1, 255))
    found = decode_image(bytes(broken), size)
    assert isinstance(found, str) or found.shape == size


@given(st.sampled_from(["PNG", "JPEG"]), st.data())
def test_half_a_picture_is_none(kind: str, data: st.DataObject) -> None:
    whole = encoded(COLOUR, kind)
    assert isinstance(decode_image(whole[: data.draw(st.integers(0, len(whole) // 2))], COLOUR), str)


@given(st.binary(max_size=400))
def test_any_bytes(value: bytes) -> None:
    found = decode_image(value, Frame(5, 5, 1))
    assert isinstance(found, str) == (len(value) != 25)


def test_records() -> None:
    good = encoded(GREY, "PNG")
    records = Records(
        partition=3,
        offsets=range(10, 19),
        timestamps=[1000, 2000, 3000, -1, 5000, 6000, 7000, 8000, 1 << 62],
        keys=[b"a", b"b", b"a", b"a", None, b"\xff", b"a", "ü".encode(), b"a"],
        values=[good, b"no", None, good, good, good, bytes(384), good, good],
    )
    decoded = ImageDecoder(GREY, "images").decode(records)
    assert decoded.readings.partition == 3
    assert list(decoded.readings.streams) == ["a", "a", "ü"]
    assert decoded.readings.times.tolist() == [1_000_000_000, 7_000_000_000, 8_000_000_000]
    assert decoded.offsets.tolist() == [10, 16, 17]
    np.testing.assert_array_equal(decoded.readings.values[0], pixels_of(GREY).reshape(-1))
    assert [(letter.offset, letter.reason) for letter in decoded.dead_letters] == [
        (11, Reason.NOT_A_READING),
        (12, Reason.EMPTY),
        (13, Reason.TIMESTAMP),
        (14, Reason.STREAM),
        (15, Reason.STREAM),
        (18, Reason.TIMESTAMP),
    ]
    assert all(letter.value == records.values[letter.offset - 10] for letter in decoded.dead_letters)


def test_records_without_an_image() -> None:
    records = Records(partition=0, offsets=[7], timestamps=[1], keys=[b"a"], values=[b"no"])
    decoded = ImageDecoder(GREY, "images").decode(records)
    assert len(decoded.readings) == 0
    assert decoded.readings.values.shape == (0, GREY.values)
    assert len(decoded.dead_letters) == 1


def test_without_pillow() -> None:
    program = """
import sys
sys.modules["PIL"] = sys.modules["PIL.Image"] = None
from schemas.frame import Frame
from detector.decoding.images import ImageDecoder
from schemas.errors import UserError
try:
    ImageDecoder(Frame(2, 2, 1), "images")
except UserError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'residual[images]'" in out
