"""Planted faults of images: pictures as before, of the same size and range, changed where the kind says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.images.faults import KINDS

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))


@pytest.mark.parametrize("kind", KINDS)
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_of_any_size(kind: str, size: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, other = rng.random(size, np.float32), rng.random(size, np.float32)
    before = image.copy()
    planted = KINDS[kind](image, other, np.random.default_rng(seed))
    assert planted.shape == size
    assert planted.dtype == np.float32
    assert planted.min() >= 0
    assert planted.max() <= 1
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(planted, KINDS[kind](image, other, np.random.default_rng(seed)))
    changed = (planted != image).any(axis=2)
    if kind in ("spot", "patch"):  # nothing beyond a square of less than half the shorter side
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        most = max(round(0.45 * min(size[:2])), 1)
        assert np.ptp(rows) < most if len(rows) else True
        assert np.ptp(columns) < most if len(columns) else True
    if kind == "blank":
        assert (planted[changed.all(axis=1)] == 0).all()
    if kind == "upside_down":
        np.testing.assert_array_equal(planted[::-1, ::-1], image)
