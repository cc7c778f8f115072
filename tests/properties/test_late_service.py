"""Lateness and the delivery protocol: readings that wait are part of the state, so whatever dies when, the alerts are
those of all readings in one go, and with disorder within the lateness those of the readings in the order of time.
"""

from __future__ import annotations

from itertools import count, pairwise

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pipeline import POLICY, CrashError, CrashingLog, Row, fill, offline, serve
from thorough import examples
from tiny_model import tiny_model

from detector.adapters.memory import MemoryBroker

MODEL = tiny_model(threshold=1.0)
STREAMS = ("a", "b", "c", "never-seen")
LATENESS = 5
POLICIES = {
    "silence": POLICY.model_copy(update={"lateness": LATENESS, "silent_after": 8.0}),
    "none": POLICY.model_copy(update={"lateness": LATENESS, "silent_after": 0.0}),
}


def rows_of(seed: int, steps: int, delay: float) -> list[Row]:
    """Readings a second apart, now and then loud or away, that arrive up to so many seconds after their time."""
    rng = np.random.default_rng(seed)
    found: list[tuple[float, Row]] = []
    for name in STREAMS:
        second = 100
        for _ in range(steps):
            second += int(rng.choice([1, 1, 1, 1, 1, 1, 1, 2, 12], p=[0.14] * 7 + [0.01, 0.01]))
            loud = 4 if (second // 10) % 4 == 0 else 0.5
            found.append(
                (second + rng.uniform(0, delay), (name, second, [float(v) for v in rng.normal(size=3) * loud]))
            )
    return [row for _, row in sorted(found, key=lambda reading: reading[0])]


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 4.9, 20.0]),
    st.sampled_from(sorted(POLICIES)),
    st.integers(1, 3),
    st.sampled_from([1, 2, 7, 50]),
    st.integers(1, 4),
    st.dictionaries(st.integers(0, 120), st.sampled_from(["before", "after"]), max_size=12),
    st.sampled_from([1, 2000, 10**6]),
)
def test_a_crash_loses_no_reading_that_waits(
    seed: int,
    delay: float,
    policy: str,
    partitions: int,
    size: int,
    per_record: int,
    dies: dict[int, str],
    budget: int,
) -> None:
    rows = rows_of(seed, 60, delay)
    broker = MemoryBroker(partitions)
    fill(broker, rows, partitions, per_record)
    commits = count()
    for _ in range(len(dies) + 1):
        log = CrashingLog(broker, "g", lambda: dies.get(next(commits)))
        try:
            chosen = {"group_id": "g", "batch_size": size, "checkpoint_bytes": budget}
            serve(MODEL, broker, log, policy=POLICIES[policy], **chosen)
            break
        except CrashError:
            broker.evict(log)
    else:
        raise AssertionError("never came to the end")
    published = sorted(value for _, value in broker.alerts)
    if per_record == 1 or policy == "none":  # records of several readings change the order among streams
        assert published == offline(MODEL, rows, partitions, POLICIES[policy])
    if policy == "none" and delay <= LATENESS:
        ordered = offline(MODEL, sorted(rows, key=lambda row: row[1]), partitions, POLICIES[policy])
        assert published == ordered
        assert published


def test_within_the_lateness_there_is_disorder() -> None:
    rows = rows_of(0, 60, 4.9)
    times = [second for name, second, _ in rows if name == "a"]
    assert sum(later < sooner for sooner, later in pairwise(times)) > 10
    late = POLICY.model_copy(update={"silent_after": 0.0})
    assert offline(MODEL, rows, 1, late) != offline(MODEL, rows, 1, POLICIES["none"])
