"""Data larger than memory: the same table and the same rows to learn from, whether they lie on disk or not."""

from __future__ import annotations

import csv
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, thorough
from trainer_data import normal, table, write_csv

from detector.adapters import csv_file, overflow, parquet_file
from detector.adapters.files import Table, read_table
from detector.adapters.overflow import Budget, Growing, empty
from detector.adapters.texts import Names, Stamps, coded, take
from detector.cli import main as detector
from schemas.errors import DataError
from trainer.batches import Batches
from trainer.cli import main as trainer
from trainer.data import Prepared, fingerprint, prepare, rows_by_stream
from trainer.settings import FitSettings


@contextmanager
def small(limit: int = 0, cells: int = 64) -> Iterator[None]:
    """Arrays go to disk from ``limit`` bytes on, and work is done in parts of ``cells``."""
    places = [(overflow, "LIMIT", limit), (overflow, "CHUNK_CELLS", cells), (csv_file, "CHUNK_CELLS", cells)]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (*places, (parquet_file, "BATCH_ROWS", 8)):
            patch.setattr(module, name, value)
        yield


def same(one: Table, other: Table) -> None:
    assert one.channels == other.channels
    for left, right in ((one.times, other.times), (one.values, other.values)):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert list(one.streams) == list(other.streams)
    assert list(one.timestamps) == list(other.timestamps)
    rows = np.arange(len(one))[::-3]
    assert take(one.timestamps, rows) == [other.timestamps[row] for row in rows.tolist()]


# arrays


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(0, 200), st.sampled_from([(), (3,), (0,)]))
def test_what_is_appended_is_there_in_memory_or_on_disk(sizes: list[int], limit: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 99, (size, *shape)).astype(np.int32) for size in sizes]
    with small(limit):
        budget = Budget()
        one, other = Growing(budget, np.int32, shape), Growing(budget, np.int64)
        for block in blocks:
            one.append(block)
            other.append(np.arange(len(block)))
            assert budget.held <= limit
        assert len(one) == sum(sizes)
        np.testing.assert_array_equal(one.finish(), np.concatenate([np.empty((0, *shape), np.int32), *blocks]))
        assert len(other.finish()) == sum(sizes)
        assert budget.held == 0


def test_files_on_disk_have_no_name_and_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with small():
        array = empty((100, 3), np.float32)
        array[:] = 7
        growing = Growing(Budget(), np.float32)
        growing.append(np.ones(100))
    assert array.sum() == 2100
    assert growing.finish().sum() == 100
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(overflow, "_unnamed", lambda: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    with small(), pytest.raises(DataError, match="TMPDIR") as caught:
        Growing(Budget(), np.float32).append(np.ones(100))
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    with small(), pytest.raises(DataError, match="TMPDIR"):
        empty((100,), np.float32)


# texts


def test_texts_are_sequences() -> None:
    names = Names(("a", "b"), np.array([1, 0, 1], np.int32))
    assert (list(names), names[0], names[-1], names[1:]) == (["b", "a", "b"], "b", "b", ["a", "b"])
    assert names == ["b", "a", "b"] == names
    assert names != ["b", "a"]
    assert names != "bab"
    assert coded(["b", "a", "b"]) == names
    with pytest.raises(IndexError):
        names[3]
    blob = np.frombuffer("onedreié".encode(), np.uint8)
    stamps = Stamps(np.arange(4), blob, np.array([3, 6, 6, 9]))
    assert stamps == ["one", "dre", "1970-01-01T00:00:00.000000002Z", "ié"]
    assert stamps[:2] == ["one", "dre"]
    assert Stamps(np.arange(2), blob, np.array([3, 6]), np.array([1, 0])) == ["dre", "one"]
    assert repr(names) == "['b', 'a', 'b']"


# files

CELL = st.sampled_from(["1", "2.5", "", "nan", "-3e2"])
ROW = st.tuples(st.integers(0, 40), st.sampled_from(["m", "né", "k"]), CELL, CELL)


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(st.tuples(st.lists(ROW, min_size=1, max_size=30), st.booleans(), st.booleans()), min_size=1, max_size=3)
)
def test_the_same_table_whether_it_lies_on_disk_or_not(files: list[tuple[list[Any], bool, bool]]) -> None:
    """CSV and Parquet, with and without streams, whose columns show late that they are numbers, or never."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for number, (rows, parquet, named) in enumerate(files):
            head = ["timestamp", *(["stream"] if named else []), "a", f"b{number % 2}", "z"]
            lines = [[str(1000 * t), *([stream] if named else []), a, b, "0"] for t, stream, a, b in rows]
            path = Path(folder) / f"{number}.{'parquet' if parquet else 'csv'}"
            if parquet:
                columns: dict[str, Any] = dict(zip(head, map(list, zip(*lines, strict=True)), strict=True))
                columns["timestamp"] = pa.array([1000 * row[0] for row in rows], pa.timestamp("ms"))
                for name in head[-3:]:
                    columns[name] = pa.array([float(cell or "nan") for cell in columns[name]], pa.float64())
                pq.write_table(pa.table(columns), path, row_group_size=5)
            else:
                with path.open("w", newline="") as file:
                    csv.writer(file).writerows([head, *lines])
            sources.append(str(path))
        for channels in (None, ("z", "b1", "absent", "a")):
            whole = read_table(sources, channels=channels)
            for limit in (0, 300):
                with small(limit, cells=20):
                    same(read_table(sources, channels=channels), whole)
            assert len(set(whole.times.tolist())) == len({row[0] for rows, _, _ in files for row in rows})


def arrays(data: Prepared) -> dict[str, Any]:
    found = {**vars(data), **vars(data.scaling)}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("context", ["none", "40s"])
def test_the_same_rows_and_windows_whether_they_lie_on_disk_or_not(context: str) -> None:
    values = normal(700)
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    readings = table(values, normal(400, seed=1), normal(90, seed=2))
    kept = np.flatnonzero(np.random.default_rng(1).random(len(readings)) > 0.05)
    kept = np.concatenate([kept, kept[-7:]])  # gaps, and duplicates
    readings = Table(
        take(readings.streams, kept), readings.times[kept], readings.values[kept],
        take(readings.timestamps, kept), readings.channels,
    )  # fmt: skip
    given = FitSettings(context=context)
    with small(limit=1 << 30):
        whole = prepare(readings, 10, given)
        digest = fingerprint(readings)
    with small():
        data = prepare(readings, 10, given)
        assert fingerprint(readings) == digest
    at_once = prepare(readings, 10, given)
    for name, array in arrays(whole).items():
        found = arrays(data)[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array, err_msg=name)
        if array.dtype.kind == "f":  # sums over many parts are rounded in another order
            np.testing.assert_allclose(arrays(at_once)[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
    assert (data.season, data.names) == (whole.season, whole.names)
    for one, other in zip(Batches(data.fit).in_order(50), Batches(whole.fit).in_order(50), strict=True):
        assert bool((one.z == other.z).all() and (one.observed == other.observed).all())
        assert (one.context is None) == (other.context is None) == (context == "none")
        if one.context is not None and other.context is not None:
            assert bool((one.context == other.context).all())
    assert sum(map(len, rows_by_stream(readings).values())) == len(readings)


@thorough
def test_the_same_model_and_the_same_scores_whether_data_lie_on_disk_or_not(tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "data.csv", table(normal(500), normal(300, seed=1), names=("a", "né"))))
    flags = ["--model", "pca", "--false-alarms", "1/100s"]
    models, scores = [], []
    for name, limit in (("memory", 1 << 30), ("disk", 0)):
        model, out = str(tmp_path / name), str(tmp_path / f"{name}.csv")
        with small(limit, cells=1000):
            assert trainer(["fit", data, "--out", model, *flags]) == 0
            assert detector(["score", data, "--model", model, "--out", out, "--partitions", "3"]) == 0
        models.append([(Path(model) / part).read_bytes() for part in ("manifest.json", "model.onnx", "streams.npz")])
        scores.append(Path(out).read_bytes())
    assert models[0] == models[1]
    assert scores[0] == scores[1]
    assert scores[0].count(b"\n") == 801
