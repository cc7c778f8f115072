"""The delivery protocol: whatever dies when, the visible alerts are those of the readings."""

from __future__ import annotations

import pytest
from crowds import crowds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obedience import Marked, Says, check, keep, said
from pipeline import POLICY, CrashError, CrashingLog, Row, fill, offline, serve
from thorough import examples
from tiny_model import tiny_model

import detector.service
from detector.adapters.memory import MemoryBroker
from schemas.manifest import Season

MODEL = tiny_model(threshold=1.0, season=Season(period_s=20, bins=4))
STREAMS = ("a", "b", "c", "never-seen")


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    crowds(STREAMS),
    st.integers(1, 3),
    st.sampled_from([1, 3, 50, 1000]),
    st.integers(1, 4),
    st.lists(st.sampled_from([None, None, "before", "after"]), max_size=12),
    st.integers(0, 10**6),
)
def test_a_crash_at_any_commit_neither_loses_nor_repeats(
    rows: list[Row], partitions: int, size: int, per_record: int, fate: list[str | None], budget: int
) -> None:
    broker = MemoryBroker(partitions)
    fill(broker, rows, partitions, per_record)
    for partition in range(partitions):
        broker.skip(partition)  # a control record at the end
    fates = iter(fate)
    for _ in range(len(fate) + 1):
        log = CrashingLog(broker, "g", lambda: next(fates, None))
        try:
            serve(MODEL, broker, log, group_id="g", batch_size=size, checkpoint_bytes=max(budget, 1))
            break
        except CrashError:
            broker.evict(log)
    else:
        raise AssertionError("never came to the end")
    assert sorted(value for _, value in broker.alerts) == offline(MODEL, rows, partitions)


@pytest.fixture
def _looks_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.service, "COMMANDS_S", 0.0)


words = st.builds(
    said,
    st.sampled_from(["accept", "accept", "confirm"]),
    st.sampled_from([*STREAMS, "nowhere"]),
    st.sampled_from(["1", "2", "3", "4", "5", "6"]),
)


@pytest.mark.usefixtures("_looks_at_every_turn")
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    crowds(STREAMS),
    st.integers(1, 3),
    st.sampled_from([1, 3, 50]),
    st.dictionaries(st.integers(1, 60), words | st.binary(max_size=3), max_size=12),
    st.lists(st.sampled_from([None, None, "before", "after"]), max_size=12),
    st.integers(0, 10**6),
)
def test_what_operators_say_takes_effect_once_and_stays_where_it_was_written_down(
    rows: list[Row], partitions: int, size: int, told: dict[int, bytes], fate: list[str | None], budget: int
) -> None:
    broker = MemoryBroker(partitions)
    kept = keep(broker, "g")
    fill(broker, rows, partitions, 1)
    fates, says = iter(fate), Says(broker, "g", told)
    for _ in range(len(fate) + 1):
        log = CrashingLog(broker, "g", lambda: next(fates, None))
        try:
            chosen = {"group_id": "g", "batch_size": size, "checkpoint_bytes": max(budget, 1)}
            serve(MODEL, broker, log, observer=says, engine=Marked(MODEL, POLICY), **chosen)
            break
        except CrashError:
            broker.evict(log)
    check(MODEL, broker, "g", kept)
    for partition in kept:
        ids = [command.id for _, command in partition.commands]
        assert len(set(ids)) == len(ids)
