"""What changes from outside while a group goes on: settings, a ceiling on streams. The journal says when it did."""

from __future__ import annotations

import pytest
from crowds import crowds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obedience import Marked, Says, check, keep, said
from pipeline import POLICY, CrashError, CrashingLog, fill, serve
from thorough import examples
from tiny_model import tiny_model

import detector.service
from detector.adapters.memory import MemoryBroker
from detector.engine.incidents import Policy
from detector.journal import Evicted, InForce
from schemas.manifest import Season

MODEL = tiny_model(threshold=1.0, season=Season(period_s=20, bins=4))
STREAMS = ("a", "b", "c", "d", "e", "never-seen")
POLICIES = (
    POLICY,
    POLICY.model_copy(update={"quiet": 5, "release": 0.3}),
    Policy(k=1, n=1, quiet=1, unseen=0, silent_after=30),
    Policy(k=3, n=5, quiet=4, unseen=5, update_after=10, expire_after=60, shift_after=0),
)
PROMISES = (None, "1/7d", "1/1h")


@pytest.mark.usefixtures("_looks_at_every_turn")
@settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    crowds(STREAMS),
    st.integers(1, 3),
    st.sampled_from([1, 3, 50]),
    st.lists(
        st.tuples(
            st.sampled_from(POLICIES),
            st.sampled_from(PROMISES),
            st.sampled_from([2, 3, 100]),  # the ceiling
            st.lists(st.sampled_from([None, None, "before", "after"]), max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
    st.dictionaries(st.integers(1, 60), st.builds(said, st.just("confirm"), st.sampled_from(STREAMS)), max_size=4),
    st.integers(0, 10**6),
)
def test_a_replay_goes_by_what_was_in_force(rows, partitions, size, lives, told, budget) -> None:
    broker = MemoryBroker(partitions)
    kept = keep(broker, "g")
    fill(broker, rows, partitions, 1)
    says = Says(broker, "g", told)
    for policy, promise, ceiling, fate in lives:
        engine = Marked(MODEL, policy)
        engine.judge_by(policy, promise)
        fates = iter(fate)
        log = CrashingLog(broker, "g", lambda fates=fates: next(fates, None))
        chosen = {"batch_size": size, "checkpoint_bytes": max(budget, 1), "max_streams": ceiling}
        try:
            serve(MODEL, broker, log, observer=says, engine=engine, group_id="g", **chosen)
        except CrashError:
            broker.evict(log)
    check(MODEL, broker, "g", kept)
    happenings = [entry.what for partition in kept for entry in partition.entries.values()]
    assert any(isinstance(what, InForce) for what in happenings)


@pytest.fixture
def _looks_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.service, "COMMANDS_S", 0.0)


def test_a_flood_of_new_keys_stays_under_the_ceiling() -> None:
    broker = MemoryBroker()
    kept = keep(broker, "residual")
    rows = [(f"flood-{n}", 100 + n // 10, [0.1, 0.2, 0.3]) for n in range(3000)]
    steady = [("a", 100 + n, [0.1, -0.1, 0.1]) for n in range(300)]
    mixed = [row for n, row in enumerate(rows) for row in ([row, steady[n // 10]] if n % 10 == 0 else [row])]
    fill(broker, mixed, 1)
    engine = Marked(MODEL, POLICY)
    largest = 0

    class Counts(Says):
        def beat(self) -> None:
            nonlocal largest
            largest = max(largest, len(engine.streams))
            super().beat()

    serve(MODEL, broker, observer=Counts(broker, "residual", {}), engine=engine, max_streams=200, batch_size=20)
    assert largest <= 200
    assert "a" in engine.streams.of_partition(0), "a stream that goes on reporting is not forgotten"
    assert engine.state.seen[engine.streams.of_partition(0)["a"]] == 300
    assert any(isinstance(e.what, Evicted) for e in kept[0].entries.values())
    assert engine.streams.size <= 210, "places are used again"
    check(MODEL, broker, "residual", kept)
