"""How streams fare in their calibration stretch."""

from __future__ import annotations

import numpy as np
import pytest

from detector.engine.incidents import Policy
from trainer.calibrate import Calibrated
from trainer.episodes import peaks_of
from trainer.stretch import DAY_NS, fared
from trainer.tails import fit_tail

MINUTE_NS = DAY_NS // 1440
TWO_OF_THREE = Policy(k=2, n=3, quiet=5)


def calibrated(
    scores: dict[int, list[float]], streams: int, threshold: float = 2.0, policy: Policy = TWO_OF_THREE
) -> Calibrated:
    """Scores in thresholds of some streams, a reading every minute, in order of arrival."""
    rows = sorted((at, s, score) for s, own in scores.items() for at, score in enumerate(own))
    rows.sort(key=lambda row: (row[1], row[0]))
    times = np.array([at * MINUTE_NS for at, _, _ in rows], np.int64)
    stream = np.array([s for _, s, _ in rows], np.int64)
    score = np.array([score * threshold for _, _, score in rows])
    peaks = peaks_of(score, times, stream, streams, MINUTE_NS, 13, policy)
    return Calibrated(
        rate=1 / 7,
        group=threshold,
        threshold=np.full(streams, threshold),
        band=None,
        factor=np.ones(streams),
        tail_score=np.empty(0),
        tail_p=np.empty(0),
        times=times,
        stream=stream,
        score=score,
        peaks=peaks,
        fitted=fit_tail(peaks.strength, float(peaks.days.sum()), peaks.gap_days),
        order=np.argsort(-peaks.strength, kind="stable"),
        share=1.0,
        policy=policy,
        warnings=[],
    )


def test_scores_are_told_by_stream() -> None:
    result = fared(calibrated({0: [0.1, 0.2, 5.0, 0.3], 2: [0.5, 0.5]}, 3), 3, MINUTE_NS)
    assert result.median.tolist() == pytest.approx([0.25, np.nan, 0.5], nan_ok=True)
    assert result.largest.tolist() == pytest.approx([5.0, np.nan, 0.5], nan_ok=True)
    assert result.above.tolist() == pytest.approx([0.25, np.nan, 0.0], nan_ok=True)


@pytest.mark.parametrize(
    ("above", "incidents"),
    [
        ([], 0),
        ([100], 0),  # one reading of three opens nothing
        ([100, 101], 1),
        ([100, 102], 1),
        ([100, 103], 0),
        (range(100, 200), 1),  # one endless alarm is one
        ([100, 101, 300, 301], 2),
        ([0, 1], 1),
        ([1438, 1439], 1),
    ],
)
def test_episodes_are_the_incidents_that_the_detector_would_open(above: list[int], incidents: int) -> None:
    score = np.full(1440, 0.5)
    score[list(above)] = 1.5
    result = fared(calibrated({0: score.tolist(), 1: [0.5] * 10}, 2), 2, MINUTE_NS)
    assert result.episodes.tolist() == pytest.approx([incidents, 0.0])


def test_another_policy_opens_others() -> None:
    score = [0.5] * 700 + [1.5] + [0.5] * 739
    result = fared(calibrated({0: score}, 1, policy=Policy(k=1, n=1)), 1, MINUTE_NS)
    assert result.episodes[0] == pytest.approx(1.0)
