"""Images from files: arrays, folders of pictures, and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.adapters.images import Images, read_images
from schemas.errors import DataError
from schemas.frame import Frame

Image = pytest.importorskip("PIL.Image")

X = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
SECOND = 1_000_000_000


def saved(folder: Path, name: str = "a.npz", **arrays: Any) -> str:
    path = folder / name
    np.savez(path, **arrays)
    return str(path)


def drawn(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def read(*paths: str) -> Images:
    return read_images(paths)


def refused(*paths: str) -> str:
    """The message with which these are refused: one line that names the path, exit code 2."""
    with pytest.raises(DataError) as caught:
        read(*paths)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert any(path in message for path in paths)
    return message


# arrays


def test_arrays_without_times(tmp_path: Path) -> None:
    images = read(saved(tmp_path, x=X, y=np.arange(3)))
    assert images.frame == Frame(4, 5, 1)
    assert images.table.values.dtype == np.float32
    np.testing.assert_array_equal(images.table.values, X.reshape(3, 20))
    assert images.table.times.tolist() == [0, SECOND, 2 * SECOND]
    assert images.table.timestamps == ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"]
    assert images.table.streams == ["default"] * 3


def test_bands_lie_beside_each_other(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 3))
    images = read(saved(tmp_path, x=x))
    assert images.frame == Frame(3, 4, 3)
    assert images.table.values[1, (2 * 4 + 1) * 3 + 2] == np.float32(x[1, 2, 1, 2])


@pytest.mark.parametrize(
    ("stamps", "texts"),
    [
        (["2024-01-01T00:00:00Z", "2024-01-01T00:00:01.5", "2024-01-01T00:00:03+00:00"], None),
        ([1_704_067_200_000, 1_704_067_201_500, 1_704_067_203_000], None),
        ([1_704_067_200_000.0, 1_704_067_201_500.0, 1_704_067_203_000.0], None),
        (
            np.array(["2024-01-01T00:00:00", "2024-01-01T00:00:01.5", "2024-01-01T00:00:03"], "datetime64[ms]"),
            ["2024-01-01T00:00:00Z", "2024-01-01T00:00:01.5Z", "2024-01-01T00:00:03Z"],
        ),
    ],
)
def test_times_and_streams(tmp_path: Path, stamps: Any, texts: list[str] | None) -> None:
    images = read(saved(tmp_path, x=X, timestamp=stamps, stream=["b", "a", "b"]))
    start = 1_704_067_200 * SECOND
    assert images.table.times.tolist() == [start, start + 1_500_000_000, start + 3 * SECOND]
    assert images.table.streams == ["b", "a", "b"]
    assert images.table.timestamps == (texts or [str(stamp) for stamp in stamps])


def test_several_files_are_one_log(tmp_path: Path) -> None:
    a = saved(tmp_path, "a.npz", x=X, timestamp=[5000, 1000, 9000])
    b = saved(tmp_path, "b.npz", x=X + 100, timestamp=[4000, 5000, 6000])
    images = read_images([f"first={a}", b], "second")
    assert images.table.streams == ["second", "first", "first", "second", "second", "first"]
    assert images.table.timestamps == ["4000", "5000", "1000", "5000", "6000", "9000"]
    assert images.table.values[:, 0].tolist() == [100, 0, 20, 120, 140, 40]


def test_missing_pixels(tmp_path: Path) -> None:
    x = X.astype(np.float64)
    x[1, 2, 3] = np.nan
    assert np.isnan(read(saved(tmp_path, x=x)).table.values).sum() == 1


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"y": X}, "no array x"),
        ({"x": X[0]}, "the shape (4, 5)"),
        ({"x": X[:0]}, "the shape (0, 4, 5)"),
        ({"x": X[..., None, None]}, "the shape (3, 4, 5, 1, 1)"),
        ({"x": X.astype(str)}, "make it an array of numbers"),
        ({"x": X.astype(complex)}, "make it an array of numbers"),
        ({"x": X * 1e300}, "x[0] holds a number that is infinite or beyond 32 bits"),
        ({"x": np.where(X == 59, np.inf, X)}, "x[2] holds"),
        ({"x": X, "timestamp": [1, 2]}, "timestamp has the shape (2,)"),
        ({"x": X, "timestamp": 5}, "timestamp has the shape ()"),
        ({"x": X, "timestamp": ["2024-01-01", "noon", "2024-01-02"]}, "timestamp[1]: 'noon' is not a time"),
        ({"x": X, "timestamp": [1, -1, 2]}, "timestamp[1]: '-1' is not a time"),
        ({"x": X, "timestamp": [1, 1e300, 2]}, "timestamp[1]"),
        ({"x": X, "timestamp": [1, float("nan"), 2]}, "timestamp[1]"),
        ({"x": X, "timestamp": np.array([0, 10**9, "NaT"], "datetime64[D]")}, "timestamp[1]"),
        ({"x": X, "timestamp": np.array([0, "NaT", 0], "datetime64[ns]")}, "timestamp[1]"),
        ({"x": X, "timestamp": [True, True, False]}, "timestamp is of type bool"),
        ({"x": X, "stream": [1, 2, 3]}, "stream is of type"),
        ({"x": X, "stream": ["a", "", "b"]}, "stream[1]"),
        ({"x": X, "stream": "abc"}, "stream has the shape"),
        ({"x": X, "stream": np.array(["a", None, "b"], object)}, "without objects"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], what: str) -> None:
    assert what in refused(saved(tmp_path, **arrays))


def test_what_is_no_npz(tmp_path: Path) -> None:
    files = {"a.npz": b"", "b.npz": b"PK\x03\x04 and no more", "c.npz": b"hello", "d.npz": b"\x80\x04N."}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert "cannot be read as .npz" in refused(str(tmp_path / name))
    np.save(tmp_path / "e.npy", X)
    (tmp_path / "e.npy").rename(tmp_path / "e.npz")
    assert "one array without a name" in refused(str(tmp_path / "e.npz"))
    assert "no such file" in refused(str(tmp_path / "f.npz"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_npz_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    whole = Path(saved(tmp_path, x=X, timestamp=[1, 2, 3], stream=["a", "b", "c"])).read_bytes()
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        if place < len(broken):
            broken[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "broken.npz"
    path.write_bytes(broken)
    try:
        images = read(str(path))
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert len(images.table) > 0
    assert "\n" not in message


def test_a_name_given_twice(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X, stream=["a", "b", "c"])
    with pytest.raises(DataError, match="it names its streams itself"):
        read_images([f"camera={path}"])


def test_nothing_given() -> None:
    with pytest.raises(DataError, match="name at least one"):
        read_images([])


# folders


def test_a_folder_of_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    for i, name in enumerate(["b.png", "a.PNG", "c.jpeg", "10.jpg"]):
        drawn(tmp_path / name, np.full((8, 8), 10 * i, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    images = read(str(tmp_path))
    assert images.frame == Frame(8, 8, 1)
    assert images.table.values[:, 0].tolist() == [30, 10, 0, 20]
    assert images.table.timestamps[-1] == "1970-01-01T00:00:03Z"
    assert images.table.streams == ["default"] * 4


def test_folders_are_streams_side_by_side(tmp_path: Path) -> None:
    for stream, count in {"north": 2, "south": 3}.items():
        for i in range(count):
            drawn(tmp_path / stream / f"{i}.png", np.full((2, 3, 3), i, np.uint8))
    images = read(str(tmp_path))
    assert images.frame == Frame(2, 3, 3)
    assert images.table.streams == ["north", "south", "north", "south", "south"]
    assert images.table.times.tolist() == [0, 0, SECOND, SECOND, 2 * SECOND]


@pytest.mark.parametrize(
    ("pixels", "bands", "first"),
    [
        (np.full((2, 2), 7, np.uint8), 1, 7),
        (np.full((2, 2), 60_000, np.uint16), 1, 60_000),
        (np.ones((2, 2), bool), 1, 255),
        (np.full((2, 2, 2), (9, 128), np.uint8), 1, 9),
        (np.full((2, 2, 3), (5, 6, 7), np.uint8), 3, 5),
        (np.full((2, 2, 4), (5, 6, 7, 0), np.uint8), 3, 5),
    ],
)
def test_kinds_of_png(tmp_path: Path, pixels: np.ndarray[Any, Any], bands: int, first: int) -> None:
    drawn(tmp_path / "a.png", pixels)
    images = read(str(tmp_path))
    assert images.frame == Frame(2, 2, bands)
    assert images.table.values[0, 0] == first


def test_a_palette_is_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image = image.convert("P")
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert read(str(tmp_path)).table.values.tolist() == [[1, 2, 3, 4, 5, 6]]


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(str(tmp_path / "empty"))
    assert f"{tmp_path / 'empty'} holds no image" in refused(str(tmp_path))
    drawn(tmp_path / "a.png", X[0])
    assert "both images and folders" in refused(str(tmp_path))


def test_all_images_have_one_size(tmp_path: Path) -> None:
    drawn(tmp_path / "f" / "a.png", X[0])
    drawn(tmp_path / "f" / "b.png", X[0][:3])
    assert f"{tmp_path / 'f' / 'b.png'} is 3×5, {tmp_path / 'f' / 'a.png'} is 4×5" in refused(str(tmp_path / "f"))
    drawn(tmp_path / "g" / "a" / "a.png", X[0])
    drawn(tmp_path / "g" / "b" / "a.png", np.zeros((4, 5, 3), np.uint8))
    assert "is 4×5×3" in refused(str(tmp_path / "g"))
    npz = saved(tmp_path, x=X[:, :3])
    with pytest.raises(DataError, match="make all images one size"):
        read(str(tmp_path / "g" / "a"), npz)


def test_pictures_that_are_none(tmp_path: Path) -> None:
    drawn(tmp_path / "good.png", X[0])
    whole = (tmp_path / "good.png").read_bytes()
    for data in (b"", b"hello", whole[:40], whole[:-20], b"GIF89a" + whole):
        (tmp_path / "bad.png").write_bytes(data)
        assert "bad.png is no picture" in refused(str(tmp_path))


def test_a_folder_of_a_name_that_cannot_be_a_stream(tmp_path: Path) -> None:
    drawn(tmp_path / " " / "a.png", X[0])
    assert "rename the folder" in refused(str(tmp_path))


def test_without_pillow(tmp_path: Path) -> None:
    """A folder says which extra to install; arrays need none."""
    npz = saved(tmp_path, x=X)
    program = f"""
import sys
sys.modules["PIL"] = sys.modules["PIL.Image"] = None
from detector.adapters.images import read_images
from schemas.errors import UserError
assert len(read_images([{npz!r}]).table) == 3
try:
    read_images([{str(tmp_path)!r}])
except UserError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'residual[images]'" in out
    assert out.count("\n") == 1
