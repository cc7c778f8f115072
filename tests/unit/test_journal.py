"""What operators say takes effect once, at one place of the readings, whatever befalls the process."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obedience import Marked, check, keep, said
from pipeline import POLICY, CrashError, CrashingLog, fill, rows
from pipeline import serve as serve_with
from tiny_model import tiny_model

from detector.adapters.memory import MemoryBroker, MemoryLog
from detector.checkpoints import Stored
from detector.engine.model import Model
from detector.journal import IDS, Journal
from detector.monitor import Monitor
from schemas.command import Command
from schemas.errors import ModelError

MODEL = tiny_model(threshold=1.0)
LOUD = range(20, 10**6)


def serve(model: Model, broker: MemoryBroker, log: MemoryLog | None = None, **settings: Any) -> None:
    """Run a service to the end of the log, with an engine that marks each command."""
    serve_with(model, broker, log, engine=Marked(model, POLICY), **settings)


def broken_off(broker: MemoryBroker, start: int = 0, stop: int = 30) -> None:
    """Readings of a stream that is loud from second 20 on, on partition 0 of as many as there are."""
    fill(broker, rows("a", start, LOUD, stop), 1)


def outcomes(monitor: Monitor) -> dict[str, float]:
    found = {}
    for outcome in ("applied", "repeated", "elsewhere", "bad"):
        value = monitor.metrics.registry.get_sample_value("residual_commands_total", {"outcome": outcome})
        if value:
            found[outcome] = value
    return found


def heard(broker: MemoryBroker, **settings: Any) -> dict[str, float]:
    """Run to the end, with a reading of another stream to do; how many commands had which outcome."""
    fill(broker, rows("z", 0, range(0), 1), 1)
    with Monitor(None, 60) as monitor:
        serve(MODEL, broker, observer=monitor, **settings)
        return outcomes(monitor)


def test_a_command_takes_effect_once_and_is_published_with_its_entry() -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broken_off(broker)
    serve(MODEL, broker)
    before = len(broker.alerts)
    broker.tell(said("accept"))
    assert heard(broker) == {"applied": 1}
    assert [offset for offset, _ in kept[0].commands] == [30]
    assert len(broker.alerts) > before
    event = orjson.loads(broker.alerts[before][1])
    assert (event["type"], event["data"]["ended"]) == ("residual.incident.resolved", "accepted")
    assert heard(broker) == {}
    broken_off(broker, 30, 40)
    assert heard(broker) == {}
    check(MODEL, broker, "residual", kept)


def test_what_was_said_before_a_cold_start_was_not_meant_for_it() -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broker.tell(said("accept"))
    broken_off(broker)
    assert heard(broker) == {}
    assert kept[0].commands == []
    assert kept[0].cursor["considered"] == 1


def test_a_stream_that_nobody_knows_only_moves_the_cursor() -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broken_off(broker)
    serve(MODEL, broker)
    broker.tell(said("accept", "nobody"))
    assert heard(broker) == {"elsewhere": 1}
    assert kept[0].commands == []
    assert kept[0].cursor["considered"] == 1
    fill(broker, rows("nobody"), 1)
    assert heard(broker) == {}, "it came too early, and stays so"


def test_a_stream_of_two_partitions_is_meant_in_both() -> None:
    broker = MemoryBroker(2)
    kept = keep(broker, "residual")
    for partition in range(2):
        for stream, t, (v, *_) in rows("a", 0, LOUD, 30 + partition):
            reading = {"stream": stream, "timestamp": t * 1000, "values": {"c0": v, "c1": -v, "c2": v}}
            broker.produce(orjson.dumps(reading), b"a", timestamp_ms=10**12, partition=partition)
    serve(MODEL, broker)
    broker.tell(said("accept"))
    assert heard(broker) == {"applied": 1}
    assert [[offset for offset, _ in part.commands] for part in kept] == [[30], [31]]
    check(MODEL, broker, "residual", kept)


@pytest.mark.parametrize("together", [True, False])
def test_the_same_id_counts_once(together: bool) -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broken_off(broker)
    serve(MODEL, broker)
    broker.tell(said("confirm"))
    if together:
        broker.tell(said("confirm"))
        assert heard(broker) == {"applied": 1, "repeated": 1}
    else:
        assert heard(broker) == {"applied": 1}
        broken_off(broker, 30, 60)
        assert heard(broker) == {}
        assert list(kept[0]) != []
        broker.tell(said("confirm"))
        assert heard(broker) == {"repeated": 1}
    assert len(kept[0].commands) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        b"",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"id":"1","command":"explode","stream":"a"}',
        b'{"id":"1","command":"accept","stream":""}',
        b'{"id":"1","command":"accept","stream":"a","version":2}',
        b'{"id":"1","command":"accept","stream":"a","time":"noon"}',
        b'{"id":"1","command":"accept","stream":"\\ud800"}',
        b'{"id":1,"command":"accept","stream":"a"}',
        b'{"id":"1","command":"accept","stream":"a","surprise":1}',
        said("accept", channels=["no-such-channel"]),
        b"[" * 100_000,
    ],
)
def test_garbage_is_counted_and_stops_nothing(garbage: bytes | None) -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broken_off(broker)
    serve(MODEL, broker)
    broker.tell(garbage)
    broker.tell(said("accept", name="good"))
    assert heard(broker) == {"applied": 1, "bad": 1}
    assert [command.id for _, command in kept[0].commands] == ["good"]


def test_entries_are_deleted_once_nothing_needs_them_and_their_ids_are_kept() -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broken_off(broker)
    serve(MODEL, broker)
    broker.tell(said("confirm"))
    assert heard(broker, checkpoint_age=1000) == {"applied": 1}  # no checkpoint is written: the entry is needed
    assert b"default/journal/1" in kept[0]  # 0 says which settings are in force
    broken_off(broker, 30, 40)
    serve(MODEL, broker, checkpoint_age=1000)
    assert b"default/journal/1" in kept[0]  # 0 says which settings are in force
    broken_off(broker, 40, 50)
    serve(MODEL, broker, checkpoint_bytes=10**9, batch_size=1)
    assert b"default/journal/1" not in kept[0]
    assert b"default/journal/0" in kept[0], "they still are"
    assert kept[0].cursor["ids"] == ["1"]
    broken_off(broker, 50, 60)
    serve(MODEL, broker)
    check(MODEL, broker, "residual", kept)


@pytest.mark.parametrize("ages", [(0, 0, 0), (1000, 1000, 1000), (0, 1000, 0), (1000, 0, 1000)])
def test_checkpoints_and_entries_of_the_same_offset(ages: tuple[float, ...]) -> None:
    """Whether a checkpoint of that offset was written before the command or with it, it takes effect once."""
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    broken_off(broker)
    serve(MODEL, broker, checkpoint_bytes=10**9)  # every bucket is saved for offset 30
    fill(broker, rows("z", 0, range(0), 30), 1)  # not of the stream that is meant: its bucket stays as it is
    for number, age in enumerate(ages):
        broker.tell(said("confirm", name=str(number)))
        log = CrashingLog(broker, "residual", lambda: "after")
        with pytest.raises(CrashError):
            serve(MODEL, broker, log, checkpoint_age=age, checkpoint_bytes=10**9)
        broker.evict(log)
    assert [offset for offset, _ in kept[0].commands] == [30, 30, 30]
    serve(MODEL, broker, checkpoint_bytes=10**9, batch_size=10)  # R must not pass an entry that no checkpoint holds
    fill(broker, rows("a", 30, range(0), 60), 1)
    serve(MODEL, broker, checkpoint_age=1000)
    check(MODEL, broker, "residual", kept)


@pytest.mark.parametrize("considered", [-1, 1])
def test_a_commands_topic_that_is_not_what_it_was_is_read_from_its_first_record(considered: int) -> None:
    broker = MemoryBroker()
    keep(broker, "residual")
    for name in ("x", "y"):
        broker.tell(said("accept", "nobody", name))
    broken_off(broker)
    serve(MODEL, broker)  # has considered 2
    if considered < 0:  # made anew
        broker.group("residual").commands.records.clear()
        broker.group("residual").commands.end = 0
        broker.tell(said("accept"))
    else:  # retention was faster
        broker.tell(said("accept", "nobody", "z"))
        broker.tell(said("accept"))
        broker.trim_commands(3)
    assert heard(broker) == {"applied": 1}


class DyingLog(MemoryLog):
    """Dies before its n-th call, which is the same as after the one before."""

    def __init__(self, broker: MemoryBroker, calls: int) -> None:
        super().__init__(broker)
        for name in ("poll", "take_assignment", "positions", "committed", "read_state", "start", "commit", "commands"):
            setattr(self, name, partial(self._call, getattr(self, name)))
        self._left = calls

    def _call(self, method, *arguments):
        self._left -= 1
        if self._left == 0:
            raise CrashError
        return method(*arguments)


def test_a_crash_between_any_two_steps() -> None:
    crashes = 0
    for calls in range(1, 200):
        broker = MemoryBroker()
        kept = keep(broker, "residual")
        broken_off(broker)
        serve(MODEL, broker)
        broker.tell(said("accept"))
        broker.tell(said("confirm", name="2"))
        broken_off(broker, 30, 36)
        log = DyingLog(broker, calls)
        try:
            serve(MODEL, broker, log, batch_size=2)
        except CrashError:
            crashes += 1
            broker.evict(log)
        else:
            break
        check(MODEL, broker, "residual", kept)
        assert [command.id for _, command in kept[0].commands] == ["1", "2"]
    assert 20 < crashes < 198


# -- the records -----------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 5)), max_size=8), st.integers(0, 40))
def test_a_journal_comes_back_as_it_went(words: list[tuple[str, str, int]], before: int) -> None:
    topic: dict[bytes, bytes] = {}
    journal, offset = Journal(considered=7), 0
    records = [journal.cursor("g", 0)]
    for name, stream, step in words:
        offset += step
        command = Command(id=name, command="accept", stream=stream, note="é", by=name)
        records += [journal.add("g", 0, offset, command), journal.cursor("g", 0)]
    records += journal.forget("g", 0, before)
    for record in records:
        if record.value is None:
            del topic[record.key]
        else:
            topic[record.key] = record.value
    assert Stored.parse("g", 0, topic).journal == journal
    assert all(entry.offset >= before for entry in journal.entries)
    assert journal.count == len(words)
    assert Stored.parse("other", 0, topic).journal is None


def test_only_the_newest_ids_are_kept() -> None:
    journal = Journal()
    for number in range(IDS + 3):
        journal.add("g", 0, number, Command(id=str(number), command="accept", stream="a"))
    assert len(journal.ids) == IDS
    assert journal.ids[-1] == str(IDS + 2)


def swap(topic: dict[bytes, bytes], old: bytes, new: bytes) -> None:
    assert old in topic[b"g/journal/1"]
    topic[b"g/journal/1"] = topic[b"g/journal/1"].replace(old, new)


@pytest.mark.parametrize(
    "damage",
    [
        lambda topic: topic.pop(b"g/journal/cursor"),
        lambda topic: topic.pop(b"g/journal/1"),
        lambda topic: topic.update({b"g/journal/cursor": b"{}"}),
        lambda topic: swap(topic, b'"version":1,"off', b'"version":9,"off'),
        lambda topic: swap(topic, b'"kind":"command"', b'"kind":"model"'),
        lambda topic: swap(topic, b"accept", b"except"),
    ],
)
def test_a_journal_that_cannot_be_read_stops_the_start(damage) -> None:
    journal, topic = Journal(), {}
    for number in range(2):
        record = journal.add("g", 0, number, Command(id=str(number), command="accept", stream="a"))
        topic[record.key] = record.value
    topic[b"g/journal/cursor"] = journal.cursor("g", 0).value
    assert Stored.parse("g", 0, topic).journal == journal
    damage(topic)
    with pytest.raises(ModelError, match="--group-id"):
        Stored.parse("g", 0, topic)
