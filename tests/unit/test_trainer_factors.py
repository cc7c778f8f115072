"""Factors of streams: found where streams differ, and not made up where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.episodes import Peaks
from trainer.factors import LEAST, factors_of


def peaks(scale: np.ndarray, each: int, seed: int = 0) -> Peaks:
    rng = np.random.default_rng(seed)
    count = len(scale)
    stream = np.repeat(np.arange(count), each)
    strength = scale[stream] * (2 + rng.exponential(size=count * each))
    return Peaks(stream, np.tile(np.arange(each), count), strength, np.full(count, each / 10), 0.05)


def test_streams_alike_keep_the_group_s_tail() -> None:
    factor = factors_of(peaks(np.ones(50), 60))
    assert np.abs(np.log(factor)).max() < 0.05


def test_streams_that_differ_get_their_own() -> None:
    scale = np.geomspace(0.2, 5, 30)
    factor = factors_of(peaks(scale, 100))
    assert factor / np.median(factor) == pytest.approx(scale / np.median(scale), rel=0.25)


def test_a_little_data_moves_a_factor_less() -> None:
    scale = np.where(np.arange(40) % 2, 1.3, 1 / 1.3)
    few, many = (np.abs(np.log(factors_of(peaks(scale, each)))).mean() for each in (LEAST, 20 * LEAST))
    assert few < many
    assert many == pytest.approx(np.log(1.3), rel=0.1)


def test_with_too_little_or_alone_a_stream_is_like_its_group() -> None:
    assert (factors_of(peaks(np.array([1.0, 9.0, 3.0]), LEAST - 1)) == 1).all()
    assert (factors_of(peaks(np.array([7.0]), 500)) == 1).all()


def test_faults_of_one_stream_do_not_raise_its_factor() -> None:
    found = peaks(np.ones(20), 100)
    strength = found.strength.copy()
    strength[:10] *= 100  # of the first stream, one in ten
    factor = factors_of(Peaks(found.stream, found.time, strength, found.days, found.gap_days))
    assert factor[0] < 1.3
