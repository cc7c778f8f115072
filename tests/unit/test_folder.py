"""A model folder: written whole, read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_model

from detector.adapters.folder import read_model, write_model
from schemas.errors import ModelError, UserError


def test_it_comes_back_as_it_went(tmp_path: Path) -> None:
    model = tiny_model(streams=("a", "Ofen 7 ☃"))
    write_model(model, tmp_path / "m", {"report.html": b"<p>"})
    found = read_model(tmp_path / "m")
    assert found.manifest.model_copy(update={"files": {}}) == model.manifest
    assert found.graph == model.graph
    assert found.streams.names == model.streams.names
    np.testing.assert_array_equal(found.streams.tail_score, model.streams.tail_score)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "manifest.json", "model.onnx", "report.html", "streams.npz",
    ]  # fmt: skip


def test_a_model_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_model(tiny_model(), tmp_path / "m", {"report.json": b""})
    write_model(tiny_model(window=7), tmp_path / "m")
    assert read_model(tmp_path / "m").manifest.window == 7
    assert not (tmp_path / "m" / "report.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_an_empty_folder_will_do_but_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_model(tiny_model(), tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and no model folder"):
        write_model(tiny_model(), tmp_path / "mine")
    (tmp_path / "mine" / "manifest.json").write_text('{"manifest_version": 3, "name": "an extension"}')
    with pytest.raises(UserError, match="not empty and no model folder"):
        write_model(tiny_model(), tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a folder"):
        write_model(tiny_model(), tmp_path / "file")
    with pytest.raises(UserError, match="does not exist"):
        write_model(tiny_model(), tmp_path / "nowhere" / "m")


def test_behind_a_link_the_folder_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    write_model(tiny_model(), tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_model(tiny_model(window=5), tmp_path / "link")
    assert read_model(tmp_path / "real").manifest.window == 5
    assert (tmp_path / "link").is_symlink()


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.onnx").write_bytes(b"x"), "is not the graph"),
        (lambda f: (f / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "streams.npz").write_bytes(b"x"), "is not the file"),
        (lambda f: edit(f, format_version=99), "format_version"),
        (lambda f: edit(f, surprise=1), "surprise"),
        (lambda f: edit(f, window=0), "window"),
        (lambda f: edit(f, channels=[{"name": "only"}]), "does not fit"),
    ],
)
def test_a_damaged_folder_is_named_with_what_is_wrong(tmp_path: Path, damage, words: str) -> None:
    write_model(tiny_model(), tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(ModelError, match=words):
        read_model(tmp_path / "m")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        read_model(tmp_path / "m")
