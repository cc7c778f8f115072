"""What has to be on the topics after a schedule: the engine offline over each partition's log, obeying the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from integration.chaos.topics import Found, journal_key

from detector.adapters.partitioner import partition_of
from detector.adapters.port import Records
from detector.adapters.store import is_store
from detector.engine.alerts import Published
from detector.engine.engine import Engine
from detector.engine.records import dump_record
from detector.journal import Entry, Evicted, Happening, InForce, Moved, read_entry
from detector.loading import Champion, load_engine
from detector.rules import Followed, Rules
from detector.run import decoder_of
from schemas.command import Command
from schemas.settings import DetectorSettings

Letter = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


@dataclass(slots=True)
class Wanted:
    """What has to be there."""

    alerts: dict[bytes, dict[int, list[bytes]]] = field(default_factory=dict)
    """Values by stream and by partition of the readings, in order. A stream that is met in two is two streams."""
    letters: Counter[Letter] = field(default_factory=Counter)


class LostEntryError(AssertionError):
    """The journal was not seen whole: an entry was lost, or was compacted away before it was read."""


def journal_of(state: Iterable[Found]) -> dict[int, list[list[Entry]]]:
    """By partition, every entry that was ever committed: a list for each past that it had, the next after a cold start.

    Raises AssertionError where an entry was written anew.
    """
    pasts: dict[int, list[dict[int, Entry]]] = {}
    counts: dict[tuple[int, int], int] = {}
    for record in state:
        what = journal_key(record)
        if what is None or record.value is None:
            continue
        known = pasts.setdefault(record.partition, [{}])
        if what == b"cursor":
            at = record.partition, len(known)
            counts[at] = max(orjson.loads(record.value)["count"], counts.get(at, 0))
            continue
        number = int(what)
        entry = read_entry(number, record.value)
        if number == 0 and known[-1]:
            known.append({})
        before = known[-1].setdefault(number, entry)
        assert before == entry, f"partition {record.partition}: journal entry {number} was {before} and became {entry}"
    for (partition, past), count in counts.items():
        missing = set(range(count)) - set(pasts[partition][past - 1])
        if missing:
            raise LostEntryError(f"partition {partition}: the journal's entries {sorted(missing)} were not seen")
    return {p: [[past[number] for number in sorted(past)] for past in known] for p, known in pasts.items()}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a past of a partition ends: before ``offset``; ``known``: what was open then is still known."""

    offset: int
    known: bool


def wanted(
    settings: Mapping[str, Any],
    log: Sequence[Found],
    journal: Mapping[int, Sequence[Sequence[Entry]]],
    cuts: Mapping[int, Cut],
) -> Wanted:
    """Alerts and dead letters that go with these records and this journal; ``cuts``: of partitions that began anew."""
    chosen = DetectorSettings.load(settings)
    found = Wanted()
    for partition in sorted({record.partition for record in log}):
        records = [record for record in log if record.partition == partition]
        pasts = [list(past) for past in journal.get(partition, [])] or [[]]
        cut = cuts.get(partition)
        assert len(pasts) == 1 + (cut is not None), f"partition {partition} has had {len(pasts)} pasts, cut at {cut}"
        engine = None
        for number, past in enumerate(pasts):
            start = past[0].offset if number else 0
            stop = cut.offset if cut is not None and number == 0 else None
            own = [r for r in records if r.offset >= start and (stop is None or r.offset < stop)]
            still_open = _open(engine, partition) if number and engine and cut and cut.known else {}
            engine = _past(chosen, partition, own, past, still_open, found)
    return found


def _open(engine: Engine, partition: int) -> dict[str, bytes]:
    """The incident record of each stream that has one."""
    records = {name: dump_record(engine.state, at) for name, at in engine.streams.of_partition(partition).items()}
    return {name: record for name, record in records.items() if record is not None}


def _past(
    settings: DetectorSettings,
    partition: int,
    log: Sequence[Found],
    journal: Sequence[Entry],
    still_open: Mapping[str, bytes],
    found: Wanted,
) -> Engine:
    """One past of a partition, the entries in their places; first of all, what was open in the one before ends."""
    engine = load_engine(settings)
    decoder = decoder_of(settings, engine.model.manifest)
    find = Champion(settings).find if is_store(settings.model) else lambda _: None
    rules, at = Rules(engine, decoder, partition_of, find), 0
    in_force = next((entry.what for entry in journal if isinstance(entry.what, InForce)), None)
    if still_open:
        by = rules.follow(in_force).engine
        by.set_incidents(partition, still_open)
        _note(by.evict(partition, list(still_open)), found)
    for entry in journal:
        until = at
        while until < len(log) and log[until].offset < entry.offset:
            until += 1
        _read(rules.follow(in_force), partition, log[at:until], found)
        at = until
        in_force = entry.what if isinstance(entry.what, InForce) else in_force
        _note(obey(rules, in_force, partition, entry.what), found)
    _read(rules.follow(in_force), partition, log[at:], found)
    return rules.follow(in_force).engine


def _read(by: Followed, partition: int, log: Sequence[Found], found: Wanted) -> None:
    if not log:
        return
    columns = ([getattr(record, name) for record in log] for name in ("offset", "timestamp", "key", "value"))
    decoded = by.decoder.decode(Records(partition, *columns))
    _note(by.engine.process([decoded.readings]).published, found)
    for letter in decoded.dead_letters:
        key = letter.key
        if key is None and letter.body() is None:
            key = b""  # the client takes no record with neither
        found.letters[key, letter.body(), tuple(letter.headers())] += 1


def _note(published: Iterable[Published], found: Wanted) -> None:
    for event in published:
        by_partition = found.alerts.setdefault(event.stream.encode(), {})
        by_partition.setdefault(event.partition, []).append(event.alert.to_bytes())


def obey(rules: Rules, in_force: InForce | None, partition: int, what: Happening) -> list[Published]:
    """What an entry of the journal does to the engine, and what is published of it.

    The one place that knows the kinds of entries.
    """
    engine = rules.follow(in_force).engine
    match what:
        case Command():
            return engine.apply(partition, what)
        case Evicted():
            return engine.evict(partition, engine.unheard(partition, what.time, what.stream))
        case Moved():
            return engine.evict(partition, what.streams)
        case InForce():
            rules.put_in_force(partition, what)
    return []


def differences(wanted: Wanted, alerts: Iterable[Found], letters: Iterable[Found]) -> list[str]:
    """What is on the topics and should not be, or the other way round; one line each, none where all is well."""
    by_stream: dict[bytes, list[bytes]] = {}
    for record in alerts:
        by_stream.setdefault(record.key or b"", []).append(record.value or b"")
    found = []
    for stream in sorted(by_stream.keys() | wanted.alerts.keys()):
        what = f"alerts of {stream.decode()}"
        should, is_ = wanted.alerts.get(stream, {}), by_stream.get(stream, [])
        unlike = _unlike(what, Counter(value for values in should.values() for value in values), Counter(is_))
        found += unlike or [line for values in should.values() for line in _out_of_order(what, values, is_)]
    is_letters = Counter((record.key, record.value, record.headers) for record in letters)
    return found + _unlike("dead letters", wanted.letters, is_letters)


def _out_of_order(what: str, should: Sequence[bytes], is_: Sequence[bytes]) -> list[str]:
    """Where the alerts of one partition, which are all there, are not in their order."""
    own = set(should)
    for number, (one, other) in enumerate(zip(should, [value for value in is_ if value in own], strict=False)):
        if one != other:
            return [f"{what} are in another order from no. {number} on: {_text(other)}"]
    return []


def _unlike(what: str, should: Counter[Any], is_: Counter[Any]) -> list[str]:
    found = [f"{what}: {count} lost: {_text(one)}" for one, count in (should - is_).items()]
    for one, count in (is_ - should).items():
        why = "sent twice" if should[one] else "should not be there"
        found.append(f"{what}: {count} {why}: {_text(one)}")
    return found


def _text(one: Any) -> str:
    return one.decode(errors="replace") if isinstance(one, bytes) else repr(one)


def disobeyed(told: Mapping[str, int], journal: Mapping[int, Sequence[Sequence[Entry]]]) -> list[str]:
    """Commands that had to be obeyed and were not, or were more than once.

    ``told``: by id, the partition of those that name a stream which was known there when they were said.
    """
    ids = {
        p: Counter(e.what.id for past in pasts for e in past if isinstance(e.what, Command))
        for p, pasts in journal.items()
    }
    found = [
        f"the command {name} was not obeyed in partition {partition}"
        for name, partition in told.items()
        if not ids.get(partition, Counter())[name]
    ]
    for partition, counts in ids.items():
        found += [f"partition {partition}: {name} was obeyed {n} times" for name, n in counts.items() if n > 1]
    return found
