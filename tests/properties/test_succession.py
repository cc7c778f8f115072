"""One model follows another while a group goes on: what is published is what the journal's offsets say, to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
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
from detector.engine.engine import Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.journal import InForce
from detector.succession import Succession
from schemas.manifest import Season

STREAMS = ("a", "b", "c", "d", "e", "never-seen")

POLICIES = (POLICY, Policy(k=1, n=1, quiet=2, unseen=0, silent_after=30, shift_after=72), Policy(k=2, n=3, lateness=3))


def version(number: int, loc: float = 0.0, scale: float = 1.0, **kinds: object) -> Model:
    """A model with a version of its own, that has learned another level and spread."""
    made = tiny_model(**kinds)  # type: ignore[arg-type]
    values = replace(
        made.streams,
        loc=made.streams.loc + np.float32(loc),
        scale=made.streams.scale * np.float32(scale),
        group_loc=made.streams.group_loc + np.float32(loc / 2),
    )
    return replace(made, streams=values, version=hashlib.sha256(str(number).encode()).hexdigest())


DAY = Season(period_s=20, bins=4)
MODELS = (
    version(0, threshold=1.0, season=DAY),
    version(1, 0.3, 2.0, threshold=1.5, season=DAY),
    version(2, -0.2, 0.5, threshold=1.0, season=DAY, streams=("b", "c", "never-seen")),
    version(3, threshold=2.0, window=6, span=2.0),
    version(4, 0.1, threshold=1.2, season=Season(period_s=30, bins=3), span=6.0),
)


class Planned(Succession):
    """Another model serves from given turns of the loop on; ``known``: those that can still be had."""

    def __init__(self, turns: Mapping[int, Model], policy: Policy, known: tuple[Model, ...] = MODELS) -> None:
        self._turns, self._policy = dict(turns), policy
        self._known = {model.id: model for model in known}
        self._turn = 0

    def next(self, now: Engine) -> Engine | None:
        self._turn += 1
        model = self._turns.pop(self._turn, None)
        return None if model is None or model.id == now.model.id else Marked(model, self._policy)

    def find(self, model: str) -> Model | None:
        return self._known.get(model)


@pytest.mark.usefixtures("_looks_at_every_turn")
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    crowds(STREAMS),
    st.integers(1, 3),
    st.sampled_from([1, 3, 50]),
    st.lists(
        st.tuples(
            st.sampled_from(MODELS),
            st.sampled_from(POLICIES),
            st.dictionaries(st.integers(1, 40), st.sampled_from(MODELS), max_size=4),
            st.sampled_from([3, 100]),  # the ceiling
            st.lists(st.sampled_from([None, None, "before", "after"]), max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
    st.dictionaries(st.integers(1, 60), st.builds(said, st.just("accept"), st.sampled_from(STREAMS)), max_size=3),
    st.sampled_from([1, 300, 3000, 10**6]),
)
def test_a_replay_switches_where_the_journal_says(rows, partitions, size, lives, told, budget) -> None:
    broker = MemoryBroker(partitions)
    kept = keep(broker, "g")
    fill(broker, rows, partitions, 1)
    says = Says(broker, "g", told)
    for model, policy, turns, ceiling, fate in lives:
        fates = iter(fate)
        log = CrashingLog(broker, "g", lambda fates=fates: next(fates, None))
        chosen = {"batch_size": size, "checkpoint_bytes": budget, "max_streams": ceiling}
        engine = Marked(model, policy)
        try:
            serve(
                model, broker, log, observer=says, engine=engine, succession=Planned(turns, policy), group_id="g",
                **chosen,
            )  # fmt: skip
        except CrashError:
            broker.evict(log)
    check(MODELS[0], broker, "g", kept, Planned({}, POLICY))
    assert any(isinstance(e.what, InForce) for partition in kept for e in partition.entries.values())


@pytest.fixture
def _looks_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.service, "COMMANDS_S", 0.0)
