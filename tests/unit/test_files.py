"""Data files: every cell, every header, and several files as one log."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.adapters import csv_file
from detector.adapters.files import Table, read_table
from schemas.errors import DataError, UserError
from schemas.moment import parse_time

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

T0 = "2024-01-01T00:00:00Z"
T0_NS = 1_704_067_200_000_000_000
NAN = float("nan")


def written(folder: Path, text: str | bytes, name: str = "a.csv") -> str:
    path = folder / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def refused(*sources: str, **keywords: object) -> str:
    """The message with which these sources are refused: one line, exit code 2."""
    with pytest.raises(DataError) as caught:
        read_table(sources, **keywords)  # type: ignore[arg-type]
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert len(message) - max(map(len, sources), default=0) < 300, "short, however deep the temporary folder lies"
    return message


# cells


@pytest.mark.parametrize("cell", ["", "  ", "nan", "NaN", "NAN", " nan ", "NA", "na", "null", "NULL", " Null", "-nan"])
def test_missing(tmp_path: Path, cell: str) -> None:
    table = read_table([written(tmp_path, f"timestamp,a,b\n{T0},1,2\n{T0},{cell},3\n")])
    np.testing.assert_array_equal(table.values, np.array([[1, 2], [NAN, 3]], np.float32))


@pytest.mark.parametrize(
    "cell",
    ["inf", "-inf", "Infinity", "1_000", "x", "1,5", "0x10", "1e39", "-1e400", "3.5e38", "١٢", "１", "1 2", "--1",
     "true", "None", "1.5.2", "1e", ".", "n/a", "\x00", "nan1"],
)  # fmt: skip
def test_bad_cell(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f'timestamp,a,b\n{T0},1,2\n{T0},3,"{cell}"\n{T0},5,6\n')
    message = refused(path)
    assert path in message
    assert "line 3" in message
    assert "column b" in message
    assert repr(cell) in message


@pytest.mark.parametrize("cell", ["inf", "1_000", "-Infinity", "1e999"])
def test_a_column_that_starts_with_a_bad_number_is_not_silently_dropped(tmp_path: Path, cell: str) -> None:
    assert "column b" in refused(written(tmp_path, f"timestamp,a,b\n{T0},1,{cell}\n{T0},3,4\n"))


def test_a_long_bad_cell_is_shortened(tmp_path: Path) -> None:
    message = refused(written(tmp_path, f"timestamp,a\n{T0},1\n{T0},{'x' * 5000}\n"))
    assert "xxx…" in message


@pytest.mark.parametrize("cell", ["1", "+1", "-1.5", ".5", "5.", "1e3", "1E-3", " 7 ", "3.4028235e38", "1e-60", "007"])
def test_good_cell(tmp_path: Path, cell: str) -> None:
    table = read_table([written(tmp_path, f"timestamp,a\n{T0},{cell}\n")])
    assert table.values[0, 0] == np.float32(float(cell))


@given(st.lists(st.floats(allow_nan=False, width=64, min_value=-3e38, max_value=3e38), min_size=1, max_size=5))
def test_values_are_what_json_gives(values: list[float]) -> None:
    header = ",".join(f"c{i}" for i in range(len(values)))
    text = f"timestamp,{header}\n{T0},{','.join(map(repr, values))}\n"
    with tempfile.TemporaryDirectory() as folder:
        table = read_table([written(Path(folder), text)])
    json = np.array(orjson.loads(orjson.dumps(values)), np.float64).astype(np.float32)
    np.testing.assert_array_equal(table.values[0], json)


PIECES = [
    *[
        b"timestamp",
        b"stream",
        b"a",
        b"label",
        b",",
        b",",
        b",",
        b"\n",
        b"\n",
        b"\r",
        b'"',
        b"1",
        b"0",
        b"-",
        b".",
        b"e9",
    ],
    *[b"inf", b"nan", b"_", b" ", b"2024-01-01", b"\xff", b"\x00", b"\xef\xbb\xbf", b"\x1f\x8b", b"PAR1", "é".encode()],
]
pieces = st.sampled_from(PIECES)


@given(st.lists(pieces, max_size=30).map(b"".join), st.sampled_from([b"", b"timestamp,a\n0,1\n"]), st.booleans())
def test_whatever_a_file_holds_it_is_read_or_refused(content: bytes, start: bytes, given_channels: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), start + content)
        try:
            table = read_table([path], channels=("a", "b") if given_channels else None)
        except DataError:
            message = refused(path, channels=("a", "b") if given_channels else None)
            assert path in message
        else:
            assert len(table) == len(table.streams) == len(table.timestamps) == len(table.values) > 0
            assert not np.isinf(table.values).any()


# timestamps


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (T0, T0_NS),
        ("2024-01-01T00:00:00", T0_NS),
        ("2024-01-01 00:00:00", T0_NS),
        ("2024-01-01", T0_NS),
        ("2024-01-01T01:00:00+01:00", T0_NS),
        (" 2024-01-01T00:00:00.000000001Z ", T0_NS + 1),
        ("1704067200000", T0_NS),
        ("1704067200000.5", parse_time(1704067200000.5)),
        ("1.7040672e12", T0_NS),
        ("0", 0),
    ],
)
def test_times(tmp_path: Path, text: str, ns: int) -> None:
    table = read_table([written(tmp_path, f"timestamp,a\n{text},1\n")])
    assert table.times.tolist() == [ns]
    assert table.timestamps == [text]


@pytest.mark.parametrize(
    "text", ["", "nan", "soon", "2024-13-01", "-1", "inf", "99999999999999999", "2300-01-01", "1969-12-31", "12:00"]
)
def test_bad_times(tmp_path: Path, text: str) -> None:
    message = refused(written(tmp_path, f"timestamp,a\n{T0},1\n{text},2\n"))
    assert "line 3, column timestamp" in message


# headers and the file as a whole


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("timestamp,a\n", "no rows"),
        ("timestamp,a\n\n\n", "no rows"),
        ("time,a\n1,2\n", "no column timestamp among 'time', 'a'"),
        (f"timestamp;a\n{T0};2\n", "separate the cells by commas"),
        (f"timestamp,a,a\n{T0},1,2\n", "'a' stands there twice"),
        (f"timestamp,timestamp,a\n{T0},{T0},2\n", "'timestamp' stands there twice"),
        (f"timestamp,,a\n{T0},0,2\n", "column 2 has no name"),
        (f"timestamp,a\n{T0},1\n{T0},1,2\n", "line 3: 3 cells"),
        (f"timestamp,a,b\n{T0},1,2\n{T0},1\n", "line 3: 2 cells"),
        (f"timestamp,a,label\n{T0},1,0\n", "column label"),
        (f"timestamp,a,Label\n{T0},1,no\n", "column Label"),
        (f"timestamp,a\n{T0},x\n", "no channel found"),
        (f"timestamp,a\n{T0},\n", "no channel found"),
        (f"timestamp\n{T0}\n", "no channel found"),
        (f'timestamp,a\n{T0},1\n{T0},"1\n', "correct the quotes"),
        (f'timestamp,a\n{T0},1\n{T0},"1"2\n', "line 3"),
        (f"timestamp,a,stream\n{T0},1,m\n{T0},1,\n", "line 3, column stream"),
        (f"timestamp,a,stream\n{T0},1,{'m' * 1025}\n", "line 2, column stream"),
        (f"timestamp,a\n{T0},1\n{T0},1\xe9\n".encode("latin-1"), "line 3: not UTF-8"),
        (f"timestamp,a\n{T0},1\n".encode("utf-16"), "line 1: not UTF-8"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = written(tmp_path, text)
    message = refused(path)
    assert says in message
    assert path in message


def test_broken_gzip(tmp_path: Path) -> None:
    text = "timestamp,a\n" + "".join(f"{60_000 * i},{i * 7919 % 1009}\n" for i in range(20_000))
    whole = gzip.compress(text.encode())
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for broken in (whole[: len(whole) // 2], bytes(flipped), whole[:-4], b"plain,text\n1,2\n", whole[:1]):
        path = tmp_path / "a.csv.gz"
        path.write_bytes(broken)
        assert str(path) in refused(str(path))


def test_no_such_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "absent.csv"))
    assert "no such file" in refused(f"m={tmp_path / 'absent.csv'}")
    assert "is a folder" in refused(str(tmp_path))
    assert "no data" in refused()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    assert "File name too long" in refused(str(tmp_path / ("x" * 300)))


@pytest.mark.parametrize(
    "text",
    [
        f"\ufefftimestamp,a,b\n{T0},1,2\n",
        f"timestamp,a,b\r\n{T0},1,2\r\n",
        f"timestamp,a,b\r{T0},1,2\r",
        f'"timestamp","a","b"\n"{T0}","1","2"\n',
        f"timestamp, a , b\n{T0},1,2\n",
        f"timestamp,a,b\n{T0},1,2",
        f"timestamp,a,b\n{T0},1,2\n\n\r\n  \n",
        f"b,timestamp,a\n2,{T0},1\n",
        f"timestamp,a,note,b\n{T0},1,x,2\n",
        f"timestamp,a,b,\n{T0},1,2,\n",
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "plain", "packed.gz"])
def test_the_same_table_however_it_is_written(tmp_path: Path, text: str, name: str) -> None:
    path = written(tmp_path, text, name)
    table = read_table([path], channels=("a", "b"))
    assert (table.streams, table.times.tolist(), table.timestamps) == (["default"], [T0_NS], [T0])
    np.testing.assert_array_equal(table.values, [[1, 2]])
    assert table.values.dtype == np.float32
    assert set(read_table([path]).channels) == {"a", "b"}


def test_lines_are_counted_as_an_editor_counts(tmp_path: Path) -> None:
    text = f'timestamp,a,note\r\n{T0},1,"two\r\nlines"\r\n\r\n{T0},x,fine\r\n'
    assert "line 5, column a" in refused(written(tmp_path, text))
    assert "line 5: 2 cells" in refused(written(tmp_path, text.replace(",fine", "")))


def test_places_are_right_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "CHUNK_CELLS", 12)  # four rows of three cells
    rows = [f"{60_000 * i},{i if i > 5 else ''},{'x' if i == 9 else i}" for i in range(12)]
    assert "line 11, column b" in refused(written(tmp_path, "timestamp,a,b\n" + "\n".join(rows)))
    rows[9] = "540000,9,9"
    table = read_table([written(tmp_path, "timestamp,a,b\n" + "\n".join(rows))])
    assert table.channels == ("a", "b")
    np.testing.assert_array_equal(table.values[:, 0], [NAN] * 6 + list(range(6, 12)))
    np.testing.assert_array_equal(table.values[:, 1], range(12))


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    text = f"timestamp,a\n{T0},1\n"
    code = "from detector.adapters.files import read_table; print(read_table(['/dev/stdin']).values.tolist())"
    done = subprocess.run([sys.executable, "-c", code], input=gzip.compress(text.encode()), capture_output=True)
    assert done.stdout == b"[[1.0]]\n", done.stderr


# channels


def test_columns_that_are_no_numbers_are_ignored(tmp_path: Path) -> None:
    text = f"timestamp,site,a,empty,late\n{T0},north,1,,\n{T0},7,2,,3\n"
    table = read_table([written(tmp_path, text)])
    assert table.channels == ("a", "late")
    np.testing.assert_array_equal(table.values, np.array([[1, NAN], [2, 3]], np.float32))


def test_given_channels_are_taken_in_their_order(tmp_path: Path) -> None:
    path = written(tmp_path, f"timestamp,a,label,b,c\n{T0},1,yes,2,x\n")
    table = read_table([path], channels=("b", "absent", "a"))
    assert table.channels == ("b", "absent", "a")
    np.testing.assert_array_equal(table.values, np.array([[2, NAN, 1]], np.float32))
    assert "column c" in refused(path, channels=("a", "c"))
    assert "none of the model's channels" in refused(path, channels=("x", "y"))


def test_channels_of_several_files_are_united(tmp_path: Path) -> None:
    one = written(tmp_path, f"timestamp,b,a\n{T0},1,2\n", "one.csv")
    two = written(tmp_path, f"timestamp,c,a\n{T0},3,4\n", "two.csv")
    table = read_table([one, two])
    assert table.channels == ("b", "a", "c")
    np.testing.assert_array_equal(table.values, np.array([[1, 2, NAN], [NAN, 4, 3]], np.float32))


def test_a_channel_of_one_file_that_is_text_in_another(tmp_path: Path) -> None:
    one = written(tmp_path, f"timestamp,a,b\n{T0},1,2\n", "one.csv")
    two = written(tmp_path, f"timestamp,a,b\n{T0},4,\n{T0},4,off\n", "two.csv")
    message = refused(one, two)
    assert f"{two}, column b, line 3: 'off'" in message


# streams and several files


def test_streams(tmp_path: Path) -> None:
    plain = written(tmp_path, f"timestamp,a\n{T0},1\n")
    named = written(tmp_path, f"timestamp,stream,a\n{T0},m-2,1\n{T0}, né 1,1\n", "named.csv")
    assert read_table([plain]).streams == ["default"]
    assert read_table([plain], default_stream="m").streams == ["m"]
    assert read_table([f"x={plain}"], default_stream="m").streams == ["x"]
    assert read_table([named], default_stream="m").streams == ["m-2", " né 1"]
    assert "column stream of its own" in refused(f"x={named}")
    assert "not a stream's name" in refused(f"={plain}")


def test_a_path_that_holds_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "day=1"
    folder.mkdir()
    path = written(folder, f"timestamp,a\n{T0},1\n", "a=b.csv")
    assert read_table([path]).streams == ["default"]
    assert read_table([f"m={path}"]).streams == ["m"]
    assert str(folder / "c.csv") in refused(str(folder / "c.csv"))


def heads(files: list[list[int]]) -> list[tuple[int, int]]:
    """(file, row) in the order of a merge on heads: the head with the least time goes first, ties by file."""
    at = [0] * len(files)
    order = []
    while any(at[f] < len(file) for f, file in enumerate(files)):
        _, first = min((file[at[f]], f) for f, file in enumerate(files) if at[f] < len(file))
        order.append((first, at[first]))
        at[first] += 1
    return order


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=4))
def test_files_are_merged_on_their_heads(files: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for f, times in enumerate(files):
            rows = "".join(f"{time},{f},{row}\n" for row, time in enumerate(times))
            sources.append(f"s{f}=" + written(Path(folder), "timestamp,file,row\n" + rows, f"{f}.csv"))
        table = read_table(sources)
    expected = heads(files)
    assert [(int(f), int(row)) for f, row in table.values] == expected
    assert table.streams == [f"s{f}" for f, _ in expected]
    assert table.timestamps == [str(files[f][row]) for f, row in expected]
    assert table.times.tolist() == [files[f][row] * 1_000_000 for f, row in expected]


cells = st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False))
names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda s: not s.isspace()
)


@given(st.lists(st.tuples(names, st.integers(0, 2**40), cells, cells), min_size=1, max_size=20))
def test_what_is_written_is_read(rows: list[tuple[str, int, float | None, float | None]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["stream", "timestamp", 'a "1", b', "b"])
    writer.writerows([stream, time, *("" if v is None else repr(v) for v in values)] for stream, time, *values in rows)
    with tempfile.TemporaryDirectory() as folder:
        table = read_table([written(Path(folder), text.getvalue())], channels=('a "1", b', "b"))
    assert table.streams == [row[0] for row in rows]
    assert table.timestamps == [str(row[1]) for row in rows]
    expected = [[NAN if v is None else v for v in row[2:]] for row in rows]
    np.testing.assert_array_equal(table.values, np.array(expected, np.float32))


# batches


def table_of(streams: list[str]) -> Table:
    n = len(streams)
    values = np.arange(n, dtype=np.float32)[:, None]
    return Table(streams, np.arange(n, dtype=np.int64), values, [str(i) for i in range(n)], ("a",))


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 12), st.sampled_from([1, 3, 8]))
def test_batches_hold_every_row_once(streams: list[str], size: int, partitions: int) -> None:
    table = table_of(streams)
    batches = list(table.batches(size, partitions))
    rows = [int(row) for batch in batches for readings in batch for row in readings.values[:, 0]]
    assert rows == table.order(size, partitions).tolist()
    assert sorted(rows) == list(range(len(streams)))
    home: dict[str, int] = {}
    last: dict[int, int] = {}
    for batch in batches:
        assert len({readings.partition for readings in batch}) == len(batch)
        assert 0 < sum(map(len, batch)) <= size
        for readings in batch:
            for stream, time in zip(readings.streams, readings.times.tolist(), strict=True):
                assert home.setdefault(stream, readings.partition) == readings.partition
                assert last.get(readings.partition, -1) < time
                assert streams[time] == stream
                last[readings.partition] = time
    if partitions == 1:
        assert rows == list(range(len(streams)))


# Parquet


def parquet(folder: Path, /, **columns: object) -> str:
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("times", "texts"),
    [
        (pa.array([T0_NS, T0_NS + 1], pa.timestamp("ns")), [T0, "2024-01-01T00:00:00.000000001Z"]),
        (pa.array([T0_NS // 10**6] * 2, pa.timestamp("ms", tz="Europe/Paris")), [T0, T0]),
        (pa.array([T0_NS // 10**9] * 2, pa.timestamp("s")), [T0, T0]),
        (pa.array([T0, "2024-01-01 00:00"]), [T0, "2024-01-01 00:00"]),
        (pa.array([T0_NS // 10**6] * 2), ["1704067200000"] * 2),
        (pa.array([1704067200000.0] * 2), ["1704067200000.0"] * 2),
        (pa.array([T0, T0]).dictionary_encode(), [T0, T0]),
    ],
)
def test_parquet(tmp_path: Path, times: object, texts: list[str]) -> None:
    path = parquet(
        tmp_path,
        timestamp=times,
        a=pa.array([1, None], pa.int64()),
        name=pa.array(["x", "y"]),
        empty=pa.array([None, None], pa.float64()),
        flag=pa.array([True, False]),
        b=pa.array([NAN, 0.1], pa.float64()),
    )
    table = read_table([f"m={path}"])
    assert table.channels == ("a", "b")
    assert table.timestamps == texts
    assert table.streams == ["m", "m"]
    assert [ns // 10 for ns in table.times.tolist()] == [T0_NS // 10] * 2
    np.testing.assert_array_equal(table.values, np.array([[1, NAN], [NAN, 0.1]], np.float32))
    np.testing.assert_array_equal(read_table([path], channels=("b",)).values, np.array([[NAN], [0.1]], np.float32))


def test_parquet_and_csv_are_one_log(tmp_path: Path) -> None:
    one = parquet(tmp_path, timestamp=pa.array([0, 2]), a=pa.array([0.0, 2.0]), stream=pa.array(["p", "q"]))
    two = written(tmp_path, "timestamp,a\n1,1\n3,3\n")
    table = read_table([one, two])
    assert table.values[:, 0].tolist() == [0, 1, 2, 3]
    assert table.streams == ["p", "default", "q", "default"]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": [1.0]}, "no column timestamp"),
        ({"timestamp": [T0], "label": [1]}, "column label"),
        ({"timestamp": [T0, T0], "a": [1.0, float("inf")]}, "row 2, column a"),
        ({"timestamp": [T0, T0], "a": [1.0, 1e39]}, "row 2, column a"),
        ({"timestamp": [T0, None], "a": [1.0, 2.0]}, "row 2, column timestamp"),
        ({"timestamp": [-1], "a": [1.0]}, "row 1, column timestamp"),
        ({"timestamp": [True], "a": [1.0]}, "row 1, column timestamp"),
        ({"timestamp": [T0], "a": ["1"]}, "no channel found"),
        ({"timestamp": [T0], "a": [1.0], "stream": pa.array([None], pa.string())}, "row 1, column stream"),
        ({"timestamp": [T0], "a": [1.0], "stream": [7]}, "row 1, column stream"),
        ({"timestamp": pa.array([], pa.string()), "a": pa.array([], pa.float64())}, "no rows"),
    ],
)
def test_parquet_that_cannot_be_read(tmp_path: Path, columns: dict[str, object], says: str) -> None:
    path = parquet(tmp_path, **columns)
    message = refused(path)
    assert says in message
    assert path in message


def test_parquet_text_where_the_model_wants_a_number(tmp_path: Path) -> None:
    assert "column a: its type is string" in refused(parquet(tmp_path, timestamp=[T0], a=["1"]), channels=("a",))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path, timestamp=list(range(1000)), a=list(range(1000)))
    whole = Path(path).read_bytes()
    for broken in (whole[:100], b"PAR1", b"", b"timestamp,a\n1,2\n"):
        Path(path).write_bytes(broken)
        assert path in refused(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path, timestamp=[T0], a=[1.0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"residual\[parquet\]"):
        read_table([path])
