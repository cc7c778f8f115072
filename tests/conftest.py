"""Fixtures for every kind of test: a real Kafka, the measuring data, and the order in which tests run."""

from __future__ import annotations

import os
import signal
import tracemalloc  # noqa: F401 — pytest imports it on whatever thread first needs it, and two at once get half a module
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from broker import Broker, Missing
from thorough import THOROUGH

TESTS = Path(__file__).resolve().parent
ORDER = ("unit", "properties", "contract", "integration")  # the fast ones first
collect_ignore = ["bench"]

hypothesis.settings.register_profile("residual", deadline=None)  # a time limit fails on a busy machine, not on a fault
hypothesis.settings.load_profile("residual")

# what a model can see has tests of its own: every other fit would take seconds longer
os.environ.setdefault("RESIDUAL_TRAINER_DETECTABILITY", "false")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so a shell starts jobs in the background: a child would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run fast kinds of tests first; within a kind the order stays. What is thorough is run where that is asked for."""
    if not THOROUGH:
        left = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    rank = {kind: number for number, kind in enumerate(ORDER)}

    def kind(item: pytest.Item) -> int:
        parts = item.path.relative_to(TESTS).parts if item.path.is_relative_to(TESTS) else ("",)
        return rank.get(parts[0], len(rank))

    items.sort(key=kind)


def absent(reason: str) -> None:
    """Skip for want of something on this machine; where CI is set it has to be there, and a skip is a failure."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI runs every test: {reason}", pytrace=False)
    pytest.skip(reason)


def started() -> Broker:
    """A running broker on free ports; skips the test where Java or Maven is missing."""
    try:
        return Broker().start()
    except Missing as missing:
        absent(str(missing))
        raise


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A real Apache Kafka, shared by the session: use names of your own (``kafka_cluster.unique``), do not stop it."""
    shared = started()
    yield shared
    shared.close()


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A real Apache Kafka for this test alone, which may kill, freeze and start it again."""
    own = started()
    yield own
    own.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the measuring data (asd, smd …): RESIDUAL_DATA, or shared/data beside the checkout."""
    named = os.environ.get("RESIDUAL_DATA")
    folder = Path(named) if named else TESTS.parent.parent / "shared" / "data"
    if not folder.is_dir():
        absent(f"no measuring data at {folder}: set RESIDUAL_DATA to its folder")
    return folder
