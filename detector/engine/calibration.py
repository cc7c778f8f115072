"""Calibration: from scores of normal readings to p-values. (Thresholds come from episodes: see ``tails``.)

Split conformal prediction (Papadopoulos et al. 2002; Vovk, Gammerman & Shafer 2005): of ``n`` exchangeable normal
scores that the model was not fitted on, as many as (n + 1) · p are at least as large as one with the p-value ``p``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Raw scores are mean squared residuals in units of their normal mean square, so 1 is ordinary; a threshold below this
#: would call rounding errors of a constant stream anomalous.
FLOOR = 1e-3

#: Points of the tail that are kept: p-values finer than 1e-3 of each other are of no use to anybody.
TAIL_POINTS = 4096

Scores = NDArray[np.float64]


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


def typical(tail_score: Scores, tail_p: Scores) -> float:
    """The geometric mean of the scores that a tail was made from, about; 0 where there were none.

    >>> round(typical(*tail(np.array([1.0, 2.0, 4.0, 8.0, 16.0]))), 1)
    4.0
    """
    if not len(tail_score):
        return 0.0
    share = -np.diff(tail_p, prepend=1.0)
    logs = np.log(np.maximum(tail_score, 1e-30))
    return float(np.exp(np.average(logs, weights=share)))


def p_values(scores: Scores, tail_score: Scores, tail_p: Scores) -> Scores:
    """Conformal p-values ``[N]`` of scores in thresholds ``[N]``: (1 + scores at least as large) / (n + 1).

    NaN stays NaN. Where points of the tail were left out the p-value is the larger one, never too small.
    """
    table = np.concatenate([[1.0], tail_p])
    p = table[np.searchsorted(tail_score, scores, side="left")]
    return np.where(np.isnan(scores), np.nan, p)
