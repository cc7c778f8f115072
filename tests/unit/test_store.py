"""The model store, as a folder and on S3: versions are whole and stay, and of two promotions at once one fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from stores import folder_of, s3_server

from detector.adapters.folder import read_model
from detector.adapters.store import Store, is_store
from schemas.errors import AccessError, ModelError, ResidualError, SettingsError, StoreUnavailable

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    request.getfixturevalue("s3")
    return f"s3://models/{tmp_path.name}"


def filled(url: str, tmp_path: Path, count: int = 2) -> tuple[Store, list[str]]:
    store = Store(url)
    return store, [
        store.add("default", folder_of(tmp_path / f"m{n}", n), NOW + n * timedelta(days=1)) for n in range(count)
    ]


def test_what_is_stored_is_what_is_read(url: str, tmp_path: Path) -> None:
    store, (first, second) = filled(url, tmp_path)
    assert first.startswith("20261126T021500Z-")
    assert store.groups() == ["default"]
    assert store.versions("default") == [first, second]
    model = read_model(tmp_path / "m0")
    found = store.read("default", first)
    assert (found.version, found.graph, found.manifest) == (model.version, model.graph, model.manifest)
    assert store.find("default", model.version) == first
    assert store.version("default", first).sha256 == model.version
    with store.local("default", first) as folder:
        assert (folder / "report.html").read_bytes() == b"<p>a page</p>"


def test_the_same_folder_is_the_same_version(url: str, tmp_path: Path) -> None:
    store, (first,) = filled(url, tmp_path, 1)
    assert store.add("default", tmp_path / "m0", NOW + timedelta(days=9)) == first
    assert store.versions("default") == [first]


def test_promotions_and_rollbacks(url: str, tmp_path: Path) -> None:
    store, (first, second, third) = filled(url, tmp_path, 3)
    assert store.champion("default") is None
    with pytest.raises(ModelError, match="promote a version"):
        store.rollback("default", None, "me")
    for version in (first, second, third):
        store.promote("default", version, "night", "keeps its promise", NOW)
    champion = store.champion("default")
    assert champion is not None
    assert (champion.now.version, champion.now.parent, champion.now.by) == (third, second, "night")
    assert store.promote("default", third, "me") == champion, "nothing to do"
    back = store.rollback("default", None, "me", "too loud", NOW)
    assert (back.now.version, back.now.parent, back.now.replaced) == (second, first, third)
    assert store.rollback("default", None, "me").now.version == first, "further back, not to and fro"
    with pytest.raises(ModelError, match="nothing before"):
        store.rollback("default", None, "me")
    assert store.rollback("default", third, "me").now.parent == second
    with pytest.raises(ModelError, match="serves already"):
        store.rollback("default", third, "me")
    assert [p.version for p in store.champion("default").history] == [first, second, third, second, first, third]  # type: ignore[union-attr]


def test_of_promotions_at_once_one_wins_and_none_is_lost(url: str, tmp_path: Path) -> None:
    store, versions = filled(url, tmp_path, 4)
    store.promote("default", versions[0], "first")

    def promote(n: int) -> bool:
        try:
            Store(url).promote("default", versions[1 + n % 3], f"racer {n}")
        except StoreUnavailable:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(promote, range(12)))
    champion = store.champion("default")
    assert champion is not None
    history = champion.history
    assert any(won)
    assert all(later.replaced == earlier.version for earlier, later in pairwise(history))
    assert {p.by for p in history[1:]} <= {f"racer {n}" for n, w in enumerate(won) if w}


def test_a_pointer_that_moved_is_not_replaced(url: str, tmp_path: Path) -> None:
    store, (first, second, third) = filled(url, tmp_path, 3)
    store.promote("default", first, "me")
    with pytest.raises(StoreUnavailable, match="somebody else has promoted"):
        store.promote("default", second, "me", seen=lambda _: Store(url).promote("default", third, "you") and None)
    assert store.champion("default").now.version == third  # type: ignore[union-attr]


def test_what_is_kept(url: str, tmp_path: Path) -> None:
    store, versions = filled(url, tmp_path, 12)
    for n in (0, 1, 5):
        store.promote("default", versions[n], "me", now=NOW + n * timedelta(days=1))
    late = NOW + timedelta(days=200)
    assert store.prune("default", protected=[versions[2]], keep=2, now=late) == [
        versions[n] for n in (3, 4, 6, 7, 8, 9)
    ]
    assert store.versions("default") == [versions[n] for n in (0, 1, 2, 5, 10, 11)]
    assert store.prune("default", keep=2, now=late) == [versions[2]]
    assert store.prune("default", keep=2, now=late) == []


def test_young_versions_and_those_that_served_lately_are_kept(url: str, tmp_path: Path) -> None:
    store, versions = filled(url, tmp_path, 6)
    for n in range(6):
        store.promote("default", versions[n], "me", now=NOW + n * timedelta(days=1))
    assert store.prune("default", keep=0, now=NOW + timedelta(days=5)) == []
    assert store.prune("default", keep=0, now=NOW + timedelta(days=34)) == [versions[0], versions[1]]


@pytest.mark.parametrize("group", ["..", ".hidden", "a/b", "", "x" * 200])
def test_names_that_are_none(url: str, group: str) -> None:
    with pytest.raises(SettingsError, match="no name of a group"):
        Store(url).versions(group)
    with pytest.raises(SettingsError, match="is no version"):
        Store(url).version("default", "../../etc")


def test_a_folder_that_is_no_model_is_not_stored(url: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m")
    (folder / "streams.npz").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"not the file that manifest\.json names"):
        Store(url).add("default", folder)
    with pytest.raises(ModelError, match="of the group default, not of pumps"):
        Store(url).add("pumps", folder_of(tmp_path / "n"))
    assert Store(url).groups() == []


def test_a_damaged_version_and_a_damaged_pointer_are_one_line(tmp_path: Path) -> None:
    store, (first,) = filled(str(tmp_path / "store"), tmp_path, 1)
    (tmp_path / "store" / "default" / "versions" / first / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="is not the graph"):
        store.read("default", first)
    (tmp_path / "store" / "default" / "champion.json").write_text("{}")
    with pytest.raises(ModelError, match=r"champion\.json cannot be read"):
        store.champion("default")


def test_what_is_half_written_is_no_version(tmp_path: Path) -> None:
    store, (first,) = filled(str(tmp_path / "store"), tmp_path, 1)
    half = tmp_path / "store" / "default" / "versions" / "20261126T031500Z-0123456789ab"
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    assert store.versions("default") == [first]
    with pytest.raises(ModelError, match="has no version"):
        store.promote("default", half.name, "me")


def test_what_is_a_store(tmp_path: Path) -> None:
    filled(str(tmp_path / "store"), tmp_path, 1)
    assert is_store(str(tmp_path / "store"))
    assert is_store("s3://models/x")
    assert not is_store(str(tmp_path / "m0"))
    assert not is_store(str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="a folder or s3://BUCKET/PREFIX"):
        Store("gs://models")


@pytest.mark.usefixtures("s3")
def test_what_s3_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="there is no bucket nothing"):
        Store("s3://nothing/x").champion("default")
    with pytest.raises(SettingsError, match="names no bucket"):
        Store("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match=r"store s3://models/x (is out of reach|cannot be reached)"):
        Store("s3://models/x").champion("default")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises((AccessError, StoreUnavailable), match="store s3://models/x"):
        Store("s3://models/x").champion("default")


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from stores import folder_of
from detector.adapters.store import Store
store, folder = Store(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
n = int(sys.argv[3])
while True:
    n += 1
    version = store.add("default", folder_of(folder / f"k{{n}}", n))
    store.promote("default", version, "writer")
    print(version, flush=True)
"""


def test_a_kill_leaves_the_store_whole(url: str, tmp_path: Path) -> None:
    store, promoted = Store(url), 0
    for turn in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(path=sys.path), url, str(tmp_path), str(1000 * turn)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        if turn % 2:  # so that a pointer has been moved, however slow the machine is
            assert writer.stdout.readline().strip()
            promoted += 1
        time.sleep(0.05 + 0.13 * turn)
        writer.send_signal(signal.SIGKILL)
        promoted += len([line for line in writer.stdout.read().split("\n") if line])
        writer.stdout.close()
        writer.wait()
        versions = store.versions("default")
        for version in versions[-3:]:
            store.read("default", version)
        champion = store.champion("default")
        if champion is not None:
            assert store.read("default", champion.now.version).version == champion.now.manifest_sha256
            assert len(champion.history) >= min(promoted, 100)


def test_errors_have_the_exit_codes_of_the_contract() -> None:
    kinds: list[tuple[type[ResidualError], int]] = [(StoreUnavailable, 75), (ModelError, 2), (AccessError, 2)]
    assert [kind("").exit_code for kind, _ in kinds] == [code for _, code in kinds]


def test_the_pointer_can_be_read_by_others(tmp_path: Path) -> None:
    store, (first,) = filled(str(tmp_path / "store"), tmp_path, 1)
    store.promote("default", first, "me", "a reason", NOW)
    said = json.loads((tmp_path / "store" / "default" / "champion.json").read_text())
    assert said["history"][-1] == {
        "version": first, "manifest_sha256": read_model(tmp_path / "m0").version, "parent": None, "replaced": None,
        "at": "2026-11-26T02:15:00Z", "by": "me", "why": "a reason",
    }  # fmt: skip
