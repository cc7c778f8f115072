"""The journal: what came to a partition from outside of its streams, and at which of its offsets it took effect.

The partition of the readings knows nothing of operators, of settings or of how much room there is. So the moment of
each is decided once, by the replica that owns the partition, and written down in the transaction that publishes what
came of it. Whoever restores the partition obeys what is written.

Keys in the state topic, in the partition that the readings come from:

* ``<group>/journal/<number>`` — an entry: ``{"version", "offset", "kind", "payload"}``. It was applied before the
  record with that offset was processed, and after every one before. Numbers count the partition's entries from 0: a
  checkpoint says how many it contains, since a checkpoint and an entry of one offset may come in either order. Deleted
  once R has passed it, but for the newest entry of kind ``settings`` among those: it is still in force.
* ``<group>/journal/cursor`` — ``{"version", "considered", "count", "ids"}``: the offset of the commands topic up to
  which this partition has considered them, the entries written so far, and the newest commands' ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import Field

from detector.adapters.port import StateRecord
from schemas.command import Command
from schemas.errors import ModelError
from schemas.frozen import Frozen

VERSION = 1

#: Bytes of names in one entry, as JSON.
PART_BYTES = 256_000

#: Ids that are remembered of each partition: a command that comes again after so many others counts as a new one.
IDS = 100


class InForce(Frozen):
    """What decides, besides the readings: from its entry on until the next of its kind."""

    model: str = Field(description="SHA-256 of the graph")
    version: str | None = Field(None, description="SHA-256 of the model's manifest; null: it lies in no folder")
    channels: tuple[str, ...] = Field(description="the model's channels, in order")
    partitions: int = Field(description="partitions of the readings topic: by them keys are placed")
    keyed: bool = Field(False, description="records are placed by their streams' names, as was seen when they grew")
    false_alarms: str | None = Field(None, description="the promise; null: the model's own")
    policy: dict[str, Any] = Field(description="when incidents open and resolve, and when baselines move")
    decoding: dict[str, Any] = Field(description="how records are read")

    @property
    def id(self) -> str:
        """The model's, see ``Model.id``."""
        return self.version or self.model


class Evicted(Frozen):
    """Streams that were forgotten to make room for others: those unheard for longest, up to this one.

    Not by their names: a flood of new ones would be kept here as long as it takes to save every bucket once.
    """

    time: int = Field(description="newest reading of the last one, nanoseconds since 1970")
    stream: str = Field(description="its name; of those with the same newest reading, later names stay")


class Moved(Frozen):
    """Streams that were forgotten since their records go to other partitions now."""

    streams: tuple[str, ...]


Happening = Command | InForce | Evicted | Moved

_KINDS: dict[str, type[Command] | type[InForce] | type[Evicted] | type[Moved]] = {
    "command": Command,
    "settings": InForce,
    "evicted": Evicted,
    "moved": Moved,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """What took effect, as the ``number``-th of its partition, before the record with ``offset``."""

    number: int
    offset: int
    what: Happening


@dataclass(slots=True)
class Journal:
    """A partition's journal."""

    considered: int = 0
    """Offset on the commands topic: what lies before it has been considered."""
    count: int = 0
    """Entries written so far, the deleted ones included."""
    ids: list[str] = field(default_factory=list)
    """Ids of the newest commands that took effect, oldest first."""
    entries: list[Entry] = field(default_factory=list)
    """Those not deleted yet, oldest first."""

    @classmethod
    def parse(cls, records: Mapping[bytes, bytes]) -> Journal | None:
        """``records``: value by the last part of the key. None where there is no journal yet.

        Raises ModelError, ValueError, KeyError or TypeError where they are not what this version writes.
        """
        if not records:
            return None
        cursor = _read(records[b"cursor"])
        entries = [read_entry(int(key), value) for key, value in records.items() if key != b"cursor"]
        entries.sort(key=lambda entry: entry.number)
        count = int(cursor["count"])
        numbers = [entry.number for entry in entries]
        whole = list(range(count - len(numbers), count))
        if numbers != whole:  # but for the settings in force, which stay when those after them are deleted
            later = list(range(count - len(numbers) + 1, count))
            if numbers[1:] != later or not isinstance(entries[0].what, InForce) or numbers[0] >= count:
                raise ModelError(f"has {count} entries, and of the newest some are missing")
        return cls(int(cursor["considered"]), count, [str(name) for name in cursor["ids"]], entries)

    @property
    def in_force(self) -> InForce | None:
        """What is in force at the end; None where no entry has said so yet."""
        return next((entry.what for entry in reversed(self.entries) if isinstance(entry.what, InForce)), None)

    def add(self, group: str, partition: int, offset: int, what: Happening) -> StateRecord:
        """It takes effect before the record with ``offset``; the cursor's record has to follow."""
        entry = Entry(self.count, offset, what)
        self.entries.append(entry)
        self.count += 1
        if isinstance(what, Command):
            self.ids = [*self.ids, what.id][-IDS:]
        payload = what.model_dump(mode="json", exclude_none=isinstance(what, Command))
        document = {"version": VERSION, "offset": offset, "kind": _NAMES[type(what)], "payload": payload}
        return StateRecord(partition, _key(group, str(entry.number)), orjson.dumps(document))

    def cursor(self, group: str, partition: int) -> StateRecord:
        """How far the partition has come on the commands topic, and how many entries there are."""
        document = {"version": VERSION, "considered": self.considered, "count": self.count, "ids": self.ids}
        return StateRecord(partition, _key(group, "cursor"), orjson.dumps(document))

    def forget(self, group: str, partition: int, before: int) -> list[StateRecord]:
        """Delete the entries of offsets before R: no replay will come past them. What is in force at R stays."""
        passed = [entry for entry in self.entries if entry.offset < before]
        kept = next((entry for entry in reversed(passed) if isinstance(entry.what, InForce)), None)
        self.entries = ([kept] if kept else []) + self.entries[len(passed) :]
        return [StateRecord(partition, _key(group, str(e.number)), None) for e in passed if e is not kept]


def in_parts(streams: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Names, cut so that an entry with each part is far under the limit of a record, however it has to be written."""
    part: list[str] = []
    size = 0
    for stream in streams:
        length = len(orjson.dumps(stream)) + 1
        if part and size + length > PART_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(stream)
        size += length
    if part:
        yield tuple(part)


def _read(value: bytes) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(value)
    if document["version"] != VERSION:
        raise ModelError(f"has format {document['version']}, this version reads {VERSION}")
    return document


def read_entry(number: int, value: bytes) -> Entry:
    """An entry from its record. Raises ModelError, ValueError, KeyError or TypeError where this version cannot."""
    document = _read(value)
    kind = _KINDS.get(document["kind"])
    if kind is None:
        raise ModelError(f"is of the kind {document['kind']!r}, which this version does not know")
    return Entry(number, int(document["offset"]), kind.model_validate_json(orjson.dumps(document["payload"])))


def _key(group: str, what: str) -> bytes:
    return f"{group}/journal/{what}".encode()
