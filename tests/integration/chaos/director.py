"""Plays a schedule: starts the processes, sends the traffic, strikes where a process asks for it, judges the end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from broker import Broker
from integration.chaos import replica
from integration.chaos.ground import Ground
from integration.chaos.ledger import EQUAL
from integration.chaos.oracle import Cut, LostEntryError, differences, disobeyed, journal_of, wanted
from integration.chaos.schedule import OF_BROKER, OF_NET, Life, Move, Schedule, Strike, What
from integration.chaos.topics import Desk, Names, StateReader
from integration.chaos.traffic import Sent, commands, records
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka_cluster import unique
from toxiproxy import Proxy

from detector.adapters.port import Step
from detector.adapters.store import Store
from schemas.command import Command

#: Seconds in which a group has to come to the end after the last trouble: it takes 1 to 5.
END_S = 60.0

#: Seconds in which a process has to end after SIGTERM, and connect after its start.
STOP_S, START_S = 40.0, 60.0

#: Processes of a schedule, at most: one that dies over and over has a reason of its own.
MOST_STARTS = 20

#: Portions of traffic held back for strikes that have not come to pass when the others are sent, at most.
MORE_PORTIONS = 12

#: Seconds in which a broker writes the end of a transaction that was committed. Where it is killed meanwhile and is the
#: only one, Kafka 4.3.1 may forget that end at its next start: the group's offsets are then not to be had any more.
MARKERS_S = 0.1

#: Seconds after the last trouble in which one that was thought dead may still do harm.
SETTLE_S = 1.0


@dataclass
class Actor:
    """A process of the group."""

    replica: int
    name: str | None
    process: Any
    pipe: Connection
    log: Path
    steps: set[str] = field(default_factory=set)
    frozen: bool = False
    stopped: bool = False
    """It was told to stop."""
    leaving: bool = False
    """Nobody takes its place."""


@dataclass
class Outcome:
    """What came of a schedule."""

    result: str
    """``EQUAL``; "differs: …"; else what went wrong."""
    seconds: float
    alerts: int = 0
    struck: list[Strike] = field(default_factory=list)
    folder: Path | None = None
    """Where its logs are, where it is not equal."""
    details: list[str] = field(default_factory=list)


class HarnessError(Exception):
    """The schedule could not be played as it was meant."""


class Director:
    """Plays one schedule on a ground; ``folder`` takes the logs."""

    def __init__(
        self, schedule: Schedule, ground: Ground, folder: Path, without: str | None = None, loud: bool = False
    ) -> None:
        self.schedule, self._folder, self._without, self._loud = schedule, folder, without, loud
        self._victim: Broker | None = ground.victim if schedule.breaks_broker else None
        self._bootstrap = self._victim.bootstrap if self._victim else ground.bootstrap
        self._proxies: list[Proxy] = ground.proxies(schedule.breaks_broker) if schedule.proxied else []
        self._model = ground.store(schedule.seasonal, folder) if schedule.stored else ground.model(schedule.seasonal)
        self._names = Names(unique(f"chaos-{schedule.seed}"))
        self._desk = Desk(self._bootstrap, self._names)
        self._actors: list[Actor] = []
        self._lives = [list(lives) for lives in schedule.lives]
        self._settings: dict[int, dict[str, Any]] = {}  # by replica, those of its lives so far
        self._timers: list[tuple[float, Callable[[], None]]] = []  # what ends a trouble
        self._restarts: list[tuple[float, Callable[[], None]]] = []
        self._began = time.monotonic()
        self._repair: threading.Thread | None = None
        self._over = False
        self._starts = 0
        self._struck: list[Strike] = []
        self._problems: list[str] = []
        self._first: dict[str, tuple[int, Any]] = {}  # by stream, partition and future of its first reading
        self._told: dict[str, int] = {}
        self._cuts: dict[int, Cut] = {}
        self._log = (folder / "director.log").open("w")

    # -- the course of it --------------------------------------------------------------------------------------------

    def play(self) -> Outcome:
        """All of it. What goes wrong is in the outcome."""
        outcome = Outcome("", 0.0, struck=self._struck)
        try:
            self._play(outcome)
        except HarnessError as error:
            self._problems.append(str(error))
        except AssertionError as error:  # what lies on the topics can be nobody's doing but the detectors'
            self._problems.append(f"differs: {error}")
        finally:
            self._clear_away()
        outcome.seconds = time.monotonic() - self._began
        if self._problems:
            outcome.result = self._problems[0]
            outcome.details = self._problems
        if outcome.result != EQUAL:
            outcome.folder = self._folder
        self._log.close()
        return outcome

    def _play(self, outcome: Outcome) -> None:
        schedule, partitions = self.schedule, self.schedule.shape.partitions
        self._desk.make(partitions, schedule.compacted)
        reader = StateReader(self._bootstrap, self._names.topics.state, partitions)
        reader.start()
        producer = KafkaProducer(bootstrap_servers=self._bootstrap, acks="all", reconnect_backoff_max_ms=500)
        try:
            for topic in (self._names.topics.readings, self._names.topics.commands):
                producer.partitions_for(topic)  # while the broker is there
            self._start(0)
            self._send_all(producer)
            self._until_the_end(reader)
            if any(strike.what not in (What.KILL, What.STOP, What.FULL) for strike in self._struck):
                self._run(SETTLE_S)
                self._until_the_end(reader)
            self._stop_all()
        finally:
            with contextlib.suppress(KafkaError):  # what it could not send is not on the topic, and that is all
                producer.close(timeout=5)
        self._judge(reader, outcome)
        if outcome.result == EQUAL and not self._problems:
            self._desk.delete()

    def _send_all(self, producer: KafkaProducer) -> None:
        schedule = self.schedule
        portions = schedule.portions
        sent = records(schedule.seed, schedule.shape)
        said = commands(schedule.seed, schedule.said, schedule.shape.streams)
        for portion in range(portions + MORE_PORTIONS):
            if portion >= portions and not self._missing:
                break
            if portion:
                self._until(self._somebody_works, START_S, lambda: "nobody works")
            for move in schedule.moves:
                if move.portion == portion:
                    self._move(move)
            self._send(producer, _part(sent, portion, portions + MORE_PORTIONS))
            self._flush(producer)
            if portion < portions:
                for value in _part(said, portion, portions):
                    self._say(producer, value)
            self._run(schedule.pause_s)

    @property
    def _missing(self) -> list[Strike]:
        """Strikes that have not come to pass."""
        left = list(self.schedule.strikes)
        for strike in self._struck:
            left.remove(strike)
        return left

    def _send(self, producer: KafkaProducer, part: Sequence[Sent]) -> None:
        topic = self._names.topics.readings
        for sent in part:
            future = producer.send(
                topic, value=sent.value, key=sent.key, partition=sent.partition, timestamp_ms=sent.timestamp_ms
            )
            if sent.stream is not None:
                self._first.setdefault(sent.stream, (sent.partition, future))
        self._note(f"sent {len(part)} records")

    def _flush(self, producer: KafkaProducer) -> None:
        """What was sent is with the broker, unless it is away."""
        with contextlib.suppress(Exception):
            producer.flush(timeout=0.2)

    def _say(self, producer: KafkaProducer, value: bytes) -> None:
        """A command; where its stream is known to the group by now, it has to be obeyed (unless it had to give way)."""
        with contextlib.suppress(ValueError):
            command = Command.from_bytes(value)
            partition, future = self._first.get(command.stream, (0, None))
            stays = self._victim is None and "max_streams" not in self.schedule.settings
            if stays and future is not None and future.is_done and future.succeeded():
                committed = self._desk.committed(self.schedule.shape.partitions)
                if committed.get(partition, 0) > future.value.offset:
                    self._told[command.id] = partition
        producer.send(self._names.topics.commands, value=value, partition=0)
        self._note(f"said {value.decode()}")

    def _until_the_end(self, reader: StateReader) -> None:
        self._until(lambda: self._left(reader) is None, END_S, lambda: f"the end was not reached: {self._left(reader)}")

    def _left(self, reader: StateReader) -> str | None:
        """What is not done yet; None where no trouble is left, all is committed and all that was said is considered."""
        if self._in_trouble or self._restarts or not self._somebody_works():
            return "nobody works"
        partitions = range(self.schedule.shape.partitions)
        ends = self._desk.ends(self._names.topics.readings, partitions)
        committed = self._desk.committed(len(partitions))
        if any(committed.get(p, 0) < end for p, end in ends.items()):
            return f"{committed} is committed of {ends}"
        said = self._desk.ends(self._names.topics.commands, [0])[0]
        considered = reader.considered()
        if any(considered.get(p, 0) < said for p, end in ends.items() if end):
            return f"{considered} commands are considered of {said}"
        return None

    # -- processes ---------------------------------------------------------------------------------------------------

    def _start(self, number: int, name: str | None = None) -> None:
        """The next life of a replica; ``name`` where it is another's."""
        self._starts += 1
        if self._starts > MOST_STARTS:
            raise HarnessError(f"{self._starts} processes were started: they die over and over")
        while len(self._lives) <= number:
            self._lives.append([])
        life = self._lives[number].pop(0) if self._lives[number] else Life()
        settings = self._settings.setdefault(number, dict(self.schedule.settings))
        settings |= life.settings
        if name is None and self.schedule.named:
            name = f"r{number}"
        bootstrap = self._proxies[number % len(self._proxies)].bootstrap if self._proxies else self._bootstrap
        flags = {
            **settings,
            **self._names.settings,
            "model": str(self._model),
            "model_poll": 0.2,
            "bootstrap_servers": bootstrap,
            "replica_id": name,
            "startup_timeout": replica.PATIENCE_S,
        }
        log = self._folder / f"replica-{number}.log"
        order = replica.Order(
            flags, life.strikes, self.schedule.session_s, self.schedule.transaction_s, self.schedule.hasty, str(log),
            self._without, self._loud,
        )  # fmt: skip
        process, pipe = replica.start(order)
        self._actors.append(Actor(number, name, process, pipe, log))
        self._note(f"started {number} as process {process.pid}")

    def _somebody_works(self) -> bool:
        return any(Step.RESTORED.value in actor.steps and not actor.frozen for actor in self._actors)

    def _of(self, number: int) -> list[Actor]:
        return [actor for actor in self._actors if actor.replica == number]

    def _move(self, move: Move) -> None:
        self._note(str(move))
        match move.what:
            case "start":
                self._start(move.replica)
            case "expel":
                self._desk.expel()
            case "promote":
                store = Store(str(self._model))
                store.promote("default", store.versions("default")[move.replica], "director")
            case "reset" | "lose":
                self._cut(move.what)
            case "kill":
                for actor in self._of(move.replica):
                    actor.leaving = self._others_stay(move.replica)
                    actor.process.kill()
            case "stop" | "restart":
                for actor in self._of(move.replica):
                    actor.leaving = move.what == "stop" and self._others_stay(move.replica)
                    self._stop(actor)

    def _cut(self, what: str) -> None:
        """Everybody stops, their past is cut off, and everybody starts again."""
        replicas = sorted({actor.replica for actor in self._actors})
        for actor in self._actors:
            actor.leaving = True
            self._stop(actor)
        self._until(lambda: not self._actors, STOP_S, lambda: "they do not stop")
        partitions = self.schedule.shape.partitions
        if what == "lose":
            self._cuts = {p: Cut(at, known=False) for p, at in self._desk.committed(partitions).items()}
            self._desk.lose_state()
        else:
            rng = np.random.default_rng([self.schedule.seed, 7])
            before = self._desk.reset(lambda at: int(rng.integers(at // 2, at + 1)), partitions)
            self._cuts = {p: Cut(at, known=True) for p, at in before.items()}
        for number in replicas:
            self._start(number)

    def _others_stay(self, number: int) -> bool:
        return any(actor.replica != number and not actor.leaving for actor in self._actors)

    def _stop(self, actor: Actor) -> None:
        actor.stopped = True
        actor.process.terminate()

    def _ended(self, actor: Actor) -> None:
        self._actors.remove(actor)
        actor.pipe.close()
        code = actor.process.exitcode
        self._note(f"{actor.replica} (process {actor.process.pid}) ended with {code}")
        troubled = any(strike.what not in (What.KILL, What.STOP, What.FULL) for strike in self._struck)
        allowed = {-signal.SIGKILL} | ({75} if troubled else set())
        if actor.stopped:  # before it has begun to listen, and after it has ended in its mind, SIGTERM ends it at once
            allowed |= {0} | ({-signal.SIGTERM} if troubled or Step.ASSIGNED.value not in actor.steps else set())
        if code not in allowed:
            said = actor.log.read_text(errors="replace").splitlines() if actor.log.exists() else []
            self._problems.append(f"replica {actor.replica} ended with {code}: {(said or ['not a word'])[-1]}")
        if not self._over and not actor.leaving:
            self._restarts.append((time.monotonic() + 0.05, lambda: self._start(actor.replica)))

    def _stop_all(self) -> None:
        self._over = True
        for actor in self._actors:
            self._stop(actor)
        deadline = time.monotonic() + STOP_S
        while self._actors and time.monotonic() < deadline:
            self._turn(deadline)
        self._ask_where()
        for actor in self._actors:
            self._problems.append(f"replica {actor.replica} did not end within {STOP_S:.0f} s after SIGTERM")

    def _ask_where(self) -> None:
        """Let each process write down where it stands."""
        for actor in self._actors:
            if actor.process.is_alive():
                os.kill(actor.process.pid, signal.SIGUSR1)
        self._run(0.5)

    def _clear_away(self) -> None:
        """Whatever happened: no process is left, the broker is well and so is the network."""
        self._over = True
        for actor in self._actors:
            actor.process.kill()
            actor.process.join()
            actor.pipe.close()
        for _, heal in self._timers:
            with contextlib.suppress(Exception):
                heal()
        if self._repair is not None:
            self._repair.join()
        with contextlib.suppress(Exception):
            self._desk.close()

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _run(self, seconds: float) -> None:
        """Let things happen for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._turn(deadline)

    def _until(self, happened: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
        """Let things happen until something is so; the time counts from the last trouble on."""
        deadline = time.monotonic() + seconds
        while not happened():
            if self._in_trouble:
                deadline = time.monotonic() + seconds
            if time.monotonic() > deadline:
                self._ask_where()
                if self._desk.is_an_end_lost(self.schedule.shape.partitions):
                    raise HarnessError("the broker has lost the end of a transaction, which no detector can help")
                raise HarnessError(f"{otherwise()}, within {seconds:.0f} s")
            self._turn(time.monotonic() + 0.1)

    def _turn(self, deadline: float) -> None:
        """Wait for something to happen, and see to it."""
        now = time.monotonic()
        for timers in (self._timers, self._restarts):
            for timer in [t for t in timers if t[0] <= now]:
                timers.remove(timer)
                timer[1]()
        due = min([deadline, *(at for at, _ in (*self._timers, *self._restarts))])
        waiting: dict[Any, Actor] = {actor.pipe: actor for actor in self._actors}
        waiting |= {actor.process.sentinel: actor for actor in self._actors}
        for ready in wait(list(waiting), max(due - time.monotonic(), 0)):
            actor = waiting[ready]
            if ready is actor.pipe:
                self._listen(actor)
            elif actor in self._actors and not actor.pipe.poll():
                self._ended(actor)

    def _listen(self, actor: Actor) -> None:
        try:
            what, said = actor.pipe.recv()
        except (EOFError, OSError):
            if actor in self._actors:
                actor.process.join(5)
                self._ended(actor)
            return
        if what == "step":
            actor.steps.add(said)
            self._note(f"{actor.replica}: {said}")
        else:
            self._strike(actor, said)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, what))

    # -- strikes -----------------------------------------------------------------------------------------------------

    def _strike(self, actor: Actor, strike: Strike) -> None:
        self._note(f"{actor.replica}: {strike}")
        self._struck.append(strike)
        if strike.what is What.STOP:
            actor.stopped = True
        elif strike.what is What.FREEZE:
            actor.frozen = True
            self._later(strike.seconds, lambda: self._thaw(actor))
            if strike.heir:
                self._replace(actor)
        elif strike.what in OF_BROKER:
            self._break_broker(strike)
            actor.pipe.send("go on")
        elif strike.what in OF_NET:
            self._break_net(self._proxies[actor.replica % len(self._proxies)], strike)
            actor.pipe.send("go on")

    def _thaw(self, actor: Actor) -> None:
        self._note(f"{actor.replica} wakes")
        actor.frozen = False
        if actor.process.is_alive():
            os.kill(actor.process.pid, signal.SIGCONT)

    def _replace(self, actor: Actor) -> None:
        """Somebody thinks that it is dead."""
        number = len(self._lives)
        if actor.name is not None:
            actor.leaving = True  # its name is taken: it has to end when it finds out
        self._start(number, actor.name)

    def _break_broker(self, strike: Strike) -> None:
        broker = self._victim
        assert broker is not None
        if broker.pid is None or (self._repair is not None and self._repair.is_alive()):  # it is down already
            return
        if strike.what is What.BROKER_KILL:
            if strike.step not in (Step.OFFSETS, Step.ACKNOWLEDGED):
                time.sleep(MARKERS_S)
            broker.kill()
            self._later(strike.seconds, self._mend_broker)
        else:
            broker.pause()
            self._later(strike.seconds, self._wake_broker)

    def _mend_broker(self) -> None:
        """On a thread of its own: it takes 4 s and more, and the others go on meanwhile."""
        self._note("the broker starts")
        assert self._victim is not None
        self._repair = threading.Thread(target=self._victim.start, name="repair")
        self._repair.start()

    def _wake_broker(self) -> None:
        self._note("the broker wakes")
        if self._victim is not None and self._victim.pid is not None:
            self._victim.resume()

    @property
    def _in_trouble(self) -> bool:
        """Something will pass, and has not yet."""
        repairing = self._repair is not None and self._repair.is_alive()
        return bool(self._timers) or repairing or any(actor.frozen for actor in self._actors)

    def _break_net(self, proxy: Proxy, strike: Strike) -> None:
        ways = ("broker", "client") if strike.towards == "both" else (strike.towards,)
        self._later(strike.seconds, lambda: (self._note("the network is well"), proxy.heal()))
        if strike.what is What.CUT:
            proxy.cut()
            return
        kind, attributes = {
            What.HOLE: ("timeout", {"timeout": 0}),
            What.SLOW: ("latency", {"latency": 400, "jitter": 200}),
            What.THIN: ("bandwidth", {"rate": 1}),
            What.RESET: ("reset_peer", {"timeout": 0}),
            What.SHORT: ("limit_data", {"bytes": 300}),
        }[strike.what]
        for towards in ways:
            with contextlib.suppress(RuntimeError):  # the same is there already
                proxy.poison(kind, towards, **attributes)

    # -- the judgement -----------------------------------------------------------------------------------------------

    def _judge(self, reader: StateReader, outcome: Outcome) -> None:
        topics, partitions = self._names.topics, range(self.schedule.shape.partitions)
        state = reader.finish(self._desk.ends(topics.state, partitions))
        log = self._desk.read(topics.readings)
        alerts, letters = self._desk.read(topics.alerts), self._desk.read(topics.dead_letters)
        outcome.alerts = len(alerts)
        try:
            journal = journal_of(state)
        except LostEntryError as error:
            if self.schedule.compacted:  # it may have gone before it was read
                raise HarnessError(str(error)) from error
            raise
        settings = {**self.schedule.settings, **self._names.settings, "model": str(self._model)}
        should = wanted(settings, log, journal, self._cuts)
        found = differences(should, alerts, letters) + disobeyed(self._told, journal)
        committed, ends = self._desk.committed(len(partitions)), self._desk.ends(topics.readings, partitions)
        found += [
            f"partition {p}: {committed.get(p)} is committed, and the end is {end}"
            for p, end in ends.items()
            if committed.get(p, 0) != end
        ]
        if self.schedule.compacted:
            left = self._desk.read(topics.state)
            self._note(f"of {len(state)} records of state {len(state) - len(left)} were compacted away")
            if len(left) == len(state):
                raise HarnessError("the state topic was not compacted")
        for strike in self._missing:
            self._note(f"did not come to pass: {strike}")
        if found:
            outcome.result, outcome.details = f"differs: {found[0][:500]}", found
            (self._folder / "differences.txt").write_text("\n".join(found) + "\n")
        elif self.schedule.strikes and not self._struck and not any(m.what != "start" for m in self.schedule.moves):
            outcome.result = "nothing befell: no strike of the schedule came to pass"
        else:
            outcome.result = EQUAL

    def _note(self, text: str) -> None:
        self._log.write(f"{time.monotonic() - self._began:7.3f} {text}\n")
        self._log.flush()


def _part(whole: Sequence[Any], number: int, of: int) -> Sequence[Any]:
    return whole[len(whole) * number // of : len(whole) * (number + 1) // of]
