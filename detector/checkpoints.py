"""What the service keeps in the state topic, and when each piece of it is due.

Keys, in the partition that the readings come from:

* ``<group>/<bucket>/<chunk>`` — the state of a bucket of streams, true for an offset K of the readings partition: in
  every chunk a header line ``{"chunks", "entries", "offset", "version"}``, then its part of the bytes. A bucket counts
  only when all its chunks say the same, which one transaction makes sure of. ``entries``: how many of the journal's
  entries are in it, 0 where it is absent.
* ``<group>/incident/<stream>`` — what was published about the open incidents of a stream: a header line
  ``{"version"}``, then the engine's bytes; deleted when none is open any more.
* ``<group>/journal/…`` — see ``detector.journal``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from detector.adapters.port import StateRecord
from detector.engine.engine import BUCKETS
from detector.journal import Journal
from schemas.errors import ModelError

#: Bytes of a chunk: under half the 1 MiB that brokers and clients take by default.
CHUNK_BYTES = 512_000

VERSION = 1
INCIDENT_VERSION = 2
CLEAN = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A bucket's state and the offset that it is true for (K): records from K on are not in it."""

    bucket: int
    offset: int
    data: bytes
    entries: int = 0
    """Entries of the journal that are in it."""

    def records(self, group: str, partition: int, old_chunks: int) -> Iterator[StateRecord]:
        """Its chunks, and tombstones for chunks that a larger predecessor left (it had ``old_chunks``)."""
        parts = [self.data[at : at + CHUNK_BYTES] for at in range(0, max(len(self.data), 1), CHUNK_BYTES)]
        said = {"version": VERSION, "offset": self.offset, "chunks": len(parts), "entries": self.entries}
        header = orjson.dumps(said) + b"\n"
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
    incidents: dict[str, bytes]
    """By stream: the engine's record of what is open and published."""
    journal: Journal | None
    """None where the partition has none yet."""

    @classmethod
    def parse(cls, group: str, partition: int, records: Mapping[bytes, bytes]) -> Stored:
        """Raises ModelError where a record cannot be read: publishing from half a state would be a guess."""
        prefix = group.encode() + b"/"
        found: dict[int, dict[int, tuple[_Header, bytes]]] = {}
        incidents: dict[str, bytes] = {}
        journal: dict[bytes, bytes] = {}
        key = prefix + b"journal"
        try:
            for key, value in records.items():
                if not key.startswith(prefix):
                    continue
                kind, _, rest = key[len(prefix) :].partition(b"/")
                if kind == b"journal":
                    journal[rest] = value
                elif kind == b"incident":
                    incidents[rest.decode()] = _split(value, INCIDENT_VERSION)[1]
                else:
                    said, part = _split(value, VERSION)
                    header = _Header(said["offset"], said["chunks"], said.get("entries", 0))
                    found.setdefault(int(kind), {})[int(rest)] = (header, part)
            key = prefix + b"journal"
            read = Journal.parse(journal)
        except (ValueError, KeyError, TypeError, ModelError) as error:
            raise ModelError(
                f"the state record {key.decode(errors='replace')!r} of partition {partition} cannot be read "
                f"({error}): use the version that wrote it, or another --group-id to start cold"
            ) from error
        checkpoints = [_join(partition, bucket, parts) for bucket, parts in sorted(found.items())]
        return cls(checkpoints, {bucket: len(parts) for bucket, parts in found.items()}, incidents, read)


class _Header(NamedTuple):
    """What every chunk of a checkpoint says."""

    offset: int
    chunks: int
    entries: int


def _split(value: bytes, version: int) -> tuple[dict[str, Any], bytes]:
    """The header line, and what follows it."""
    line, _, rest = value.partition(b"\n")
    header = orjson.loads(line)
    if header["version"] != version:
        raise ModelError(f"has format {header['version']}, this version reads {version}")
    return header, rest


def _join(partition: int, bucket: int, parts: dict[int, tuple[_Header, bytes]]) -> Checkpoint:
    header, _ = parts.get(0, (_Header(-1, -1, 0), b""))
    if sorted(parts) != list(range(header.chunks)) or any(part[0] != header for part in parts.values()):
        raise ModelError(f"the checkpoint of bucket {bucket}, partition {partition}, is incomplete")
    data = b"".join(parts[number][1] for number in range(header.chunks))
    return Checkpoint(bucket, header.offset, data, header.entries)


def _key(group: str, bucket: int, chunk: int) -> bytes:
    return f"{group}/{bucket}/{chunk}".encode()


def incident_record(group: str, partition: int, stream: str, record: bytes | None) -> StateRecord:
    """What was published about a stream's open incidents, as the engine says it; a tombstone where none is open."""
    value = None if record is None else orjson.dumps({"version": INCIDENT_VERSION}) + b"\n" + record
    return StateRecord(partition, f"{group}/incident/{stream}".encode(), value)


@dataclass(slots=True)
class Progress:
    """A partition's buckets: which have changed since they were saved, and from which offset on."""

    offset: int
    """C as committed, or -1."""
    topic: tuple[str, int] = ("", 0)
    """Id and partitions of the readings topic when it was restored."""
    chunks: dict[int, int] = field(default_factory=dict)
    saved: NDArray[np.int64] = field(default_factory=lambda: np.full(BUCKETS, -1))
    """K by bucket: records before it are in the bucket's checkpoint."""
    changed: NDArray[np.int64] = field(default_factory=lambda: np.full(BUCKETS, CLEAN))
    """Offset of the first record that is not in the checkpoint; CLEAN where there is none."""
    since: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BUCKETS))
    """Monotonic time at which the bucket changed."""
    entries: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    """Entries of the journal that are in the bucket's checkpoint."""
    journal: Journal = field(default_factory=Journal)

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
        self.entries[bucket] = self.journal.count

    def replay_from(self, offset: int) -> int:
        """R for a commit at ``offset``: from there on every change is either replayed or saved."""
        return min(int(self.changed.min()), offset)
