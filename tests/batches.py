"""Batches of records made by hand, sent to a broker as they are; and those on its disk, to be spoiled there."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kafka import KafkaAdminClient
from kafka import errors as vendor
from kafka.protocol.producer import ProduceRequest
from kafka.record.util import calc_crc32c, encode_varint

HEADER = struct.Struct(">qiibIhiqqqhii")
CHECKED_FROM = 21

#: Where each field of a batch's head lies, by name: (first byte, byte after the last).
FIELDS = {
    "base offset": (0, 8), "length": (8, 12), "epoch": (12, 16), "magic": (16, 17), "checksum": (17, 21),
    "attributes": (21, 23), "last offset": (23, 27), "first time": (27, 35), "newest time": (35, 43),
    "producer": (43, 51), "producer epoch": (51, 53), "sequence": (53, 57), "count": (57, 61),
}  # fmt: skip

Header = tuple[bytes, bytes | None]


def varint(number: int) -> bytes:
    made = bytearray()
    encode_varint(number, made.append)
    return bytes(made)


def field(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(step: int, key: bytes | None, value: bytes | None, headers: Sequence[Header] = (), delta: int = 0) -> bytes:
    """A record of a batch, the ``step``-th from 0."""
    body = b"\0" + varint(delta) + varint(step) + field(key) + field(value) + varint(len(headers))
    body += b"".join(field(name) + field(content) for name, content in headers)
    return varint(len(body)) + body


def batch(
    records: bytes, count: int, *, codec: int = 0, base: int = 0, time_ms: int = 1_700_000_000_000, attributes: int = 0
) -> bytes:
    """A batch of records that are packed already, with its checksum."""
    made = bytearray(
        HEADER.pack(base, 0, 0, 2, 0, codec | attributes, count - 1, time_ms, time_ms, -1, -1, -1, count) + records
    )
    return sealed(made)


def sealed(made: bytearray) -> bytes:
    """The batch with the length and the checksum that belong to it."""
    struct.pack_into(">i", made, 8, len(made) - 12)
    struct.pack_into(">I", made, 17, calc_crc32c(memoryview(made)[CHECKED_FROM:]))
    return bytes(made)


def send(bootstrap: str, topic: str, partition: int, made: bytes) -> int:
    """Have a broker append a batch, as any client may; returns the offset of its first record. Raises its refusal."""
    part = ProduceRequest.TopicProduceData.PartitionProduceData(index=partition, records=made)
    data = ProduceRequest.TopicProduceData(name=topic, partition_data=[part])
    request = ProduceRequest(
        transactional_id=None, acks=-1, timeout_ms=30_000, topic_data=[data], min_version=3, max_version=9
    )
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        for _ in range(100):
            answer = admin._manager.run(admin._manager.send, request)
            found = answer.responses[0].partition_responses[0]
            error = vendor.for_code(found.error_code)
            if error is vendor.NoError:
                return int(found.base_offset)
            if not issubclass(error, vendor.RetriableError):  # a partition that was made a moment ago has no leader
                break
            time.sleep(0.1)
    raise error(found.error_message)


def segment(data: Path, topic: str, partition: int) -> Path:
    """The file in which a broker keeps a partition that is small."""
    (found,) = (data / f"{topic}-{partition}").glob("*.log")
    return found


def places(log: bytes) -> Iterator[tuple[int, int, int]]:
    """(first byte, byte after the last, base offset) of each batch of a file."""
    at = 0
    while at < len(log):
        base, length = struct.unpack_from(">qi", log, at)
        if length <= 0:
            return
        yield at, at + 12 + length, base
        at += 12 + length


def flip(path: Path, place: int, mask: int = 0x40) -> None:
    """Flip bits of one byte, as a bad disk does."""
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ mask]))
