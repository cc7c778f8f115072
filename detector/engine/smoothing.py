"""Smoothing: recent raw scores as one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smoothing_weights(span: float) -> NDArray[np.float64]:
    """Weights of the newest scores, newest last: an exponentially weighted mean, cut off after two spans.

    The smoothing factor is 2 / (span + 1). A finite memory lets recent scores be derived again from the raw tail.
    """
    alpha = 2.0 / (span + 1.0)
    length = 1 if span <= 1 else int(np.ceil(2 * span))
    return np.power(1 - alpha, np.arange(length - 1, -1, -1, dtype=np.float64))


def smoothed(history: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean over the scores ``[n, L]`` that are there; NaN where the newest is not.

    A loop over the L columns, not a matrix product: the order of additions must not depend on how many rows there are.
    """
    newest = history[:, -1]
    if len(weights) == 1:
        return newest
    total, weight = np.zeros(len(history)), np.zeros(len(history))
    for column, w in enumerate(weights):
        scores = history[:, column]
        there = ~np.isnan(scores)
        total += np.where(there, scores, 0.0) * w
        weight += there * w
    return np.where(np.isnan(newest), np.nan, total / np.where(weight > 0, weight, 1.0))
