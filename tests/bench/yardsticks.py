"""Scorers that any model must beat, in a few lines each and without any of the product's code.

All are fitted on the first 70 % of train and promise 1e-3 per reading by split conformal on the rest. Each scaled value
is clipped to ±10 standard deviations, a standard deviation being at least .01.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.decomposition import PCA

Floats = NDArray[np.float64]
#: (train ``[N, C]``, test ``[M, C]``, seed) → raw scores of the calibration stretch and of test ``[M]``.
Yardstick = Callable[[Floats, Floats, int], tuple[Floats, Floats]]

FIT_SHARE = 0.7
RATE = 1e-3
WINDOW = 10
VARIANCE = 0.9


def random(train: Floats, test: Floats, seed: int) -> tuple[Floats, Floats]:
    """No information at all."""
    rng = np.random.default_rng(seed)
    return rng.random(len(train) - _cut(train)), rng.random(len(test))


def norm2(train: Floats, test: Floats, seed: int) -> tuple[Floats, Floats]:
    """Mean squared z-score of the newest reading: no model."""
    cut, x = _scaled(train, test)
    score = np.mean(x**2, axis=1)
    return score[cut : len(train)], score[len(train) :]


def window_pca(train: Floats, test: Floats, seed: int) -> tuple[Floats, Floats]:
    """Mean squared error of the window's reconstruction by principal components, at the window's last reading."""
    cut, x = _scaled(train, test)
    windows = sliding_window_view(x, WINDOW, axis=0).reshape(len(x) - WINDOW + 1, -1)  # ends at reading i + WINDOW - 1
    pca = PCA(VARIANCE, svd_solver="full").fit(windows[: cut - WINDOW + 1])
    centred = windows - pca.mean_
    # the basis is orthonormal: what it does not hold is the rest of the squared length
    rest = np.sum(centred**2, axis=1) - np.sum((centred @ pca.components_.T) ** 2, axis=1)
    score = np.concatenate([np.full(WINDOW - 1, np.nan), rest / windows.shape[1]])
    return score[cut : len(train)], score[len(train) :]


YARDSTICKS: dict[str, Yardstick] = {"random": random, "norm2": norm2, f"sklearn PCA, window {WINDOW}": window_pca}


def threshold(calibration: Floats) -> float:
    """What a new normal score exceeds with probability at most RATE, were all exchangeable."""
    rank = math.ceil((len(calibration) + 1) * (1 - RATE))
    return float(np.sort(calibration)[min(rank, len(calibration)) - 1])


def _cut(train: Floats) -> int:
    return int(len(train) * FIT_SHARE)


def _scaled(train: Floats, test: Floats) -> tuple[int, Floats]:
    """(end of the fitting part, train and test end to end in standard deviations)."""
    cut = _cut(train)
    loc, scale = train[:cut].mean(axis=0), np.maximum(train[:cut].std(axis=0), 0.01)
    return cut, np.clip((np.concatenate([train, test]) - loc) / scale, -10, 10)
