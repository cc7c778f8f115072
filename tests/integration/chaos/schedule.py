"""Schedules: what befalls a group of detectors, made up from a seed and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from integration.chaos.traffic import Shape

from detector.adapters.port import Step

#: Everything that a month brings, within minutes.
MINUTES: dict[str, Any] = {
    "incident_k": 2, "incident_n": 4, "incident_quiet": 3, "unseen_readings": 20, "incident_worse": 1.5,
    "incident_update_after": 3, "incident_flap_after": 20, "incident_expire_after": 60, "shift_after": 24,
    "shift_trial": 24, "drift_after": 15, "drift_limit": 0.8, "silent_after": 15,
}  # fmt: skip

#: Seconds: after so much silence a member is thrown out, and an open transaction is ended.
SESSION_S, TRANSACTION_S = 2.0, 3.0

#: A sleep after which both have passed, and others have had time to go on.
LONG_S = SESSION_S + TRANSACTION_S + 1.0


class What(StrEnum):
    """What a strike does."""

    KILL = "kill"
    """kill -9 of the process that has reached the step."""
    STOP = "stop"
    """SIGTERM to it."""
    FREEZE = "freeze"
    """SIGSTOP, and SIGCONT later."""
    FULL = "disk-full"
    """From now on it can write to no file, its own log included."""
    BROKER_KILL = "broker-kill"
    """kill -9 of the broker, started again later."""
    BROKER_FREEZE = "broker-freeze"
    """SIGSTOP of the broker, and SIGCONT later."""
    CUT = "cut"
    """Its connections to the broker are closed, and new ones refused."""
    HOLE = "hole"
    """What is sent vanishes."""
    SLOW = "slow"
    """What is sent arrives late."""
    THIN = "thin"
    """Few bytes a second get through."""
    RESET = "reset"
    """Its connections are reset."""
    SHORT = "short"
    """Its connections are closed in the middle of what is sent."""


OF_BROKER = (What.BROKER_KILL, What.BROKER_FREEZE)
OF_NET = (What.CUT, What.HOLE, What.SLOW, What.THIN, What.RESET, What.SHORT)


@dataclass(frozen=True, slots=True)
class Strike:
    """What befalls when a process reaches a step for the ``occurrence``-th time."""

    what: What
    step: Step
    occurrence: int = 1
    after: Step | None = None
    """Count only from the first of this step on."""
    seconds: float = 0.0
    """How long it lasts, where it passes."""
    towards: str = "both"
    """"broker", "client" or "both": which direction of a connection."""
    heir: bool = False
    """While it is frozen another process takes its place, under the same name where it has one."""

    def __str__(self) -> str:
        text = f"{self.what} at {self.step}"
        text += f" no. {self.occurrence}" if self.occurrence > 1 else ""
        text += f" after {self.after}" if self.after else ""
        text += f" for {self.seconds:g} s" if self.seconds else ""
        text += f" towards the {self.towards}" if self.what in OF_NET and self.towards != "both" else ""
        return text + (" with an heir" if self.heir else "")


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a replica, from its start to its end."""

    strikes: tuple[Strike, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Over those of the schedule, from this life of the replica on."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is done to a replica from outside, before a portion of the traffic."""

    portion: int
    what: str
    """"start", "stop" (SIGTERM, for good), "kill" (kill -9, for good), "restart" (SIGTERM, and its next life), "expel"
    (an operator removes the members of the group), "promote" (another model, ``replica`` is its number); "reset"
    (everybody stops, the offsets are set back, everybody starts), "lose" (likewise, and what the state topic holds is
    deleted)."""
    replica: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.replica} before portion {self.portion}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A group of detectors, what it reads and what befalls it."""

    seed: int
    kind: str
    shape: Shape
    portions: int
    """So many portions of the traffic are sent (and further ones, while a strike has not come to pass) …"""
    pause_s: float
    """… with so much time between them."""
    said: int
    """Commands of operators, spread over the traffic."""
    settings: Mapping[str, Any]
    lives: tuple[tuple[Life, ...], ...]
    """By replica, in order; a further life is an untroubled one."""
    moves: tuple[Move, ...] = ()
    """Replica 0 is started at once; others by these."""
    named: bool = False
    """Replicas have lasting names."""
    seasonal: bool = False
    hasty: bool = False
    """Requests and sends are given up before the broker ends their transaction."""
    session_s: float = SESSION_S
    transaction_s: float = TRANSACTION_S
    compacted: bool = False
    """The broker compacts the state topic all the time."""
    stored: bool = False
    """The model lies in a store, from which others may be promoted."""

    @property
    def strikes(self) -> list[Strike]:
        """All of them."""
        return [strike for lives in self.lives for life in lives for strike in life.strikes]

    @property
    def breaks_broker(self) -> bool:
        """It needs a broker of its own."""
        return any(strike.what in OF_BROKER for strike in self.strikes)

    @property
    def proxied(self) -> bool:
        """Its replicas reach the broker through proxies."""
        return any(strike.what in OF_NET for strike in self.strikes)

    @property
    def faults(self) -> list[str]:
        """What befalls, in words."""
        found = [f"{number}: {s}" for number, lives in enumerate(self.lives) for life in lives for s in life.strikes]
        found += [str(move) for move in self.moves if move.what != "start" or move.replica]
        found += [
            f"{number}: {dict(life.settings)}" for number, ls in enumerate(self.lives) for life in ls if life.settings
        ]
        return found + (["compacted"] if self.compacted else [])


WORK = (Step.POLLED, Step.SCORED)
COMMIT = (Step.BEGUN, Step.SENT, Step.OFFSETS, Step.ACKNOWLEDGED, Step.COMMITTED)
RESTORE = (Step.ASSIGNED, Step.LOADED, Step.REPLAYED, Step.RESTORED)
#: Steps that a lone process reaches of itself.
OFTEN = (*WORK, *COMMIT)

Rng = np.random.Generator


def schedule(seed: int) -> Schedule:
    """The schedule of a seed, from 1 on. The kinds take turns, and within a kind the steps do."""
    rng = np.random.default_rng([seed, 0])
    if seed > PROMOTED:
        return _promoted(replace(_plain(seed, "promoted", rng), stored=True), seed - PROMOTED - 1, rng)
    if seed > LATER:
        turn, number = divmod(seed - LATER - 1, len(LATER_KINDS))
        kind = tuple(LATER_KINDS)[number]
        return LATER_KINDS[kind](_plain(seed, kind, rng), turn, rng)
    kind = TURNS[seed % len(TURNS)]
    turn = seed // len(TURNS) * TURNS.count(kind) + TURNS[: seed % len(TURNS)].count(kind)
    return KINDS[kind](_plain(seed, kind, rng), turn, rng)


def _plain(seed: int, kind: str, rng: Rng) -> Schedule:
    """One replica that nothing befalls."""
    shape = Shape(
        streams=int(rng.integers(3, 8)),
        steps=int(rng.integers(200, 400)),
        partitions=int(rng.integers(1, 5)),
        per_record=int(rng.choice([1, 1, 3])),
        late=float(rng.choice([0, 0.02, 0.1])),
        again=float(rng.choice([0, 0.02, 0.1])),
        garbage=float(rng.choice([0, 0.01, 0.05])),
    )
    settings = {
        **MINUTES,
        "batch_size": int(rng.choice([7, 30, 100, 500])),
        "batch_latency": float(rng.choice([5, 30, 100])),
        "commit_interval": float(rng.choice([0, 0.1, 0.5])),
        "checkpoint_age": float(rng.choice([0, 0.3, 1, 30])),
        "checkpoint_bytes": int(rng.choice([2_000, 20_000, 1_000_000])),
    }
    return Schedule(
        seed=seed,
        kind=kind,
        shape=shape,
        portions=int(rng.integers(6, 11)),
        pause_s=float(rng.choice([0.15, 0.3])),
        said=int(rng.integers(0, 5)),
        settings=settings,
        lives=((Life(),),),
        named=bool(rng.random() < 0.4),
        seasonal=bool(rng.random() < 0.3),
    )


def _with_others(base: Schedule, lives: Sequence[tuple[Life, ...]], moves: Sequence[Move]) -> Schedule:
    """Further replicas, and so many partitions that each has something to do."""
    count = len(base.lives) + len(lives)
    shape = replace(base.shape, partitions=max(base.shape.partitions, count), streams=max(base.shape.streams, 6))
    return replace(base, shape=shape, lives=(*base.lives, *lives), moves=(*base.moves, *moves))


def _life(*strikes: Strike, **settings: Any) -> Life:
    return Life(strikes, settings)


def _soon(rng: Rng, step: Step) -> int:
    """An occurrence that will come."""
    if step in COMMIT or step in WORK:
        return int(rng.integers(1, 6))
    return 1


def _reached(base: Schedule, step: Step) -> Schedule:
    """Such that the first replica reaches the step."""
    match step:
        case Step.OBEYED:
            return replace(base, said=6)
        case Step.DROPPED:
            return replace(base, moves=(*base.moves, Move(3, "expel"), Move(5, "expel")))
        case Step.REPLAYED:
            return replace(base, settings={**base.settings, "checkpoint_age": 30.0, "commit_interval": 0.1})
    return base


def _kill(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """kill -9 at one step after the other; often twice."""
    steps = (*OFTEN, Step.OBEYED, Step.ASSIGNED, Step.LOADED, Step.RESTORED, Step.DROPPED)
    step = steps[turn % len(steps)]
    lives = [_life(Strike(What.KILL, step, _soon(rng, step)))]
    if rng.random() < 0.5:
        other = OFTEN[int(rng.integers(len(OFTEN)))]
        lives.append(_life(Strike(What.KILL, other, _soon(rng, other))))
    return _reached(replace(base, lives=(tuple(lives),)), step)


def _kill_in_replay(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Killed at work, and then once or twice while the state is restored."""
    first = OFTEN[int(rng.integers(len(OFTEN)))]
    second = (Step.REPLAYED, *RESTORE)[turn % 5]
    lives = [_life(Strike(What.KILL, first, int(rng.integers(2, 7)))), _life(Strike(What.KILL, second))]
    if rng.random() < 0.4:
        lives.append(_life(Strike(What.KILL, RESTORE[int(rng.integers(len(RESTORE)))])))
    return _reached(replace(base, lives=(tuple(lives),)), Step.REPLAYED)


def _kill_in_stopping(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """SIGTERM with a batch in hand, and kill -9 on the way out."""
    step = (Step.FINISHING, *COMMIT, Step.LEAVING)[turn % 7]
    stop = Strike(What.STOP, WORK[int(rng.integers(2))] if step in COMMIT else Step.POLLED, int(rng.integers(1, 6)))
    kill = Strike(What.KILL, step, after=Step.FINISHING)
    return replace(base, lives=((_life(stop, kill),),), settings={**base.settings, "commit_interval": 0.5})


def _zombie(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Frozen for so long that another owns its partitions when it wakes."""
    steps = (Step.SCORED, *COMMIT[:-1], Step.POLLED, Step.OBEYED, Step.RESTORED, Step.LOADED)
    step = steps[turn % len(steps)]
    freeze = Strike(What.FREEZE, step, _soon(rng, step), seconds=LONG_S, heir=True)
    base = replace(base, lives=((_life(freeze),),), named=turn % 2 == 1)
    if rng.random() < 0.4:
        base = _with_others(base, [(Life(),)], [Move(1, "start", 1)])
    return _reached(base, step)


def _sleeper(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Frozen for long, or not so long, while nobody takes its place."""
    step = OFTEN[turn % len(OFTEN)]
    seconds = float(rng.choice([SESSION_S / 2, SESSION_S + 0.5, LONG_S]))
    return replace(base, lives=((_life(Strike(What.FREEZE, step, _soon(rng, step), seconds=seconds)),),))


def _group(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Two or three replicas that join, leave and die."""
    count = 2 + turn % 2
    moves = [Move(1 + int(rng.integers(0, 3)), "start", number) for number in range(1, count)]
    for _ in range(int(rng.integers(1, 4))):
        what = str(rng.choice(["stop", "kill", "restart", "expel"]))
        moves.append(Move(int(rng.integers(4, base.portions)), what, int(rng.integers(count))))
    lives = [(Life(),) for _ in range(count)]
    if turn % 3:
        step = OFTEN[int(rng.integers(len(OFTEN)))]
        lives[int(rng.integers(count))] = (_life(Strike(What.KILL, step, int(rng.integers(1, 3)))),)
    return _with_others(replace(base, lives=(lives[0],), pause_s=0.5), lives[1:], moves)


def _broker(what: What) -> Callable[[Schedule, int, Rng], Schedule]:
    def made(base: Schedule, turn: int, rng: Rng) -> Schedule:
        """The broker goes while the detector is at one step after the other."""
        steps = (*OFTEN, Step.OBEYED, Step.ASSIGNED, Step.LOADED, Step.RESTORED, Step.REPLAYED, Step.FINISHING)
        step = steps[turn % len(steps)]
        seconds = float(rng.choice([0.2, 2.0] if what is What.BROKER_KILL else [1.0, SESSION_S + 1, LONG_S]))
        strike = Strike(what, step, _soon(rng, step), seconds=seconds)
        lives = [_life(strike)]
        if step is Step.REPLAYED:
            lives.insert(0, _life(Strike(What.KILL, Step.COMMITTED, 4)))
        if step is Step.FINISHING:
            lives = [_life(Strike(What.STOP, Step.POLLED, 3), strike)]
        return _reached(replace(base, lives=(tuple(lives),)), step)

    return made


def _net(*kinds: What) -> Callable[[Schedule, int, Rng], Schedule]:
    def made(base: Schedule, turn: int, rng: Rng) -> Schedule:
        """The network between the detector and its broker goes, while another may be there to take over."""
        what = kinds[turn % len(kinds)]
        steps = (Step.SENT, Step.OFFSETS, Step.ACKNOWLEDGED, Step.BEGUN, Step.SCORED, Step.POLLED, Step.COMMITTED,
                 Step.LOADED, Step.ASSIGNED)  # fmt: skip
        step = steps[turn // len(kinds) % len(steps)]
        seconds = float(rng.choice([0.3, SESSION_S + 1, LONG_S]))
        towards = str(rng.choice(["broker", "client"])) if what is not What.CUT else "both"
        strike = Strike(what, step, _soon(rng, step), seconds=seconds, towards=towards)
        base = replace(base, lives=((_life(strike),),), hasty=bool(rng.random() < 0.5))
        if rng.random() < 0.5:
            base = _with_others(base, [(Life(),)], [Move(1, "start", 1)])
        return _reached(base, step)

    return made


def _given_up(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """A send is given up while its transaction lives on, and could be committed without it.

    Few bytes get through, so that what is long is given up on its way and what is short is not; or none do.
    """
    what = (What.THIN, What.THIN, What.CUT)[turn % 3]
    strike = Strike(what, Step.BEGUN, int(rng.integers(2, 5)), seconds=HASTY_DELIVERY_S + 3.0, towards="broker")
    if what is What.CUT:
        strike = Strike(what, (Step.BEGUN, Step.SENT)[turn // 3 % 2], strike.occurrence, seconds=HASTY_DELIVERY_S + 1.0)
    settings = {**base.settings, "checkpoint_age": 0.0, "checkpoint_bytes": 1_000_000, "batch_size": 100}
    shape = replace(base.shape, streams=7)
    base = replace(base, lives=((_life(strike),),), shape=shape, settings=settings)
    return replace(base, hasty=True, session_s=6.0, transaction_s=8.0)


def _disk_full(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """No space left from some step on, for this process and for the next, which starts with none."""
    step = (*OFTEN, Step.ASSIGNED, Step.RESTORED)[turn % 9]
    end = Strike(What.KILL if turn % 2 else What.STOP, Step.COMMITTED, int(rng.integers(6, 9)))
    first = _life(Strike(What.FULL, step, _soon(rng, step)), end)
    return replace(base, lives=((first, _life(Strike(What.FULL, Step.ASSIGNED))),))


def _compacted(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """The state topic is compacted over and over, under a detector that is killed or has its partitions taken."""
    settings = {**base.settings, "checkpoint_age": 0.0, "commit_interval": 0.0, "checkpoint_bytes": 1_000_000}
    steps = (*COMMIT, *RESTORE)
    step = steps[turn % len(steps)]
    lives = [_life(Strike(What.KILL, Step.COMMITTED, int(rng.integers(5, 15))))]
    lives.append(_life(Strike(What.KILL, step, 1 if step in RESTORE else _soon(rng, step))))
    base = replace(base, lives=(tuple(lives),), settings=settings, said=6, portions=12, pause_s=0.4, compacted=True)
    return _reached(base, Step.ASSIGNED)


def _settings(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Started again with other settings: how it works, and (where the journal says so) what it decides by."""
    first = {
        "batch_size": int(rng.choice([3, 50, 1000])),
        "batch_latency": float(rng.choice([0, 50])),
        "commit_interval": float(rng.choice([0, 1])),
        "checkpoint_age": float(rng.choice([0, 5])),
        "checkpoint_bytes": int(rng.choice([1_000, 1_000_000])),
    }
    second = {**first, "batch_size": int(rng.choice([20, 200])), "checkpoint_age": float(rng.choice([0, 0.5]))}
    if DECISIONS_MAY_CHANGE:
        first |= {"incident_k": 1, "incident_quiet": 5}
        second |= {"incident_k": 3, "incident_n": 5, "shift_after": 10}
    moves = (Move(3, "restart"), Move(5 + turn % 2, "restart"))
    life = _life(Strike(What.KILL, OFTEN[turn % len(OFTEN)], 2)) if turn % 3 == 1 else Life()
    return replace(base, lives=((life, _life(**first), _life(**second)),), moves=moves, pause_s=0.4)


def _mixed(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Two or three of these at once, of one replica or of several."""
    passing = [What.FREEZE, What.CUT, What.HOLE, What.SLOW, What.RESET, What.SHORT]
    if turn % 3 == 0:
        passing += [What.BROKER_KILL, What.BROKER_FREEZE]

    def strike(what: What) -> Strike:
        step = OFTEN[int(rng.integers(len(OFTEN)))]
        lasts = 0.0 if what in (What.KILL, What.STOP) else float(rng.choice([0.5, SESSION_S + 1, LONG_S]))
        towards = str(rng.choice(["broker", "client"])) if what in OF_NET and what is not What.CUT else "both"
        return Strike(what, step, int(rng.integers(1, 4)), seconds=lasts, towards=towards)

    def lives() -> tuple[Life, ...]:
        """Something that passes, then an end, then something that passes."""
        ends = strike(What.STOP if rng.random() < 0.3 else What.KILL)
        before, after = (strike(passing[int(rng.integers(len(passing)))]) for _ in range(2))
        return _life(before, replace(ends, occurrence=before.occurrence + 2)), _life(after)

    first = lives()
    if turn % 3 == 0:
        first = (*first[:-1], _life(strike(OF_BROKER[turn // 3 % 2])))
    base = replace(base, lives=(first,), compacted=turn % 2 == 1, hasty=bool(rng.random() < 0.3))
    others = [lives() for _ in range(turn % 3)]
    return _with_others(base, others, [Move(1 + number, "start", number + 1) for number in range(len(others))])


def _cold(what: str) -> Callable[[Schedule, int, Rng], Schedule]:
    def made(base: Schedule, turn: int, rng: Rng) -> Schedule:
        """Their past is cut off while nobody runs; before and after it they are killed as ever."""
        steps = (*OFTEN, Step.LOADED, Step.RESTORED)
        strikes = [_life(Strike(What.KILL, OFTEN[int(rng.integers(len(OFTEN)))], int(rng.integers(1, 4))))]
        second = steps[turn % len(steps)]
        strikes.append(_life(Strike(What.KILL, second, _soon(rng, second))))
        base = replace(base, lives=(tuple(strikes),), moves=(Move(int(rng.integers(3, 6)), what),), said=0, pause_s=0.4)
        if turn % 3 == 0:
            base = _with_others(base, [(Life(),)], [Move(1, "start", 1)])
        return base

    return made


def _crowded(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """More streams than may be followed: some have to give way all the time, under a detector that is killed."""
    settings = {**base.settings, "max_streams": int(rng.integers(1, 4))}
    return _kill(replace(base, settings=settings, shape=replace(base.shape, streams=8)), turn, rng)


def _out_of_order(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Readings wait for late ones, under a detector that is killed; in between the lateness changes."""
    settings = {**base.settings, "lateness": float(rng.choice([1, 3, 10]))}
    shape = replace(base.shape, late=0.2, again=0.1)
    base = _kill(replace(base, settings=settings, shape=shape), turn, rng)
    if turn % 2:
        other = _life(lateness=float(rng.choice([0, 2])))
        base = replace(base, lives=((*base.lives[0], other),), moves=(*base.moves, Move(5, "restart")))
    return base


def _promoted(base: Schedule, turn: int, rng: Rng) -> Schedule:
    """Other models are promoted and rolled back while a detector is killed, or several join and leave, or both."""
    steps = (Step.SUCCEEDED, *OFTEN, Step.REPLAYED, Step.LOADED, Step.RESTORED)
    step = steps[turn % len(steps)]
    strikes = [Strike(What.KILL, step, _soon(rng, step), after=Step.SUCCEEDED if step in OFTEN else None)]
    if step in RESTORE:  # reached in a second life
        first = OFTEN[int(rng.integers(len(OFTEN)))]
        strikes.insert(0, Strike(What.KILL, first, _soon(rng, first), after=Step.SUCCEEDED))
    base = _reached(replace(base, lives=(tuple(_life(strike) for strike in strikes),), pause_s=0.5), step)
    portions = sorted(rng.choice(np.arange(1, base.portions), 3, replace=False).tolist())
    moves = [Move(portion, "promote", int(rng.integers(MODELS))) for portion in portions]
    base = replace(base, moves=(*base.moves, Move(0, "promote", 1), *moves))
    if turn % 3 == 1:
        base = _with_others(base, [(Life(),)], [Move(2, "start", 1)])
    if turn % 5 == 4:
        base = replace(base, settings={**base.settings, "max_streams": int(rng.integers(2, 5))})
    return base


#: Models of a store.
MODELS = 3

#: Whether a change of what decides (policy, promise, model) is written down, so that one may be part of a schedule.
DECISIONS_MAY_CHANGE = True

#: Seconds after which a send is given up, where a schedule is hasty: less than an open transaction may last.
HASTY_DELIVERY_S = 2.4

KINDS: Mapping[str, Callable[[Schedule, int, Rng], Schedule]] = {
    "kill": _kill,
    "kill in replay": _kill_in_replay,
    "kill in stopping": _kill_in_stopping,
    "zombie": _zombie,
    "sleeper": _sleeper,
    "group": _group,
    "broker killed": _broker(What.BROKER_KILL),
    "broker frozen": _broker(What.BROKER_FREEZE),
    "connection cut": _net(What.CUT, What.RESET, What.SHORT),
    "connection dead": _net(What.HOLE),
    "connection slow": _net(What.SLOW, What.THIN),
    "send given up": _given_up,
    "disk full": _disk_full,
    "compacted": _compacted,
    "other settings": _settings,
    "mixed": _mixed,
}

#: Further kinds, whose seeds begin after this one.
LATER = 1000
LATER_KINDS: Mapping[str, Callable[[Schedule, int, Rng], Schedule]] = {
    "offsets reset": _cold("reset"),
    "state lost": _cold("lose"),
    "crowded": _crowded,
    "out of order": _out_of_order,
}

#: The kind whose seeds begin after this one.
PROMOTED = 2000

_WEIGHTS = {"kill": 4, "kill in replay": 2, "kill in stopping": 2, "zombie": 2, "group": 2, "broker killed": 2}
_WEIGHTS |= {"connection cut": 2, "mixed": 3}

#: The kinds in turn; what weighs more comes more often.
TURNS: tuple[str, ...] = tuple(kind for turn in range(4) for kind in KINDS if _WEIGHTS.get(kind, 1) > turn)
