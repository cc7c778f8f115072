"""Streams are placed as Kafka's Java producer places them."""

from __future__ import annotations

import doctest

import pytest

from detector.adapters import partitioner
from detector.adapters.partitioner import partition_of

# From the Java client's own test (UtilsTest.testMurmur2).
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "murmur2"), JAVA.items())
@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 1000])
def test_as_the_java_client(key: bytes, murmur2: int, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions


def test_the_example() -> None:
    assert doctest.testmod(partitioner).failed == 0
    assert doctest.testmod(partitioner).attempted == 1
