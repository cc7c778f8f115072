"""Unpacking what a batch of records was packed with, up to a bound: brokers have none, and the client has none.

200 kB of zstd may be gigabytes, which a broker unpacks piece by piece to check them, and takes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import lz4.frame
import snappy
import zstandard

#: Bytes of one batch, unpacked, beyond which it is left packed. A batch has at most 1 MiB packed, where nobody has
#: raised the broker's limit, and sensors' JSON packs 10 to 20 times: three times the most of that. With what is made of
#: its records a process that meets the largest needs some 300 MB for a moment.
MOST_UNPACKED = 64 * 1024 * 1024

# Bytes unpacked at a time: how far beyond the bound one goes before it is noticed.
_PIECE = 1024 * 1024

# What begins the blocks of xerial-snappy, Java's way of snappy, before two numbers of its version.
_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEADER = 16


class UnpackedTooLongError(ValueError):
    """It unpacks to more than ``MOST_UNPACKED`` bytes."""


def unpack(codec: int, data: memoryview) -> bytes:
    """The records of a batch, packed with one of Kafka's codecs (0 to 4, of the batch's attributes).

    Raises UnpackedTooLongError, or ValueError where it is not packed like that.
    """
    if codec not in _PIECES:
        raise ValueError(f"it is packed with a codec {codec}, which does not exist")
    pieces, length = [], 0
    try:
        for piece in _PIECES[codec](data):
            pieces.append(piece)
            length += len(piece)
            if length > MOST_UNPACKED:
                raise UnpackedTooLongError(f"it unpacks to more than {MOST_UNPACKED} bytes")
    except UnpackedTooLongError:
        raise
    except Exception as error:  # each codec has errors of its own, without a common base
        raise ValueError(f"it cannot be unpacked: {error}") from error
    return b"".join(pieces)


def _plain(data: memoryview) -> Iterator[bytes]:
    yield bytes(data)


def _gzip(data: memoryview) -> Iterator[bytes]:
    left: bytes | memoryview = data
    while len(left):  # several members are one stream
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            yield (piece := member.decompress(left, _PIECE))
            left = member.unconsumed_tail
            if not piece and not left and not member.eof:
                raise ValueError("it ends too soon")
        left = member.unused_data


def _lz4(data: memoryview) -> Iterator[bytes]:
    frame = lz4.frame.LZ4FrameDecompressor()
    yield frame.decompress(data, _PIECE)
    while not frame.eof:
        if frame.needs_input:
            raise ValueError("it ends too soon")
        yield frame.decompress(b"", _PIECE)


def _zstd(data: memoryview) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        while piece := reader.read(_PIECE):
            yield piece


def _snappy(data: memoryview) -> Iterator[bytes]:
    if data[: len(_XERIAL)] != _XERIAL:
        yield _snappy_block(data)
        return
    at = _XERIAL_HEADER
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "big")
        yield _snappy_block(data[start:at])


def _snappy_block(data: memoryview) -> bytes:
    """A block says first how long it is when unpacked, and is not unpacked where that is too much."""
    length = 0
    for place, byte in enumerate(data[:5]):
        length |= (byte & 127) << 7 * place
        if byte < 128:
            break
    if length > MOST_UNPACKED:
        raise UnpackedTooLongError(f"it unpacks to more than {MOST_UNPACKED} bytes")
    block: bytes = snappy.uncompress(bytes(data))
    return block


_PIECES: dict[int, Callable[[memoryview], Iterator[bytes]]] = {0: _plain, 1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
