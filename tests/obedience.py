"""What operators say in tests, the journal that is kept of it, and the alerts that the two together have to give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import orjson
from pipeline import POLICY, serve

from detector.adapters.memory import MemoryBroker
from detector.adapters.partitioner import partition_of
from detector.adapters.port import Records
from detector.decoding.json_readings import JsonDecoder
from detector.engine.alerts import Published
from detector.engine.engine import Engine
from detector.engine.model import Model
from detector.engine.readings import Readings
from detector.journal import Entry, Evicted, Happening, InForce, Moved, read_entry
from detector.observer import Observer
from detector.rules import Rules
from detector.succession import Succession
from schemas.command import Command, Verb

#: More readings than any test has of a stream.
MARK = 100_000


def said(verb: str = "accept", stream: str = "a", name: str = "1", channels: Sequence[str] = ()) -> bytes:
    """A command as it is written."""
    return Command(id=name, command=Verb(verb), stream=stream, channels=tuple(channels)).to_bytes()


class Kept(dict[bytes, bytes]):
    """A partition of a state topic that remembers every journal entry, the deleted ones included."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, Entry] = {}

    def __setitem__(self, key: bytes, value: bytes) -> None:
        super().__setitem__(key, value)
        _, kind, rest = key.split(b"/", 2)
        if kind == b"journal" and rest != b"cursor":
            assert int(rest) not in self.entries, f"entry {rest!r} was written twice"
            self.entries[int(rest)] = read_entry(int(rest), value)

    @property
    def commands(self) -> list[tuple[int, Command]]:
        """Offsets and commands, in order."""
        return [(e.offset, e.what) for _, e in sorted(self.entries.items()) if isinstance(e.what, Command)]

    @property
    def cursor(self) -> dict:
        return orjson.loads(self[b"default/journal/cursor"])


def keep(broker: MemoryBroker, group: str) -> list[Kept]:
    """The group's state from now on, by partition."""
    kept = [Kept() for _ in broker.partitions]
    broker.group(group).state = kept  # type: ignore[assignment]
    return kept


class Marked(Engine):
    """Each command leaves a mark in its stream's saved state, so that one too many or too few shows."""

    def apply(self, partition: int, command: Command) -> list[Published]:
        """As the engine does, and a mark."""
        self.state.seen[self.streams.of_partition(partition)[command.stream]] += MARK
        return super().apply(partition, command)

    def marks(self, partition: int) -> Counter[str]:
        """Marks by stream."""
        return Counter(
            {s: int(self.state.seen[slot]) // MARK for s, slot in self.streams.of_partition(partition).items()}
        )


def check(
    model: Model,
    broker: MemoryBroker,
    group: str,
    kept: Sequence[Kept],
    succession: Succession | None = None,
) -> None:
    """Alerts, and the state that the next owner restores, are those of the records with the entries in their places.

    For runs with ``Marked`` engines. ``model``: the last one, for the next owner; ``succession`` knows the earlier.
    """
    succession = succession or Succession()
    last = b'{"stream":"z","timestamp":0,"values":{"c0":0}}'  # so that there is something to do
    for partition in range(len(broker.partitions)):
        broker.produce(last, b"z", timestamp_ms=10**12, partition=partition)
    engine = Marked(model, POLICY)
    serve(model, broker, engine=engine, group_id=group, succession=succession)
    wanted, alerts = _obeyed(model, broker, kept, succession)
    assert sorted(value for _, value in broker.alerts) == alerts
    for partition in range(len(broker.partitions)):
        assert +engine.marks(partition) == +wanted.marks(partition)
        if not any(isinstance(entry.what, Evicted | Moved) for entry in kept[partition].entries.values()):
            assert +engine.marks(partition) == Counter(c.stream for _, c in kept[partition].commands)
        probe = _probe(partition, list(wanted.streams.of_partition(partition)), model.manifest.values)
        one, other = engine.process([probe]), wanted.process([probe])
        assert [event.alert.to_bytes() for event in one.published] == [e.alert.to_bytes() for e in other.published]
        for what in ("score", "p_value", "expected"):
            np.testing.assert_array_equal(getattr(one, what), getattr(other, what), what)


def _probe(partition: int, streams: Sequence[str], channels: int) -> Readings:
    """Readings of every stream that bring out what it remembers: now and then far from normal."""
    rng, steps = np.random.default_rng(0), 80
    names = list(streams) * steps
    times = np.repeat(np.arange(steps) + 2_000, len(streams)) * 10**9
    values = rng.normal(size=(len(names), channels)) * np.where(times // 10**10 % 3, 1, 9)[:, None]
    return Readings(partition, names, times, values.astype(np.float32))


def _obeyed(
    model: Model, broker: MemoryBroker, kept: Sequence[Kept], succession: Succession
) -> tuple[Marked, list[bytes]]:
    engine, decoder = Marked(model, POLICY), JsonDecoder(model.manifest.channel_names, broker.topic)
    rules, published = Rules(engine, decoder, partition_of, succession.find), []
    for number, partition in enumerate(broker.partitions):
        entries = [kept[number].entries[n] for n in sorted(kept[number].entries)]
        assert [entry.offset for entry in entries] == sorted(entry.offset for entry in entries)
        in_force = None
        for record in partition.records:
            while entries and entries[0].offset <= record.offset:
                what = entries.pop(0).what
                in_force = what if isinstance(what, InForce) else in_force
                published += take_effect(rules, number, what, in_force)
            one = Records(number, [record.offset], [record.timestamp], [record.key], [record.value])
            by, decoder = rules.follow(in_force)
            published += by.process([decoder.decode(one).readings]).published
        assert not entries
    return engine, sorted(event.alert.to_bytes() for event in published)


def take_effect(rules: Rules, partition: int, what: Happening, in_force: InForce | None) -> list[Published]:
    """What an entry of the journal does, and what is published because of it."""
    engine = rules.follow(in_force).engine
    if isinstance(what, Command):
        return engine.apply(partition, what)
    if isinstance(what, Evicted):
        return engine.evict(partition, engine.unheard(partition, what.time, what.stream))
    if isinstance(what, Moved):
        return engine.evict(partition, what.streams)
    rules.put_in_force(partition, what)
    return []


class Says(Observer):
    """Tells a group something at given turns of the service's loop."""

    def __init__(self, broker: MemoryBroker, group: str, words: dict[int, bytes]) -> None:
        self._broker, self._group, self.words = broker, group, words
        self._turn = 0

    def beat(self) -> None:
        self._turn += 1
        if (word := self.words.pop(self._turn, None)) is not None:
            self._broker.tell(word, self._group)
