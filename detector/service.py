"""The service: the delivery protocol, step by step, over any log.

What it holds to: the visible alerts of a partition are a function of its readings [0, C) alone. Each transaction adds
the alerts of [c, c′) and moves C from c to c′ at once (KIP-98, KIP-447), and whoever owns the partition next starts
from state that is itself a function of [0, C).

1. A partition that is assigned is stopped until it is restored: its committed offset C and, in that commit's metadata,
   R; the checkpoints and open incidents of the state topic.
2. The records of [R, C) move the state again and publish nothing; a bucket takes only those from its own checkpoint on.
   The journal's entries take their places among them.
3. At C the incidents become those that were published, whatever the replay would say. From C on there is publishing.
4. A batch: poll, until it is full or its oldest record has waited long enough → decode → score. Its alerts, dead
   letters and incident records join the open transaction; C is the log's position, never "the last record + 1".
5. Commit at once where there is an alert to publish, else about once a second, or when the dead letters have become
   many. What nobody can read is passed over by the log and is a dead letter like others. The checkpoints whose turn
   it is ride along, each true for the C of this transaction.
6. About once a second, a look at the operators' commands. The batch in hand is finished first, so that the position is
   the state's own; then each takes effect in the partitions that know its stream, and what comes of it, the journal's
   entry and the place on the commands topic are committed at once, together.
7. When the group moves on, or an outcome is unknown: everything uncommitted is dropped, state and all, and every
   partition that is still owned goes through step 1. Fenced, or past the watchdog: the process ends with 75.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from detector.adapters.port import (
    Commands,
    Committed,
    Damaged,
    Log,
    Records,
    StateRecord,
    Step,
    Transaction,
    Watch,
    unwatched,
)
from detector.checkpoints import Checkpoint, Progress, Stored, incident_record
from detector.decoding.decoded import Decoded, Decoder
from detector.engine.alerts import Published
from detector.engine.engine import Engine, Scored
from detector.engine.readings import Readings
from detector.engine.streams import bucket_of
from detector.journal import Entry, Journal
from detector.observer import Observer
from schemas.command import Command
from schemas.dead_letter import DeadLetter
from schemas.errors import Rebalanced
from schemas.moment import MILLISECOND_NS, parse_time
from schemas.printable import printable
from schemas.settings import DetectorSettings

log_ = logging.getLogger(__name__)

#: Seconds that a poll waits when nothing is due sooner; bounds how late a signal or a commit is seen.
IDLE_POLL_S = 0.2

#: The same where the end is looked for: a poll that brings nothing is how one knows that it is near.
CATCHING_UP_POLL_S = 0.03

#: Bytes of values with which a batch is full, however few its records: readings take 10 to 30 times as much in memory.
BATCH_BYTES = 16 * 1024 * 1024

#: Dead letters, and bytes of them, with which a commit does not wait: they are memory, and a transaction has 10 s.
LETTERS = 5_000
LETTER_BYTES = 8 * 1024 * 1024

#: Seconds between looks at how far behind the partitions are.
LAG_S = 5.0

#: Seconds between looks at the commands topic, where none is known to wait.
COMMANDS_S = 1.0


@dataclass(slots=True)
class Batch:
    """Records on their way: at most ``batch_size`` of them, the oldest waiting no longer than ``batch_latency``."""

    records: list[Records] = field(default_factory=list)
    count: int = 0
    bytes: int = 0
    began: float = 0.0

    def add(self, records: list[Records], now: float) -> None:
        """Take in what a poll returned."""
        if records and not self.count:
            self.began = now
        self.records += records
        self.count += sum(len(r.values) for r in records)
        self.bytes += sum(len(value) for r in records for value in r.values if value)


class Service:
    """Runs one replica over a log until it is told to stop. One thread."""

    def __init__(
        self,
        log: Log,
        engine: Engine,
        decoder: Decoder,
        settings: DetectorSettings,
        observer: Observer | None = None,
        stop: threading.Event | None = None,
        on_published: Callable[[Published], None] | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self._log, self._engine, self._decoder, self._settings = log, engine, decoder, settings
        self._observer = observer or Observer()
        self._stop = stop or threading.Event()
        self._on_published = on_published
        self._watch = watch
        self._group = engine.model.manifest.group
        self._progress: dict[int, Progress] = {}
        self._batch = Batch()
        self._open = Transaction()
        self._published: list[Published] = []
        self._committed_at = self._looked_at = self._lag_at = time.monotonic()
        self._incidents: dict[int, dict[str, bytes]] = {}
        self._entries: dict[int, deque[Entry]] = {}  # by partition, those that a replay has not come to yet
        self._commands = (0, 0)  # bounds of the commands topic at the last restore
        self._look_at = 0.0  # when to look for commands again

    def run(self) -> None:
        """Until ``stop`` is set or, with ``stop_at_end``, the group has committed what was there at the start.

        Raises the errors of ``Log``, except Rebalanced.
        """
        try:
            goal = self._goal() if self._settings.stop_at_end else {}
            while not self._stop.is_set():
                self._observer.beat()
                try:
                    idle = self._step()
                    if self._settings.stop_at_end and self._reached(goal, idle):
                        break
                except Rebalanced as moved:
                    self._drop(str(moved))
            self._finish()
        finally:
            self._observer.ready(False, "stopping")
            self._log.close()

    def _step(self) -> bool:
        """One turn of the loop; True when nothing arrived and no batch waits."""
        assigned = self._log.take_assignment()
        if assigned is not None:
            self._restore(assigned)
            if self._stop.is_set():
                return False
        self._obey()
        arrived = self._poll()
        if self._batch.count and (arrived == 0 or self._batch_closes()):
            self._process_batch()
        if self._batch.count == 0 and self._commit_is_due(idle=arrived == 0):
            self._commit()
        self._report_lag()
        return arrived == 0 and not self._batch.count

    # -- 1 to 3: restore ---------------------------------------------------------------------------------------------

    def _restore(self, partitions: frozenset[int]) -> None:
        began = time.monotonic()
        self._forget()
        self._observer.ready(False, "restoring")
        self._observer.assigned(partitions)
        self._watch(Step.ASSIGNED)
        self._commands = self._log.commands_bounds()
        starts = {}
        for partition in sorted(partitions):
            self._observer.beat()
            starts[partition] = self._restore_one(partition)
            self._watch(Step.LOADED)
        self._replay({p: at for p, at in starts.items() if at < self._progress[p].offset})
        if self._stop.is_set():  # half restored: nothing of it may be committed
            self._forget()
            return
        for partition in sorted(partitions):
            for entry in self._entries.pop(partition, ()):  # of C itself
                self._replay_entry(partition, entry)
            self._engine.set_incidents(partition, self._incidents.pop(partition, {}))  # 3
        self._watch(Step.RESTORED)
        for partition, at in starts.items():
            self._log.start(partition, max(at, self._progress[partition].offset))
        self._look_at = 0.0  # what operators said meanwhile comes first
        self._observer.ready(True, "watching")
        log_.info("owns partitions %s, restored in %.1f s", sorted(partitions), time.monotonic() - began)

    def _restore_one(self, partition: int) -> int:
        """Load a partition's state; returns the offset to go on from (R), and notes C in its progress."""
        committed = self._log.committed(partition)  # first: it waits for transactions that are still open
        records = self._log.read_state(partition)
        first, end = self._log.bounds(partition)
        if committed is None or committed.replay_from is None or committed.offset > end:
            return self._cold(partition, committed, records, end)
        stored = Stored.parse(self._group, partition, records)
        progress = self._progress[partition] = Progress(committed.offset, stored.chunks)
        for checkpoint in stored.checkpoints:
            self._engine.load(partition, checkpoint.data)
            progress.saved[checkpoint.bucket] = checkpoint.offset
            progress.entries[checkpoint.bucket] = checkpoint.entries
        self._open_journal(partition, stored.journal)
        self._incidents[partition] = stored.incidents
        if committed.offset < first:
            self._lost(partition, "unscored", first - committed.offset)
            progress.offset = first
        elif committed.replay_from < first:
            self._lost(partition, "replay", first - committed.replay_from)
        return max(committed.replay_from, first)

    def _cold(self, partition: int, committed: Committed | None, records: dict[bytes, bytes], end: int) -> int:
        """Nothing to go on from: whatever the state topic holds for the partition is ignored and deleted."""
        if committed is not None and committed.offset <= end:
            start = committed.offset  # somebody set the group's offset by hand: that is where to begin
            log_.warning("partition %d: offset %d was committed by another program; starting cold", partition, start)
        else:
            start = self._first_offset(partition)
            if committed is not None:
                log_.warning(
                    "partition %d: offset %d was committed but the topic ends at %d (made anew?); starting cold at %d",
                    partition, committed.offset, end, start,
                )  # fmt: skip
        self._open.state += [StateRecord(partition, key, None) for key in records]
        self._progress[partition] = Progress(-1)
        self._open_journal(partition, None)
        return start

    def _open_journal(self, partition: int, journal: Journal | None) -> None:
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
            self._open.state.append(journal.cursor(self._group, partition))
        self._progress[partition].journal = journal
        self._entries[partition] = deque(journal.entries)

    def _first_offset(self, partition: int) -> int:
        first, end = self._log.bounds(partition)
        match self._settings.start:
            case "earliest":
                return first
            case "latest":
                return end
            case moment:
                return self._log.offset_at(partition, parse_time(moment) // MILLISECOND_NS)

    def _lost(self, partition: int, what: str, count: int) -> None:
        log_.warning(
            "partition %d: %d %s records were deleted by the topic's retention; their streams see a gap",
            partition, count, what,
        )  # fmt: skip
        self._observer.lost(what, count)

    def _replay(self, starts: dict[int, int]) -> None:
        """Move the state from R to C. Records from C on that come along are left for later: they will come again."""
        left = dict(starts)
        for partition, offset in starts.items():
            self._log.start(partition, offset)
        while left and not self._stop.is_set():
            self._observer.beat()
            found = self._log.poll(IDLE_POLL_S, self._settings.batch_size)
            for damaged in self._log.take_damaged():  # set aside when C passed it; what is beyond C comes again
                log_.warning(
                    "partition %d: offsets %d to %d cannot be read (%s): if once they could, streams see a gap",
                    damaged.partition, damaged.first, damaged.next - 1, damaged.why,
                )  # fmt: skip
            for records in found:
                until = self._progress[records.partition].offset
                cut = int(np.searchsorted(records.offsets, until))
                self._replay_part(_part(records, 0, cut))
                self._watch(Step.REPLAYED)
            positions = self._log.positions()
            for partition in [p for p in left if positions.get(p, -1) >= self._progress[p].offset]:
                self._log.halt(partition)
                del left[partition]

    def _replay_part(self, records: Records) -> None:
        """Records of one partition, with the journal's entries in their places."""
        entries, at = self._entries[records.partition], 0
        while entries and len(records.offsets) and entries[0].offset <= records.offsets[-1]:
            cut = int(np.searchsorted(records.offsets, entries[0].offset))
            self._replay_records(_part(records, at, cut))
            self._replay_entry(records.partition, entries.popleft())
            at = cut
        self._replay_records(_part(records, at, len(records.offsets)))

    def _replay_entry(self, partition: int, entry: Entry) -> None:
        """What came of it is published already; only the state moves, where its checkpoint does not hold the entry."""
        progress, stream = self._progress[partition], entry.command.stream
        bucket = bucket_of(stream, self._engine.streams.buckets)
        if entry.number < progress.entries[bucket] or stream not in self._engine.streams.of_partition(partition):
            return  # (a stream is unknown here where retention deleted the records that told of it)
        self._engine.apply(partition, entry.command)
        progress.touch(np.array([bucket]), np.array([entry.offset]), time.monotonic())

    def _replay_records(self, records: Records) -> None:
        if not len(records.offsets):
            return
        decoded = self._decoder.decode(records)
        readings, partition = decoded.readings, records.partition
        buckets = self._engine.buckets(readings)
        fresh = decoded.offsets >= self._progress[partition].saved[buckets]
        if not fresh.all():
            kept = np.flatnonzero(fresh)
            names = [readings.streams[n] for n in kept.tolist()]
            readings = Readings(partition, names, readings.times[kept], readings.values[kept])
        self._engine.process([readings])
        self._progress[partition].touch(buckets[fresh], decoded.offsets[fresh], time.monotonic())

    # -- 4: batches --------------------------------------------------------------------------------------------------

    def _poll(self) -> int:
        now = time.monotonic()
        room = self._settings.batch_size - self._batch.count
        if room <= 0 or self._batch.bytes >= BATCH_BYTES:
            return self._batch.count
        wait = CATCHING_UP_POLL_S if self._settings.stop_at_end else IDLE_POLL_S
        if self._batch.count:
            wait = max(self._batch.began + self._settings.batch_latency / 1000 - now, 0.0)
        records = self._log.poll(min(wait, IDLE_POLL_S), room)
        for damaged in self._log.take_damaged():
            self._set_aside(damaged)
        self._observer.stage("poll", time.monotonic() - now)
        self._batch.add(records, time.monotonic())
        if records:
            self._watch(Step.POLLED)
        return sum(len(r.values) for r in records)

    def _set_aside(self, damaged: Damaged) -> None:
        """A range that nobody can read is one dead letter, committed with the position behind it."""
        partition, first, until = damaged.partition, damaged.first, damaged.next
        log_.warning(
            "partition %d: offsets %d to %d cannot be read and are passed over (%s): %s",
            partition, first, until - 1, damaged.reason.value, damaged.why,
        )  # fmt: skip
        self._observer.damaged(damaged.reason.value, until - first)
        letter = DeadLetter(
            damaged.data, None, damaged.reason, damaged.why, self._log.topic, partition, first, -1, until=until
        )
        self._open.dead_letters.append(letter)

    def _batch_closes(self) -> bool:
        full = self._batch.count >= self._settings.batch_size or self._batch.bytes >= BATCH_BYTES
        return full or time.monotonic() >= self._batch.began + self._settings.batch_latency / 1000

    def _process_batch(self) -> None:
        began = time.monotonic()
        decoded = [self._decoder.decode(r) for r in self._batch.records]
        ready = time.monotonic()
        scored = self._engine.process([d.readings for d in decoded])
        done = time.monotonic()
        self._note_changes(decoded, scored, done)
        self._publish(scored.published)
        for d in decoded:
            self._open.dead_letters += d.dead_letters
        self._observer.stage("decode", ready - began)
        self._observer.stage("score", done - ready)
        self._observer.batch(self._batch.count, decoded, scored, self._engine)
        self._batch = Batch()
        self._watch(Step.SCORED)

    def _publish(self, published: list[Published]) -> None:
        """Alerts and their incident records join the open transaction."""
        for event in published:
            self._open.alerts.append((event.stream.encode(), event.alert.to_bytes()))
            self._open.state.append(incident_record(self._group, event.partition, event.stream, event.record))
        self._published += published

    def _note_changes(self, decoded: list[Decoded], scored: Scored, now: float) -> None:
        buckets = self._engine.streams.bucket(scored.slot)  # of all readings, in the order of `decoded`
        at = 0
        for d in decoded:
            count = len(d.readings)
            self._progress[d.readings.partition].touch(buckets[at : at + count], d.offsets, now)
            at += count

    # -- 5: commit ---------------------------------------------------------------------------------------------------

    def _commit_is_due(self, idle: bool) -> bool:
        if self._open.alerts or self._many_letters():
            return True
        if idle and self._settings.stop_at_end:
            return self._moved() or bool(self._open)
        now = time.monotonic()
        if now - self._committed_at < self._settings.commit_interval:
            return False
        # checkpoints also while nothing arrives: else retention would one day delete what R still needs
        saves = any(progress.due(now - self._settings.checkpoint_age) for progress in self._progress.values())
        return saves or self._moved() or bool(self._open)

    def _many_letters(self) -> bool:
        """Dead letters wait for the next commit, as long as they are few: nobody is woken by them."""
        letters = self._open.dead_letters
        return len(letters) >= LETTERS or sum(len(letter.value or b"") for letter in letters) >= LETTER_BYTES

    def _moved(self) -> bool:
        """Some position is not the committed one."""
        return any(self._progress[p].offset != at for p, at in self._log.positions().items() if p in self._progress)

    def _commit(self) -> None:
        began = time.monotonic()
        transaction, self._open = self._open, Transaction()
        positions = {p: at for p, at in self._log.positions().items() if p in self._progress}
        self._add_checkpoints(transaction, positions, began)
        written = {record.partition for record in transaction.state}
        for partition, offset in positions.items():
            progress = self._progress[partition]
            if offset != progress.offset or partition in written:
                replay_from = progress.replay_from(offset)
                transaction.offsets[partition] = Committed(offset, replay_from)
                transaction.state += progress.journal.forget(self._group, partition, replay_from)
        self._log.commit(transaction, self._watch)
        for partition, committed in transaction.offsets.items():
            self._progress[partition].offset = committed.offset
        self._committed_at = time.monotonic()
        published, self._published = self._published, []
        self._observer.committed(
            transaction, [event.alert.type.value for event in published], self._committed_at - began
        )
        for event in published:
            log_.info("%s", summary(event))
            if self._on_published:
                self._on_published(event)

    def _add_checkpoints(self, transaction: Transaction, positions: dict[int, int], now: float) -> None:
        """The checkpoints whose turn it is: oldest change first, as many as the budget since the last commit allows."""
        budget = self._settings.checkpoint_bytes * min(max(now - self._committed_at, 0.0), 10.0)
        before = now - self._settings.checkpoint_age
        due = [(since, p, bucket) for p in positions for since, bucket in self._progress[p].due(before)]
        for _, partition, bucket in sorted(due):  # over all partitions: a busy one must not starve the others
            if budget <= 0:
                break
            progress, offset = self._progress[partition], positions[partition]
            data = self._engine.dump(partition, bucket)
            checkpoint = Checkpoint(bucket, offset, data, progress.journal.count)
            records = list(checkpoint.records(self._group, partition, progress.chunks.get(bucket, 0)))
            transaction.state += records
            progress.mark_saved(bucket, offset, sum(r.value is not None for r in records))
            budget -= len(checkpoint.data)

    def _report_lag(self) -> None:
        """Every few seconds, since it asks the broker."""
        now = time.monotonic()
        if now - self._lag_at >= LAG_S:
            self._lag_at = now
            bounds = {p: self._log.bounds(p) for p in self._progress}
            self._observer.lag({p: end - max(self._progress[p].offset, first) for p, (first, end) in bounds.items()})

    # -- 6: commands -------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """Look for commands, where it is time to, and let each take effect that concerns a partition of ours."""
        if not self._progress or time.monotonic() < self._look_at:
            return
        first = min(progress.journal.considered for progress in self._progress.values())
        waiting = first < self._commands[1]  # known since the restore
        commands = self._log.commands(first, IDLE_POLL_S if waiting else 0)
        if commands.next > first:
            self._consider(commands)
        self._look_at = 0.0 if waiting else time.monotonic() + COMMANDS_S

    def _consider(self, commands: Commands) -> None:
        read = [(offset, command) for offset, value in commands.found if (command := self._understood(offset, value))]
        if read and self._batch.count:
            self._process_batch()
        positions, applied = self._log.positions(), False
        for offset, command in read:
            for partition in self._concerned(offset, command):
                self._apply(partition, command, positions[partition])
                applied = True
        for partition, progress in self._progress.items():
            progress.journal.considered = max(progress.journal.considered, commands.next)
            self._open.state.append(progress.journal.cursor(self._group, partition))
        if applied:
            self._watch(Step.OBEYED)
            self._commit()

    def _understood(self, offset: int, value: bytes | None) -> Command | None:
        """The command; None, with a word in the log, where it is none or names what the model does not have."""
        try:
            command = Command.from_bytes(value)
        except ValueError as error:
            why = str(error)
        else:
            unknown = sorted(set(command.channels) - set(self._engine.model.manifest.channel_names))
            if not unknown:
                return command
            why = f"the model has no channels {', '.join(unknown)}"
        log_.warning("command %d was ignored: %s", offset, why)
        self._observer.command("bad")
        return None

    def _concerned(self, offset: int, command: Command) -> list[int]:
        """The partitions that know the stream and have neither considered this record nor obeyed this id before."""
        new = [p for p, progress in self._progress.items() if progress.journal.considered <= offset]
        known = [p for p in new if command.stream in self._engine.streams.of_partition(p)]
        fresh = [p for p in known if command.id not in self._progress[p].journal.ids]
        if new:
            outcome = "applied" if fresh else "repeated" if known else "elsewhere"
            where = f"partition {', '.join(map(str, fresh))}" if fresh else "nothing to do here"
            log_.info("%s %r (%s): %s, %s", command.command, command.stream, command.id, outcome, where)
            self._observer.command(outcome)
        return fresh

    def _apply(self, partition: int, command: Command, offset: int) -> None:
        """It takes effect before the record with ``offset``, the position of the partition."""
        progress = self._progress[partition]
        self._publish(self._engine.apply(partition, command))
        self._open.state.append(progress.journal.add(self._group, partition, offset, command))
        bucket = bucket_of(command.stream, self._engine.streams.buckets)
        progress.touch(np.array([bucket]), np.array([offset]), time.monotonic())

    # -- 7: drop, end ------------------------------------------------------------------------------------------------

    def _drop(self, why: str) -> None:
        log_.info("the group moved on (%s): what was not committed is dropped and will be done again", why)
        self._observer.rebalanced()
        self._observer.ready(False, "rebalancing")
        self._forget()
        self._watch(Step.DROPPED)

    def _forget(self) -> None:
        self._engine.clear()
        self._progress.clear()
        self._incidents.clear()
        self._entries.clear()
        self._batch, self._open, self._published = Batch(), Transaction(), []

    def _finish(self) -> None:
        """Finish the batch and commit; if the group moves on meanwhile, the next owner does it."""
        self._watch(Step.FINISHING)
        try:
            if self._batch.count:
                self._process_batch()
            if self._progress and (self._open or self._moved()):
                self._commit()
        except Rebalanced as moved:
            self._drop(str(moved))
        self._watch(Step.LEAVING)

    def _goal(self) -> dict[int, tuple[int, int]]:
        """By partition that is not empty: its end now, and a committed offset beyond it, which belongs to another past
        (the topic was made anew) and is no progress."""
        offsets = self._log.group_offsets()
        ends = {p: end for p, (first, end) in self._log.ends().items() if first < end}
        return {p: (end, offsets.get(p) or 0 if (offsets.get(p) or 0) > end else -1) for p, end in ends.items()}

    def _reached(self, goal: dict[int, tuple[int, int]], idle: bool) -> bool:
        """The group's commits reach the ends seen at the start, whoever committed them; looked up once a second."""
        now = time.monotonic()
        if now - self._looked_at < (CATCHING_UP_POLL_S if idle else 1.0):
            return False
        self._looked_at = now
        offsets = self._log.group_offsets()
        return all((offsets.get(p) or 0) >= end and offsets.get(p) != stale for p, (end, stale) in goal.items())


def summary(published: Published) -> str:
    """One line for a log: what happened, where, and which channels gave it away."""
    alert = published.alert
    what = alert.type.value.rpartition(".")[2]
    channels = ", ".join(
        f"{c.name} {c.share:.0%} (observed {'nothing' if c.observed is None else f'{c.observed:g}'}, "
        f"expected {'nothing' if c.expected is None else f'{c.expected:g}'})"
        for c in alert.data.channels
    )
    score = "no score" if alert.data.score is None else f"score {alert.data.score:.3g}"
    head = f"incident {alert.data.incident} {what}: {published.stream} at {alert.time}, {score}"
    return printable(f"{head}: {alert.data.summary or channels}")


def _part(records: Records, start: int, end: int) -> Records:
    return Records(
        records.partition,
        records.offsets[start:end],
        records.timestamps[start:end],
        records.keys[start:end],
        records.values[start:end],
    )
