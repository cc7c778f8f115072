"""How each stream fares in its calibration stretch, which is normal as far as anybody knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.engine.model import Model
from detector.engine.scorer import Scorer
from detector.engine.segments import Segments
from trainer.calibrate import Calibrated
from trainer.data import CLIP, Prepared
from trainer.episodes import opened

DAY_NS = 86_400 * 10**9

#: Windows of a stream that its mean error is measured on, spread over the stretch.
MEASURED = 200

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fared:
    """Of each of S streams; NaN where it has no score. Scores are in thresholds."""

    median: Floats
    """``[S]``."""
    largest: Floats
    """``[S]``."""
    above: Floats
    """``[S]``: share of the scores above 1."""
    episodes: Floats
    """``[S]``: incidents that the detector would have opened, a day. None of them is known to be a fault."""


def fared(calibrated: Calibrated, streams: int, interval_ns: int) -> Fared:
    """What the stretch's scores say of each stream."""
    order = np.lexsort((calibrated.times, calibrated.stream))
    stream = calibrated.stream[order]
    score = calibrated.score[order] / calibrated.threshold[stream]
    segments = Segments.of(stream)
    opens = opened(score, stream, 1.0, calibrated.policy)
    result = Fared(*(np.full(streams, np.nan) for _ in range(4)))
    for number, s in enumerate(segments.slots):
        part = slice(segments.first[number], segments.first[number] + segments.counts[number])
        own = score[part]
        result.median[s], result.largest[s] = np.median(own), own.max()
        result.above[s] = np.mean(own > 1)
        result.episodes[s] = opens[part].sum() / (len(own) * interval_ns / DAY_NS)
    return result


def mean_error(model: Model, data: Prepared, streams: int) -> Floats:
    """Mean absolute error of the newest reading over the channels, in spreads, of the first ``streams`` streams.

    NaN where a stream has no window in the calibration stretch. By the served graph.
    """
    scorer = Scorer(model.graph, model.manifest.batching)
    bounds = np.searchsorted(data.stream[data.calibration_ends], np.arange(streams + 1))
    errors = np.full(streams, np.nan)
    for s in range(streams):
        if bounds[s] == bounds[s + 1]:
            continue
        chosen = np.unique(np.linspace(bounds[s], bounds[s + 1] - 1, MEASURED).astype(np.int64))
        given = data.calibration.raw(chosen)
        expected = scorer.score(*given)[2]  # [n, C]
        off = _scaled(given.x[:, -1], given.loc, given.scale) - _scaled(expected, given.loc, given.scale)
        errors[s] = np.nanmean(np.abs(off))
    return errors


def _scaled(values: NDArray[np.float32], loc: NDArray[np.float32], scale: NDArray[np.float32]) -> Floats:
    """As far off as the graph believes it: one wild reading counts CLIP spreads."""
    scaled: Floats = np.clip((values - loc) / scale, -CLIP, CLIP).astype(np.float64)
    return scaled
