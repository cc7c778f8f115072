"""``trainer promote``, ``models`` and ``rollback``, as an operator types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stores import folder_of
from tiny_model import tiny_model

from detector.adapters.folder import write_model
from detector.adapters.store import Store
from trainer.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default store is a folder ``models`` here."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        folder_of(tmp_path / f"m{number}", number)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert len(err.splitlines()) <= 1
    return code, out, err


def test_the_usual_way(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "promote", "m0", "--why", "first", "--by", "ann")
    first = out.split()[0]
    assert (code, out) == (0, f"{first} serves the group default in models\n")
    code, out, _ = said(capsys, "promote", "m1")
    second = out.split()[0]
    assert out.endswith(f"instead of {first}\n")
    _, out, _ = said(capsys, "models")
    lines = out.splitlines()
    assert lines[0] == "default:"
    assert next(line for line in lines if second in line).startswith("* ")
    assert next(line for line in lines if first in line).startswith("  ")
    assert "ann: first" in next(line for line in lines if first in line)
    assert all(len(line) <= 100 for line in lines)
    code, out, _ = said(capsys, "rollback", "--why", "woke us")
    assert out.startswith(f"{first} serves")
    assert said(capsys, "promote", second)[0] == 0
    document = json.loads(said(capsys, "models", "--json")[1])["default"]
    assert document["champion"] == second
    assert sorted(p["why"] for v in document["versions"] for p in v["promotions"]) == ["", "", "first", "woke us"]


@pytest.mark.parametrize(("arguments", "code", "why"), [
    (["promote", "nothing"], 2, "no model folder at nothing"),
    (["promote", "20261126T021500Z-0123456789ab"], 2, "has no version"),
    (["promote", "m0", "--group", "pumps"], 2, "of the group default, not of pumps"),
    (["promote", "m0", "--store", "ftp://x"], 2, "a folder or s3://BUCKET/PREFIX"),
    (["rollback"], 2, "no champion"),
    (["models", "--group", "../x"], 2, "setting 'group'"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(
    arguments: list[str], code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = said(capsys, *arguments)
    assert (found, out) == (code, "")
    assert why in err
    assert err.startswith("trainer: ")


def test_a_store_that_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "models") == (0, "models holds no model: `trainer promote DIR --store models`\n", "")


def test_what_detectors_cannot_go_on_with_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "promote", "m0")[0] == 0
    write_model(tiny_model(window=9), tmp_path / "long")
    write_model(tiny_model(channels=4), tmp_path / "wide")
    assert "a window of 9 readings, not 4" in said(capsys, "promote", "long")[2]
    assert "other channels" in said(capsys, "promote", "wide")[2]


def test_the_store_is_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "residual.toml").write_text('[retrain]\nstore = "elsewhere"\n')
    assert said(capsys, "promote", "m0")[0] == 0
    assert Store("elsewhere").versions("default")
    monkeypatch.setenv("RESIDUAL_RETRAIN_STORE", "third")
    assert said(capsys, "promote", "m0")[0] == 0
    assert Store("third").versions("default")
