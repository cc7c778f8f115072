"""Another policy between two batches: it goes by what the one before remembered, as after a restart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from thorough import examples
from tiny_model import tiny_model

from detector.engine.engine import BUCKETS, Engine, Scored
from detector.engine.incidents import REMEMBERED, Policy
from detector.engine.readings import Readings
from detector.engine.state import Saved, State, layout
from detector.engine.streams import bucket_of

QUIET, LOUD = [0.1, -0.1, 0.1], [9.0, 0.1, -0.1]
NEVER = Policy(k=8, n=8, quiet=3)


def feed(engine: Engine, seconds: list[int], rows: list[list[float]] | None = None) -> Scored:
    times = np.array(seconds) * 10**9
    values = np.array(rows or [QUIET] * len(times), np.float32)
    return engine.process([Readings(0, ["a"] * len(times), times, values)])


def test_readings_count_that_another_policy_judged() -> None:
    engine = Engine(tiny_model(span=1), NEVER)
    result = feed(engine, list(range(8)), [LOUD if t in (5, 6) else QUIET for t in range(8)])
    assert not result.alert.any()
    engine.judge_by(Policy(k=3, n=4, quiet=3))
    assert feed(engine, [8, 9], [LOUD, QUIET]).alert.tolist() == [True, True]


@pytest.mark.parametrize("width", [1, 4, 64])
def test_a_state_that_remembered_fewer_readings_can_be_read(width: int) -> None:
    engine = Engine(tiny_model(span=1), NEVER)
    feed(engine, list(range(8)), [LOUD if t >= 5 else QUIET for t in range(8)])
    saved = Saved.parse(engine.dump(0, int(engine.streams.bucket(np.array([0]))[0])))
    narrow = State(layout(4, 3, 1, width))
    narrow.grow(1)
    narrow.load(saved, np.array([0]))
    again = Engine(tiny_model(span=1), Policy(k=4, n=4, quiet=3))
    again.load(0, narrow.dump(["a"], np.array([0]), again.model.manifest.graph_sha256))
    assert again.state.flags.shape[1] == REMEMBERED
    assert feed(again, [8], [LOUD]).alert.tolist() == [width >= 3]


def test_a_baseline_goes_on_when_its_turns_become_longer() -> None:
    """Turns are numbered from 1970 on: long ones have small numbers, which looked like the past."""
    moves = {"drift_after": 60.0, "drift_limit": 100.0}
    engine = Engine(tiny_model(span=1), Policy(shift_after=72, **moves))
    feed(engine, list(range(100)))
    engine.judge_by(Policy(shift_after=720, **moves))
    before = engine.state.base_level[0].copy()
    feed(engine, list(range(100, 400)), [[0.5, 0.5, 0.5]] * 300)
    assert (engine.state.base_level[0] > before + 0.05).all()


policies = st.builds(
    Policy, k=st.integers(1, 3), n=st.integers(3, 64), quiet=st.integers(1, 5), unseen=st.just(5),
    shift_after=st.sampled_from([0.0, 24.0, 60.0]), drift_after=st.sampled_from([0.0, 15.0]),
    silent_after=st.sampled_from([0.0, 8.0]), lateness=st.sampled_from([0.0, 3.0]),
)  # fmt: skip


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.integers(0, 2**32 - 1), st.lists(policies, min_size=2, max_size=5))
def test_it_is_as_after_a_restart_with_it(seed: int, chain: list[Policy]) -> None:
    rng, model = np.random.default_rng(seed), tiny_model(span=2)
    stays, restarts = Engine(model, chain[0]), Engine(model, chain[0])
    for number, policy in enumerate(chain):
        stays.judge_by(policy)
        again = Engine(model, policy)
        for bucket in {bucket_of(name, BUCKETS) for name in ("a", "b", "new")}:
            again.load(0, restarts.dump(0, bucket))
        restarts = again
        times = np.repeat(np.arange(40 * number, 40 * number + 40), 3) * 10**9
        values = rng.normal(size=(120, 3)) * np.where(rng.random((120, 1)) < 0.2, 6, 1) + 4 * (number % 2)
        readings = Readings(0, ["a", "b", "new"] * 40, times, values.astype(np.float32))
        one, other = stays.process([readings]), restarts.process([readings])
        for name in ("score", "p_value", "alert", "error", "expected"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert [e.alert.to_bytes() for e in one.published] == [e.alert.to_bytes() for e in other.published]
