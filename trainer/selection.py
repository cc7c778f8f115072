"""Choosing the default model: several are fitted, and the one that finds planted faults best is kept.

Nobody has labels, but everybody has a calibration stretch that is normal. Faults of known kinds and sizes are planted
into it, every candidate scores it with the detector's own engine, and what counts is how far the faults rank above what
is normal: the area under precision and recall, for each kind of fault by itself, over several plantings. Candidates see
the same plantings, so they are compared in pairs; one that is no better than a cheaper one, beyond the noise of those
pairs, gives way to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.adapters.files import Table
from detector.adapters.texts import take
from detector.engine.engine import BUCKETS, Engine
from detector.engine.incidents import Policy
from detector.engine.model import Model
from detector.engine.readings import Readings
from detector.engine.scorer import Scorer
from schemas.errors import DataError, ParityError, UserError
from schemas.manifest import Candidate
from trainer.calibrate import BATCH
from trainer.data import Given, Prepared, rows_by_stream
from trainer.faults import KINDS, Kind, draw, plant
from trainer.models import Architecture

#: What is tried where no model is named. PCA is the first, which all others have to beat; a forecaster comes with it,
#: since by itself it does not see what fails to fit together at one moment.
CANDIDATES = ("pca", "pca-aer", "pca+linear", "conv-aer")

#: Different plantings of the same kinds of fault: what is left of chance is told by the standard errors.
PLANTINGS = 8

#: Faults of each kind in a planting, where the stretch has room.
PER_KIND = 3

#: Readings after a fault that count neither as normal nor as faulty: the smoothing still remembers it.
MARGIN = 24

#: A costlier model has to find this much more (area under precision and recall), and more than this many standard
#: errors: less is not worth its time.
LEAST_GAIN, NOISE = 0.01, 2.0

#: Streams that faults are planted into: more tell little more, and cost time.
STREAMS = 8

#: Cells of all streams together that faults are planted into: 32 MB for each planting, whatever the data's size.
MOST_CELLS = 1 << 23

#: Windows that the cost of one is measured on.
TIMED = 4096

NORMAL, EXCUSED = -1, -2

#: Candidates are compared by what the model itself says: no baseline follows, and none is anchored anew.
STILL = Policy(drift_after=0, shift_after=0)

D = TypeVar("D")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Planting:
    """The calibration stretch of some streams with faults in it: n readings of one stream after another."""

    values: NDArray[np.float32]
    """``[n, C]``."""
    kind: Ints
    """``[n]``: the number of the kind of fault at each reading, NORMAL or EXCUSED."""


class Rehearsal:
    """The plantings of one data set, the same for every candidate."""

    def __init__(self, table: Table, data: Prepared, seed: int) -> None:
        self._table = table
        by_stream = list(rows_by_stream(table).values())
        chosen = np.unique(np.linspace(0, len(by_stream) - 1, min(STREAMS, len(by_stream))).astype(np.int64))
        self._before, self._after = [], []
        for s in chosen:
            rows = by_stream[s]
            early = table.times[rows] < data.calibration_start[s]
            self._before.append(rows[early])
            self._after.append(rows[~early][: MOST_CELLS // (len(chosen) * data.channels)])
        scale = [data.scaling.scale[s] for s in chosen]
        self.plantings = [self._plant(scale, seed * PLANTINGS + number) for number in range(PLANTINGS)]

    def _plant(self, scale: Sequence[NDArray[np.float32]], seed: int) -> Planting:
        values, kinds = [], []
        for number, (rows, unit) in enumerate(zip(self._after, scale, strict=True)):
            normal = self._table.values[rows]
            faults = draw(normal, unit, seed=[seed, number], per_kind=PER_KIND, margin=MARGIN)
            planted = plant(normal, faults, unit, seed=[seed, number])
            kind = np.full(len(rows), NORMAL)
            for fault, changed in zip(faults, planted.changed, strict=True):
                end = fault.start + fault.length
                kind[end : end + MARGIN] = EXCUSED
                kind[fault.start : end] = KINDS.index(Kind(fault.kind)) if changed else EXCUSED
            values.append(planted.values)
            kinds.append(kind)
        return Planting(np.concatenate(values), np.concatenate(kinds))

    def judge(self, draft: Model) -> Floats:
        """Area under precision and recall of each planting and kind, ``[P, kinds]``; NaN where none was planted.

        ``draft``: thresholds of 1 throughout, so that scores are raw.
        """
        engine = Engine(draft, STILL)
        streams = self._table.streams
        for rows in self._before:
            for at in range(0, len(rows), BATCH):
                part = rows[at : at + BATCH]
                engine.process([Readings(0, take(streams, part), self._table.times[part], self._table.values[part])])
        engine.set_incidents(0, {})
        saved = [engine.dump(0, bucket) for bucket in range(BUCKETS) if engine.streams.of_bucket(0, bucket)]
        found = np.full((len(self.plantings), len(KINDS)), np.nan)
        rows = np.concatenate(self._after)
        for number, planting in enumerate(self.plantings):
            engine.clear()
            for dump in saved:
                engine.load(0, dump)
            score = np.full(len(rows), np.nan)
            for at in range(0, len(rows), BATCH):
                part = slice(at, at + BATCH)
                readings = Readings(0, take(streams, rows[part]), self._table.times[rows[part]], planting.values[part])
                score[part] = engine.process([readings]).score
            found[number] = [average_precision(planting.kind, kind, score) for kind in range(len(KINDS))]
        return found


def average_precision(kind: Ints, wanted: int, score: Floats) -> float:
    """Area under precision and recall of readings of the ``wanted`` kind against normal ones; NaN without any.

    The step-wise sum Σ (R_i - R_{i-1})·P_i over thresholds (Davis & Goadrich 2006 on why not trapezoids). Readings
    without a score rank lowest.
    """
    counted = (kind == wanted) | (kind == NORMAL)
    positive, score = kind[counted] == wanted, np.nan_to_num(score[counted], nan=-1.0)
    if not positive.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.diff(score[order]) != 0, True)  # of each run of equal scores
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(hits[last], prepend=0) * precision) / hits[-1])


@dataclass(frozen=True)
class Trial:
    """One candidate: what it found and what it costs."""

    name: str
    found: Floats
    """``[P, kinds]``: see ``Rehearsal.judge``."""
    parameters: int
    mflop: float
    """Million floating-point operations of one window's score."""
    microseconds: float
    """Of one window in full batches, on this machine's processor, one thread."""
    fit_s: float

    @cached_property
    def score(self) -> float:
        """Mean over kinds and plantings."""
        return float(np.nanmean(self.found)) if not np.isnan(self.found).all() else 0.0

    def candidate(self, baseline: Trial) -> Candidate:
        """As the manifest tells it."""
        return Candidate(
            model=self.name,
            found=round(self.score, 4),
            over_baseline=round(self.score - baseline.score, 4),
            standard_errors=round(margin(self, baseline), 2),
            parameters=self.parameters,
            mflop=_short(self.mflop),
            microseconds=_short(self.microseconds),
            fit_s=_short(self.fit_s),
        )


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def margin(one: Trial, other: Trial) -> float:
    """By how many standard errors ``one`` finds more than ``other``, over pairs of plantings and kinds."""
    pairs = (one.found - other.found).ravel()
    pairs = pairs[~np.isnan(pairs)]
    if len(pairs) < 2 or not pairs.any():
        return 0.0
    error = float(pairs.std(ddof=1)) / float(np.sqrt(len(pairs)))
    return float(pairs.mean()) / max(error, 1e-9)


def best_of(trials: Sequence[Trial], least_gain: float = LEAST_GAIN) -> Trial:
    """The cheapest trial to serve of those that the best one does not beat (see ``LEAST_GAIN``).

    Cheap by operations, not by the clock: the same data choose the same model.
    """
    best = max(trials, key=lambda trial: trial.score)
    return min((trial for trial in trials if not beats(best, trial, least_gain)), key=lambda trial: trial.mflop)


def choose(
    names: Sequence[str],
    fit_limit: float,
    attempt: Callable[[str, float], tuple[D, Trial]],
    say: Callable[[str], None],
    least_gain: float = LEAST_GAIN,
) -> tuple[D, tuple[Candidate, ...]]:
    """The best of the candidates ``names``, the baseline first, and what was tried.

    ``attempt(name, seconds)`` fits one and judges it. Fitted are as many as ``fit_limit`` seconds allow; one that
    cannot be is passed over. Raises the last one's error where that is so of all, and DataError of the first: there is
    too little to learn from.
    """
    deadline = time.monotonic() + fit_limit
    drafts: list[D] = []
    trials: list[Trial] = []
    for name in names:
        left = deadline - time.monotonic()
        if drafts and left < fit_limit / 4:
            say(f"{name} is not tried: the time for fitting is over (setting fit_limit)")
            continue
        try:
            draft, trial = attempt(name, max(left, 1) / 2)
        except (UserError, ParityError) as error:
            if not drafts and (isinstance(error, DataError) or name == names[-1]):
                raise
            say(f"{name} is not taken: {error}")
            continue
        say(f"{name} finds {trial.score:.3f} of the planted faults (area under precision and recall)")
        drafts.append(draft)
        trials.append(trial)
    baseline = trials[0]
    evidence = not np.isnan(baseline.found).all()  # else there was no room for faults
    best = best_of(trials, least_gain) if evidence else baseline
    lead = margin(best, baseline)
    say(f"chosen: {best.name}, {best.score - baseline.score:+.3f} over {baseline.name} ({lead:.1f} standard errors)")
    return drafts[trials.index(best)], tuple(trial.candidate(baseline) for trial in trials)


def beats(one: Trial, other: Trial, least_gain: float) -> bool:
    """``one`` finds clearly more."""
    return one.score - other.score >= least_gain and margin(one, other) > NOISE


def microseconds(model: Model, given: Given) -> float:
    """Of one window in full batches, the best of three runs; TIMED windows are enough."""
    scorer = Scorer(model.graph, model.manifest.batching)
    runs = []
    for _ in range(3):
        began = time.perf_counter()
        scorer.score(*given)
        runs.append(time.perf_counter() - began)
    return 1e6 * min(runs) / len(given.x)


def parameters(network: nn.Module) -> int:
    """Numbers that were learned."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


@torch.no_grad()
def mflop(network: Architecture) -> float:
    """Million floating-point operations (a multiplication and an addition are two) to expect one newest reading."""
    shape = network.shape
    context = torch.zeros(1, shape.context) if shape.context else None
    with FlopCounterMode(display=False) as counter:
        network.newest(torch.zeros(1, shape.window, shape.channels), context)
    return float(counter.get_total_flops()) / 1e6
