"""The product on generated streams: it keeps its promise over months of them, and finds what was planted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from made import START_NS, STEP_NS, made
from numpy.typing import NDArray
from scipy.stats import poisson

from detector.adapters.files import Table
from schemas.alert import EventType
from schemas.moment import parse_time
from schemas.promise import DAY_S
from trainer.faults import Kind
from trainer.pipeline import Learned, learn
from trainer.settings import FitSettings
from trainer.synthesis.feed import Feed
from trainer.synthesis.planted import Faults, Told
from trainer.synthesis.sampler import BLOCK, Sampler
from trainer.track import Runner, Track

#: What is learned from, what comes before what is judged, and what is judged, in blocks of 14 days.
LEARNED, BEFORE, JUDGED = 4, 1, 5

STREAMS = 3

#: False alarms of each stream.
PROMISE = "1/7d"


def generated(first: int, count: int, faults: Faults | None = None) -> tuple[Table, list[Told]]:
    """So many blocks of every stream, in the order of time, and what is wrong with them."""
    feed = Feed(Sampler(made().recipe, 11), STREAMS, START_NS, faults)
    stretches = list(feed.of_all((first + count) * BLOCK))[first:]
    times = np.concatenate([np.repeat(stretch.times, STREAMS) for stretch in stretches])
    values = np.concatenate([stretch.values.transpose(1, 0, 2).reshape(-1, 4) for stretch in stretches])
    told = [one for stretch in stretches for one in stretch.told]
    return Table(list(feed.names) * (len(times) // STREAMS), times, values, [""] * len(times), feed.channels), told


@cache
def learned() -> Learned:
    table, _ = generated(0, LEARNED)
    return learn(table, FitSettings.load({"model": "pca", "false_alarms": PROMISE}))


def test_months_without_a_fault_are_as_quiet_as_promised() -> None:
    history, _ = generated(LEARNED, BEFORE)
    judged, _ = generated(LEARNED + BEFORE, JUDGED)
    opened, state = 0, []
    runner = Runner(Track(history, judged), learned().model)
    for _, scored in runner.lap(judged.values):
        opened += sum(event.alert.type is EventType.OPENED for event in scored.published)
        state.append(sum(len(runner.engine.dump(0, bucket)) for bucket in range(64)))
    promised = STREAMS * JUDGED * BLOCK * STEP_NS / 1e9 / DAY_S / 7
    assert opened <= poisson.ppf(0.999, promised)
    assert state[-1] < 1.5 * state[len(state) // 4]  # what it keeps of a stream does not grow


@pytest.mark.parametrize(("kinds", "least"), [
    ((Kind.SHIFT, Kind.DRIFT), 0.7), ((Kind.DROPOUT,), 0.9), ((Kind.SPIKE, Kind.NOISE), 0.7),
])  # fmt: skip
def test_planted_faults_are_found_and_named(kinds: tuple[Kind, ...], least: float) -> None:
    history, _ = generated(LEARNED, BEFORE)
    judged, told = generated(LEARNED + BEFORE, 2, Faults(1 / 200, kinds, seed=3))
    alert = Runner(Track(history, judged), learned().model).alerts(judged.values)
    found = [bool(alert[_during(judged, one)].any()) for one in told]
    assert len(told) > 30
    assert np.mean(found) >= least


def _during(table: Table, one: Told) -> NDArray[np.bool_]:
    times = (table.times >= one.start_ns) & (table.times <= one.end_ns + 12 * STEP_NS)
    assert parse_time(one.cells[2]) == one.start_ns
    during: NDArray[np.bool_] = times & (np.array(table.streams) == one.stream)
    return during
