"""Invariants of the engine: no split into batches, no restart and no neighbour may show in what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from oracle import OracleStream
from thorough import examples
from tiny_model import tiny_model

from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from schemas.command import Command, Verb
from schemas.manifest import Season

MODEL = tiny_model(channels=5)
SEASONAL = tiny_model(channels=5, season=Season(period_s=20, bins=4))
MODELS = st.sampled_from([MODEL, SEASONAL])
POLICY = Policy(k=2, n=4, quiet=3, unseen=20)
#: Everything that a day brings, within the minutes of these logs.
FAST = Policy(
    k=2, n=4, quiet=3, unseen=20, worse=1.2, update_after=3, flap_after=10, expire_after=60, shift_after=24,
    trial_after=20, drift_after=15, drift_limit=0.3, silent_after=15,
)  # fmt: skip
#: Scores and anomalies, and no more.
PLAIN = POLICY.model_copy(update={"shift_after": 0.0, "drift_after": 0.0, "silent_after": 0.0, "update_after": 1e6})
#: Machines that are off half of the time, and one whose rule needs two channels.
GATED = FAST.model_copy(update={"off_when": "c0 > 1 for a; c1 < -1 and c2 < 0 for never-*", "settle": 2.0})
#: Shifts of which operators say something while they are on trial.
TROUBLED = FAST.model_copy(update={"shift_after": 12.0, "trial_after": 60.0, "silent_after": 0.0, "drift_after": 0.0})
POLICIES = st.sampled_from([POLICY, FAST, GATED])
NAMES = ("a", "b", "never-seen")


@dataclass
class Log:
    """Readings in order of arrival: stream, partition, time, values."""

    streams: list[str]
    partitions: np.ndarray
    times: np.ndarray
    values: np.ndarray

    def batches(self, start: int, stop: int) -> tuple[list[Readings], np.ndarray]:
        """One Readings per partition, and where each of their rows stands in the log."""
        found, places = [], []
        for partition in (0, 1):
            rows = start + np.flatnonzero(self.partitions[start:stop] == partition)
            places.append(rows)
            found.append(Readings(partition, [self.streams[r] for r in rows], self.times[rows], self.values[rows]))
        return found, np.concatenate(places)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Streams with gaps, duplicates, late readings, missing values and bursts of anomalies."""
    n = draw(st.integers(1, 250))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    trouble = draw(st.sampled_from([0.0, 0.05, 0.3]))
    streams = list(rng.choice(NAMES, n))
    clock = dict.fromkeys(NAMES, 1000)
    times = []
    for name in streams:
        step = rng.choice([0, -1, -5, 2, 3, 4, 9]) if rng.random() < trouble else 1
        clock[name] = max(clock[name] + int(step), 0)
        times.append(clock[name] * 10**9 + (int(rng.integers(0, 4)) * 10**8 if rng.random() < trouble else 0))
    values = rng.normal(size=(n, 5)) * np.where(rng.random((n, 1)) < 0.2, 4, 1)
    values[rng.random((n, 5)) < trouble] = np.nan
    partitions = np.array([NAMES.index(name) % 2 for name in streams])
    return Log(streams, partitions, np.array(times, dtype=np.int64), values.astype(np.float32))


def play(
    log: Log, cuts: list[int], *, restart_at: set[int] = frozenset(), model: Model = MODEL, policy: Policy = POLICY
) -> tuple[dict[str, np.ndarray], list[bytes]]:
    """Everything that comes out, in the order of the log; alerts sorted."""
    engine = Engine(model, policy)
    n = len(log.streams)
    out: dict[str, np.ndarray] = {}
    alerts: list[bytes] = []
    for start, stop in pairwise(cuts):
        if start in restart_at:
            saved = [(p, engine.dump(p, b)) for p in (0, 1) for b in range(BUCKETS)]
            engine = Engine(model, policy)
            for partition, data in saved:
                engine.load(partition, data)
        batches, places = log.batches(start, stop)
        scored = engine.process(batches)
        alerts += [p.alert.to_bytes() for p in scored.published]
        for name in ("score", "p_value", "alert", "error", "expected"):
            column = getattr(scored, name)
            out.setdefault(name, np.zeros((n, *column.shape[1:]), column.dtype))[places] = column
    return out, sorted(alerts)


def cuts_of(draw_from: list[int], n: int) -> list[int]:
    return sorted({0, n, *(c % n for c in draw_from)})


SLOW = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(logs(), st.lists(st.integers(0, 10_000), max_size=80), MODELS, POLICIES)
def test_any_split_gives_the_same_bits(log: Log, points: list[int], model: Model, policy: Policy) -> None:
    n = len(log.streams)
    whole, alerts = play(log, [0, n], model=model, policy=policy)
    split, split_alerts = play(log, cuts_of(points, n), model=model, policy=policy)
    for name, column in whole.items():
        np.testing.assert_array_equal(column, split[name], err_msg=name)
    assert alerts == split_alerts


@SLOW
@given(logs(), st.lists(st.integers(0, 10_000), min_size=1, max_size=20), MODELS, POLICIES, st.data())
def test_stop_anywhere_and_restore(
    log: Log, points: list[int], model: Model, policy: Policy, data: st.DataObject
) -> None:
    n = len(log.streams)
    whole, alerts = play(log, [0, n], model=model, policy=policy)
    cuts = cuts_of(points, n)
    restarts = data.draw(st.sets(st.sampled_from(cuts)))
    again, again_alerts = play(log, cuts, restart_at=restarts, model=model, policy=policy)
    for name, column in whole.items():
        np.testing.assert_array_equal(column, again[name], err_msg=name)
    assert alerts == again_alerts


@SLOW
@given(logs())
def test_one_reading_at_a_time_by_the_book(log: Log) -> None:
    found, alerts = play(log, [0, len(log.streams)], policy=PLAIN)
    streams = {name: OracleStream(MODEL, PLAIN, name) for name in NAMES}
    for n, name in enumerate(log.streams):
        score, is_open = streams[name].take(int(log.times[n]), log.values[n])
        np.testing.assert_allclose(found["score"][n], score, rtol=1e-6)
        assert found["alert"][n] == is_open, (n, name)
    assert sum(b'"kind":"anomaly"' in alert for alert in alerts) == sum(len(s.events) for s in streams.values())


@SLOW
@given(logs(), MODELS)
def test_other_streams_change_nothing(log: Log, model: Model) -> None:
    whole, _ = play(log, [0, len(log.streams)], model=model, policy=PLAIN)
    rows = [n for n, name in enumerate(log.streams) if name == "a"]
    if not rows:
        return
    alone = Log(["a"] * len(rows), log.partitions[rows], log.times[rows], log.values[rows])
    found, _ = play(alone, [0, len(rows)], model=model, policy=PLAIN)
    for name, column in found.items():
        np.testing.assert_array_equal(column, whole[name][rows], err_msg=name)


def told(log: Log, commands: dict[int, Command], names: set[str]) -> tuple[np.ndarray, list[bytes]]:
    """Scores of some streams and alerts of stream a, where commands come before readings of the log."""
    engine = Engine(MODEL, TROUBLED)
    n = len(log.streams)
    scores, alerts = np.full(n, np.nan), []
    for start, stop in pairwise(sorted({0, n, *commands})):
        if start in commands:
            alerts += engine.apply(0, commands[start])
        rows = [row for row in range(start, stop) if log.streams[row] in names]
        given = Readings(0, [log.streams[row] for row in rows], log.times[rows], log.values[rows])
        scored = engine.process([given])
        scores[rows], alerts = scored.score, alerts + scored.published
    return scores, [event.alert.to_bytes() for event in alerts if event.stream == "a"]


@SLOW
@given(st.integers(0, 2**32 - 1))
@example(79)
@example(100)
def test_what_operators_say_of_a_stream_does_not_depend_on_others(seed: int) -> None:
    """Least of all on whether a shift of another one is on trial."""
    rng = np.random.default_rng(seed)
    streams = [name for _ in range(150) for name in ("a", "b")]
    n = len(streams)
    # stretches of noise, and of another level: shifts that are on trial more often than not
    loud = np.repeat(rng.choice([1.0, 1.0, 8.0], (n // 50, 2)), 25, axis=0).reshape(n, 1)
    level = np.repeat(rng.choice([0.0, 0.0, 12.0], (n // 50, 2)), 25, axis=0).reshape(n, 1)
    values = (rng.normal(size=(n, 5)) * loud + level).astype(np.float32)
    log = Log(streams, np.zeros(n, int), np.repeat(np.arange(n // 2), 2) * 10**9 + 10**12, values)
    at = rng.choice(np.arange(30, n), 8, replace=False).tolist()
    verbs = rng.choice([Verb.CONFIRM, Verb.CONFIRM, Verb.ACCEPT], 8)
    commands = {n: Command(id=str(n), command=verb, stream="a") for n, verb in zip(at, verbs, strict=True)}
    together, alerts = told(log, commands, {"a", "b"})
    alone, alerts_alone = told(log, commands, {"a"})
    np.testing.assert_array_equal(together[::2], alone[::2])
    assert alerts == alerts_alone
