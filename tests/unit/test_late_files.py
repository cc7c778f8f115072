"""``detector score --lateness``: a file in disorder is scored as one in the order of time, row by row."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_model

from detector import score
from detector.adapters.folder import write_model
from detector.cli import main
from schemas.moment import SECOND_NS, format_time

STREAMS = ("a", "b", "c")
START, COUNT = 1_704_067_200, 120
Cells = list[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(score, "BATCH", 50)
    monkeypatch.chdir(tmp_path)
    write_model(tiny_model(), tmp_path / "model")
    return tmp_path


def rows_of(delay: float) -> list[tuple[float, Cells]]:
    """(arrival, cells) of readings a second apart that are loud for a while."""
    rng = np.random.default_rng(0)
    found = []
    for t in range(COUNT):
        for stream in STREAMS:
            cells = [format_time((START + t) * SECOND_NS), stream]
            cells += [f"{v:.4f}" for v in rng.normal(9.0 if 40 <= t < 60 and stream == "b" else 0, 0.1, 3)]
            found.append((t + rng.uniform(0, delay), cells))
    return found


def write(path: Path, rows: list[Cells]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["timestamp", "stream", "c0", "c1", "c2"], *rows])
    return str(path)


def scored(*arguments: str) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of scores.csv and the lines of alerts.jsonl."""
    command = ["score", "--model", "model", "--out", "scores.csv", "--alerts", "alerts.jsonl", "--silent-after", "0"]
    assert main([*command, *arguments]) == 0
    with open("scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), Path("alerts.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("partitions", ["1", "3"])
@pytest.mark.parametrize("after", [0, 30])
def test_rows_are_those_of_the_file_in_the_order_of_time(folder: Path, partitions: str, after: int) -> None:
    """``after``: so many seconds of it are history."""
    rows = rows_of(10)
    came = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
    cut = after * len(STREAMS)
    history = ["--history", write(folder / "history.csv", [cells for _, cells in rows][:cut])] if after else []
    later = {tuple(cells) for _, cells in rows[cut:]}
    data = [cells for cells in came if tuple(cells) in later]
    wanted, sent = scored(
        write(folder / "ordered.csv", [c for _, c in rows][cut:]), "--partitions", partitions, *history
    )
    found, said = scored(
        write(folder / "data.csv", data), "--partitions", partitions, "--lateness", "10s", "--report", "page.html",
        "--compare", "lateness=0", *history,
    )  # fmt: skip
    assert [[row["timestamp"], row["stream"]] for row in found] == [cells[:2] for cells in data]
    by_key = {(row["stream"], row["timestamp"]): row for row in wanted}
    end = format_time((START + COUNT - 11) * SECOND_NS)
    waiting = [row for row in found if row["timestamp"] > end]
    assert len(waiting) == 10 * len(STREAMS)
    assert {(row["score"], row["p_value"], row["alert"], row["channels"]) for row in waiting} == {("", "", "0", "")}
    assert all(row == by_key[row["stream"], row["timestamp"]] for row in found if row["timestamp"] <= end)
    assert sum(row["alert"] == "1" for row in found) > 10
    assert said == sent
    page = Path("page.html").read_text(encoding="utf-8")
    assert f"{len(waiting)} readings at the end of the data would still have waited" in page
    assert "until their stream is 10" in page
    assert "lateness=10.0" in page


def test_without_a_lateness_the_same_file_loses_what_is_late(folder: Path) -> None:
    came = [cells for _, cells in sorted(rows_of(10), key=lambda row: row[0])]
    rows, _ = scored(write(folder / "data.csv", came))
    assert sum(not row["score"] for row in rows) > COUNT


def test_a_lateness_of_more_than_is_kept_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(folder / "data.csv", [cells for _, cells in rows_of(0)])
    assert main(["score", "--model", "model", "--out", "scores.csv", data, "--lateness", "2h"]) == 2
    assert capsys.readouterr().err == (
        "detector: --lateness 7200s: of a stream that sends one reading every 1 s that is more than are kept: at most "
        "4095s with this model\n"
    )
    assert main(["score", "--model", "model", "--out", "scores.csv", data, "--lateness", "4095s"]) == 0
