"""Some of the chaos, as a test: each kind of schedule once, in ``make test`` those that are unlike others.

``make chaos`` plays hundreds of them.
"""

from __future__ import annotations

import pytest
from broker import Missing
from conftest import absent
from integration.chaos.director import Outcome
from integration.chaos.lanes import Task, play
from integration.chaos.ledger import EQUAL
from integration.chaos.schedule import KINDS, LATER, LATER_KINDS, schedule
from thorough import THOROUGH

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

#: One of each kind.
ALL = (*range(1, 17), *range(LATER + 1, LATER + 1 + len(LATER_KINDS)))

#: Kinds that share little with each other.
UNLIKE = (
    "kill in replay", "zombie", "group", "broker killed", "connection cut", "other settings",
)  # fmt: skip

SEEDS = ALL if THOROUGH else tuple(seed for seed in ALL if schedule(seed).kind in UNLIKE)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Outcome]:
    """What came of all of them: they share a broker, and several are played at a time."""
    tasks = [Task(seed) for seed in SEEDS]
    try:
        return dict(play(tasks, tmp_path_factory.mktemp("chaos")))
    except Missing as missing:
        absent(str(missing))
        raise


def test_the_seeds_are_of_all_kinds() -> None:
    assert {schedule(seed).kind for seed in ALL} == {*KINDS, *LATER_KINDS}
    assert len(SEEDS) >= len(UNLIKE)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_published_is_what_the_oracle_says(outcomes: dict[Task, Outcome], seed: int) -> None:
    outcome = outcomes[Task(seed)]
    assert outcome.result == EQUAL, (schedule(seed).faults, outcome.details, outcome.folder)
