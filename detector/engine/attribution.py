"""Attribution: how much each channel has to do with a score.

A published score is a mean over the newest readings, so that of an alert is often about a reading before it: a spike
that two readings later is called one. Shares are of that mean. The errors of the readings before the newest are not
kept; for the few readings that are told of they are worked out again, from what the newest one's window holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.engine.scorer import Scorer

Floats = NDArray[np.float32]


def smoothed_error(
    scorer: Scorer,
    x: Floats,
    loc: Floats,
    scale: Floats,
    context: Floats | None,
    weights: NDArray[np.float64],
    spread: Floats | None = None,
) -> Floats:
    """The errors of the readings of a window, smoothed as their scores are, ``[C]``.

    ``x`` ``[W, C]`` with NaN where missing, ``loc``, ``scale`` and ``spread`` ``[C]``, ``context`` ``[K]`` of the
    newest reading (what is usual hardly changes within a window), ``weights`` ``[L]`` of the scores, the newest last.
    A reading is scored with those before it in the window; where they are fewer than half a window, it does not count.
    """
    W = len(x)
    count = min(len(weights), W - W // 2)
    windows = np.full((count, *x.shape), np.nan, np.float32)
    for back in range(count):
        windows[back, back:] = x[: W - back]
    level, scales = (np.repeat(one[None], count, axis=0) for one in (loc, scale))
    usual, times = (None if one is None else np.repeat(one[None], count, axis=0) for one in (context, spread))
    error = scorer.score(windows, level, scales, usual, times)[1].astype(np.float64)  # [count, C]
    there = np.asarray(~np.isnan(windows[:, -1]).all(axis=1))
    counted = np.where(there[:, None], error, 0.0)  # (an error may be infinite, and a weight 0)
    with np.errstate(invalid="ignore", over="ignore"):
        share: Floats = (weights[::-1][:count, None] * counted).sum(axis=0).astype(np.float32)
    return share
