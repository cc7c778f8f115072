"""The service: the delivery protocol, step by step, over any log.

What it holds to: the visible alerts of a partition are a function of its readings [0, C) alone. Each transaction adds
the alerts of [c, c′) and moves C from c to c′ at once (KIP-98, KIP-447), and whoever owns the partition next starts
from state that is itself a function of [0, C).

1. A partition that is assigned is stopped until it is restored: its committed offset C and, in that commit's metadata,
   R and the topic's id; the checkpoints and open incidents of the state topic. Partitions that were kept over a change
   of the group (KIP-429) stand still meanwhile and go on where they were.
2. The records of [R, C) move the state again and publish nothing; a bucket takes only those from its own checkpoint on.
   The journal's entries take their places among them.
3. At C the incidents become those that were published, whatever the replay would say. Settings that are not those in
   force so far take effect at C, as an entry of the journal. From C on there is publishing.
4. A batch: poll, until it is full or its oldest record has waited long enough → decode → score. Its alerts, dead
   letters and incident records join the open transaction; C is the log's position, never "the last record + 1". Streams
   that have to give way to new ones are forgotten behind it, as an entry of the journal. What nobody can read is passed
   over by the log and is a dead letter like others.
5. Commit at once where there is an alert to publish, else about once a second, or when the dead letters have become
   many. The checkpoints whose turn it is ride along, each true for the C of this transaction.
6. About once a second, a look at the operators' commands. The batch in hand is finished first, so that the position is
   the state's own; then each takes effect in the partitions that know its stream, and what comes of it, the journal's
   entry and the place on the commands topic are committed at once, together.
7. When another model is to serve, its engine is made and warmed aside. The batch in hand is finished; then, partition
   by partition, the streams are handed over to it, and the journal says from which offset on: committed at once.
8. When the group moves on, or an outcome is unknown: what is not kept is dropped, state, uncommitted work and all, and
   every partition that is owned and not in hand goes through step 1. Of an unknown outcome nothing is kept. Fenced, or
   past the watchdog: the process ends with 75.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from detector.adapters.port import (
    Commands,
    Committed,
    Damaged,
    Log,
    Records,
    Step,
    Transaction,
    Watch,
    unwatched,
)
from detector.ceiling import Ceiling
from detector.checkpoints import Checkpoint, Progress, incident_record
from detector.decoding.decoded import Decoded, Decoder
from detector.engine.alerts import Published
from detector.engine.engine import Engine, Scored
from detector.engine.streams import bucket_of
from detector.journal import Evicted
from detector.observer import Observer
from detector.restoration import Restoration, is_other_topic
from detector.rules import Rules
from detector.score_records import score_records
from detector.succession import Succession
from schemas.command import Command
from schemas.dead_letter import DeadLetter
from schemas.errors import Rebalanced
from schemas.printable import printable
from schemas.settings import DetectorSettings

log_ = logging.getLogger(__name__)

#: Seconds that a poll waits when nothing is due sooner; bounds how late a signal or a commit is seen.
IDLE_POLL_S = 0.2

#: The same where the end is looked for: a poll that brings nothing is how one knows that it is near.
CATCHING_UP_POLL_S = 0.03

#: Scores, dead letters, and bytes of these with which a commit does not wait: they are memory, and a transaction has
#: 10 s.
SCORES = 20_000
LETTERS = 5_000
LETTER_BYTES = 8 * 1024 * 1024

#: Seconds between looks at how far behind the partitions are.
LAG_S = 5.0

#: Seconds of checkpoints' budget that may be saved up while nothing is written.
MOST_SAVED_UP_S = 10.0

#: Seconds between looks at the commands topic, where none is known to wait.
COMMANDS_S = 1.0


@dataclass(slots=True)
class Batch:
    """Records on their way: at most ``batch_size`` of them, the oldest waiting no longer than ``batch_latency``.

    Nothing more is polled once they have ``batch_bytes``: one poll beyond that is what the client had ready.
    """

    records: list[Records] = field(default_factory=list)
    count: int = 0
    bytes: int = 0
    began: float = 0.0

    def add(self, records: list[Records], now: float) -> None:
        """Take in what a poll returned."""
        if records and not self.count:
            self.began = now
        self.records += records
        self._count(records)

    def _count(self, records: list[Records]) -> None:
        self.count += sum(len(r.values) for r in records)
        self.bytes += sum(len(value) for r in records for value in r.values if value is not None)

    def drop(self, partitions: Collection[int]) -> None:
        """Take out what came from these."""
        self.records = [records for records in self.records if records.partition not in partitions]
        self.count = self.bytes = 0
        self._count(self.records)


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
        succession: Succession | None = None,
    ) -> None:
        self._log, self._engine, self._decoder, self._settings = log, engine, decoder, settings
        self._observer = observer or Observer()
        self._stop = stop or threading.Event()
        self._on_published = on_published
        self._watch = watch
        self._group = engine.model.manifest.group
        self._ceiling = Ceiling(engine, settings.max_streams)
        self._succession = succession or Succession()
        self._rules = Rules(engine, decoder, log.place_of, self._succession.find)
        self._restoration = Restoration(log, self._rules, settings, self._observer, watch, self._stop)
        self._successor: Engine | None = None
        self._progress: dict[int, Progress] = {}
        self._halted: dict[int, int] = {}  # partitions in hand that stand still, and where
        self._batch = Batch()
        self._record_bytes = 0  # on average, of the last ones polled
        self._open = Transaction()
        self._published: list[Published] = []
        self._committed_at = self._looked_at = self._lag_at = time.monotonic()
        self._budget = 0.0  # bytes of checkpoints that may be written; below 0: what was written ahead
        self._repeated = 0  # streams met in several partitions, as of the last look
        self._commands = (0, 0)  # bounds of the commands topic at the last restore
        self._look_at = 0.0  # when to look for commands again

    def run(self) -> None:
        """Until ``stop`` is set or, with ``stop_at_end``, the group has committed what was there at the start.

        Raises the errors of ``Log``, except Rebalanced.
        """
        self._observer.serves(self._engine.model)
        try:
            goal = self._goal() if self._settings.stop_at_end else {}
            while not self._stop.is_set():
                self._observer.beat()
                try:
                    idle = self._step()
                    if self._settings.stop_at_end and self._reached(goal, idle):
                        break
                except Rebalanced as moved:
                    self._drop(moved)
            self._finish()
        finally:
            self._observer.ready(False, "stopping")
            self._succession.close()
            self._log.close()

    def _step(self) -> bool:
        """One turn of the loop; True when nothing arrived and no batch waits."""
        assigned = self._log.take_assignment()
        if assigned is not None:
            self._take_over(assigned)
            if self._stop.is_set():
                return False
        self._succeed(self._succession.next(self._engine))
        self._obey()
        arrived = self._poll()
        if self._batch.count and (arrived == 0 or self._batch_closes()):
            self._process_batch()
        if self._batch.count == 0 and self._commit_is_due(idle=arrived == 0):
            self._commit()
        self._report_lag()
        self._name_repeated()
        return arrived == 0 and not self._batch.count

    # -- 1 to 3: restore ---------------------------------------------------------------------------------------------

    def _take_over(self, owned: frozenset[int]) -> None:
        """Restore what is owned and not in hand; what was kept goes on afterwards where it was."""
        began = time.monotonic()
        gained = owned - self._progress.keys()
        self._observer.assigned(owned)
        self._watch(Step.ASSIGNED)
        if gained:
            self._observer.ready(False, "restoring")
            self._hold_on()
            self._succeed(self._succession.refresh(self._engine))  # so that no other replica's switch is undone
            self._commands = self._log.commands_bounds()
            restored = self._restoration.run(gained, self._commands)
            if restored is None:  # half restored: nothing of it may be committed
                self._forget(gained)
                return
            for partition, part in restored.items():
                self._progress[partition] = part.progress
                self._open.state += part.writes
                self._publish(part.published)
                self._halted[partition] = part.start
        self._go_on()
        self._check_topic()
        self._look_at = 0.0  # what operators said meanwhile comes first
        self._observer.ready(True, "watching")
        log_.info("owns partitions %s, restored %s in %.1f s", sorted(owned), sorted(gained), time.monotonic() - began)

    def _hold_on(self) -> None:
        """Stop what is in hand while others are replayed: a replay polls, and only what it asked for may come."""
        self._take_damaged()
        if self._progress and self._batch.count:
            self._process_batch()
        if self._published or self._open.dead_letters:
            self._commit()  # nobody should wait for a restore
        for partition, position in self._log.positions().items():
            if partition in self._progress:  # else half restored before the group moved on again
                self._halted[partition] = position
            self._log.halt(partition)

    def _go_on(self) -> None:
        for partition, position in sorted(self._halted.items()):
            self._log.start(partition, position)
        self._halted.clear()

    # -- 4: batches --------------------------------------------------------------------------------------------------

    def _poll(self) -> int:
        now = time.monotonic()
        room = self._settings.batch_size - self._batch.count
        if room <= 0 or self._batch.bytes >= self._settings.batch_bytes:
            return self._batch.count
        if self._record_bytes:  # so many of the size of the last ones fit
            room = min(room, max((self._settings.batch_bytes - self._batch.bytes) // self._record_bytes, 1))
        wait = CATCHING_UP_POLL_S if self._settings.stop_at_end else IDLE_POLL_S
        if self._batch.count:
            wait = max(self._batch.began + self._settings.batch_latency / 1000 - now, 0.0)
        records = self._log.poll(min(wait, IDLE_POLL_S), room)
        self._take_damaged()
        self._observer.stage("poll", time.monotonic() - now)
        before = self._batch.count, self._batch.bytes
        self._batch.add(records, time.monotonic())
        if records:
            self._record_bytes = (self._batch.bytes - before[1]) // (self._batch.count - before[0])
            self._watch(Step.POLLED)
        return sum(len(r.values) for r in records)

    def _take_damaged(self) -> None:
        """Before a position behind it is committed, and before its partition stands still."""
        for damaged in self._log.take_damaged():
            self._set_aside(damaged)

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
        full = self._batch.count >= self._settings.batch_size or self._batch.bytes >= self._settings.batch_bytes
        return full or time.monotonic() >= self._batch.began + self._settings.batch_latency / 1000

    def _process_batch(self) -> None:
        began = time.monotonic()
        decoded = [self._decoder.decode(r) for r in self._batch.records]
        ready = time.monotonic()
        self._observer.decoded(self._batch.count, decoded)
        for portion in self._ceiling.portions(decoded):
            scored = self._engine.process([d.readings for d in portion])
            self._note_changes(portion, scored, time.monotonic())
            self._publish(scored.published)
            if self._settings.scores_topic is not None:
                channels = self._engine.model.manifest.channel_names
                self._open.scores += score_records(scored, self._engine.streams, channels)
            self._observer.scored(scored, self._engine)
            self._make_room(portion)
        for d in decoded:
            self._open.dead_letters += d.dead_letters
        self._observer.stage("decode", ready - began)
        self._observer.stage("score", time.monotonic() - ready)
        self._batch = Batch()
        self._watch(Step.SCORED)

    def _make_room(self, portion: list[Decoded]) -> None:
        """Where a partition holds more streams now than it may, those unheard for longest are forgotten.

        Rarely and many at a time: it costs a look at all of them and an entry in the journal.
        """
        ends = {d.readings.partition: int(d.offsets[-1]) + 1 for d in portion if len(d.offsets)}
        for partition, offset in ends.items():
            passed = self._ceiling.passed(partition)
            if passed is not None:
                self._evict(partition, offset, Evicted(time=passed[0], stream=passed[1]))

    def _evict(self, partition: int, offset: int, what: Evicted) -> None:
        """They are forgotten before the record with ``offset``."""
        progress = self._progress[partition]
        self._open.state.append(progress.journal.add(self._group, partition, offset, what))
        self._open.state.append(progress.journal.cursor(self._group, partition))
        streams = self._engine.unheard(partition, what.time, what.stream)
        waiting = self._engine.waiting_of(partition, streams)
        self._publish(self._engine.evict(partition, streams))
        buckets = np.unique([bucket_of(stream, self._engine.streams.buckets) for stream in streams])
        progress.touch(buckets, np.full(len(buckets), offset), time.monotonic())
        log_.warning(
            "partition %d: more than %d streams; %d that were unheard for longest are forgotten, from %r on",
            partition, self._settings.max_streams, len(streams), streams[0][:80],
        )  # fmt: skip
        self._observer.evicted(len(streams), waiting)

    def _publish(self, published: list[Published]) -> None:
        """Alerts and their incident records join the open transaction."""
        for event in published:
            self._open.state.append(incident_record(self._group, event.partition, event.stream, event.record))
        self._published += published

    def _note_changes(self, decoded: list[Decoded], scored: Scored, now: float) -> None:
        buckets = self._engine.streams.bucket(scored.arrived)  # of all readings, in the order of `decoded`
        at = 0
        for d in decoded:
            count = len(d.readings)
            self._progress[d.readings.partition].touch(buckets[at : at + count], d.offsets, now)
            at += count

    # -- 5: commit ---------------------------------------------------------------------------------------------------

    def _commit_is_due(self, idle: bool) -> bool:
        if self._published or self._many_records():
            return True
        if idle and self._settings.stop_at_end:
            return self._moved() or bool(self._open)
        now = time.monotonic()
        if now - self._committed_at < self._settings.commit_interval:
            return False
        # checkpoints also while nothing arrives: else retention would one day delete what R still needs
        saves = any(progress.due(now - self._settings.checkpoint_age) for progress in self._progress.values())
        return saves or self._moved() or bool(self._open)

    def _many_records(self) -> bool:
        """Dead letters and scores wait for the next commit, as long as they are few: nobody is woken by them."""
        letters = self._open.dead_letters
        return (
            len(self._open.scores) >= SCORES
            or len(letters) >= LETTERS
            or sum(len(letter.value or b"") for letter in letters) >= LETTER_BYTES
        )

    def _moved(self) -> bool:
        """Some position is not the committed one."""
        return any(self._progress[p].offset != at for p, at in self._positions().items() if p in self._progress)

    def _positions(self) -> dict[int, int]:
        """Next offset of every partition in hand."""
        return {**self._halted, **self._log.positions()}

    def _commit(self) -> None:
        began = time.monotonic()
        transaction, self._open = self._open, Transaction()
        published, self._published = self._published, []
        transaction.alerts = [(event.stream.encode(), event.alert.to_bytes()) for event in published]
        positions = {p: at for p, at in self._positions().items() if p in self._progress}
        self._add_checkpoints(transaction, positions, began)
        written = {record.partition for record in transaction.state}
        for partition, offset in positions.items():
            progress = self._progress[partition]
            if offset != progress.offset or partition in written:
                replay_from = progress.replay_from(offset)
                transaction.offsets[partition] = Committed(offset, replay_from, progress.topic[0] or None)
                transaction.state += progress.journal.forget(self._group, partition, replay_from)
        self._log.commit(transaction, self._watch)
        for partition, committed in transaction.offsets.items():
            self._progress[partition].offset = committed.offset
        self._committed_at = time.monotonic()
        self._observer.committed(
            transaction, [event.alert.type.value for event in published], self._committed_at - began
        )
        for event in published:
            log_.info("%s", summary(event))
            if self._on_published:
                self._on_published(event)

    def _add_checkpoints(self, transaction: Transaction, positions: dict[int, int], now: float) -> None:
        """The checkpoints whose turn it is: oldest change first, as many as the budget since the last commit allows."""
        rate = self._settings.checkpoint_bytes
        self._budget = min(self._budget + rate * (now - self._committed_at), rate * MOST_SAVED_UP_S)
        before = now - self._settings.checkpoint_age
        due = [(since, p, bucket) for p in positions for since, bucket in self._progress[p].due(before)]
        for _, partition, bucket in sorted(due):  # over all partitions: a busy one must not starve the others
            if self._budget <= 0:
                break
            progress, offset = self._progress[partition], positions[partition]
            data = self._engine.dump(partition, bucket)
            checkpoint = Checkpoint(bucket, offset, data, progress.journal.count)
            records = list(checkpoint.records(self._group, partition, progress.chunks.get(bucket, 0)))
            transaction.state += records
            progress.mark_saved(bucket, offset, sum(r.value is not None for r in records))
            self._budget -= len(checkpoint.data)

    def _report_lag(self) -> None:
        """Every few seconds, since it asks the broker."""
        now = time.monotonic()
        if now - self._lag_at >= LAG_S:
            self._lag_at = now
            self._check_topic()
            bounds = {p: found for p, found in self._log.ends().items() if p in self._progress}
            self._observer.lag({p: end - max(self._progress[p].offset, first) for p, (first, end) in bounds.items()})

    def _name_repeated(self) -> None:
        """A stream met in two partitions is watched as two: whoever sends it should know."""
        repeated = self._engine.streams.repeated
        if len(repeated) > self._repeated:
            names = sorted(repeated)
            log_.warning(
                "%d streams are met in several partitions and watched in each by itself, %s: give all records of a "
                "stream one key", len(names), ", ".join(repr(name) for name in names[:3]),
            )  # fmt: skip
        self._repeated = len(repeated)

    def _check_topic(self) -> None:
        """A topic that was made anew, or has more partitions, concerns everything in hand.

        Raises Rebalanced then, and TopicError where it is gone.
        """
        now = self._log.describe()  # (by those who own nothing as well: the topic may be gone)
        was = next((p.topic for p in self._progress.values() if is_other_topic(p.topic, now)), None)
        if was is None:
            return
        what = f"has {now[1]} partitions, and had {was[1]}" if now[0] == was[0] else "was made anew"
        log_.warning("the readings topic %s %s", self._log.topic, what)
        self._log.again()
        raise Rebalanced(f"the readings topic {what}")

    # -- 6: commands -------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """Look for commands, where it is time to, and let each take effect that concerns a partition of ours."""
        if not self._progress or time.monotonic() < self._look_at:
            return
        self._take_damaged()
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
        positions, applied = self._positions(), False
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

    # -- 7: another model ----------------------------------------------------------------------------------------------

    def _succeed(self, engine: Engine | None) -> None:
        """Another model serves from here on; what the one before has brought of the streams in hand is handed over."""
        self._successor = engine or self._successor  # it waits where the group moves on just now
        if self._successor is None:
            return
        began = time.monotonic()
        self._take_damaged()
        if self._batch.count:
            self._process_batch()
        positions, before = self._positions(), self._engine.model
        engine, self._successor = self._successor, None
        self._rules.serve(engine)
        self._engine, self._ceiling = engine, Ceiling(engine, self._settings.max_streams)
        for partition, progress in self._progress.items():
            was, offset = progress.journal.in_force, positions[partition]
            now = self._rules.now(progress.topic[1], was is not None and was.keyed)
            self._open.state.append(progress.journal.add(self._group, partition, offset, now))
            self._open.state.append(progress.journal.cursor(self._group, partition))
            changed = self._rules.put_in_force(partition, now)
            progress.touch(changed, np.full(len(changed), offset), time.monotonic())
        self._rules.rest()
        self._watch(Step.SUCCEEDED)
        if self._progress:
            self._commit()
        took = time.monotonic() - began
        self._observer.serves(engine.model)
        self._observer.stage("succeed", took)
        log_.info("the model %s… serves now, not %s… (%.2f s)", engine.model.id[:12], before.id[:12], took)

    # -- 8: drop, end ------------------------------------------------------------------------------------------------

    def _drop(self, moved: Rebalanced) -> None:
        """Forget what is not kept, uncommitted work and all; it will be restored by whoever owns it."""
        lost = self._progress.keys() - moved.kept
        log_.info(
            "the group moved on (%s): %s",
            moved,
            "nothing is lost"
            if not lost
            else f"what was not committed of partitions {sorted(lost)} is dropped and will be done again",
        )
        self._observer.rebalanced()
        self._observer.ready(False, "rebalancing")
        # (what was only half restored is known to the engine and not in hand)
        self._forget({*lost, *(self._engine.streams.known - (self._progress.keys() & moved.kept))})
        self._watch(Step.DROPPED)

    def _forget(self, partitions: Collection[int]) -> None:
        """Drop partitions: their state, and what of them was on its way."""
        for partition in partitions:
            self._engine.forget(partition)
            self._progress.pop(partition, None)
            self._halted.pop(partition, None)
        self._batch.drop(partitions)
        self._published = [event for event in self._published if event.partition not in partitions]
        self._open.state = [record for record in self._open.state if record.partition not in partitions]
        self._open.dead_letters = [d for d in self._open.dead_letters if d.partition not in partitions]
        self._open.scores = [record for record in self._open.scores if record.partition not in partitions]

    def _finish(self) -> None:
        """Finish the batch and commit; if the group moves on meanwhile, the next owner does it."""
        self._watch(Step.FINISHING)
        try:
            self._take_damaged()
            if self._batch.count:
                self._process_batch()
            if self._progress and (self._open or self._moved()):
                self._commit()
        except Rebalanced as moved:
            self._drop(moved)
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
