"""What the service keeps in the state topic, and when each piece of it is due.

Keys, in the partition that the readings come from:

* ``<group>/<bucket>/<chunk>`` — the state of a bucket of streams, true for an offset K of the readings partition: in
  every chunk a header line ``{"chunks", "offset", "version"}``, then its part of the bytes. A bucket counts only when
  all its chunks name the same offset, which one transaction makes sure of.
* ``<group>/incident/<stream>`` — the open incident of a stream; deleted when it is resolved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.adapters.port import StateRecord
from detector.engine.engine import BUCKETS
from schemas.errors import ModelError

#: Bytes of a chunk: under half the 1 MiB that brokers and clients take by default.
CHUNK_BYTES = 512_000

VERSION = 1
CLEAN = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A bucket's state and the offset that it is true for (K): records from K on are not in it."""

    bucket: int
    offset: int
    data: bytes

    def records(self, group: str, partition: int, old_chunks: int) -> Iterator[StateRecord]:
        """Its chunks, and tombstones for chunks that a larger predecessor left (it had ``old_chunks``)."""
        parts = [self.data[at : at + CHUNK_BYTES] for at in range(0, max(len(self.data), 1), CHUNK_BYTES)]
        header = orjson.dumps({"version": VERSION, "offset": self.offset, "chunks": len(parts)}) + b"\n"
        for number, part in enumerate(parts):
            yield StateRecord(partition, _key(group, self.bucket, number), header + part)
        for number in range(len(parts), old_chunks):
            yield StateRecord(partition, _key(group, self.bucket, number), None)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a partition of the state topic says."""

    checkpoints: list[Checkpoint]
    chunks: dict[int, int]
    """Chunks by bucket."""
    incidents: dict[str, tuple[int, int]]
    """By stream: event time of opening in nanoseconds, events published."""

    @classmethod
    def parse(cls, group: str, partition: int, records: Mapping[bytes, bytes]) -> Stored:
        """Raises ModelError where a checkpoint cannot be read: publishing from half a state would be a guess."""
        prefix = group.encode() + b"/"
        found: dict[int, dict[int, tuple[int, int, bytes]]] = {}
        incidents: dict[str, tuple[int, int]] = {}
        for key, value in records.items():
            if not key.startswith(prefix):
                continue
            kind, _, rest = key[len(prefix) :].partition(b"/")
            try:
                if kind == b"incident":
                    record = orjson.loads(value)
                    incidents[rest.decode()] = (record["opened"], record["events"])
                else:
                    line, _, part = value.partition(b"\n")
                    header = orjson.loads(line)
                    if header["version"] != VERSION:
                        raise ModelError(f"has format {header['version']}, this version reads {VERSION}")
                    found.setdefault(int(kind), {})[int(rest)] = (header["offset"], header["chunks"], part)
            except (ValueError, KeyError, TypeError, ModelError) as error:
                raise ModelError(
                    f"the state record {key.decode(errors='replace')!r} of partition {partition} cannot be read "
                    f"({error}): use the version that wrote it, or another --group-id to start cold"
                ) from error
        checkpoints = [_join(partition, bucket, parts) for bucket, parts in sorted(found.items())]
        return cls(checkpoints, {bucket: len(parts) for bucket, parts in found.items()}, incidents)


def _join(partition: int, bucket: int, parts: dict[int, tuple[int, int, bytes]]) -> Checkpoint:
    offset, chunks, _ = parts.get(0, (-1, -1, b""))
    if sorted(parts) != list(range(chunks)) or any(part[:2] != (offset, chunks) for part in parts.values()):
        raise ModelError(f"the checkpoint of bucket {bucket}, partition {partition}, is incomplete")
    return Checkpoint(bucket, offset, b"".join(parts[number][2] for number in range(chunks)))


def _key(group: str, bucket: int, chunk: int) -> bytes:
    return f"{group}/{bucket}/{chunk}".encode()


def incident_record(group: str, partition: int, stream: str, opened: int, events: int, over: bool) -> StateRecord:
    """What was published about a stream's open incident; a tombstone where it is over."""
    value = None if over else orjson.dumps({"version": VERSION, "opened": opened, "events": events})
    return StateRecord(partition, f"{group}/incident/{stream}".encode(), value)


@dataclass(slots=True)
class Progress:
    """A partition's buckets: which have changed since they were saved, and from which offset on."""

    offset: int
    """C as committed, or -1."""
    chunks: dict[int, int] = field(default_factory=dict)
    saved: NDArray[np.int64] = field(default_factory=lambda: np.full(BUCKETS, -1))
    """K by bucket: records before it are in the bucket's checkpoint."""
    changed: NDArray[np.int64] = field(default_factory=lambda: np.full(BUCKETS, CLEAN))
    """Offset of the first record that is not in the checkpoint; CLEAN where there is none."""
    since: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BUCKETS))
    """Monotonic time at which the bucket changed."""

    def touch(self, buckets: NDArray[np.int64], offsets: NDArray[np.int64], now: float) -> None:
        """Records at ``offsets`` ``[N]``, ascending, changed ``buckets`` ``[N]``."""
        touched, first = np.unique(buckets, return_index=True)
        fresh = self.changed[touched] == CLEAN
        self.changed[touched[fresh]] = offsets[first[fresh]]
        self.since[touched[fresh]] = now

    def due(self, before: float) -> list[tuple[float, int]]:
        """(monotonic time of the change, bucket) of those that changed by ``before``, longest unsaved first."""
        waiting = np.flatnonzero((self.changed != CLEAN) & (self.since <= before))
        return sorted(zip(self.since[waiting].tolist(), waiting.tolist(), strict=True))

    def mark_saved(self, bucket: int, offset: int, chunks: int) -> None:
        """The bucket's checkpoint is now true for ``offset``."""
        self.saved[bucket], self.changed[bucket], self.chunks[bucket] = offset, CLEAN, chunks

    def replay_from(self, offset: int) -> int:
        """R for a commit at ``offset``: from there on every change is either replayed or saved."""
        return min(int(self.changed.min()), offset)
