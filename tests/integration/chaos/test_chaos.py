"""A schedule of each kind, over a real Kafka; ``make chaos`` plays as many as one likes."""

from __future__ import annotations

import os

import pytest
from broker import Missing
from integration.chaos.director import Outcome
from integration.chaos.lanes import Task, play
from integration.chaos.ledger import EQUAL
from integration.chaos.schedule import KINDS, LATER, LATER_KINDS, schedule

pytestmark = pytest.mark.kafka

#: One of each kind; the first ones, whose faults are all different.
FIRST = {schedule(seed).kind: seed for seed in range(60, 0, -1)}
SEEDS = sorted([*FIRST.values(), *range(LATER + 1, LATER + 1 + len(LATER_KINDS))])


@pytest.fixture(scope="module")
def outcomes() -> dict[int, Outcome]:
    """What came of each seed: they are played two at a time."""
    try:
        return {task.seed: outcome for task, outcome in play([Task(seed) for seed in SEEDS], lanes=2)}
    except Missing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


def test_every_kind_is_there() -> None:
    assert {schedule(seed).kind for seed in SEEDS} == {*KINDS, *LATER_KINDS}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed}-{schedule(seed).kind.replace(' ', '-')}")
@pytest.mark.timeout(600)
def test_the_alerts_are_the_oracles(outcomes: dict[int, Outcome], seed: int) -> None:
    outcome = outcomes[seed]
    assert outcome.result == EQUAL, f"{'; '.join(schedule(seed).faults)}: {outcome.details[:3]}, {outcome.folder}"
