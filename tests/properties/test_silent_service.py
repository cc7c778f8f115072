"""Silence and the delivery protocol: who is silent is told by other streams' readings, and the alerts are the same
whatever dies when, and however old the saved state of each stream is.
"""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pipeline import CrashError, CrashingLog, Row, fill, serve
from thorough import examples
from tiny_model import tiny_model

from detector.adapters.memory import MemoryBroker
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.readings import Readings
from schemas.alert import Kind

MODEL = tiny_model(threshold=1.0)
POLICY = Policy(
    k=2, n=3, quiet=3, unseen=20, silent_after=8, shift_after=24, trial_after=20, flap_after=60,
    off_when="c0 > 3 for a; c0 < -2 and c1 < 0 for b", settle=1,
)  # fmt: skip
STREAMS = ("a", "b", "c", "d", "never-seen")


def rows_of(rng: np.random.Generator) -> list[Row]:
    """Two minutes, now and then loud; streams that pause."""
    rows: list[Row] = []
    back = dict.fromkeys(STREAMS, 0)
    for second in range(100, 220):
        for name in STREAMS:
            if back[name] > second:
                continue
            if rng.random() < 0.01:
                back[name] = second + int(rng.integers(5, 40))
                continue
            loud = 4 if (second // 10) % 4 == 0 else 0.5
            rows.append((name, second, [float(v) for v in rng.normal(size=3) * loud]))
    return rows


def offline(rows: list[Row]) -> list[bytes]:
    """The alerts of the rows in one go, sorted."""
    times = np.array([second for _, second, _ in rows], np.int64) * 10**9
    values = np.array([row for _, _, row in rows], np.float32)
    published = Engine(MODEL, POLICY).process([Readings(0, [name for name, _, _ in rows], times, values)]).published
    return sorted(event.alert.to_bytes() for event in published)


@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([3, 20, 50]),
    st.lists(st.sampled_from([None, None, "before", "after"]), max_size=12),
    st.sampled_from([1, 2000, 10**6]),
)
def test_a_crash_changes_nothing_that_is_said_of_silent_streams(
    seed: int, size: int, fate: list[str | None], budget: int
) -> None:
    rows = rows_of(np.random.default_rng(seed))
    broker = MemoryBroker(1)
    fill(broker, rows, 1)
    fates = iter(fate)
    for _ in range(len(fate) + 1):
        log = CrashingLog(broker, "g", lambda: next(fates, None))
        try:
            serve(MODEL, broker, log, policy=POLICY, group_id="g", batch_size=size, checkpoint_bytes=budget)
            break
        except CrashError:
            broker.evict(log)
    assert sorted(value for _, value in broker.alerts) == offline(rows)


def test_there_is_silence_in_it() -> None:
    alerts = [alert for seed in range(5) for alert in offline(rows_of(np.random.default_rng(seed)))]
    assert sum(f'"kind":"{Kind.SILENT}"'.encode() in alert for alert in alerts) >= 20
