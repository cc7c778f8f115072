"""Pictures of error maps: what a reader of PNG sees, and how large they are."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from detector.engine.pictures import LEVELS, MOST_BYTES, error_png, peak_of, shrunk

Floats = NDArray[np.float32]

maps = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(0, 2.0**99, width=32) | st.just(float("nan")) | st.just(float("inf")),
)


def seen(png: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The palette's indices ``[H, W]`` and the colours ``[H, W, 3]``, by another program's reader."""
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(png))
    image.load()
    assert image.mode == "P"
    return np.asarray(image), np.asarray(image.convert("RGB"))


@given(maps)
def test_any_map_is_a_picture(error: Floats) -> None:
    png = error_png(error)
    levels, _ = seen(png)
    assert len(png) <= MOST_BYTES
    assert levels.shape == error.shape
    np.testing.assert_array_equal(levels == LEVELS, np.isnan(error))
    known = ~np.isnan(error)
    order = np.argsort(error[known], kind="stable")
    assert (np.diff(levels[known][order].astype(int)) >= 0).all(), "a larger error is never darker"


@pytest.mark.parametrize(
    "shape", [(1, 1), (28, 28), (105, 105), (130, 130), (480, 640), (2160, 3840), (1, 99_999), (99_999, 1)]
)
def test_it_fits_however_large_the_map(shape: tuple[int, int]) -> None:
    error = np.random.default_rng(0).random(shape, np.float32)
    row, column = shape[0] * 2 // 3, shape[1] // 3
    error[row, column] = 9
    png = error_png(error)
    levels, _ = seen(png)
    assert len(png) <= MOST_BYTES
    factor = -(-shape[0] // levels.shape[0]) if shape[0] > 1 else -(-shape[1] // levels.shape[1])
    assert levels[row // factor, column // factor] == LEVELS - 1, "the peak is still there"
    assert (levels == LEVELS - 1).sum() == 1


def test_colours() -> None:
    error = np.array([[0, 1, 2, 3, np.nan]], np.float32)
    _, colours = seen(error_png(error))
    assert colours[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [40, 60, 120]]


def test_a_given_top_makes_pictures_comparable() -> None:
    levels, _ = seen(error_png(np.array([[0.5, 1, 7]], np.float32), most=1.0))
    assert levels.tolist() == [[32, LEVELS - 1, LEVELS - 1]]


def test_no_error_at_all_is_black() -> None:
    levels, _ = seen(error_png(np.zeros((3, 4), np.float32)))
    assert not levels.any()


def test_the_same_bytes_everywhere() -> None:
    """They depend on no library's compression."""
    error = (np.arange(20 * 30, dtype=np.float32) % 97).reshape(20, 30)
    assert hashlib.sha256(error_png(error)).hexdigest() == (
        "6d7f0d13e589815e4670a0ac2dbc22ec704a5133d254094c47eb1816fc2b3a3b"
    )


def test_shrinking_ignores_what_does_not_count() -> None:
    error = np.full((300, 300), np.nan, np.float32)
    error[7, 7] = 2
    small = shrunk(error)
    assert np.nanmax(small) == 2
    assert np.isnan(small).sum() == small.size - 1


def test_peak() -> None:
    error = np.array([[0, 5, np.nan], [1, 5, 2]], np.float32)
    assert peak_of(error) == (0, 1, 5.0)
    assert peak_of(np.full((2, 2), np.nan, np.float32)) == (0, 0, 0.0)
    assert peak_of(np.zeros((2, 2), np.float32)) == (0, 0, 0.0)
