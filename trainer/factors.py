"""How far each stream's scores stretch the tail of its group.

A stream's own tail cannot be told from some days of it: a promise of one episode a week wants months. What can be told
is how its higher peaks lie to those of all, and even that only as far as it has independent ones. So its factor is
drawn towards the group's in proportion to what its sample is worth (empirical Bayes; Efron & Morris 1975).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.episodes import Peaks

#: Which of a stream's peaks it is compared by: high enough to say something about the tail, and low enough that some
#: faults among them do not matter.
QUANTILE = 0.8

#: Runs of a stream's peaks whose quantiles tell how much that of all is worth: they hold what drifts slowly.
BLOCKS = 5

#: Peaks of a stream below which it takes the group's tail as it is.
LEAST = 4 * BLOCKS

Floats = NDArray[np.float64]


def factors_of(peaks: Peaks) -> Floats:
    """``[S]``, 1 for a stream like its group or one of which too little is known.

    Of logarithms of quantiles of peaks: with a spread between streams of variance τ² and an own error of variance v,
    the factor is the deviation to the power τ² / (τ² + v).
    """
    streams = len(peaks.days)
    log = np.log(np.maximum(peaks.strength, 1e-12))
    upper, error = (np.full(streams, np.nan) for _ in range(2))
    order = np.lexsort((peaks.time, peaks.stream))
    cuts = np.searchsorted(peaks.stream[order], np.arange(streams + 1))
    for s in range(streams):
        own = log[order[cuts[s] : cuts[s + 1]]]
        if len(own) >= LEAST:
            upper[s] = np.quantile(own, QUANTILE)
            of_blocks = [np.quantile(block, QUANTILE) for block in np.array_split(own, BLOCKS)]
            error[s] = np.var(of_blocks, ddof=1) / BLOCKS
    known = ~np.isnan(upper)
    if known.sum() < 2:
        return np.ones(streams)
    off = upper - np.median(upper[known])
    pooled = float(np.mean(error[known]))  # a variance of five quantiles is a guess: all streams' together is none
    between = max(float(np.var(off[known], ddof=1)) - pooled, 0.0)
    shrunk = np.where(known, off, 0.0) * (between / (between + pooled) if between else 0.0)
    return np.exp(shrunk)
