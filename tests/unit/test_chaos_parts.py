"""The parts of the chaos harness that need no broker: it is only worth what they are."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from integration.chaos import ledger
from integration.chaos.oracle import LostEntryError, Wanted, differences, disobeyed, journal_of
from integration.chaos.replica import Striker
from integration.chaos.schedule import KINDS, LATER, LATER_KINDS, OF_BROKER, OF_NET, PROMOTED, Strike, What, schedule
from integration.chaos.topics import Found
from integration.chaos.traffic import commands, records

from detector.adapters.port import Step
from detector.journal import Entry, Journal
from schemas.command import Command, Verb

MANY = range(1, 301)


# -- schedules -------------------------------------------------------------------------------------------------------


def test_a_schedule_is_a_function_of_its_seed() -> None:
    for seed in (1, 17, 300):
        one, other = schedule(seed), schedule(seed)
        assert one == other
        assert records(seed, one.shape) == records(seed, other.shape)
        assert commands(seed, 6, 5) == commands(seed, 6, 5)
    assert len({str(replace(schedule(seed), seed=0)) for seed in MANY}) == len(MANY)


def test_every_kind_comes_and_a_process_is_killed_at_every_step() -> None:
    many = [schedule(seed) for seed in MANY]
    assert {one.kind for one in many} == set(KINDS)
    assert {schedule(LATER + 1 + n).kind for n in range(len(LATER_KINDS))} == set(LATER_KINDS)
    strikes = [strike for one in many for strike in one.strikes]
    promoted = [strike for seed in range(PROMOTED + 1, PROMOTED + 20) for strike in schedule(seed).strikes]
    assert {strike.step for strike in strikes + promoted if strike.what is What.KILL} == set(Step)
    assert {strike.what for strike in strikes} == set(What)
    during = set(Step) - {Step.DROPPED, Step.LEAVING, Step.FINISHING, Step.SUCCEEDED}
    assert {strike.step for strike in strikes if strike.what in OF_BROKER} >= during
    assert len({strike.step for strike in strikes if strike.what in OF_NET}) > 8
    assert {len(one.lives) for one in many} == {1, 2, 3}


def test_traffic_has_all_that_senders_do() -> None:
    found = Counter[str]()
    for seed in range(1, 28):
        shape = schedule(seed).shape
        sent = records(seed, shape)
        assert {one.partition for one in sent} <= set(range(shape.partitions))
        found["readings"] += sum(one.stream is not None for one in sent)
        found["garbage"] += sum(one.stream is None for one in sent)
        found["several"] += sum(one.stream is not None and one.value[:1] == b"[" for one in sent)
        found["again"] += len(sent) - len(set(sent))
    assert found["readings"] > 10_000
    assert min(found.values()) > 100


# -- the oracle's judgement --------------------------------------------------------------------------------------------


def alert(stream: bytes, value: bytes, offset: int = 0) -> Found:
    return Found(0, offset, 0, stream, value, ())


WANTED = Wanted({b"a": {0: [b"1", b"2"], 1: [b"x"]}}, Counter({(b"k", b"v", ()): 1}))
LETTER = alert(b"k", b"v")


@pytest.mark.parametrize(
    ("is_", "letters", "says"),
    [
        ([b"1", b"x", b"2"], [LETTER], []),
        ([b"x", b"1", b"2"], [LETTER], []),  # two partitions have no order among them
        ([b"1", b"x"], [LETTER], ["alerts of a: 1 lost: 2"]),
        ([b"1", b"2", b"x", b"2"], [LETTER], ["alerts of a: 1 sent twice: 2"]),
        ([b"1", b"2", b"x", b"y"], [LETTER], ["alerts of a: 1 should not be there: y"]),
        ([b"2", b"1", b"x"], [LETTER], ["alerts of a are in another order from no. 0 on: 2"]),
        ([b"1", b"2", b"x"], [], ["dead letters: 1 lost: (b'k', b'v', ())"]),
        ([b"1", b"2", b"x"], [LETTER, LETTER], ["dead letters: 1 sent twice: (b'k', b'v', ())"]),
    ],
)
def test_what_differs_is_said(is_: list[bytes], letters: list[Found], says: list[str]) -> None:
    assert differences(WANTED, [alert(b"a", value, n) for n, value in enumerate(is_)], letters) == says


def state(what: str, value: bytes | None) -> Found:
    return Found(0, 0, 0, f"group/{what}".encode(), value, ())


def entry(number: int, offset: int, name: str) -> tuple[Found, Entry]:
    """As it lies there, and as it is read."""
    command = Command(id=name, command=Verb.ACCEPT, stream="a")
    record = Journal(count=number).add("group", 0, offset, command)
    return Found(0, 0, 0, record.key, record.value, ()), Entry(number, offset, command)


def cursor(count: int) -> Found:
    record = Journal(count=count).cursor("group", 0)
    return Found(0, 0, 0, record.key, record.value, ())


OTHERS = [state("7/0", b"..."), state("incident/a/journal/0", b"..."), state("journal/0", None)]


def test_the_journal_is_read_whole_or_not_at_all() -> None:
    (first, read), (second, read_too) = entry(0, 3, "a"), entry(1, 5, "b")
    assert journal_of([first, cursor(1), *OTHERS, second, cursor(2)]) == {0: [[read, read_too]]}
    with pytest.raises(LostEntryError):
        journal_of([first, cursor(2), *OTHERS])
    with pytest.raises(LostEntryError):
        journal_of([cursor(1), *OTHERS])
    with pytest.raises(AssertionError, match="became"):
        journal_of([first, second, entry(1, 6, "b")[0]])


def test_commands_are_obeyed_once() -> None:
    journal = {0: [[entry(0, 3, "a")[1], entry(1, 4, "a")[1]]], 1: [[]]}
    assert disobeyed({"a": 0}, journal) == ["partition 0: a was obeyed 2 times"]
    assert disobeyed({"b": 1}, {}) == ["the command b was not obeyed in partition 1"]


# -- strikes -----------------------------------------------------------------------------------------------------------


def test_a_strike_comes_at_its_step_and_counts_from_where_it_should() -> None:
    ours, theirs = multiprocessing.Pipe()
    asks = [
        Strike(What.CUT, Step.SCORED, 2),
        Strike(What.SLOW, Step.SENT, 1, after=Step.FINISHING),
        Strike(What.RESET, Step.FINISHING, 1, after=Step.FINISHING),
    ]
    striker = Striker(tuple(asks), theirs)
    course = [Step.SCORED, Step.SENT, Step.SCORED, Step.SENT, Step.SCORED, Step.FINISHING, Step.SENT, Step.SENT]
    for _ in asks:
        ours.send("go on")
    for step in course:
        striker(step)
    said = []
    while ours.poll():
        said.append(ours.recv())
    places = [n for n, (what, _) in enumerate(said) if what == "strike"]
    assert [said[n] for n in places] == [("strike", asks[0]), ("strike", asks[2]), ("strike", asks[1])]
    assert [said[n - 1] for n in places] == [("step", "4 scored"), ("step", "8 finishing"), ("step", "5 sent")]
    assert len(said) == len(course) + len(asks)


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_the_ledger_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert ledger.read(path) == []
    one = ledger.Line(1, "kill", ["…"], "code", "commit", ledger.EQUAL, 1.5)
    ledger.append(one, path)
    with path.open("ab") as file:
        file.write(b'{"seed":2,"kind"')
    other = ledger.Line(3, "kill", [], "code", "commit", "differs: …", 1.5)
    ledger.append(other, path)
    assert ledger.read(path) == [one, other]
    assert ledger.equal_seeds(ledger.read(path), "code") == {1}
    assert ledger.equal_seeds(ledger.read(path), "other") == set()


def test_runs_add_up_while_the_protocol_is_the_same() -> None:
    names = {path.relative_to(ledger.ROOT).as_posix() for path in ledger._sources()}
    assert names >= {
        "detector/service.py",
        "detector/checkpoints.py",
        "detector/journal.py",
        "detector/adapters/port.py",
        "detector/adapters/kafka.py",
        "detector/adapters/kafka_publisher.py",
        "detector/adapters/kafka_member.py",
        "detector/adapters/kafka_state.py",
    }
    assert not [name for name in names if name.startswith(("detector/engine", "detector/decoding", "tests"))]
