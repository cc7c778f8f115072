"""Some of the chaos, as a test: each kind of schedule once.

``make chaos`` plays hundreds of them; this takes at most three minutes.
"""

from __future__ import annotations

import pytest
from broker import Missing
from conftest import absent
from integration.chaos.director import Outcome
from integration.chaos.lanes import Task, play
from integration.chaos.ledger import EQUAL
from integration.chaos.schedule import KINDS, LATER, LATER_KINDS, schedule

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

#: One of each kind.
SEEDS = (*range(1, 17), *range(LATER + 1, LATER + 1 + len(LATER_KINDS)))


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
    assert {schedule(seed).kind for seed in SEEDS} == {*KINDS, *LATER_KINDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_published_is_what_the_oracle_says(outcomes: dict[Task, Outcome], seed: int) -> None:
    outcome = outcomes[Task(seed)]
    assert outcome.result == EQUAL, (schedule(seed).faults, outcome.details, outcome.folder)
