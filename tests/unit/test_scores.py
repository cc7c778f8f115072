"""scores.csv: its rows, its numbers, and that it appears whole or not at all."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.adapters.aside import aside
from detector.adapters.scores import CHUNK, parse_channels, write_scores
from schemas.errors import UserError

NAN = float("nan")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    error = np.array([[0, 3, 1, 0], [1, 1, 1, 1], [9, 9, 9, 9], [0, 0, 0, 0], [1, 0, 0, 9999]], np.float32)
    with write_scores(path, ["a", "b", "c", "d"]) as scores:
        for part in (slice(0, 2), slice(2, 5)):
            scores.write(
                ["m,1", 'say "x"', "m", "m", "é"][part],
                ["2024-01-01T00:00:00Z", " 1704067200000", "2024-01-01", "x", "y"][part],
                np.array([1.5, 1 / 3, NAN, 0, 1e-7])[part],
                np.array([0.25, 1e-12, NAN, 1, 0.1])[part],
                np.array([True, False, True, False, True])[part],
                error[part],
            )
    assert path.read_bytes().decode() == (
        "stream,timestamp,score,p_value,alert,channels\n"
        '"m,1",2024-01-01T00:00:00Z,1.5,0.25,1,b:0.750;c:0.250\n'
        '"say ""x""", 1704067200000,0.33333334,1e-12,0,a:0.250;b:0.250;c:0.250\n'
        "m,2024-01-01,,,1,\n"
        "m,x,0.0,1.0,0,\n"
        "é,y,1e-07,0.1,1,d:1.000\n"
    )


names = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6), min_size=1, max_size=6)


@given(names.map(lambda found: list(dict.fromkeys(found))), st.data())
def test_any_name_survives(channels: list[str], data: st.DataObject) -> None:
    error = np.array(
        [data.draw(st.lists(st.integers(1, 9), min_size=len(channels), max_size=len(channels)))], np.float32
    )
    stream, stamp = data.draw(st.tuples(*[st.text(st.characters(exclude_categories=("Cs",)), min_size=1)] * 2))
    score = data.draw(st.floats(0, 3e38))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        with write_scores(path, channels) as scores:
            scores.write([stream], [stamp], np.array([score]), np.array([0.5]), np.array([True]), error)
        (row,) = rows_of(path)
    assert (row["stream"], row["timestamp"], row["alert"]) == (stream, stamp, "1")
    assert np.float32(row["score"]) == np.float32(score)
    shares = error[0] / error.sum()
    largest = sorted(range(len(channels)), key=lambda c: (-shares[c], c))[:3]
    assert parse_channels(row["channels"]) == {channels[c]: pytest.approx(shares[c], abs=6e-4) for c in largest}
    assert list(parse_channels(row["channels"])) == [channels[c] for c in largest]


def test_many_rows_are_written_in_order(tmp_path: Path) -> None:
    n = CHUNK * 2 + 3
    path = tmp_path / "scores.csv"
    with write_scores(path, ["a"]) as scores:
        scores.write(
            ["m"] * n,
            list(map(str, range(n))),
            np.arange(n, dtype=float),
            np.ones(n),
            np.zeros(n, bool),
            np.ones((n, 1)),
        )
    rows = rows_of(path)
    assert [int(row["timestamp"]) for row in rows] == list(range(n))
    assert [float(row["score"]) for row in rows] == list(range(n))


def test_what_was_there_stays_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), aside(path) as file:  # noqa: PT012 — the error comes from inside the block
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with aside(path) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "scores.csv"
    link.symlink_to(tmp_path / "real" / "scores.csv")
    with aside(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "scores.csv").read_text() == "new"


def test_a_device_is_written_to_and_stays() -> None:
    with aside("/dev/null") as file:
        file.write("x")
    assert Path("/dev/null").is_char_device()


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, says in [
        (tmp_path, "is a folder"),
        (tmp_path / "absent" / "scores.csv", "does not exist"),
        (tmp_path / "file" / "scores.csv", "Not a directory|does not exist"),
        (tmp_path / ("x" * 300), "name too long"),
        (Path("/proc/scores.csv"), "cannot be written"),
    ]:
        with pytest.raises(UserError, match=says), aside(place):
            pytest.fail("opened")
