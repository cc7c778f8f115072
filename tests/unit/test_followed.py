"""The champion is followed: a store is looked at now and then, and another engine is made aside."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from stores import folder_of
from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.adapters.store import Store
from detector.engine.engine import Engine
from detector.loading import Champion, engine_of, load_engine, succession
from detector.succession import Followed, Succession
from schemas.errors import ModelError
from schemas.settings import DetectorSettings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    for number in range(2):
        store.add("default", folder_of(tmp_path / f"m{number}", number))
    store.promote("default", store.versions("default")[0], "me")
    return store


@pytest.fixture
def following(store: Store) -> Iterator[tuple[Engine, Followed]]:
    settings = DetectorSettings.load({"model": str(store), "model_poll": 0.05})
    engine = load_engine(settings)
    followed = Followed(Champion(settings), partial(engine_of, settings=settings), engine.model, 0.05)
    yield engine, followed
    followed.close()


def soon(what: Callable[[], Engine | None]) -> Engine | None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (found := what()) is not None:
            return found
        time.sleep(0.02)
    return None


def test_a_promotion_brings_another_engine_once(store: Store, following: tuple[Engine, Followed]) -> None:
    engine, followed = following
    assert followed.next(engine) is None
    assert followed.refresh(engine) is None
    store.promote("default", store.versions("default")[1], "me")
    other = soon(lambda: followed.next(engine))
    assert other is not None
    assert other.model.id == store.champion("default").now.manifest_sha256  # type: ignore[union-attr]
    assert followed.refresh(other) is None
    store.rollback("default", None, "me")
    back = followed.refresh(other)
    assert back is not None
    assert back.model.id == engine.model.id


def test_earlier_models_are_found(store: Store, following: tuple[Engine, Followed]) -> None:
    engine, followed = following
    assert followed.find(engine.model.id) is not None
    assert followed.find("0" * 64) is None


def test_a_damaged_version_is_told_once_and_the_champion_goes_on(
    store: Store, tmp_path: Path, following: tuple[Engine, Followed], caplog: pytest.LogCaptureFixture
) -> None:
    engine, followed = following
    second = store.versions("default")[1]
    (tmp_path / "store" / "default" / "versions" / second / "model.onnx").write_bytes(b"no graph")
    store.promote("default", second, "me")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert followed.refresh(engine) is None
    assert len([r for r in caplog.records if "goes on serving" in r.message]) == 1


def test_other_channels_are_refused(
    store: Store, tmp_path: Path, following: tuple[Engine, Followed], caplog: pytest.LogCaptureFixture
) -> None:
    engine, followed = following
    write_model(tiny_model(channels=4), tmp_path / "wide")
    store.promote("default", store.add("default", tmp_path / "wide"), "me")
    assert followed.refresh(engine) is None
    assert "other channels" in caplog.text


def test_a_store_that_is_gone_changes_nothing(
    tmp_path: Path, following: tuple[Engine, Followed], caplog: pytest.LogCaptureFixture
) -> None:
    engine, followed = following
    (tmp_path / "store").rename(tmp_path / "away")
    assert followed.refresh(engine) is None
    assert "has no champion" in caplog.text
    (tmp_path / "away").rename(tmp_path / "store")
    assert followed.refresh(engine) is None


def test_a_folder_is_followed_by_nothing(tmp_path: Path) -> None:
    settings = DetectorSettings.load({"model": str(folder_of(tmp_path / "m"))})
    assert type(succession(settings, load_engine(settings).model)) is Succession


def test_a_store_without_a_champion_is_one_line(tmp_path: Path) -> None:
    Store(str(tmp_path / "store")).add("default", folder_of(tmp_path / "m"))
    with pytest.raises(ModelError, match=r"has no champion of the group default.*trainer promote"):
        load_engine(DetectorSettings.load({"model": str(tmp_path / "store")}))
