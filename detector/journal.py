"""The journal: what came to a partition from outside of its streams, and at which of its offsets it took effect.

Operators' commands arrive on a topic of their own; the partition of the readings knows nothing of when. So the moment
is decided once, by the replica that owns the partition, and written down in the transaction that publishes what came of
it. Whoever restores the partition obeys what is written.

Keys in the state topic, in the partition that the readings come from:

* ``<group>/journal/<number>`` — an entry: ``{"version", "offset", "kind", "payload"}``. It was applied before the
  record with that offset was processed, and after every one before. Numbers count the partition's entries from 0: a
  checkpoint says how many it contains, since a checkpoint and an entry of one offset may come in either order. Deleted
  once R has passed it.
* ``<group>/journal/cursor`` — ``{"version", "considered", "count", "ids"}``: the offset of the commands topic up to
  which this partition has considered them, the entries written so far, and the newest commands' ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from detector.adapters.port import StateRecord
from schemas.command import Command
from schemas.errors import ModelError

VERSION = 1

#: Ids that are remembered of each partition: a command that comes again after so many others counts as a new one.
IDS = 100

#: The one kind of entry so far.
COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that took effect: the ``number``-th of its partition, before the record with ``offset``."""

    number: int
    offset: int
    command: Command


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
        documents = {key: _read(value) for key, value in records.items()}
        cursor = documents.pop(b"cursor")
        entries = [_entry(int(key), document) for key, document in documents.items()]
        entries.sort(key=lambda entry: entry.number)
        count = int(cursor["count"])
        if [entry.number for entry in entries] != list(range(count - len(entries), count)):
            raise ModelError(f"has {count} entries, and of the newest some are missing")
        return cls(int(cursor["considered"]), count, [str(name) for name in cursor["ids"]], entries)

    def add(self, group: str, partition: int, offset: int, command: Command) -> StateRecord:
        """A command takes effect before the record with ``offset``; the cursor's record has to follow."""
        entry = Entry(self.count, offset, command)
        self.entries.append(entry)
        self.count += 1
        self.ids = [*self.ids, command.id][-IDS:]
        payload = orjson.Fragment(command.to_bytes())
        document = {"version": VERSION, "offset": offset, "kind": COMMAND, "payload": payload}
        return StateRecord(partition, _key(group, str(entry.number)), orjson.dumps(document))

    def cursor(self, group: str, partition: int) -> StateRecord:
        """How far the partition has come on the commands topic."""
        document = {"version": VERSION, "considered": self.considered, "count": self.count, "ids": self.ids}
        return StateRecord(partition, _key(group, "cursor"), orjson.dumps(document))

    def forget(self, group: str, partition: int, before: int) -> list[StateRecord]:
        """Delete the entries of offsets before R: no replay will come past them."""
        passed = [entry for entry in self.entries if entry.offset < before]
        self.entries = self.entries[len(passed) :]
        return [StateRecord(partition, _key(group, str(entry.number)), None) for entry in passed]


def _read(value: bytes) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(value)
    if document["version"] != VERSION:
        raise ModelError(f"has format {document['version']}, this version reads {VERSION}")
    return document


def _entry(number: int, document: Mapping[str, Any]) -> Entry:
    if document["kind"] != COMMAND:
        raise ModelError(f"is of the kind {document['kind']!r}, which this version does not know")
    return Entry(number, int(document["offset"]), Command.model_validate_json(orjson.dumps(document["payload"])))


def _key(group: str, what: str) -> bytes:
    return f"{group}/journal/{what}".encode()
