"""Restoration: steps 1 to 3 of the protocol, from what is committed to the state as it was then.

What cannot be had back is told and counted, never passed over:

* Records that retention deleted before they were scored, or that the state still needed: their streams see a gap.
* A committed offset that is not ours (an operator reset the group), that lies beyond the topic's end, or that belongs
  to an earlier topic of the same name; a state topic that has lost what it held: the partition starts cold. What was
  open there and is still known ends as *forgotten*.
* State that cannot be read stops the process (ModelError), unless ``unreadable_state`` says cold.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from detector.adapters.port import Committed, Log, Records, StateRecord, Step, Watch
from detector.checkpoints import Progress, Stored
from detector.engine.alerts import Published
from detector.engine.engine import BUCKETS, Engine
from detector.engine.readings import Readings
from detector.engine.state import Saved
from detector.engine.streams import bucket_of
from detector.journal import Entry, Evicted, InForce, Journal, Moved, in_parts
from detector.observer import Observer
from detector.rules import Rules
from schemas.command import Command
from schemas.errors import ModelError
from schemas.moment import MILLISECOND_NS, parse_time
from schemas.settings import DetectorSettings

log_ = logging.getLogger(__name__)

#: Seconds that a poll waits while a partition is replayed.
REPLAY_POLL_S = 0.2


def is_other_topic(was: tuple[str, int], now: tuple[str, int]) -> bool:
    """Whether a topic, by its id (empty: not known) and partitions, was made anew or has grown.

    Of one id the partitions only become more: a broker that names fewer has not heard of them yet.
    """
    if was[0] and now[0] and was[0] != now[0]:
        return True
    return now[1] > was[1]


@dataclass(slots=True)
class There:
    """What there is of a partition: on the readings topic, in the group's offsets and on the state topic."""

    committed: Committed | None
    records: dict[bytes, bytes]
    """Newest value of each key of the state topic."""
    first: int
    end: int
    stored: Stored | None = None
    """What the records say; None: they cannot be read."""


@dataclass(slots=True)
class Restored:
    """A partition on its way back, and then as it is at C."""

    progress: Progress
    start: int
    """Where to read on: R, and C once it is restored."""
    entries: deque[Entry] = field(default_factory=deque)
    """Of the journal, those that the replay has not come to yet."""
    incidents: dict[str, bytes] = field(default_factory=dict)
    """By stream: what was published about those that are open."""
    in_force: InForce | None = None
    """What is in force where the replay is; None: not known, so what the settings of now say."""
    writes: list[StateRecord] = field(default_factory=list)
    """What the state topic has to hear with the next commit."""
    published: list[Published] = field(default_factory=list)
    """What there is to say about it at C."""


class Restoration:
    """Brings partitions back, one set of them at a time. Raises the errors of ``Log``, and ModelError."""

    def __init__(
        self,
        log: Log,
        rules: Rules,
        settings: DetectorSettings,
        observer: Observer,
        watch: Watch,
        stop: threading.Event,
    ) -> None:
        self._log, self._rules, self._settings = log, rules, settings
        self._observer, self._watch, self._stop = observer, watch, stop
        self._group = rules.engine.model.manifest.group
        self._parts: dict[int, Restored] = {}
        self._commands = (0, 0)
        #: of the readings topic, as of this run
        self.topic_id, self.partitions = "", 0
        self._met: tuple[str, int] | None = None  # the same, as of the first

    def run(self, partitions: frozenset[int], commands: tuple[int, int]) -> dict[int, Restored] | None:
        """The partitions, restored and stopped; None where the process was told to stop meanwhile.

        ``commands``: first and next offset of the commands topic. Whatever ends it early leaves the partitions' state
        half restored: whoever called has to forget it.
        """
        self._parts, self._commands = {}, commands
        self.topic_id, self.partitions = self._log.describe()
        self._met = self._met or (self.topic_id, self.partitions)
        try:
            for partition in sorted(partitions):
                if self._stop.is_set():
                    return None
                self._observer.beat()
                self._parts[partition] = self._load(partition)
                self._watch(Step.LOADED)
            self._replay()
            if self._stop.is_set():
                return None
            for partition, part in self._parts.items():
                self._arrive(partition, part)
        finally:
            self._rules.rest()
        self._watch(Step.RESTORED)
        return self._parts

    # -- 1: what is there --------------------------------------------------------------------------------------------

    def _load(self, partition: int) -> Restored:
        committed = self._log.committed(partition)  # first: it waits for transactions that are still open
        records = self._log.read_state(partition, self._observer.beat)
        there = There(committed, records, *self._log.bounds(partition))
        try:
            there.stored = stored = Stored.parse(self._group, partition, records)
        except ModelError as error:
            return self._unreadable(partition, error, there)
        why = self._why_cold(there)
        if why is not None or committed is None or stored.journal is None:
            return self._cold(partition, why, there)
        if stored.journal.in_force is not None:
            self._rules.check(stored.journal.in_force)
        try:
            return self._warm(partition, committed, stored, stored.journal, there.first)
        except ModelError as error:
            return self._unreadable(partition, error, there)

    def _unreadable(self, partition: int, error: ModelError, there: There) -> Restored:
        """Stop, or start cold where the settings say so; what was read of it is still known."""
        if self._settings.unreadable_state == "stop":
            raise error
        self._rules.forget(partition)  # half of it may be loaded
        return self._cold(partition, f"its state cannot be read ({error})", there)

    def _why_cold(self, there: There) -> str | None:
        """Why there is nothing to go on from; empty where there never was."""
        committed, has_journal = there.committed, there.stored is not None and there.stored.journal is not None
        if committed is None:
            return "nothing is committed any more" if has_journal else ""
        if self._is_anew(committed):
            return "the topic was made anew"
        if committed.offset > there.end:
            lost = "the broker has lost the rest" if self._is_same(committed) else "made anew?"
            return f"offset {committed.offset} was committed but the topic ends at {there.end} ({lost})"
        if committed.replay_from is None:
            return f"offset {committed.offset} was committed by another program"
        return None if has_journal else "the state topic has lost its state"

    def _is_anew(self, committed: Committed) -> bool:
        """It belongs to an earlier topic of the same name."""
        return bool(committed.topic_id and self.topic_id) and committed.topic_id != self.topic_id

    def _is_same(self, committed: Committed) -> bool:
        """It belongs to the very topic that is there."""
        return bool(committed.topic_id) and committed.topic_id == self.topic_id

    def _warm(self, partition: int, committed: Committed, stored: Stored, journal: Journal, first: int) -> Restored:
        assert committed.replay_from is not None
        progress = Progress(committed.offset, (self.topic_id, self.partitions), stored.chunks)
        part = Restored(progress, max(committed.replay_from, first), incidents=stored.incidents)
        self._open_journal(partition, part, journal)
        for checkpoint in stored.checkpoints:
            saved = Saved.parse(checkpoint.data)
            self._rules.engine_of(saved.model).load(partition, saved)
            progress.saved[checkpoint.bucket] = checkpoint.offset
            progress.entries[checkpoint.bucket] = checkpoint.entries
        while part.entries and isinstance(part.entries[0].what, InForce) and part.entries[0].offset <= part.start:
            self._come_to(partition, part, part.entries.popleft())
        if committed.offset < first:
            self._lost(partition, "unscored", first - committed.offset)
            progress.offset = first
            part.writes.append(journal.cursor(self._group, partition))  # a commit: what is told once is told
        elif committed.replay_from < first:
            self._lost(partition, "replay", first - committed.replay_from)
        return part

    def _cold(self, partition: int, why: str | None, there: There) -> Restored:
        """Start without a past: whatever the state topic holds for the partition is ended and deleted."""
        committed, stored = there.committed, there.stored
        start = self._first_offset(partition)
        if (
            committed is not None
            and not self._is_anew(committed)
            and (committed.offset <= there.end or self._is_same(committed))
        ):
            start = min(committed.offset, there.end)
            if start < there.first:
                self._lost(partition, "unscored", there.first - start)
                start = there.first
        part = Restored(Progress(-1, (self.topic_id, self.partitions)), start)
        if why:
            log_.warning("partition %d: %s; starting cold at %d", partition, why, start)
            self._observer.cold(partition)
        if stored is not None and stored.incidents:
            self._rules.engine.set_incidents(partition, stored.incidents)
            part.published = self._rules.engine.evict(partition, list(stored.incidents))
        part.writes = [StateRecord(partition, key, None) for key in there.records]
        self._open_journal(partition, part, None)
        return part

    def _open_journal(self, partition: int, part: Restored, journal: Journal | None) -> None:
        """Go on with a partition's journal; where it has none, what operators have said so far was not meant for it."""
        first, end = self._commands
        known = journal is not None and first <= journal.considered <= end
        if journal is None:
            journal = Journal(considered=end)
        elif not known:
            log_.warning(
                "partition %d: commands up to %d were considered, and there are %d to %d (made anew?): from %d on",
                partition, journal.considered, first, end, first,
            )  # fmt: skip
            journal.considered = first
        if not known:
            part.writes.append(journal.cursor(self._group, partition))
        part.progress.journal = journal
        part.entries = deque(journal.entries)

    def _first_offset(self, partition: int) -> int:
        first, end = self._log.bounds(partition)
        match self._settings.start:
            case "earliest":
                return first
            case "latest":
                return first if self._is_new(partition) else end
            case moment:
                return self._log.offset_at(partition, parse_time(moment) // MILLISECOND_NS)

    def _is_new(self, partition: int) -> bool:
        """It came into being while we were watching: all that it holds is newer than our start."""
        assert self._met is not None
        met_id, count = self._met
        return partition >= count or (bool(met_id and self.topic_id) and met_id != self.topic_id)

    def _lost(self, partition: int, what: str, count: int) -> None:
        log_.warning(
            "partition %d: %d %s records were deleted by the topic's retention; their streams see a gap",
            partition, count, what,
        )  # fmt: skip
        self._observer.lost(what, count)

    # -- 2: from R to C ----------------------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Move the state from R to C. Records from C on that come along are left for later: they will come again."""
        left = {p for p, part in self._parts.items() if part.start < part.progress.offset}
        for partition in sorted(left):
            self._log.start(partition, self._parts[partition].start)
        while left and not self._stop.is_set():
            self._observer.beat()
            found = self._log.poll(REPLAY_POLL_S, self._settings.batch_size)
            for damaged in self._log.take_damaged():  # set aside when C passed it; what is beyond C comes again
                log_.warning(
                    "partition %d: offsets %d to %d cannot be read (%s): if once they could, streams see a gap",
                    damaged.partition, damaged.first, damaged.next - 1, damaged.why,
                )  # fmt: skip
            for records in found:
                part = self._parts[records.partition]
                cut = int(np.searchsorted(records.offsets, part.progress.offset))
                self._replay_part(part, records.part(0, cut))
                self._watch(Step.REPLAYED)
            positions = self._log.positions()
            for partition in [p for p in left if positions.get(p, -1) >= self._parts[p].progress.offset]:
                self._log.halt(partition)
                left.discard(partition)

    def _replay_part(self, part: Restored, records: Records) -> None:
        """Records of one partition, with the journal's entries in their places."""
        entries, at = part.entries, 0
        while entries and len(records.offsets) and entries[0].offset <= records.offsets[-1]:
            cut = int(np.searchsorted(records.offsets, entries[0].offset))
            self._replay_records(part, records.part(at, cut))
            self._come_to(records.partition, part, entries.popleft())
            at = cut
        self._replay_records(part, records.part(at, len(records.offsets)))

    def _come_to(self, partition: int, part: Restored, entry: Entry) -> None:
        """What came of it is published already; only the state moves, where its checkpoint does not hold the entry."""
        what = entry.what
        if isinstance(what, InForce):
            part.in_force = what
            missing = np.flatnonzero(part.progress.entries <= entry.number).tolist()
            self._put(partition, part, what, entry.offset, missing)
            return
        engine = self._rules.follow(part.in_force).engine
        streams = self._streams_of(engine, partition, what)
        known = engine.streams.of_partition(partition)
        buckets = [bucket_of(stream, BUCKETS) for stream in streams]
        # (a stream is unknown here where retention deleted the records that told of it)
        missed = [
            (stream, bucket)
            for stream, bucket in zip(streams, buckets, strict=True)
            if entry.number >= part.progress.entries[bucket] and stream in known
        ]
        if not missed:
            return
        if isinstance(what, Command):
            engine.apply(partition, what)
        else:
            engine.evict(partition, [stream for stream, _ in missed])
        changed = np.unique([bucket for _, bucket in missed])
        part.progress.touch(changed, np.full(len(changed), entry.offset), time.monotonic())

    def _put(
        self, partition: int, part: Restored, what: InForce, offset: int, buckets: Collection[int] | None = None
    ) -> None:
        """It is in force from an offset on. What another model had is saved anew, so that nobody needs it for long."""
        changed = self._rules.put_in_force(partition, what, buckets)
        part.progress.touch(changed, np.full(len(changed), offset), time.monotonic())

    def _streams_of(self, engine: Engine, partition: int, what: Command | Evicted | Moved) -> Sequence[str]:
        match what:
            case Command():
                return (what.stream,)
            case Evicted():
                return engine.unheard(partition, what.time, what.stream)
            case Moved():
                return what.streams

    def _replay_records(self, part: Restored, records: Records) -> None:
        if not len(records.offsets):
            return
        engine, decoder = self._rules.follow(part.in_force)
        decoded = decoder.decode(records)
        readings, partition = decoded.readings, records.partition
        # by name: a stream that gave way meanwhile, as its checkpoint knows, must not come back
        number = {name: bucket_of(name, BUCKETS) for name in set(readings.streams)}
        buckets = np.fromiter(map(number.__getitem__, readings.streams), np.int64, len(readings.streams))
        fresh = decoded.offsets >= part.progress.saved[buckets]
        if not fresh.all():
            kept = np.flatnonzero(fresh)
            names = [readings.streams[n] for n in kept.tolist()]
            readings = Readings(partition, names, readings.times[kept], readings.values[kept])
        engine.process([readings])
        part.progress.touch(buckets[fresh], decoded.offsets[fresh], time.monotonic())

    # -- 3: at C -----------------------------------------------------------------------------------------------------

    def _arrive(self, partition: int, part: Restored) -> None:
        """Entries of C itself, the incidents as they were published, and what is in force from now on."""
        while part.entries:
            self._come_to(partition, part, part.entries.popleft())
        cold = part.progress.offset < 0
        if not cold:
            self._rules.follow(part.in_force).engine.set_incidents(partition, part.incidents)
        part.start = part.start if cold else max(part.start, part.progress.offset)
        self._put_in_force(partition, part)

    def _put_in_force(self, partition: int, part: Restored) -> None:
        """Write down what the settings of now, and the topic's partitions of now, change from C on."""
        before, journal = part.in_force, part.progress.journal
        grown = before is not None and before.partitions < self.partitions
        keyed = before is not None and before.keyed
        moved: list[str] = []
        if before is not None and grown:
            keyed = before.keyed or self._rules.keyed(partition, before, self.partitions)
            moved = self._rules.moved(partition, before, self.partitions) if keyed else []
        now = self._rules.now(self.partitions, keyed)
        if now == before:
            return
        if before is not None:
            self._tell_changes(partition, part.start, before, now)
        part.writes.append(journal.add(self._group, partition, part.start, now))
        self._put(partition, part, now, part.start)
        if moved:
            log_.info("partition %d: %d streams have moved to other partitions", partition, len(moved))
            for names in in_parts(moved):
                entry = journal.add(self._group, partition, part.start, Moved(streams=names))
                part.writes.append(entry)
            engine = self._rules.follow().engine
            self._observer.evicted(0, engine.waiting_of(partition, moved))
            part.published += engine.evict(partition, moved)
            buckets = np.unique([bucket_of(name, BUCKETS) for name in moved])
            part.progress.touch(buckets, np.full(len(buckets), part.start), time.monotonic())
        part.writes.append(journal.cursor(self._group, partition))

    def _tell_changes(self, partition: int, offset: int, before: InForce, now: InForce) -> None:
        changed = [name for name in type(now).model_fields if getattr(now, name) != getattr(before, name)]
        log_.info("partition %d: from offset %d on with another %s", partition, offset, ", ".join(changed))
        if now.version != before.version or now.model != before.model:
            log_.info("partition %d: the model %s… serves now, not %s…", partition, now.id[:12], before.id[:12])
