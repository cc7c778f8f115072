"""Where Kafka's default partitioner puts a key: murmur2 of its bytes, so that offline scoring places streams alike."""

from __future__ import annotations

from functools import lru_cache

from kafka.partitioner.default import murmur2


@lru_cache(maxsize=100_000)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among this many, as Kafka's Java and Python producers choose it.

    >>> partition_of(b"pump-7", 3)
    0
    """
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
