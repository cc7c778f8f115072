"""The service: the delivery protocol, step by step, over any log.

What it holds to: the visible alerts of a partition are a function of its readings [0, C) alone. Each transaction adds
the alerts of [c, c′) and moves C from c to c′ at once (KIP-98, KIP-447), and whoever owns the partition next starts
from state that is itself a function of [0, C).

1. A partition that is assigned is stopped until it is restored: its committed offset C and, in that commit's metadata,
   R; the checkpoints and open incidents of the state topic.
2. The records of [R, C) move the state again and publish nothing; a bucket takes only those from its own checkpoint on.
3. At C the incidents become those that were published, whatever the replay would say. From C on there is publishing.
4. A batch: poll, until it is full or its oldest record has waited long enough → decode → score. Its alerts, dead
   letters and incident records join the open transaction; C is the log's position, never "the last record + 1".
5. Commit at once where there is something to publish, else about once a second. The checkpoints whose turn it is ride
   along, each true for the C of this transaction.
6. When the group moves on, or an outcome is unknown: everything uncommitted is dropped, state and all, and every
   partition that is still owned goes through step 1. Fenced, or past the watchdog: the process ends with 75.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from detector.adapters.port import Committed, Log, Records, StateRecord, Transaction
from detector.checkpoints import Checkpoint, Progress, Stored, incident_record
from detector.decoding.decoded import Decoded, Decoder
from detector.engine.alerts import Published
from detector.engine.engine import Engine, Scored
from detector.engine.readings import Readings
from detector.observer import Observer
from schemas.errors import Rebalanced
from schemas.moment import MILLISECOND_NS, parse_time
from schemas.settings import DetectorSettings

log_ = logging.getLogger(__name__)

#: Seconds that a poll waits when nothing is due sooner; bounds how late a signal or a commit is seen.
IDLE_POLL_S = 0.2

#: The same where the end is looked for: a poll that brings nothing is how one knows that it is near.
CATCHING_UP_POLL_S = 0.03

#: Seconds between looks at how far behind the partitions are.
LAG_S = 5.0


@dataclass(slots=True)
class Batch:
    """Records on their way: at most ``batch_size`` of them, the oldest waiting no longer than ``batch_latency``."""

    records: list[Records] = field(default_factory=list)
    count: int = 0
    began: float = 0.0

    def add(self, records: list[Records], now: float) -> None:
        """Take in what a poll returned."""
        if records and not self.count:
            self.began = now
        self.records += records
        self.count += sum(len(r.values) for r in records)


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
    ) -> None:
        self._log, self._engine, self._decoder, self._settings = log, engine, decoder, settings
        self._observer = observer or Observer()
        self._stop = stop or threading.Event()
        self._on_published = on_published
        self._group = engine.model.manifest.group
        self._progress: dict[int, Progress] = {}
        self._batch = Batch()
        self._open = Transaction()
        self._published: list[Published] = []
        self._committed_at = self._looked_at = self._lag_at = time.monotonic()
        self._incidents: dict[int, dict[str, tuple[int, int]]] = {}

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
        arrived = self._poll()
        if self._batch.count and (arrived == 0 or self._batch_closes()):
            self._process(self._batch.records)
            self._batch = Batch()
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
        starts = {}
        for partition in sorted(partitions):
            self._observer.beat()
            starts[partition] = self._restore_one(partition)
        self._replay({p: at for p, at in starts.items() if at < self._progress[p].offset})
        if self._stop.is_set():  # half restored: nothing of it may be committed
            self._forget()
            return
        for partition in sorted(partitions):
            self._engine.set_incidents(partition, self._incidents.pop(partition, {}))  # 3
        for partition, at in starts.items():
            self._log.start(partition, max(at, self._progress[partition].offset))
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
        return start

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
            for records in self._log.poll(IDLE_POLL_S, self._settings.batch_size):
                until = self._progress[records.partition].offset
                cut = int(np.searchsorted(records.offsets, until))
                if cut:
                    self._replay_records(_first(records, cut))
            positions = self._log.positions()
            for partition in [p for p in left if positions.get(p, -1) >= self._progress[p].offset]:
                self._log.halt(partition)
                del left[partition]

    def _replay_records(self, records: Records) -> None:
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
        if room <= 0:
            return self._batch.count
        wait = CATCHING_UP_POLL_S if self._settings.stop_at_end else IDLE_POLL_S
        if self._batch.count:
            wait = max(self._batch.began + self._settings.batch_latency / 1000 - now, 0.0)
        records = self._log.poll(min(wait, IDLE_POLL_S), room)
        self._observer.stage("poll", time.monotonic() - now)
        self._batch.add(records, time.monotonic())
        return sum(len(r.values) for r in records)

    def _batch_closes(self) -> bool:
        full = self._batch.count >= self._settings.batch_size
        return full or time.monotonic() >= self._batch.began + self._settings.batch_latency / 1000

    def _process(self, records: list[Records]) -> None:
        began = time.monotonic()
        decoded = [self._decoder.decode(r) for r in records]
        ready = time.monotonic()
        scored = self._engine.process([d.readings for d in decoded])
        done = time.monotonic()
        self._note_changes(decoded, scored, done)
        for published in scored.published:
            alert = published.alert
            self._open.alerts.append((published.stream.encode(), alert.to_bytes()))
            self._open.state.append(
                incident_record(
                    self._group, published.partition, published.stream,
                    published.opened, published.events, published.resolved,
                )
            )  # fmt: skip
        self._published += scored.published
        for d in decoded:
            self._open.dead_letters += d.dead_letters
        self._observer.stage("decode", ready - began)
        self._observer.stage("score", done - ready)
        self._observer.batch(self._batch.count, decoded, scored, self._engine)

    def _note_changes(self, decoded: list[Decoded], scored: Scored, now: float) -> None:
        buckets = self._engine.streams.bucket(scored.slot)  # of all readings, in the order of `decoded`
        at = 0
        for d in decoded:
            count = len(d.readings)
            self._progress[d.readings.partition].touch(buckets[at : at + count], d.offsets, now)
            at += count

    # -- 5: commit ---------------------------------------------------------------------------------------------------

    def _commit_is_due(self, idle: bool) -> bool:
        if self._open.alerts or self._open.dead_letters:
            return True
        if idle and self._settings.stop_at_end:
            return self._moved()
        now = time.monotonic()
        if now - self._committed_at < self._settings.commit_interval:
            return False
        # checkpoints also while nothing arrives: else retention would one day delete what R still needs
        saves = any(progress.due(now - self._settings.checkpoint_age) for progress in self._progress.values())
        return saves or self._moved()

    def _moved(self) -> bool:
        """Some position is not the committed one."""
        return any(self._progress[p].offset != at for p, at in self._log.positions().items() if p in self._progress)

    def _commit(self) -> None:
        began = time.monotonic()
        transaction, self._open = self._open, Transaction()
        positions = {p: at for p, at in self._log.positions().items() if p in self._progress}
        saved = self._add_checkpoints(transaction, positions, began)
        for partition, offset in positions.items():
            progress = self._progress[partition]
            if offset != progress.offset or partition in saved:
                transaction.offsets[partition] = Committed(offset, progress.replay_from(offset))
        self._log.commit(transaction)
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

    def _add_checkpoints(self, transaction: Transaction, positions: dict[int, int], now: float) -> set[int]:
        """The checkpoints whose turn it is: oldest change first, as many as the budget since the last commit allows."""
        budget = self._settings.checkpoint_bytes * min(max(now - self._committed_at, 0.0), 10.0)
        saved: set[int] = set()
        before = now - self._settings.checkpoint_age
        due = [(since, p, bucket) for p in positions for since, bucket in self._progress[p].due(before)]
        for _, partition, bucket in sorted(due):  # over all partitions: a busy one must not starve the others
            if budget <= 0:
                break
            progress, offset = self._progress[partition], positions[partition]
            checkpoint = Checkpoint(bucket, offset, self._engine.dump(partition, bucket))
            records = list(checkpoint.records(self._group, partition, progress.chunks.get(bucket, 0)))
            transaction.state += records
            progress.mark_saved(bucket, offset, sum(r.value is not None for r in records))
            budget -= len(checkpoint.data)
            saved.add(partition)
        return saved

    def _report_lag(self) -> None:
        """Every few seconds, since it asks the broker."""
        now = time.monotonic()
        if now - self._lag_at >= LAG_S:
            self._lag_at = now
            bounds = {p: self._log.bounds(p) for p in self._progress}
            self._observer.lag({p: end - max(self._progress[p].offset, first) for p, (first, end) in bounds.items()})

    # -- 6: drop, end ------------------------------------------------------------------------------------------------

    def _drop(self, why: str) -> None:
        log_.info("the group moved on (%s): what was not committed is dropped and will be done again", why)
        self._observer.rebalanced()
        self._observer.ready(False, "rebalancing")
        self._forget()

    def _forget(self) -> None:
        self._engine.clear()
        self._progress.clear()
        self._incidents.clear()
        self._batch, self._open, self._published = Batch(), Transaction(), []

    def _finish(self) -> None:
        """Finish the batch and commit; if the group moves on meanwhile, the next owner does it."""
        try:
            if self._batch.count:
                self._process(self._batch.records)
                self._batch = Batch()
            if self._progress and (self._open.alerts or self._open.dead_letters or self._moved()):
                self._commit()
        except Rebalanced as moved:
            self._drop(str(moved))

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
    what = "resolved" if published.resolved else "opened"
    channels = ", ".join(
        f"{c.name} {c.share:.0%} (observed {'nothing' if c.observed is None else f'{c.observed:g}'}, "
        f"expected {'nothing' if c.expected is None else f'{c.expected:g}'})"
        for c in alert.data.channels
    )
    head = f"incident {alert.data.incident} {what}: {published.stream} at {alert.time}, score {alert.data.score:.3g}"
    return f"{head}: {channels}"


def _first(records: Records, count: int) -> Records:
    return Records(
        records.partition,
        records.offsets[:count],
        records.timestamps[:count],
        records.keys[:count],
        records.values[:count],
    )
