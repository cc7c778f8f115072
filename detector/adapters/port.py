"""The port: what the service needs of a log of records, whoever keeps it.

Every adapter (Kafka, memory) passes one contract, ``tests/contract/test_log.py``. All methods are called from one
thread, except where they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from schemas.dead_letter import DeadLetter, Reason


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one partition in the order of their offsets; all sequences have the same length, at least 1."""

    partition: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    """Milliseconds since 1970 by the record's own timestamp; -1 where it has none."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def part(self, start: int, end: int) -> Records:
        """Those from place ``start`` to before ``end``."""
        return Records(
            self.partition,
            self.offsets[start:end],
            self.timestamps[start:end],
            self.keys[start:end],
            self.values[start:end],
        )


@dataclass(frozen=True, slots=True)
class Damaged:
    """A range of a partition that cannot be read, and was passed over."""

    partition: int
    first: int
    """The first offset that was not delivered."""
    next: int
    """The offset to go on from."""
    reason: Reason
    """``CORRUPT``: damaged on the broker; else it is as its sender made it."""
    why: str
    data: bytes | None
    """What lies there, as the broker keeps it; None where not even that is known."""


@dataclass(frozen=True, slots=True)
class Committed:
    """How far a partition was scored."""

    offset: int
    """Next offset to score (C)."""
    replay_from: int | None
    """Oldest offset from which the state at ``offset`` can be rebuilt (R ≤ C); None where the commit is not ours."""
    topic_id: str | None = field(default=None, compare=False)
    """Of the topic as it was then: one made anew under the same name has another. None where it is not known."""


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A record of the state topic; ``value`` None deletes the key."""

    partition: int
    key: bytes
    value: bytes | None


class ScoreRecord(NamedTuple):
    """The score of a reading of a partition; ``key``: the stream in UTF-8."""

    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Commands:
    """What was found on the commands topic: (offset, value) in order, and the offset to go on from."""

    found: Sequence[tuple[int, bytes | None]]
    next: int


@dataclass(slots=True)
class Transaction:
    """What becomes visible at once, or not at all."""

    alerts: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(key = stream in UTF-8, value)"""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    scores: list[ScoreRecord] = field(default_factory=list)
    """Where there is a topic of them."""
    state: list[StateRecord] = field(default_factory=list)
    offsets: dict[int, Committed] = field(default_factory=dict)
    """By partition of the readings topic. Not empty where anything else is in it: they are what the broker checks the
    member's right to commit by."""

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.alerts or self.dead_letters or self.scores or self.state or self.offsets)


class Step(StrEnum):
    """The points of the delivery protocol at which a process may die, numbered as in ``detector.service``."""

    ASSIGNED = "1 assigned"
    """Partitions were assigned and nothing of them is loaded."""
    LOADED = "1 loaded"
    """The state of one partition is loaded."""
    REPLAYED = "2 replayed"
    """Some records of [R, C) have moved the state."""
    RESTORED = "3 restored"
    """Everything is as it was at C; no partition is started."""
    POLLED = "4 polled"
    """Records have arrived."""
    SCORED = "4 scored"
    """A batch is scored; its alerts have joined the open transaction."""
    BEGUN = "5 begun"
    """The transaction is open at the broker's and empty."""
    SENT = "5 sent"
    """All its records are handed to the client; some may be with the broker."""
    OFFSETS = "5 offsets"
    """Its offsets are with the broker."""
    ACKNOWLEDGED = "5 acknowledged"
    """All its records are with the broker; nothing is visible."""
    COMMITTED = "5 committed"
    """It is visible."""
    OBEYED = "6 obeyed"
    """Commands have taken effect here; nothing of it is committed."""
    SUCCEEDED = "7 succeeded"
    """Another model has the streams; nothing of it is committed."""
    DROPPED = "8 dropped"
    """The group moved on, and what was not committed is forgotten."""
    FINISHING = "8 finishing"
    """Told to stop; a batch may be in hand."""
    LEAVING = "8 leaving"
    """Everything is committed; the group is not left yet."""


#: Told of each step as it is reached.
Watch = Callable[[Step], None]


def unwatched(step: Step) -> None:
    """Nobody watches."""


def quiet() -> None:
    """Nobody wants to know that it goes on."""


class Log(Protocol):
    """A partitioned log with a consumer group, transactions and a compacted state beside it.

    Questions to the broker raise BrokerUnavailable where it does not answer for long, AccessError where it refuses.
    """

    topic: str
    """Name of the readings topic, for dead letters and messages."""

    def poll(self, timeout_s: float, max_records: int) -> list[Records]:
        """Records that have arrived, at most ``max_records``; empty after ``timeout_s`` without any.

        Only started partitions deliver. Joins the group on the first call. Raises Rebalanced, once, where the group
        changed since the last ``take_assignment``, or where a position has no record any more (retention has overtaken
        it): what is not in its ``kept`` must then be dropped, and ``take_assignment`` will hand out what is owned,
        sooner or later. Raises Fenced where another process has taken over the replica id. An outage of the broker
        shows as nothing arriving.
        """
        ...

    def take_damaged(self) -> list[Damaged]:
        """What the last ``poll`` passed over in started partitions, once, since nobody can read it.

        It lies before the positions that are committed next, so whoever sets it aside does so in that transaction. A
        damage of the broker's (``CORRUPT``) is passed over only where the log was told to; else ``poll`` raises
        TemporaryError.
        """
        ...

    def take_assignment(self) -> frozenset[int] | None:
        """The partitions now owned, once after each change of the group (even to the same set); else None.

        Those that the last Rebalanced kept are as they were, started or halted; the others are stopped: each must be
        restored and started.
        """
        ...

    def positions(self) -> dict[int, int]:
        """Next offset to be delivered, of each started partition; passes over control records and compacted gaps."""
        ...

    def place_of(self, key: bytes, partitions: int) -> int:
        """Where producers put a record with this key among so many partitions, unless they were told otherwise."""
        ...

    def describe(self) -> tuple[str, int]:
        """Which topic the readings' name stands for now, by its id, and how many partitions it has now.

        Raises TopicError where there is none (any more).
        """
        ...

    def again(self) -> None:
        """Hand what is owned out once more, all of it stopped: something under it has changed."""
        ...

    def bounds(self, partition: int) -> tuple[int, int]:
        """(first retained offset, next offset to be written as a ``read_committed`` reader sees it)."""
        ...

    def offset_at(self, partition: int, time_ms: int) -> int:
        """First offset whose record timestamp is at or after ``time_ms``; the end where there is none."""
        ...

    def committed(self, partition: int) -> Committed | None:
        """What the group last committed for an owned partition; None where nothing. Waits for open transactions."""
        ...

    def read_state(self, partition: int, beat: Callable[[], None] = quiet) -> dict[bytes, bytes]:
        """Newest value of each key of a partition of the state topic, everything committed before the call included.

        Waits for open transactions. ``beat`` is called as records come. Raises TopicError where the state is another
        consumer group's.
        """
        ...

    def start(self, partition: int, offset: int) -> None:
        """Deliver an owned partition from ``offset`` on. Raises Rebalanced where it is not owned (any more)."""
        ...

    def halt(self, partition: int) -> None:
        """Deliver nothing of a partition until it is started again."""
        ...

    def commit(self, transaction: Transaction, watch: Watch = unwatched) -> None:
        """Make all of it visible, atomically, as the member that received the records. ``watch``: told of the steps 5.

        Raises Rebalanced (the group moved on, or the outcome is not known: nothing is kept, nor may be used again;
        whether it was committed, ``committed`` tells; what is owned is handed out anew, sooner or later), Fenced,
        BrokerUnavailable, or what the user has to put right (AccessError, TopicError). May block for as long as the
        broker is away: the caller needs a watchdog.
        """
        ...

    def commands(self, offset: int, timeout_s: float) -> Commands:
        """What is on the group's commands topic from ``offset`` on, as far as it has come here.

        Waits at most ``timeout_s`` where nothing has; with 0 it only looks, and finds what has come since the last
        look. An outage of the broker shows as nothing found. Raises Rebalanced where there is no such offset (any
        more): restoring finds out.
        """
        ...

    def commands_bounds(self) -> tuple[int, int]:
        """``bounds`` of the commands topic, which has one partition."""
        ...

    def ends(self) -> dict[int, tuple[int, int]]:
        """``bounds`` of every partition of the readings topic, owned or not."""
        ...

    def group_offsets(self) -> dict[int, int | None]:
        """Committed offset of every partition of the readings topic, owned or not, whoever committed it.

        Waits for nothing, so that it can be asked every second; a commit of a moment ago may not be in it yet.
        """
        ...

    def close(self) -> None:
        """Leave the group and let go of every connection, within seconds. May be called twice."""
        ...
