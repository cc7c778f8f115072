"""How well scores tell labelled anomalies from normal readings. No point adjustment anywhere.

Point adjustment (a whole segment counts as found where one of its readings is) lets a random score look excellent; see
Kim et al., "Towards a Rigorous Evaluation of Time-Series Anomaly Detection", AAAI 2022.

Arrays are ``[N]``, one entry per reading of one stream in time order: ``label`` bool, ``score`` float (NaN: no score,
which ranks lowest), ``alarm`` bool (a reading over its threshold, or one under an open incident).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Readings after a labelled segment that count neither as normal nor as anomalous: the system is still coming back.
MARGIN = 60
#: Largest buffer of the volume under the surface, as in TSB-AD.
BUFFER = 100
#: Thresholds at which a curve of the surface is taken, as in TSB-AD.
THRESHOLDS = 250
DAY_S = 86_400.0


@dataclass(frozen=True)
class Quality:
    """All columns of the table, for one series and one scorer. NaN where there is nothing to measure."""

    auc_pr: float
    roc: float
    vus_pr: float
    best_f1: float
    """At the threshold that the labels like best: an oracle."""
    f1: float
    """At the calibrated threshold."""
    false_positives: float
    """Share of normal readings over the calibrated threshold."""
    caught: float
    """Share of segments with a reading over the calibrated threshold."""
    alert_f1: float
    """Of readings under an open incident."""
    alarmed: float
    """Share of normal readings under an open incident."""
    episodes_per_day: float
    """False ones, of incidents."""
    alerted: float
    """Share of segments with an open incident inside."""
    delay: float
    """Median readings from a segment's start to the first one under an open incident, over the segments alerted."""


def measure(label: Bools, score: Floats, over: Bools, alert: Bools, interval_s: float) -> Quality:
    """``over``: above the calibrated threshold; ``alert``: an incident is open; ``interval_s``: between readings."""
    filled = ranked(score)
    return Quality(
        auc_pr=auc_pr(label, filled),
        roc=roc_auc(label, filled),
        vus_pr=vus_pr(label, filled),
        best_f1=best_f1(label, filled),
        f1=f1(label, over),
        false_positives=false_positive_rate(label, over),
        caught=caught(label, over),
        alert_f1=f1(label, alert),
        alarmed=false_positive_rate(label, alert),
        episodes_per_day=len(false_episodes(label, alert)) / (len(label) * interval_s / DAY_S),
        alerted=caught(label, alert),
        delay=delay(label, alert),
    )


def mean(qualities: list[Quality]) -> Quality:
    """Each column's mean over series (macro), leaving out series in which it could not be measured."""
    table = np.array([astuple(quality) for quality in qualities], np.float64)
    known = ~np.isnan(table)
    sums = np.where(known, table, 0).sum(axis=0)
    counts = known.sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return Quality(**dict(zip((field.name for field in fields(Quality)), means.tolist(), strict=True)))


def ranked(score: Floats) -> Floats:
    """The scores with one lower than all others where there is none."""
    score = np.asarray(score, np.float64)
    silent = np.isnan(score)
    if not silent.any():
        return score
    lowest = np.nanmin(score) if not silent.all() else 0.0
    return np.where(silent, lowest - 1, score)


def runs(flags: Bools) -> Ints:
    """``[K, 2]``: start and end (exclusive) of each maximal run of true."""
    edges = np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def excused(label: Bools, margin: int = MARGIN) -> Bools:
    """Readings inside a segment or among the ``margin`` after one: an alarm there is not false."""
    flags = np.array(label, dtype=bool)
    for _, end in runs(flags):
        flags[end : end + margin] = True
    return flags


def auc_pr(label: Bools, score: Floats) -> float:
    """Average precision; NaN without an anomaly."""
    return float(average_precision_score(label, score)) if label.any() else float("nan")


def roc_auc(label: Bools, score: Floats) -> float:
    """Area under the receiver operating characteristic; NaN where all readings are of one kind."""
    return float(roc_auc_score(label, score)) if label.any() and not label.all() else float("nan")


def best_f1(label: Bools, score: Floats) -> float:
    """F1 at the best of all thresholds: an oracle, for orientation only."""
    if not label.any():
        return float("nan")
    precision, recall, _ = precision_recall_curve(label, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def f1(label: Bools, alarm: Bools) -> float:
    """F1 of the alarms as they are; NaN without an anomaly."""
    return float(f1_score(label, alarm, zero_division=0.0)) if label.any() else float("nan")


def false_positive_rate(label: Bools, alarm: Bools) -> float:
    """Share of normal readings with an alarm; those excused are left out."""
    normal = ~excused(label)
    return float(alarm[normal].mean()) if normal.any() else float("nan")


def false_episodes(label: Bools, alarm: Bools) -> Ints:
    """``[K, 2]``: maximal runs of alarm of which no reading is excused. One endless alarm is one episode."""
    excuse = np.concatenate([[0], np.cumsum(excused(label))])
    found = runs(alarm)
    return found[excuse[found[:, 1]] == excuse[found[:, 0]]]


def caught(label: Bools, alarm: Bools) -> float:
    """Share of segments with an alarm inside."""
    segments = runs(label)
    return float(np.mean([alarm[start:end].any() for start, end in segments])) if len(segments) else float("nan")


def delay(label: Bools, alarm: Bools) -> float:
    """Median readings from a segment's start to the first alarm inside, over the segments caught; NaN: none was."""
    delays = [int(np.argmax(alarm[start:end])) for start, end in runs(label) if alarm[start:end].any()]
    return float(np.median(delays)) if delays else float("nan")


def vus_pr(label: Bools, score: Floats, buffer: int = BUFFER, thresholds: int = THRESHOLDS) -> float:
    """Volume under the precision-recall surface, VUS-PR.

    Paparrizos et al., "Volume Under the Surface", VLDB 2022, in the form that TSB-AD measures (Liu and Paparrizos, "The
    Elephant in the Room", NeurIPS 2024): for each width w = 0 … ``buffer`` labels fade out over w // 2 readings on
    either side of a segment as √(1 - distance / w); recall is that of the faded labels, the buffers' part of the
    positives halved, times the share of segments (joined where their buffers meet) with any alarm; precision is that of
    the faded labels. The result is the mean over w of the average precision over evenly spaced ranks of the score.
    """
    segments = runs(label)
    n = len(label)
    if not len(segments):
        return float("nan")
    descending = np.argsort(-score, kind="stable")
    ordered = score[descending]
    limits = ordered[np.linspace(0, n - 1, thresholds).astype(int)]
    alarms = np.searchsorted(-ordered, -limits, side="right")  # how many readings reach each threshold
    sides = _sides(segments, n, buffer // 2)
    outside = ~np.asarray(label, bool)
    areas = []
    for width in range(buffer + 1):
        faded = _faded(label, sides, width)
        hits = np.cumsum(faded[descending])[alarms - 1]
        in_buffers = np.cumsum((faded * outside)[descending])[alarms - 1]
        found = _joined_maxima(segments, score, width // 2)
        exist = (found[None, :] >= limits[:, None]).mean(axis=1)
        positives = label.sum() + in_buffers / 2
        recall = np.minimum(hits / positives, 1) * exist
        areas.append(float(np.sum(np.diff(recall, prepend=0.0) * (hits / alarms))))
    return float(np.mean(areas))


def _sides(segments: Ints, n: int, reach: int) -> list[tuple[Ints, Ints]]:
    """For each side of each segment: the readings beside it, nearest first, as (places, distances)."""
    sides = []
    for start, end in segments.tolist():
        after = np.arange(end, min(end + reach, n))
        before = np.arange(start - 1, max(start - 1 - reach, -1), -1)
        sides += [(after, after - end + 1), (before, start - before)]
    return sides


def _faded(label: Bools, sides: list[tuple[Ints, Ints]], width: int) -> Floats:
    """The labels with their buffers, at most 1."""
    faded = np.asarray(label, np.float64).copy()
    half = width // 2
    for places, distances in sides:
        faded[places[:half]] += np.sqrt(1 - distances[:half] / width) if half else 0
    return np.minimum(faded, 1)


def _joined_maxima(segments: Ints, score: Floats, half: int) -> Floats:
    """The greatest score of each segment with its buffers; segments whose buffers meet count as one."""
    first, last = segments[:, 0], segments[:, 1] - 1
    apart = last[:-1] + half < first[1:] - half
    starts = first[np.concatenate([[True], apart])] - half
    ends = last[np.concatenate([apart, [True]])] + half
    return np.array([score[max(start, 0) : end + 1].max() for start, end in zip(starts, ends, strict=True)])
