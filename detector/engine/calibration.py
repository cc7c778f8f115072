"""Calibration: from raw scores of normal readings to a threshold and p-values.

Split conformal prediction (Papadopoulos et al. 2002; Vovk, Gammerman & Shafer 2005): with ``n`` exchangeable normal
scores that the model was not fitted on, the ⌈(n + 1)(1 - rate)⌉-th smallest is exceeded by a new normal score with
probability at most ``rate``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Raw scores are mean squared residuals in units of their normal mean square, so 1 is ordinary; a threshold below this
#: would call rounding errors of a constant stream anomalous.
FLOOR = 1e-3

#: Points of the tail that are kept: p-values finer than 1e-3 of each other are of no use to anybody.
TAIL_POINTS = 4096

Scores = NDArray[np.float64]


def needed(rate: float) -> int:
    """How many scores a threshold at ``rate`` needs at least.

    >>> needed(1e-3)
    999
    """
    return math.ceil(1 / rate) - 1


def split_conformal(scores: Scores, rate: float, floor: float = FLOOR) -> float:
    """The raw score that counts as 1; NaN scores are left out.

    With fewer than ``needed(rate)`` scores no score reaches that far, and the largest is scaled up by the number of
    times that it would have to be seen, as if the tail were exponential: max · (1 + log(needed / n)). With none the
    result is infinite: nothing is anomalous until there is something to compare with.
    """
    scores = np.sort(scores[~np.isnan(scores)])
    n = len(scores)
    if n == 0:
        return math.inf
    rank = math.ceil((n + 1) * (1 - rate) - 1e-9)
    if rank <= n:
        return max(float(scores[rank - 1]), floor)
    return max(float(scores[-1]) * (1 + math.log(max(needed(rate) / n, 1))), floor)


def tail(scores: Scores) -> tuple[Scores, Scores]:
    """Distinct scores (ascending) and the p-value of anything just above each, at most TAIL_POINTS, dense at the top.

    ``tail_p = (1 + number of calibration scores above tail_score) / (n + 1)``.
    """
    scores = np.sort(scores[~np.isnan(scores)])
    n = len(scores)
    points = np.unique(scores)
    if len(points) > TAIL_POINTS:  # the uppermost quarter in full, the rest evenly spread
        top = TAIL_POINTS // 4
        spread = np.linspace(0, len(points) - top - 1, TAIL_POINTS - top).astype(np.int64)
        points = np.concatenate([points[np.unique(spread)], points[-top:]])
    above = n - np.searchsorted(scores, points, side="right")
    return points, (1.0 + above) / (n + 1)


def p_values(scores: Scores, tail_score: Scores, tail_p: Scores) -> Scores:
    """Conformal p-values ``[N]`` of scores in thresholds ``[N]``: (1 + scores at least as large) / (n + 1).

    NaN stays NaN. Where points of the tail were left out the p-value is the larger one, never too small.
    """
    table = np.concatenate([[1.0], tail_p])
    p = table[np.searchsorted(tail_score, scores, side="left")]
    return np.where(np.isnan(scores), np.nan, p)
